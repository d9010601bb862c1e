//! Frame numbers, counts of frames, and ranges of them.

use core::fmt;

use thiserror::Error;

use crate::phys::{ByteLen, PhysAddr};

/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in one frame.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;

/// Frame numbers are below this: what 64 address bits leave once [`PAGE_SHIFT`] are taken off.
const PFN_LIMIT: u64 = 1 << (64 - PAGE_SHIFT);

/// A page frame number, below 2^52.
///
/// The upper twelve bits are never set, so that they can carry the flags of a
/// [`PfnT`](crate::PfnT), and every frame's address fits in 64 bits.
///
/// ```
/// use pageless_pfn::{FrameCount, Pfn};
/// let pfn = Pfn::try_new(0x1234).unwrap();
/// assert_eq!(pfn.phys().get(), 0x123_4000);
/// assert_eq!(pfn.checked_add(FrameCount::new(1)).unwrap().get(), 0x1235);
/// assert!(Pfn::try_new(1 << 52).is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Pfn(u64);

impl Pfn {
    /// The frame at address 0.
    pub const MIN: Self = Self(0);
    /// The last frame of a 64-bit address space.
    pub const MAX: Self = Self(PFN_LIMIT - 1);

    /// The frame with this number.
    ///
    /// # Errors
    /// [`PfnOutOfRange`] if the number is not below 2^52.
    #[inline]
    pub const fn try_new(number: u64) -> Result<Self, PfnOutOfRange> {
        if number < PFN_LIMIT {
            Ok(Self(number))
        } else {
            Err(PfnOutOfRange { number })
        }
    }

    /// The low 52 bits of a word as a frame number, whatever the upper bits hold.
    pub(crate) const fn from_addr_bits(bits: u64) -> Self {
        Self(bits & (PFN_LIMIT - 1))
    }

    /// The number.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The address of the frame's first byte.
    #[inline]
    pub const fn phys(self) -> PhysAddr {
        PhysAddr::new(self.0 << PAGE_SHIFT)
    }

    /// The frame `count` further on, or `None` past the last frame.
    #[inline]
    pub const fn checked_add(self, count: FrameCount) -> Option<Self> {
        match self.0.checked_add(count.0) {
            Some(number) if number < PFN_LIMIT => Some(Self(number)),
            _ => None,
        }
    }

    /// The frame `count` before, or `None` before frame 0.
    #[inline]
    pub const fn checked_sub(self, count: FrameCount) -> Option<Self> {
        match self.0.checked_sub(count.0) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// How many frames `self` lies after `base`, or `None` if it lies before.
    #[inline]
    pub const fn checked_offset_from(self, base: Self) -> Option<FrameCount> {
        match self.0.checked_sub(base.0) {
            Some(count) => Some(FrameCount(count)),
            None => None,
        }
    }
}

impl fmt::Debug for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pfn({:#x})", self.0)
    }
}

impl fmt::Display for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A number that is no frame number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{number:#x} is no frame number: those are below 2^52")]
pub struct PfnOutOfRange {
    /// The number asked for.
    pub number: u64,
}

/// A number of frames.
///
/// ```
/// use pageless_pfn::FrameCount;
/// assert_eq!(FrameCount::new(3).bytes().unwrap().get(), 3 * 4096);
/// assert_eq!(FrameCount::new(1 << 52).bytes(), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct FrameCount(u64);

impl FrameCount {
    /// No frames.
    pub const ZERO: Self = Self(0);

    /// This many frames.
    #[inline]
    pub const fn new(count: u64) -> Self {
        Self(count)
    }

    /// The number of frames.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whether there are none.
    #[inline]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Their length in bytes, or `None` where that does not fit in 64 bits.
    #[inline]
    pub const fn bytes(self) -> Option<ByteLen> {
        match self.0.checked_mul(PAGE_SIZE) {
            Some(bytes) => Some(ByteLen::new(bytes)),
            None => None,
        }
    }

    /// The sum, or `None` on overflow.
    #[inline]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The difference, or `None` if `other` is larger.
    #[inline]
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(rest) => Some(Self(rest)),
            None => None,
        }
    }

    /// The fewest frames that hold `len` bytes.
    #[inline]
    pub const fn covering(len: ByteLen) -> Self {
        Self(len.get().div_ceil(PAGE_SIZE))
    }
}

impl fmt::Debug for FrameCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrameCount({})", self.0)
    }
}

impl fmt::Display for FrameCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} frames", self.0)
    }
}

/// Consecutive frames: a first one and how many.
///
/// May be empty, and may be longer than 4 GiB. The last frame is always a valid [`Pfn`].
///
/// ```
/// use pageless_pfn::{FrameCount, Pfn, PfnRange};
/// let start = Pfn::try_new(100).unwrap();
/// let range = PfnRange::try_new(start, FrameCount::new(8)).unwrap();
/// assert_eq!(range.index_of(Pfn::try_new(107).unwrap()), Some(7));
/// assert_eq!(range.index_of(Pfn::try_new(108).unwrap()), None);
/// let (head, tail) = range.split_at(FrameCount::new(3)).unwrap();
/// assert_eq!((head.count().get(), tail.start().get()), (3, 103));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PfnRange {
    start: Pfn,
    count: FrameCount,
}

impl PfnRange {
    /// The `count` frames from `start` on.
    ///
    /// # Errors
    /// [`RangeOutOfRange`] if the last of them would not be a frame number.
    #[inline]
    pub const fn try_new(start: Pfn, count: FrameCount) -> Result<Self, RangeOutOfRange> {
        // `start` is below the limit, so the subtraction cannot wrap.
        if count.0 <= PFN_LIMIT - start.0 {
            Ok(Self { start, count })
        } else {
            Err(RangeOutOfRange { start, count })
        }
    }

    /// The first frame. An empty range has one too: where it would begin.
    #[inline]
    pub const fn start(self) -> Pfn {
        self.start
    }

    /// How many frames.
    #[inline]
    pub const fn count(self) -> FrameCount {
        self.count
    }

    /// Whether there are no frames.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.count.0 == 0
    }

    /// The last frame, or `None` if the range is empty.
    #[inline]
    pub const fn last(self) -> Option<Pfn> {
        match self.count.0.checked_sub(1) {
            Some(more) => Some(Pfn(self.start.0 + more)),
            None => None,
        }
    }

    /// Whether `pfn` is one of the frames.
    #[inline]
    pub const fn contains(self, pfn: Pfn) -> bool {
        // One comparison for both ends: a pfn before the start wraps to a huge distance.
        pfn.0.wrapping_sub(self.start.0) < self.count.0
    }

    /// How many frames `pfn` lies after the start, or `None` if it is not in the range.
    #[inline]
    pub const fn index_of(self, pfn: Pfn) -> Option<u64> {
        let index = pfn.0.wrapping_sub(self.start.0);
        if index < self.count.0 {
            Some(index)
        } else {
            None
        }
    }

    /// The frame `index` after the start, or `None` if the range ends before.
    #[inline]
    pub const fn nth(self, index: u64) -> Option<Pfn> {
        if index < self.count.0 {
            Some(Pfn(self.start.0 + index))
        } else {
            None
        }
    }

    /// All frames in order.
    #[inline]
    pub const fn iter(self) -> PfnIter {
        PfnIter {
            next: self.start.0,
            end: self.start.0 + self.count.0,
        }
    }

    /// Whether the two share a frame. An empty range shares none.
    #[inline]
    pub const fn intersects(self, other: Self) -> bool {
        self.start.0 < other.start.0 + other.count.0
            && other.start.0 < self.start.0 + self.count.0
            && self.count.0 != 0
            && other.count.0 != 0
    }

    /// Whether every frame of `other` is in this range. An empty `other` is, if it begins inside
    /// or at the end.
    #[inline]
    pub const fn encloses(self, other: Self) -> bool {
        self.start.0 <= other.start.0
            && other.start.0 + other.count.0 <= self.start.0 + self.count.0
    }

    /// The first `count` frames and the rest, or `None` if there are fewer than `count`.
    #[inline]
    pub const fn split_at(self, count: FrameCount) -> Option<(Self, Self)> {
        if count.0 > self.count.0 {
            return None;
        }
        if count.0 == self.count.0 && self.start.0 + count.0 == PFN_LIMIT {
            // The rest is empty and would begin past the last frame: leave it at the start.
            return Some((
                self,
                Self {
                    start: self.start,
                    count: FrameCount::ZERO,
                },
            ));
        }
        let head = Self {
            start: self.start,
            count,
        };
        let rest = FrameCount(self.count.0 - count.0);
        Some((
            head,
            Self {
                start: Pfn(self.start.0 + count.0),
                count: rest,
            },
        ))
    }

    /// `count` frames from the `index`-th on, or `None` if they do not all lie within.
    #[inline]
    pub const fn slice(self, index: u64, count: FrameCount) -> Option<Self> {
        match index.checked_add(count.0) {
            Some(end) if end <= self.count.0 && self.start.0 + index < PFN_LIMIT => Some(Self {
                start: Pfn(self.start.0 + index),
                count,
            }),
            _ => None,
        }
    }
}

impl IntoIterator for PfnRange {
    type Item = Pfn;
    type IntoIter = PfnIter;

    fn into_iter(self) -> PfnIter {
        self.iter()
    }
}

impl fmt::Debug for PfnRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PfnRange({self})")
    }
}

impl fmt::Display for PfnRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}+{}", self.start.0, self.count.0)
    }
}

/// A range whose last frame would not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{count} from {start} on reach past the last frame, 2^52 - 1")]
pub struct RangeOutOfRange {
    /// The first frame asked for.
    pub start: Pfn,
    /// How many were asked for.
    pub count: FrameCount,
}

/// The frames of a [`PfnRange`], in order. Made by [`PfnRange::iter`].
#[derive(Clone, Debug)]
pub struct PfnIter {
    next: u64,
    end: u64,
}

impl Iterator for PfnIter {
    type Item = Pfn;

    #[inline]
    fn next(&mut self) -> Option<Pfn> {
        if self.next == self.end {
            return None;
        }
        let pfn = Pfn(self.next);
        self.next += 1;
        Some(pfn)
    }

    fn nth(&mut self, n: usize) -> Option<Pfn> {
        // A range may hold billions of frames: skipping is arithmetic, not a loop.
        let left = self.end - self.next;
        self.next += left.min(n as u64);
        self.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.end - self.next;
        match usize::try_from(left) {
            Ok(exact) => (exact, Some(exact)),
            Err(_) => (usize::MAX, None),
        }
    }
}

impl DoubleEndedIterator for PfnIter {
    fn next_back(&mut self) -> Option<Pfn> {
        if self.next == self.end {
            return None;
        }
        self.end -= 1;
        Some(Pfn(self.end))
    }
}

impl core::iter::FusedIterator for PfnIter {}
