//! The bio: an operation, a place on a device, and segments of memory.

pub(crate) mod chain;
pub(crate) mod completion;
pub(crate) mod direction;
pub(crate) mod part;
pub(crate) mod pool;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::marker::PhantomData;

use pageless_pfn::{ByteLen, PhysSegment};
use smallvec::SmallVec;

use crate::bio::chain::{Chain, Link};
use crate::bio::completion::{Completion, Notify, Ticket};
use crate::bio::direction::{AnyDirection, CarriesData, FromDevice, NoData, ToDevice};
use crate::flags::BioFlags;
use crate::op::Op;
use crate::position::{BytePos, SECTOR_SIZE, Sector};
use crate::priority::Priority;
use crate::status::BlkError;

/// Segments that a bio holds without a further allocation, as many as Linux's.
pub const INLINE_SEGMENTS: usize = 4;

pub(crate) type SegmentList = SmallVec<[PhysSegment; INLINE_SEGMENTS]>;

/// One block I/O: what, where on the device, and which frames of memory.
///
/// A bio owns its list of segments and not the memory behind them. It is a handle: moving it moves
/// a pointer. What it points to comes from the heap with `Bio::read` and the like, or from a
/// [`BioPool`](crate::BioPool), which takes it back: then no I/O allocates anything.
///
/// `D` says which way the bytes go. A bio that was made by [`Bio::read`] is a `Bio<FromDevice>`, one
/// made by [`Bio::discard`] a `Bio<NoData>`, to which no segment can be added. Queues take all of
/// them, and give back a `Bio`, whose direction only its operation tells.
///
/// Nothing is checked while it is being built; [`Context::submit`](crate::Context::submit) does that,
/// and gives a bio it does not like back.
///
/// ```
/// use pageless_block::{Bio, BioFlags, Sector};
/// use pageless_pfn::{ByteLen, FrameOffset, Pfn, PhysSegment};
/// let frame = |n| {
///     PhysSegment::try_new(Pfn::try_new(n).unwrap().into(), FrameOffset::ZERO, ByteLen::new(4096))
/// };
/// let mut bio = Bio::write(Sector::new(0), frame(7)?).with_flags(BioFlags::FUA);
/// bio.push(frame(8)?); // adjacent: merged with the one before
/// bio.push(frame(100)?);
/// assert_eq!(bio.segments().len(), 2);
/// assert_eq!(bio.len().get(), 3 * 4096);
/// # Ok::<(), pageless_pfn::SegmentError>(())
/// ```
///
/// What carries no data takes no segments:
///
/// ```compile_fail
/// # use pageless_block::{Bio, Sector};
/// # use pageless_pfn::{ByteLen, FrameOffset, Pfn, PhysSegment};
/// # let segment: PhysSegment = unimplemented!();
/// Bio::discard(Sector::new(0), ByteLen::new(4096)).push(segment);
/// ```
///
/// ```
/// # use pageless_block::{Bio, Sector};
/// # use pageless_pfn::{ByteLen, FrameOffset, Pfn, PhysSegment};
/// # let frame = Pfn::try_new(1).unwrap().into();
/// # let segment = PhysSegment::try_new(frame, FrameOffset::ZERO, ByteLen::new(512)).unwrap();
/// Bio::write(Sector::new(0), segment).push(segment);
/// ```
pub struct Bio<D = AnyDirection> {
    pub(crate) inner: Box<Inner>,
    direction: PhantomData<D>,
}

/// What a bio points to.
pub(crate) struct Inner {
    pub(crate) sector: Sector,
    /// Sum of the segments, or the length of a range without data. Saturates; a bio that long
    /// reaches past every device and is refused.
    pub(crate) len: u64,
    pub(crate) op: Op,
    pub(crate) priority: Priority,
    pub(crate) flags: BioFlags,
    pub(crate) token: u64,
    /// How it went, once it has come back.
    pub(crate) result: Result<(), BlkError>,
    /// Bytes before the first failure.
    pub(crate) done: u64,
    /// For an append: where it went.
    pub(crate) written: Option<Sector>,
    pub(crate) segments: SegmentList,
    /// Whether there is more to its end than being reaped: somebody to notify, a whole it is part of,
    /// parts it waits for. Or whether it was a piece, or has `written`.
    pub(crate) odd: bool,
    pub(crate) notify: Notify,
    /// Of which bio it is a part.
    pub(crate) part_of: Option<Link>,
    /// Which parts it waits for.
    pub(crate) waits_for: Option<Arc<Chain>>,
    /// Bytes of the whole bio before this piece of it.
    pub(crate) before: u64,
}

impl Inner {
    pub(crate) fn empty() -> Self {
        Self {
            sector: Sector::new(0),
            len: 0,
            op: Op::Flush,
            priority: Priority::NONE,
            flags: BioFlags::empty(),
            token: 0,
            result: Ok(()),
            done: 0,
            written: None,
            segments: SegmentList::new(),
            odd: false,
            notify: Notify::Reap,
            part_of: None,
            waits_for: None,
            before: 0,
        }
    }
}

impl<D> Bio<D> {
    pub(crate) fn from_inner(inner: Box<Inner>) -> Self {
        Self {
            inner,
            direction: PhantomData,
        }
    }

    fn fresh(op: Op, sector: Sector, len: ByteLen) -> Self {
        let mut inner = Box::new(Inner::empty());
        inner.op = op;
        inner.sector = sector;
        inner.len = len.get();
        Self::from_inner(inner)
    }

    fn with_one(op: Op, sector: Sector, segment: PhysSegment) -> Self {
        let mut bio = Self::fresh(op, sector, segment.len());
        bio.inner.segments.push(segment);
        bio
    }

    /// The same bio with a number of the caller's choice, which comes back with the completion.
    #[must_use]
    #[inline]
    pub fn with_token(mut self, token: u64) -> Self {
        self.inner.token = token;
        self
    }

    /// The same bio with these flags and no others.
    #[must_use]
    #[inline]
    pub fn with_flags(mut self, flags: BioFlags) -> Self {
        self.inner.flags = flags;
        self
    }

    /// The same bio with this priority.
    #[must_use]
    #[inline]
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.inner.priority = priority;
        self
    }

    /// The same bio, whose completion goes to `done` and is not [reaped](crate::Context::reap).
    ///
    /// It is called once, in the thread that finds the bio finished, from within a call that submits,
    /// reaps or polls. It may hand the bio on, but has no queue to submit it to.
    #[must_use]
    pub fn with_callback(mut self, done: impl FnOnce(Completion) + Send + 'static) -> Self {
        self.inner.notify = Notify::Call(Box::new(done));
        self.inner.odd = true;
        self
    }

    /// The same bio, and a future of its completion, which is not [reaped](crate::Context::reap) then.
    ///
    /// The future is woken by whoever finds the bio finished; somebody must submit, reap or poll.
    /// It can be polled by any executor, or by hand. Dropping it drops the completion, not the bio's I/O.
    #[must_use = "the ticket is the only way to the completion"]
    pub fn with_ticket(mut self) -> (Self, Ticket) {
        let (ticket, slot) = Ticket::new();
        self.inner.notify = Notify::Ticket(slot);
        self.inner.odd = true;
        (self, ticket)
    }

    /// The same bio, its direction known to its operation alone.
    #[inline]
    pub fn erase(self) -> Bio {
        Bio::from_inner(self.inner)
    }

    /// What is asked for.
    #[inline]
    pub fn op(&self) -> Op {
        self.inner.op
    }

    /// How.
    #[inline]
    pub fn flags(&self) -> BioFlags {
        self.inner.flags
    }

    /// How urgent it is.
    #[inline]
    pub fn priority(&self) -> Priority {
        self.inner.priority
    }

    /// Where on the device it begins.
    #[inline]
    pub fn sector(&self) -> Sector {
        self.inner.sector
    }

    /// How many bytes of the device it is about.
    #[inline]
    pub fn len(&self) -> ByteLen {
        ByteLen::new(self.inner.len)
    }

    /// Whether it is about no bytes, as a flush is.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.inner.len == 0
    }

    /// The caller's number.
    #[inline]
    pub fn token(&self) -> u64 {
        self.inner.token
    }

    /// The memory, in the order of the bytes on the device.
    #[inline]
    pub fn segments(&self) -> &[PhysSegment] {
        &self.inner.segments
    }

    /// Each segment with its place on the device. Places past 2^64 are left out, as is what follows.
    pub fn iter(&self) -> impl Iterator<Item = (BytePos, PhysSegment)> + '_ {
        let mut at = self.sector().position();
        self.segments().iter().map_while(move |&segment| {
            let here = at?;
            at = here.checked_add(segment.len());
            Some((here, segment))
        })
    }

    /// Leaves out the first `len` bytes.
    ///
    /// # Errors
    /// [`AdvanceError`] if that is not a whole number of sectors, or leaves nothing; the bio is as
    /// it was.
    pub fn advance(&mut self, len: ByteLen) -> Result<(), AdvanceError> {
        let sectors = self.check_cut(len)?;
        drop_front(&mut self.inner.segments, len.get());
        self.inner.sector = sectors;
        self.inner.len -= len.get();
        Ok(())
    }

    /// Cuts off the first `len` bytes as a bio of their own, with the same operation, flags,
    /// priority and token. The two are not joined: each completes by itself. What the completion goes to stays
    /// with the rest. (A queue splits by itself what a device cannot take in one piece.)
    ///
    /// # Errors
    /// [`AdvanceError`] as for [`Bio::advance`].
    pub fn split_front(&mut self, len: ByteLen) -> Result<Self, AdvanceError> {
        self.check_cut(len)?;
        let mut front = Box::new(Inner::empty());
        front.copy_front(&self.inner, len.get());
        self.advance(len)?;
        Ok(Self::from_inner(front))
    }

    /// The sector `len` bytes on, if the bio can be cut there.
    fn check_cut(&self, len: ByteLen) -> Result<Sector, AdvanceError> {
        let whole = self.len();
        if !len.get().is_multiple_of(SECTOR_SIZE) {
            return Err(AdvanceError::PartialSector { len });
        }
        if len.get() >= whole.get() {
            return Err(AdvanceError::NothingLeft { len, whole });
        }
        // Past 2^64 the bio is refused in any case.
        let sector = self.sector().get().saturating_add(len.get() / SECTOR_SIZE);
        Ok(Sector::new(sector))
    }

    /// Makes this a part of `parent`: the parent completes when both have, and fails if either does.
    /// The completion of this one goes nowhere else.
    ///
    /// A part that is dropped and never submitted would leave its parent waiting for ever: that
    /// panics, or prints if the thread is panicking already.
    pub fn chain_to<P>(&mut self, parent: &mut Bio<P>) {
        self.inner.part_of = Some(Chain::of(&mut parent.inner));
        self.inner.odd = true;
        parent.inner.odd = true;
    }
}

/// Leaves out the first `len` bytes, which are fewer than there are.
fn drop_front(segments: &mut SegmentList, len: u64) {
    let mut left = len;
    let mut gone = 0;
    for segment in segments.iter_mut() {
        let here = segment.len().get();
        if left < here {
            let rest = segment.slice(ByteLen::new(left), ByteLen::new(here - left));
            *segment = rest.unwrap_or(*segment);
            break;
        }
        left -= here;
        gone += 1;
    }
    segments.drain(..gone);
}

impl<D: CarriesData> Bio<D> {
    /// Adds a segment at the end, as part of the last one where it continues that.
    pub fn push(&mut self, segment: PhysSegment) {
        self.inner.push(segment);
    }
}

impl Inner {
    pub(crate) fn push(&mut self, segment: PhysSegment) {
        let Some(last) = self.segments.last_mut() else {
            // Once there is memory, it says how many bytes the bio is about; a length that was named before does not.
            self.len = segment.len().get();
            return self.segments.push(segment);
        };
        self.len = self.len.saturating_add(segment.len().get());
        match last.try_merge(segment) {
            Some(merged) => *last = merged,
            None => self.segments.push(segment),
        }
    }
}

impl Bio {
    /// A bio without segments, for an operation that is known at run time.
    pub fn new(op: Op, sector: Sector) -> Self {
        Self::fresh(op, sector, ByteLen::ZERO)
    }

    /// The same, about `len` bytes of the device; for operations without data. Segments that are pushed replace
    /// that length by theirs.
    pub fn with_range(op: Op, sector: Sector, len: ByteLen) -> Self {
        Self::fresh(op, sector, len)
    }
}

impl Bio<FromDevice> {
    /// Reads from `sector` on into `segment`.
    pub fn read(sector: Sector, segment: PhysSegment) -> Self {
        Self::with_one(Op::Read, sector, segment)
    }
}

impl Bio<ToDevice> {
    /// Writes `segment` to `sector` and on.
    pub fn write(sector: Sector, segment: PhysSegment) -> Self {
        Self::with_one(Op::Write, sector, segment)
    }

    /// Writes `segment` to the end of the zone that begins at `zone`;
    /// [`Completion::written`](crate::Completion::written) says where that was.
    pub fn zone_append(zone: Sector, segment: PhysSegment) -> Self {
        Self::with_one(Op::ZoneAppend, zone, segment)
    }
}

impl Bio<NoData> {
    /// Makes what was completed before survive a loss of power. Linux's `blkdev_issue_flush`: a write
    /// of nothing, with [`BioFlags::PREFLUSH`].
    pub fn flush() -> Self {
        Self::fresh(Op::Write, Sector::new(0), ByteLen::ZERO).with_flags(BioFlags::PREFLUSH)
    }

    /// Gives up the contents of `len` bytes from `sector` on.
    pub fn discard(sector: Sector, len: ByteLen) -> Self {
        Self::fresh(Op::Discard, sector, len)
    }

    /// Gives up the contents of `len` bytes from `sector` on, for good.
    pub fn secure_erase(sector: Sector, len: ByteLen) -> Self {
        Self::fresh(Op::SecureErase, sector, len)
    }

    /// Makes `len` bytes from `sector` on read as zeroes.
    pub fn write_zeroes(sector: Sector, len: ByteLen) -> Self {
        Self::fresh(Op::WriteZeroes, sector, len)
    }

    /// Opens, closes, finishes or resets the zone that begins at `zone`. Other operations are taken,
    /// and refused when they are submitted.
    pub fn manage_zone(op: Op, zone: Sector) -> Self {
        Self::fresh(op, zone, ByteLen::ZERO)
    }
}

macro_rules! erased {
    ($($direction:ty),*) => {$(
        impl From<Bio<$direction>> for Bio {
            #[inline]
            fn from(bio: Bio<$direction>) -> Self {
                bio.erase()
            }
        }
    )*};
}

erased!(FromDevice, ToDevice, NoData);

impl<D: CarriesData> Extend<PhysSegment> for Bio<D> {
    /// Adds segments at the end, one after the other, as [`Bio::push`] does.
    fn extend<I: IntoIterator<Item = PhysSegment>>(&mut self, segments: I) {
        segments.into_iter().for_each(|segment| self.push(segment));
    }
}

impl<D> Clone for Bio<D> {
    /// A bio of its own over the same memory. Where the completion goes is not cloned: that of the
    /// clone is reaped.
    fn clone(&self) -> Self {
        let mut bio = Self::fresh(self.op(), self.sector(), self.len());
        bio.inner.flags = self.flags();
        bio.inner.priority = self.priority();
        bio.inner.token = self.token();
        bio.inner.segments.clone_from(&self.inner.segments);
        bio
    }
}

impl<D> fmt::Debug for Bio<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bio")
            .field("op", &self.op())
            .field("flags", &self.flags())
            .field("sector", &self.sector().get())
            .field("len", &self.inner.len)
            .field("token", &self.token())
            .field("segments", &self.segments())
            .finish()
    }
}

impl<D> fmt::Display for Bio<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.op() {
            Op::Flush => write!(f, "{}", self.op()),
            Op::Write if self.is_empty() && self.flags().contains(BioFlags::PREFLUSH) => {
                f.write_str("FLUSH")
            }
            op if op.manages_zones() => write!(f, "{op} at {}", self.sector()),
            op => write!(f, "{op} of {} bytes at {}", self.inner.len, self.sector()),
        }
    }
}

/// Why a bio cannot be cut there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdvanceError {
    /// Positions are whole sectors.
    #[error("{len} are not a whole number of sectors of {SECTOR_SIZE} bytes")]
    PartialSector {
        /// How many bytes were to go.
        len: ByteLen,
    },
    /// Nothing would be left of it.
    #[error("{len} of a bio of {whole} leave nothing")]
    NothingLeft {
        /// How many bytes were to go.
        len: ByteLen,
        /// How many there are.
        whole: ByteLen,
    },
}
