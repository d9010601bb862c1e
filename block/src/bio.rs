//! The bio: an operation, a place on a device, and segments of memory.

use alloc::vec::Vec;
use core::fmt;

use pageless_pfn::{ByteLen, PhysSegment};

use crate::op::Op;
use crate::position::Sector;

/// One block I/O: what, where on the device, and which frames of memory.
///
/// A bio owns its list of segments and not the memory behind them. Nothing is checked while it is
/// being built; [`Queue::submit`](crate::Queue::submit) and
/// [`submit_sync`](crate::submit_sync) do that, and give a bio they do not like back.
///
/// A bio with one segment needs no allocation. One that has held more keeps the room when it is
/// [reset](Bio::reset), so that a loop that reuses its bios does not allocate.
///
/// ```
/// use pageless_block::{Bio, Op, Sector};
/// use pageless_pfn::{ByteLen, FrameOffset, Pfn, PhysSegment};
/// let frame = |n| {
///     PhysSegment::try_new(Pfn::try_new(n).unwrap().into(), FrameOffset::ZERO, ByteLen::new(4096))
/// };
/// let mut bio = Bio::new(Op::Write, Sector::new(0));
/// bio.push(frame(7)?);
/// bio.push(frame(8)?); // adjacent: merged with the one before
/// bio.push(frame(100)?);
/// assert_eq!(bio.segments().len(), 2);
/// assert_eq!(bio.len().get(), 3 * 4096);
/// # Ok::<(), pageless_pfn::SegmentError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Bio {
    list: SegmentList,
    sector: Sector,
    /// Sum of the segments, or the length of a range without data. Saturates; a bio that long
    /// reaches past every device and is rejected.
    len: u64,
    token: u64,
    op: Op,
}

const _: () = assert!(
    size_of::<Bio>() <= 64,
    "a bio travels by value: one cache line"
);

#[derive(Clone, PartialEq, Eq)]
enum SegmentList {
    None,
    One([PhysSegment; 1]),
    Many(Vec<PhysSegment>),
}

impl Bio {
    /// A bio without segments.
    #[inline]
    pub const fn new(op: Op, sector: Sector) -> Self {
        Self {
            list: SegmentList::None,
            sector,
            len: 0,
            token: 0,
            op,
        }
    }

    /// Reads from `sector` on into `segment`.
    #[inline]
    pub const fn read(sector: Sector, segment: PhysSegment) -> Self {
        Self::with_one(Op::Read, sector, segment)
    }

    /// Writes `segment` to `sector` and on.
    #[inline]
    pub const fn write(sector: Sector, segment: PhysSegment) -> Self {
        Self::with_one(Op::Write, sector, segment)
    }

    /// Makes what was completed before survive a loss of power.
    #[inline]
    pub const fn flush() -> Self {
        Self::new(Op::Flush, Sector::new(0))
    }

    /// Gives up the contents of `len` bytes from `sector` on.
    #[inline]
    pub const fn discard(sector: Sector, len: ByteLen) -> Self {
        let mut bio = Self::new(Op::Discard, sector);
        bio.len = len.get();
        bio
    }

    /// Makes `len` bytes from `sector` on read as zeroes.
    #[inline]
    pub const fn write_zeroes(sector: Sector, len: ByteLen) -> Self {
        let mut bio = Self::new(Op::WriteZeroes, sector);
        bio.len = len.get();
        bio
    }

    #[inline]
    const fn with_one(op: Op, sector: Sector, segment: PhysSegment) -> Self {
        let len = segment.len().get();
        Self {
            list: SegmentList::One([segment]),
            sector,
            len,
            token: 0,
            op,
        }
    }

    /// The same bio with a number of the caller's choice, which comes back with the completion.
    #[must_use]
    #[inline]
    pub const fn with_token(mut self, token: u64) -> Self {
        self.token = token;
        self
    }

    /// Adds a segment at the end, as part of the last one where it continues that.
    pub fn push(&mut self, segment: PhysSegment) {
        self.len = self.len.saturating_add(segment.len().get());
        match &mut self.list {
            SegmentList::None => self.list = SegmentList::One([segment]),
            SegmentList::One([first]) => match first.try_merge(segment) {
                Some(merged) => *first = merged,
                None => {
                    let mut list = Vec::with_capacity(4);
                    list.push(*first);
                    list.push(segment);
                    self.list = SegmentList::Many(list);
                }
            },
            SegmentList::Many(list) => {
                let merged = list.last_mut().and_then(|last| {
                    *last = last.try_merge(segment)?;
                    Some(())
                });
                if merged.is_none() {
                    list.push(segment);
                }
            }
        }
    }

    /// Makes this a bio without segments for another operation and place; keeps the room for
    /// segments, and the token.
    pub fn reset(&mut self, op: Op, sector: Sector) {
        match &mut self.list {
            SegmentList::Many(list) => list.clear(),
            other => *other = SegmentList::None,
        }
        self.op = op;
        self.sector = sector;
        self.len = 0;
    }

    /// What is asked for.
    #[inline]
    pub const fn op(&self) -> Op {
        self.op
    }

    /// Where on the device it begins.
    #[inline]
    pub const fn sector(&self) -> Sector {
        self.sector
    }

    /// How many bytes of the device it is about.
    #[inline]
    pub const fn len(&self) -> ByteLen {
        ByteLen::new(self.len)
    }

    /// The caller's number.
    #[inline]
    pub const fn token(&self) -> u64 {
        self.token
    }

    /// The memory, in the order of the bytes on the device.
    #[inline]
    pub fn segments(&self) -> &[PhysSegment] {
        match &self.list {
            SegmentList::None => &[],
            SegmentList::One(one) => one,
            SegmentList::Many(list) => list,
        }
    }
}

impl Extend<PhysSegment> for Bio {
    /// Adds segments at the end, one after the other, as [`Bio::push`] does.
    fn extend<I: IntoIterator<Item = PhysSegment>>(&mut self, segments: I) {
        segments.into_iter().for_each(|segment| self.push(segment));
    }
}

impl Default for Bio {
    /// A flush: the only operation that needs neither place nor memory.
    fn default() -> Self {
        Self::flush()
    }
}

impl fmt::Debug for Bio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bio")
            .field("op", &self.op)
            .field("sector", &self.sector.get())
            .field("len", &self.len)
            .field("token", &self.token)
            .field("segments", &self.segments())
            .finish()
    }
}

impl fmt::Display for Bio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.op {
            Op::Flush => write!(f, "{}", self.op),
            _ => write!(f, "{} of {} bytes at {}", self.op, self.len, self.sector),
        }
    }
}
