//! Queued submission: a fixed number of bios in flight, owned by one thread.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::mem;

use pageless_pfn::ByteLen;
use thiserror::Error;

use crate::bio::Bio;
use crate::counters::QueueCounters;
use crate::device::{BlockDevice, DeviceInfo};
use crate::op::Op;
use crate::request::{Done, QueueId, Request, Tag};
use crate::status::BlkError;
use crate::submit::{Completion, RejectReason, Rejected, well_formed};

/// The deepest queue there can be.
pub const MAX_DEPTH: u16 = 10_240;

/// A queue of a device: up to `depth` bios that have been submitted and not yet reaped.
///
/// All room is allocated by [`Queue::try_new`]. Afterwards a bio comes in, goes to the device and
/// comes back without an allocation and without a lock. A device may have many queues, each owned
/// by one thread:
///
/// ```
/// use pageless_block::{Bio, DeviceInfo, NullDevice, Queue, QueueId, RejectReason};
/// use pageless_pfn::ByteLen;
/// let device = NullDevice::new(DeviceInfo::new(ByteLen::new(1 << 20)));
/// std::thread::scope(|threads| {
///     for id in 0..2 {
///         let device = &device;
///         threads.spawn(move || {
///             let mut queue = Queue::try_new(device, QueueId::new(id), 1).unwrap();
///             queue.submit(Bio::flush()).unwrap();
///             let full = queue.submit(Bio::flush()).unwrap_err();
///             assert_eq!(full.reason, RejectReason::QueueFull { depth: 1 });
///             assert!(queue.reap().unwrap().result.is_ok());
///         });
///     }
/// });
/// ```
///
/// Bios that a device carries out at once come back in the order in which they went in. A device
/// that keeps requests may finish them in any order; a bio that is split has one piece at the
/// device at a time, in order.
///
/// # Panics
/// Dropping a queue while the device holds requests of it panics, or prints if the thread is
/// panicking already: their completions would have nowhere to go. [`Queue::drain`] first.
/// Bios that are finished and not reaped are dropped quietly.
#[derive(Debug)]
pub struct Queue<D: BlockDevice> {
    device: D,
    id: QueueId,
    info: DeviceInfo,
    depth: u16,
    /// Tags that name no bio in flight. Free tags, bios at the device and finished bios always
    /// add up to `depth`.
    free: Vec<Tag>,
    /// By tag: whether the device holds the request.
    at_device: Box<[bool]>,
    held: u16,
    /// What the device has handed over and we have not looked at; empty between calls.
    landing: Vec<Done>,
    /// Finished, in order, with the tags they still occupy.
    finished: VecDeque<(Tag, Completion)>,
    counters: QueueCounters,
}

impl<D: BlockDevice> Queue<D> {
    /// A queue with room for `depth` bios.
    ///
    /// `id` is how the device tells its queues apart; no two queues that exist at the same time
    /// may have the same, or a device that keeps requests may hand one to the wrong queue. That
    /// is noticed, and panics, where the tag gives it away.
    ///
    /// # Errors
    /// [`QueueError`] if the depth is 0 or beyond [`MAX_DEPTH`].
    pub fn try_new(device: D, id: QueueId, depth: u16) -> Result<Self, QueueError> {
        if depth == 0 || depth > MAX_DEPTH {
            return Err(QueueError::Depth { depth });
        }
        let info = device.info();
        let room = usize::from(depth);
        Ok(Self {
            device,
            id,
            info,
            depth,
            free: (0..depth).rev().map(Tag::new).collect(),
            at_device: vec![false; room].into_boxed_slice(),
            held: 0,
            landing: Vec::with_capacity(room),
            finished: VecDeque::with_capacity(room),
            counters: QueueCounters::default(),
        })
    }

    /// Takes `bio` in and gives it to the device; its completion comes from [`Queue::reap`].
    ///
    /// The tag names the bio until then. A bio that the device refuses (past its end, misaligned)
    /// is taken in too: its completion says so.
    ///
    /// # Errors
    /// [`Rejected`] gives the bio back: the queue is full, or the bio makes no sense on any
    /// device. Nothing has happened then.
    #[inline]
    pub fn submit(&mut self, bio: Bio) -> Result<Tag, Rejected> {
        if let Err(reason) = well_formed(&bio) {
            return Err(self.reject(bio, reason));
        }
        let Some(tag) = self.free.pop() else {
            return Err(self.reject(bio, RejectReason::QueueFull { depth: self.depth }));
        };
        self.counters.submitted += 1;
        match self.info.admit(&bio) {
            Ok(()) => self.issue(Request::first(bio, self.id, tag, self.info.piece())),
            Err(error) => self.finish(tag, bio, Err(error), 0),
        }
        Ok(tag)
    }

    /// The next finished bio, if there is one. Asks the device first if it holds any.
    #[inline]
    pub fn reap(&mut self) -> Option<Completion> {
        if self.held != 0 {
            self.poll();
        }
        let (tag, completion) = self.finished.pop_front()?;
        self.free.push(tag);
        Some(completion)
    }

    /// Waits until nothing is in flight and hands every completion to `each`.
    ///
    /// Asks the device again and again while it holds requests: this call keeps the CPU busy.
    pub fn drain(&mut self, mut each: impl FnMut(Completion)) {
        while self.in_flight() != 0 {
            match self.reap() {
                Some(completion) => each(completion),
                None => core::hint::spin_loop(),
            }
        }
    }

    /// Bios submitted and not yet reaped.
    #[inline]
    pub fn in_flight(&self) -> u16 {
        self.held + self.finished.len() as u16
    }

    /// The most that can be in flight.
    pub const fn depth(&self) -> u16 {
        self.depth
    }

    /// Which of the device's queues this is.
    pub const fn id(&self) -> QueueId {
        self.id
    }

    /// The device.
    pub const fn device(&self) -> &D {
        &self.device
    }

    /// What the queue has seen.
    pub const fn counters(&self) -> QueueCounters {
        self.counters
    }

    #[cold]
    fn reject(&mut self, bio: Bio, reason: RejectReason) -> Rejected {
        self.counters.rejected += 1;
        Rejected { bio, reason }
    }

    /// Gives a request to the device, and the pieces after it as long as they come back at once.
    #[inline]
    fn issue(&mut self, mut request: Request) {
        let tag = request.tag();
        loop {
            match self.device.submit(request) {
                None => {
                    self.at_device[usize::from(tag.get())] = true;
                    self.held += 1;
                    return;
                }
                Some(done) => {
                    // Looked at in place: a finished request is long, and each move of it is stores.
                    if done.tag() != tag || done.queue() != self.id {
                        answered_with_another(done.tag(), done.queue(), tag);
                    }
                    match self.next_piece(done) {
                        Some(next) => request = next,
                        None => return,
                    }
                }
            }
        }
    }

    /// Settles a finished request, or returns the next piece of its bio.
    #[inline]
    fn next_piece(&mut self, done: Done) -> Option<Request> {
        let (mut request, result) = done.into_parts();
        if result.is_ok() && request.advance(self.info.piece()) {
            self.counters.splits += 1;
            return Some(request);
        }
        let succeeded = match result {
            Ok(()) => request.before() + request.len().get(),
            Err(_) => request.before(),
        };
        let tag = request.tag();
        self.finish(tag, request.settle(), result, succeeded);
        None
    }

    #[inline]
    fn finish(&mut self, tag: Tag, bio: Bio, result: Result<(), BlkError>, succeeded: u64) {
        let counters = &mut self.counters;
        counters.completed += 1;
        counters.failed += u64::from(result.is_err());
        match bio.op() {
            Op::Read => counters.bytes_read += succeeded,
            Op::Write => counters.bytes_written += succeeded,
            Op::Flush => counters.flushes += u64::from(result.is_ok()),
            Op::Discard => counters.bytes_discarded += succeeded,
            Op::WriteZeroes => counters.bytes_zeroed += succeeded,
            _ => {}
        }
        let done = ByteLen::new(succeeded);
        self.finished
            .push_back((tag, Completion { bio, result, done }));
    }

    /// Fetches what the device has completed.
    #[cold]
    fn poll(&mut self) {
        // The device may hold a lock of its own while it hands things over, so follow-up pieces
        // are submitted only after it has returned.
        let landing = &mut self.landing;
        self.device.poll(self.id, &mut |done| landing.push(done));
        let mut landing = mem::take(&mut self.landing);
        for done in landing.drain(..) {
            self.accept(done);
        }
        self.landing = landing;
    }

    fn accept(&mut self, done: Done) {
        let tag = usize::from(done.tag().get());
        assert!(
            done.queue() == self.id && self.at_device.get(tag) == Some(&true),
            "driver bug: queue {} was handed {done:?}, which it does not wait for",
            self.id.get(),
        );
        self.at_device[tag] = false;
        self.held -= 1;
        if let Some(next) = self.next_piece(done) {
            self.issue(next);
        }
    }
}

impl<D: BlockDevice> Drop for Queue<D> {
    fn drop(&mut self) {
        if self.held == 0 {
            return;
        }
        let (id, held) = (self.id.get(), self.held);
        #[cfg(feature = "std")]
        if std::thread::panicking() {
            std::eprintln!("queue {id} dropped with {held} requests at the device while panicking");
            return;
        }
        panic!("queue {id} dropped with {held} requests at the device");
    }
}

/// Why a queue cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QueueError {
    /// No room at all, or more than there can be.
    #[error("a queue of depth {depth}: must be from 1 to {MAX_DEPTH}")]
    Depth {
        /// The depth asked for.
        depth: u16,
    },
}

/// A driver may answer a submission with that very request only; others come through `poll`.
#[cold]
#[inline(never)]
fn answered_with_another(done: Tag, of: QueueId, tag: Tag) -> ! {
    panic!("driver bug: submit({tag:?}) answered with {done:?} of {of:?}")
}
