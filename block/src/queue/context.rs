//! A thread's way into a queue: submitting, completing, polling.

mod issue;
mod plug;
mod poll;
mod settle;
mod start;
mod tagged;
mod tell;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use pageless_pfn::ByteLen;

use crate::bio::chain::{Chain, finish};
use crate::bio::completion::{Completion, Notify};
use crate::bio::part::Cursor;
use crate::bio::pool::BioPool;
use crate::bio::{self, Bio};
use crate::clock::Nanos;
use crate::counters::QueueCounters;
use crate::device::BlockDevice;
use crate::failpoint::Failpoint;
use crate::flags::BioFlags;
use crate::limits::split::{Cut, Shape};
use crate::mutant::Mutant;
use crate::observe::event::{Action, Event};
use crate::observe::histogram::OpHistograms;
use crate::position::{BytePos, SECTOR_SIZE};
use crate::queue::admission::{RejectReason, Verdict, admit, well_formed};
use crate::queue::flush::Next;
use crate::queue::mailbox::Mailbox;
use crate::queue::{HwQueue, RequestQueue};
use crate::request::merge::Incoming;
use crate::request::{self, Done, Request};
use crate::status::BlkError;
use crate::sync::atomic::{AtomicBool, AtomicU32};
pub use plug::Plug;

/// What a context shows to those who quiesce its queue. Written for every bio, and so on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Presence {
    /// Whether its thread is in [`BlockDevice::submit`], or about to look whether it may.
    pub(crate) issuing: AtomicBool,
    /// Requests it has out: plugged, waiting, scheduled or at the device. And one more while pieces of a bio
    /// wait for theirs. Written by its thread alone.
    pub(crate) out: AtomicU32,
}

/// A thread's way into a [`RequestQueue`]: a software context (`struct blk_mq_ctx`).
///
/// It belongs to one thread, which its `&mut self` methods say; what threads share is in the queue. All
/// room is allocated as it is first needed and then used again: a bio from [`Context::pool`] comes
/// in, goes to a device that is done when it returns, and comes back without an allocation, a lock, or,
/// if the context has its hardware queue for itself, a locked instruction.
///
/// ```
/// use pageless_block::{Limits, NullDevice, QueueId, RejectReason, RequestQueue};
/// use pageless_pfn::ByteLen;
/// let device = NullDevice::new(Limits::new(ByteLen::new(1 << 20)));
/// let queue = RequestQueue::with_depth(device, 1)?;
/// let mut context = queue.context(QueueId::new(0))?;
/// let (first, second) = (context.pool().flush(), context.pool().flush());
/// context.submit(first).unwrap();
/// let full = context.submit(second).unwrap_err();
/// assert_eq!(full.reason, RejectReason::QueueFull { depth: 1 });
/// let done = context.reap().unwrap();
/// assert!(done.result().is_ok());
/// context.pool().put(done.into_bio());
/// # Ok::<(), pageless_block::QueueError>(())
/// ```
///
/// Bios that a device carries out at once come back in the order in which they went in. A device
/// that keeps requests may finish them in any order, and so may the pieces of a bio that was split.
///
/// # Panics
/// Dropping a context while bios are out panics, or prints if the thread is panicking already:
/// their completions would have nowhere to go. [`Context::drain`] first. Bios that are finished and not
/// reaped are dropped quietly. A hardware queue that such a context had for itself gets no other: the device
/// may still use its tags.
pub struct Context<'q, D: BlockDevice> {
    queue: &'q RequestQueue<D>,
    hw: &'q HwQueue,
    /// What it is called for those who look on; where there were very many, others may be as well.
    number: u16,
    /// What only it is called.
    id: u32,
    /// Whose cell of the statistics it writes to. One that has a cell for itself never shares a number with another.
    cell: u16,
    presence: Arc<Presence>,
    /// Whether it has its hardware queue for itself. Then each request keeps its tag for good; else tags
    /// come from the hardware queue.
    sole: bool,
    /// How many requests it has made; tags are given out in this order where it is the sole one.
    made: u16,
    home: Arc<Mailbox>,
    pool: BioPool,
    /// Requests that are not in use.
    #[expect(clippy::vec_box, reason = "the boxes are what is handed out")]
    requests: Vec<Box<request::Inner>>,
    /// Bios of a merged request, on the way to their ends; empty between calls, unless a callback has panicked.
    settled: VecDeque<Box<bio::Inner>>,
    /// Finished, in order, for those who reap.
    finished: VecDeque<Box<bio::Inner>>,
    /// Pieces of accepted bios for which there was no tag.
    backlog: VecDeque<Incoming>,
    /// Requests held back while a [`Plug`] exists.
    plug: Vec<Request>,
    plugged: bool,
    /// What the flush sequence has to do next; empty between calls.
    todo: VecDeque<Next>,
    /// What the device has handed over and we have not looked at; empty between calls, as `settled` is.
    landing: VecDeque<Done>,
    /// What time it was when it last looked.
    time: Nanos,
    /// Bios handed back, of those accepted.
    returned: u64,
    counters: QueueCounters,
    /// How long its requests took, if anybody wants to know.
    latencies: Option<Box<OpHistograms>>,
}

impl<'q, D: BlockDevice> Context<'q, D> {
    pub(crate) fn new(queue: &'q RequestQueue<D>, hw: &'q HwQueue, id: u32, sole: bool) -> Self {
        let presence = Arc::new(Presence::default());
        queue.present.lock().push(Arc::clone(&presence));
        let places = usize::from(queue.places);
        Self {
            queue,
            hw,
            number: id as u16,
            id,
            cell: u16::try_from(id).unwrap_or(u16::MAX),
            presence,
            sole,
            made: 0,
            home: Arc::new(Mailbox::new()),
            pool: BioPool::new(),
            requests: Vec::new(),
            settled: VecDeque::new(),
            finished: VecDeque::with_capacity(places),
            backlog: VecDeque::new(),
            plug: Vec::new(),
            plugged: false,
            todo: VecDeque::new(),
            landing: VecDeque::new(),
            time: Nanos::ZERO,
            returned: 0,
            counters: QueueCounters::default(),
            latencies: queue.latencies.then(|| Box::new(OpHistograms::new())),
        }
    }

    /// Takes `bio` in; its completion comes from [`Context::reap`], or goes where the bio says.
    ///
    /// A bio that the device does not take (past its end, misaligned, an operation it does not have) is
    /// taken in too: its completion says so.
    ///
    /// # Errors
    /// [`Rejected`] gives the bio back: the queue is full or frozen, or the bio makes no sense on any
    /// device. Nothing has happened then.
    #[inline]
    pub fn submit(&mut self, bio: impl Into<Bio>) -> Result<(), Rejected> {
        let bio: Bio = bio.into();
        let inner = bio.inner;
        if self.in_flight() >= u32::from(self.queue.places) || !self.backlog.is_empty() {
            return Err(self.no_room(inner));
        }
        if !self.queue.usual.admits(&inner) {
            return self.submit_unusual(inner);
        }
        let flags = inner.flags;
        self.admitted(inner, flags)
    }

    #[cold]
    fn no_room(&mut self, bio: Box<bio::Inner>) -> Rejected {
        let depth = self.queue.places;
        let full = RejectReason::QueueFull { depth };
        let reason = well_formed(&bio).err().unwrap_or(full);
        self.reject(bio, reason)
    }

    /// A bio that has to be looked at more closely.
    #[cold]
    #[inline(never)]
    fn submit_unusual(&mut self, bio: Box<bio::Inner>) -> Result<(), Rejected> {
        if let Err(reason) = well_formed(&bio) {
            return Err(self.reject(bio, reason));
        }
        match admit(self.queue.limits(), &bio) {
            Verdict::Admitted(flags) => return self.admitted(bio, flags),
            Verdict::Over => self.over_at_once(bio, Ok(())),
            Verdict::Refused(error) => self.over_at_once(bio, Err(error)),
        }
        Ok(())
    }

    #[inline]
    fn admitted(&mut self, bio: Box<bio::Inner>, flags: BioFlags) -> Result<(), Rejected> {
        let position = bio.sector.get().wrapping_mul(SECTOR_SIZE);
        self.queue.device.expect(bio.op, BytePos::new(position));
        match self.queue.cutter.cut(&shape_of(&bio, flags)) {
            Cut::Fits => {
                self.accepted();
                let incoming = Incoming {
                    bio,
                    flags,
                    context: self.id,
                };
                match self.start(incoming, false) {
                    Ok(()) => Ok(()),
                    Err((incoming, reason)) => {
                        self.counters.submitted -= 1;
                        Err(self.reject(incoming.bio, reason))
                    }
                }
            }
            Cut::After(_) => self.split(bio, flags),
            Cut::Refused(error) => {
                self.over_at_once(bio, Err(error));
                Ok(())
            }
        }
    }

    /// A bio that needs several requests: each piece is a bio of its own, and the whole waits for them.
    #[cold]
    #[inline(never)]
    fn split(&mut self, whole: Box<bio::Inner>, flags: BioFlags) -> Result<(), Rejected> {
        // As a whole: its pieces go on once it is inside, whoever freezes the queue then.
        if !self.enter() {
            self.one_less_out();
            return Err(self.reject(whole, RejectReason::Frozen));
        }
        self.accepted();
        self.tell_queued(&whole);
        if Failpoint::ChainAlloc.hit() {
            self.one_less_out();
            self.over(whole, Err(BlkError::Resource));
            return Ok(());
        }
        let mut flags = flags - BioFlags::POLLED;
        if Mutant::SplitLosesFlags.active() {
            flags = BioFlags::empty();
        }
        let chain = Chain::of_pieces();
        // With one segment more than a request can have there is no need to look at those after it.
        let most = (self.queue.limits().max_segments as usize).saturating_add(1);
        let mut cursor = Cursor::default();
        let mut at = 0;
        while at < whole.len {
            let Some(mut piece) = self.pool.take_piece() else {
                chain.fail(at, BlkError::Resource);
                break;
            };
            let all = piece.copy_rest(&whole, at, cursor, most);
            let mut cut = self.queue.cutter.cut(&shape_of(&piece, flags));
            if !all && !matches!(cut, Cut::After(_)) {
                piece.copy_rest(&whole, at, cursor, usize::MAX);
                cut = self.queue.cutter.cut(&shape_of(&piece, flags));
            }
            match cut {
                Cut::Fits => {}
                Cut::After(len) => {
                    let rest = whole.sector.get() + (at + len.get()) / SECTOR_SIZE;
                    self.tell_bio(Action::Split, &piece, whole.len - at, rest);
                    self.counters.splits += 1;
                    piece.truncate(len.get());
                }
                Cut::Refused(error) => {
                    chain.fail(at, error);
                    self.pool.put_inner(piece);
                    break;
                }
            }
            cursor.advance(&whole.segments, piece.len);
            at += piece.len;
            piece.part_of = Some(chain.link());
            let incoming = Incoming {
                bio: piece,
                flags,
                context: self.id,
            };
            self.start_or_wait(incoming);
        }
        if self.backlog.is_empty() {
            self.one_less_out();
        }
        if let Some((whole, _)) = chain.park(whole, &self.home) {
            self.finish_bio(whole);
        }
        Ok(())
    }

    /// The next finished bio, if there is one. Asks the device if none is.
    #[inline]
    pub fn reap(&mut self) -> Option<Completion> {
        if self.finished.is_empty() {
            if self.in_flight() == 0 {
                return None;
            }
            self.poll();
        }
        let bio = self.finished.pop_front()?;
        self.returned += 1;
        Some(Completion::new(bio))
    }

    /// Waits until nothing is in flight and hands every completion that is to be reaped to `each`.
    ///
    /// Asks the device again and again while it holds requests: this call keeps the CPU busy. A clock that is moved by
    /// hand is told when the next timeout is due.
    pub fn drain(&mut self, mut each: impl FnMut(Completion)) {
        while self.in_flight() != 0 {
            match self.reap() {
                Some(completion) => each(completion),
                None => self.idle(),
            }
        }
    }

    /// Bios submitted and not yet handed back: out, or finished and not reaped.
    #[inline]
    pub fn in_flight(&self) -> u32 {
        (self.counters.submitted - self.returned) as u32
    }

    /// The queue.
    pub const fn queue(&self) -> &'q RequestQueue<D> {
        self.queue
    }

    /// Its number among the contexts of its queue, as events have it.
    pub const fn number(&self) -> u16 {
        self.number
    }

    /// Bios to use again.
    #[inline]
    pub const fn pool(&mut self) -> &mut BioPool {
        &mut self.pool
    }

    /// What the context has seen.
    pub fn counters(&self) -> QueueCounters {
        let out = self.counters.submitted - self.returned - self.finished.len() as u64;
        QueueCounters {
            completed: self.counters.submitted - out,
            ..self.counters
        }
    }

    /// How long its requests took, by operation, from when they got their tag until they were completed; `None` without
    /// [`QueueConfig::latencies`](crate::QueueConfig::latencies).
    pub fn latencies(&self) -> Option<&OpHistograms> {
        self.latencies.as_deref()
    }

    #[inline]
    fn accepted(&mut self) {
        self.counters.submitted += 1;
    }

    #[cold]
    fn reject(&mut self, bio: Box<bio::Inner>, reason: RejectReason) -> Rejected {
        self.counters.rejected += 1;
        Rejected {
            bio: Bio::from_inner(bio),
            reason,
        }
    }

    /// A bio that is taken in is over.
    #[cold]
    fn over_at_once(&mut self, bio: Box<bio::Inner>, result: Result<(), BlkError>) {
        self.accepted();
        self.tell_queued(&bio);
        self.over(bio, result);
    }

    /// A bio that never had a request is over.
    #[cold]
    fn over(&mut self, mut bio: Box<bio::Inner>, result: Result<(), BlkError>) {
        bio.result = result;
        bio.done = if result.is_ok() { bio.len } else { 0 };
        self.queue.tell(|time| Event {
            error: result.err(),
            ..self.event(time, Action::Complete, &bio)
        });
        self.finish_bio(bio);
    }

    /// A bio's own I/O is over.
    #[inline]
    fn finish_bio(&mut self, bio: Box<bio::Inner>) {
        if bio.odd {
            return self.finish_odd(bio);
        }
        self.counters.count(&bio);
        self.finished.push_back(bio);
    }

    /// The same for one that is part of another, has parts, or is not reaped.
    #[cold]
    #[inline(never)]
    fn finish_odd(&mut self, bio: Box<bio::Inner>) {
        let (pool, counters, returned) = (&mut self.pool, &mut self.counters, &mut self.returned);
        let places = usize::from(self.queue.places);
        let recycle = |part: Box<bio::Inner>, submitted| {
            if submitted {
                // A bio like any other, but that nobody gets it back.
                counters.count(&part);
                *returned += 1;
                if pool.available() >= places {
                    // It need not have come from the pool, which would grow for ever.
                    return;
                }
            }
            pool.put_inner(part);
        };
        let Some(mut bio) = finish(bio, &self.home, recycle) else {
            return;
        };
        self.counters.count(&bio);
        match core::mem::replace(&mut bio.notify, Notify::Reap) {
            Notify::Reap => self.finished.push_back(bio),
            Notify::Call(done) => {
                self.returned += 1;
                done(Completion::new(bio));
            }
            Notify::Ticket(slot) => {
                self.returned += 1;
                slot.fill(Completion::new(bio));
            }
        }
    }

    /// Tells of a bio, once it is sure that it is taken in: one that is rejected has never been there.
    #[inline]
    fn tell_queued(&self, bio: &bio::Inner) {
        self.tell_bio(Action::Queue, bio, bio.len, 0);
    }

    #[inline]
    fn tell_bio(&self, action: Action, bio: &bio::Inner, len: u64, detail: u64) {
        self.queue.tell(|time| Event {
            len: ByteLen::new(len),
            detail,
            ..self.event(time, action, bio)
        });
    }

    fn event(&self, time: Nanos, action: Action, bio: &bio::Inner) -> Event {
        Event {
            action,
            time,
            queue: self.hw.id,
            context: self.number,
            tag: None,
            op: bio.op,
            flags: bio.flags,
            priority: bio.priority,
            sector: bio.sector,
            len: ByteLen::new(bio.len),
            error: None,
            detail: 0,
        }
    }
}

#[inline]
fn shape_of(bio: &bio::Inner, flags: BioFlags) -> Shape<'_> {
    Shape {
        op: bio.op,
        flags,
        position: BytePos::new(bio.sector.get().wrapping_mul(SECTOR_SIZE)),
        len: ByteLen::new(bio.len),
        segments: &bio.segments,
    }
}

impl<D: BlockDevice> Drop for Context<'_, D> {
    fn drop(&mut self) {
        let mut present = self.queue.present.lock();
        present.retain(|other| !Arc::ptr_eq(other, &self.presence));
        drop(present);
        let out = self.in_flight() - self.finished.len() as u32;
        if out == 0 {
            return self.queue.leave(self.hw, self.sole);
        }
        // The hardware queue is not free: requests of ours may be at the device, and their tags with them.
        let (id, number) = (self.hw.id.get(), self.number);
        #[cfg(feature = "std")]
        if std::thread::panicking() {
            std::eprintln!(
                "context {number} of queue {id} dropped with {out} bios out while panicking"
            );
            return;
        }
        panic!("context {number} of queue {id} dropped with {out} bios out");
    }
}

impl<D: BlockDevice> fmt::Debug for Context<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("number", &self.number)
            .field("queue", &self.hw.id)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

/// A bio that was not taken in. Nothing has happened; the bio is the caller's again.
pub struct Rejected {
    /// The bio as it was submitted.
    pub bio: Bio,
    /// Why.
    pub reason: RejectReason,
}

impl fmt::Debug for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected")
            .field("bio", &self.bio)
            .field("reason", &self.reason)
            .finish()
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was not taken in: {}", self.bio, self.reason)
    }
}

impl core::error::Error for Rejected {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        Some(&self.reason)
    }
}
