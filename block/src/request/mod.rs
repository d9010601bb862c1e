//! A request: one or more bios on their way through a driver.

pub(crate) mod bios;
pub(crate) mod data;
pub(crate) mod merge;
pub(crate) mod nested;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;

use pageless_pfn::ByteLen;

use crate::bio::SegmentList;
use crate::clock::Nanos;
use crate::device::Submitted;
use crate::flags::BioFlags;
use crate::op::Op;
use crate::position::{BytePos, SECTOR_SIZE, Sector};
use crate::priority::Priority;
use crate::queue::flush::Step;
use crate::queue::mailbox::Mailbox;
use crate::status::{BlkError, Failure};
use bios::Bios;
use data::{Data, Memory, Segments};

/// Which of a device's hardware queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct QueueId(u16);

impl QueueId {
    /// What requests say that went through no queue: those of a driver that sits on another one.
    pub const NESTED: Self = Self(u16::MAX);

    /// The `id`-th queue, counted from 0.
    pub const fn new(id: u16) -> Self {
        Self(id)
    }

    /// Its number.
    #[inline]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// Names a request in flight within its hardware queue: below the number of requests the queue has, or
/// exactly that for the flush that the queue itself sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tag(u16);

impl Tag {
    #[inline]
    pub(crate) const fn new(tag: u16) -> Self {
        Self(tag)
    }

    /// Its number.
    #[inline]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// What a driver is asked to carry out: a piece of the device, and the memory of one or more bios.
///
/// A request is a handle; moving it moves a pointer. It must be completed exactly once, by
/// [`Request::complete`] or [`Request::run`]. Drivers that pass requests on to other devices change where they
/// go ([`Request::remap`]) and pass on the same request.
///
/// # Panics
/// Dropping a request that was not completed panics and says which one it was: somebody waits
/// for those frames. If the thread is panicking already, it prints instead.
#[must_use = "a request must be completed"]
pub struct Request(pub(crate) Box<Inner>);

/// What a request points to.
pub(crate) struct Inner {
    pub(crate) op: Op,
    /// Whether somebody still waits for it.
    pub(crate) owed: bool,
    /// Where in the flush sequence it is.
    pub(crate) step: Step,
    /// Whether the flush sequence has a flush after the data for it.
    pub(crate) postflush: bool,
    pub(crate) flags: BioFlags,
    pub(crate) priority: Priority,
    pub(crate) queue: QueueId,
    pub(crate) tag: Tag,
    /// Whose: as in [`Incoming`](merge::Incoming).
    pub(crate) context: u32,
    pub(crate) position: u64,
    pub(crate) len: u64,
    pub(crate) bios: Bios,
    /// How many segments the device sees of the bios, at most; none where nobody has counted.
    pub(crate) device_segments: Option<u32>,
    /// How it went, once it has been completed.
    pub(crate) result: Result<(), BlkError>,
    /// Bytes from its start on that are done; on success all of them.
    pub(crate) done: u64,
    /// Whether it has more to be settled than its bios: `written`, `replaced` or `device_segments`.
    pub(crate) odd: bool,
    /// For an append: where it went.
    pub(crate) written: Option<Sector>,
    /// Other memory than the bios': what a bounce replaced it by, or a nested request's own.
    pub(crate) replaced: Option<SegmentList>,
    /// Given to the device at this time, if anybody asks.
    pub(crate) issued: Nanos,
    /// Accepted from the caller at this time, if anybody asks.
    pub(crate) started: Nanos,
    /// Where it goes when somebody else finds it finished.
    pub(crate) home: Option<Arc<Mailbox>>,
}

impl Inner {
    pub(crate) fn empty(home: Option<Arc<Mailbox>>) -> Self {
        Self {
            op: Op::Flush,
            owed: false,
            step: Step::Plain,
            postflush: false,
            flags: BioFlags::empty(),
            priority: Priority::NONE,
            queue: QueueId::NESTED,
            tag: Tag(0),
            context: 0,
            position: 0,
            len: 0,
            bios: Bios::new(),
            device_segments: None,
            result: Ok(()),
            done: 0,
            odd: false,
            written: None,
            replaced: None,
            issued: Nanos::ZERO,
            started: Nanos::ZERO,
            home,
        }
    }

    /// Segments of the memory, from the bio's list or from what replaced it.
    pub(crate) fn memory(&self) -> Segments<'_> {
        match &self.replaced {
            Some(list) => Segments::of_list(list),
            None => Segments::of_bios(&self.bios),
        }
    }
}

impl Request {
    /// What is asked for.
    #[inline]
    pub fn op(&self) -> Op {
        self.0.op
    }

    /// How. A device never sees [`BioFlags::PREFLUSH`], and [`BioFlags::FUA`] only if it has that
    /// feature: the queue sends flushes instead.
    #[inline]
    pub fn flags(&self) -> BioFlags {
        self.0.flags
    }

    /// How urgent it is.
    #[inline]
    pub fn priority(&self) -> Priority {
        self.0.priority
    }

    /// Where on the device it begins.
    #[inline]
    pub fn position(&self) -> BytePos {
        BytePos::new(self.0.position)
    }

    /// The sector it begins in. Positions are whole sectors.
    #[inline]
    pub fn sector(&self) -> Sector {
        Sector::new(self.0.position / SECTOR_SIZE)
    }

    /// How many bytes of the device it is about; 0 for a flush and for what manages zones.
    #[inline]
    pub fn len(&self) -> ByteLen {
        ByteLen::new(self.0.len)
    }

    /// Whether it is about no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// The first byte after it.
    #[inline]
    pub fn end(&self) -> BytePos {
        // Admission has seen that this fits, and remapping checks it again.
        BytePos::new(self.0.position.wrapping_add(self.0.len))
    }

    /// The memory, and which way the bytes go.
    #[inline]
    pub fn data(&self) -> Data<'_> {
        let segments = self.0.memory();
        match self.0.op {
            Op::Read | Op::DriverIn => Data::ToMemory(Memory::new(segments)),
            Op::Write | Op::ZoneAppend | Op::DriverOut => Data::FromMemory(Memory::new(segments)),
            _ => Data::None,
        }
    }

    /// The memory alone, segment by segment, in the order of the bytes on the device. Segments that
    /// follow each other in memory and have the same flags come as one.
    #[inline]
    pub fn segments(&self) -> Segments<'_> {
        self.0.memory()
    }

    /// The queue it came through.
    #[inline]
    pub fn queue(&self) -> QueueId {
        self.0.queue
    }

    /// Its name within that queue.
    #[inline]
    pub fn tag(&self) -> Tag {
        self.0.tag
    }

    /// How many bios it carries.
    #[inline]
    pub fn bios(&self) -> usize {
        self.0.bios.len()
    }

    /// Sends it to another place of another device; the memory stays. What its bios say stays as well:
    /// nothing has to be undone when it comes back.
    ///
    /// # Errors
    /// [`BlkError::Io`] if it would reach past 2^64 bytes; it is as it was.
    #[inline]
    pub fn remap(&mut self, position: BytePos) -> Result<(), BlkError> {
        match position.checked_add(self.len()) {
            Some(_) => {
                self.0.position = position.get();
                Ok(())
            }
            None => Err(BlkError::Io),
        }
    }

    /// Gives it other memory of the same length; with `None`, that of its bios again. Says what other
    /// memory it had before.
    pub(crate) fn replace_memory(&mut self, memory: Option<SegmentList>) -> Option<SegmentList> {
        core::mem::replace(&mut self.0.replaced, memory)
    }

    /// For an append: says where the bytes went.
    #[inline]
    pub fn set_written(&mut self, sector: Sector) {
        self.0.written = Some(sector);
        self.0.odd = true;
    }

    /// For a driver below which a device takes FUA or not: asks for durability, or no longer does.
    pub fn set_fua(&mut self, fua: bool) {
        self.0.flags.set(BioFlags::FUA, fua);
    }

    /// Ends the request. The [`Done`] goes back to the queue, by being returned from
    /// [`BlockDevice::submit`](crate::BlockDevice::submit) or handed over in
    /// [`BlockDevice::poll`](crate::BlockDevice::poll).
    ///
    /// A [`Failure`] says how many bytes from the start on are done all the same; a mere
    /// [`BlkError`] says none.
    ///
    /// Completing consumes the request, so that doing it twice does not compile:
    ///
    /// ```compile_fail
    /// use pageless_block::{Done, Request};
    /// fn finish(request: Request) -> (Done, Done) {
    ///     (request.complete(Ok(())), request.complete(Ok(())))
    /// }
    /// ```
    ///
    /// and once does:
    ///
    /// ```
    /// use pageless_block::{Done, Request};
    /// fn finish(request: Request) -> Done {
    ///     request.complete(Ok(()))
    /// }
    /// ```
    #[inline]
    pub fn complete(mut self, result: Result<(), Failure>) -> Done {
        let inner = &mut self.0;
        match result {
            Ok(()) => {
                inner.result = Ok(());
                inner.done = inner.len;
            }
            Err(failure) => {
                inner.result = Err(failure.error);
                inner.done = failure.done.get().min(inner.len);
            }
        }
        Done(self)
    }

    /// Carries the request out with `f` and completes it: all there is to a driver that is done when
    /// it returns.
    #[inline]
    pub fn run(mut self, f: impl FnOnce(&mut Self) -> Result<(), Failure>) -> Submitted {
        let result = f(&mut self);
        Submitted::Done(self.complete(result))
    }
}

impl Drop for Inner {
    #[inline]
    fn drop(&mut self) {
        if self.owed {
            lost(self);
        }
    }
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (op, len, position) = (self.op, self.len, self.position);
        write!(
            f,
            "{op} of {len} bytes at sector {}",
            position / SECTOR_SIZE
        )?;
        write!(f, " (queue {}, tag {})", self.queue.0, self.tag.0)
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({})", self.0)
    }
}

#[cold]
#[inline(never)]
fn lost(request: &Inner) {
    #[cfg(feature = "std")]
    if std::thread::panicking() {
        std::eprintln!("request lost: {request} dropped without completion while panicking");
        return;
    }
    panic!("request lost: {request} dropped without completion");
}

/// A request that a driver has finished with, on its way back to the queue.
///
/// Made by [`Request::complete`] alone. Dropping it loses the bio, which is as loud as dropping
/// the request.
#[derive(Debug)]
#[must_use = "the queue waits for it"]
pub struct Done(pub(crate) Request);

impl Done {
    /// Which request.
    pub fn tag(&self) -> Tag {
        self.0.tag()
    }

    /// Through which queue it came.
    pub fn queue(&self) -> QueueId {
        self.0.queue()
    }

    /// What was asked for.
    pub fn op(&self) -> Op {
        self.0.op()
    }

    /// How it ended.
    ///
    /// # Errors
    /// How it failed, and how much of it is done.
    pub fn result(&self) -> Result<(), Failure> {
        self.0.0.result.map_err(|error| Failure {
            error,
            done: ByteLen::new(self.0.0.done),
        })
    }

    /// Takes the answer back: for a driver on top of another device, which is not finished with the
    /// request when the device below is.
    pub fn reopen(self) -> Request {
        self.0
    }
}
