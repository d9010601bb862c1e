//! A run of physically contiguous bytes, named by frame number.

use core::fmt;

use thiserror::Error;

use crate::frame::{FrameCount, PAGE_SIZE, Pfn, PfnRange};
use crate::phys::{ByteLen, FrameOffset, PhysAddr};
use crate::tagged::{PfnFlags, PfnT};

/// Contiguous bytes: the frame of the first one, its offset in that frame, and how many.
///
/// Never empty, never past the last frame, and as long as you like: there is no 4 GiB limit and
/// no entry for each page. Splitting and merging are arithmetic on frame numbers; flags are
/// compared and never looked up.
///
/// The scatter-gather bits belong to a table's entry ([`SgEntry`](crate::SgEntry)) and not to a
/// segment, which never carries them.
///
/// ```
/// use pageless_pfn::{ByteLen, FrameOffset, Pfn, PfnFlags, PfnT, PhysSegment};
/// let frame = PfnT::new(Pfn::try_new(0x100).unwrap(), PfnFlags::DEV);
/// let whole = PhysSegment::try_new(frame, FrameOffset::try_new(512).unwrap(), ByteLen::new(6 << 40))?;
/// let (head, tail) = whole.split_at(ByteLen::new(4096)).unwrap();
/// assert_eq!(tail.frame().pfn().get(), 0x101);
/// assert_eq!(tail.offset().get(), 512);
/// assert_eq!(head.try_merge(tail), Some(whole));
/// # Ok::<(), pageless_pfn::SegmentError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PhysSegment {
    /// Frame of the first byte; no scatter-gather bits.
    frame: PfnT,
    /// At least 1.
    len: u64,
    offset: FrameOffset,
}

const SG_BITS: PfnFlags = PfnFlags::SG_CHAIN.union(PfnFlags::SG_LAST);

impl PhysSegment {
    /// `len` bytes from `offset` within `frame` on.
    ///
    /// # Errors
    /// [`SegmentError`] if there are no bytes, if they reach past the last frame, or if `frame`
    /// carries a scatter-gather bit.
    #[inline]
    pub const fn try_new(
        frame: PfnT,
        offset: FrameOffset,
        len: ByteLen,
    ) -> Result<Self, SegmentError> {
        if frame.flags().intersects(SG_BITS) {
            return Err(SegmentError::ScatterGatherBits { frame });
        }
        if len.is_zero() {
            return Err(SegmentError::Empty { frame });
        }
        // The last byte's address must exist; the first one's does, by the types.
        let start = frame.phys().get() + offset.get();
        if start.checked_add(len.get() - 1).is_none() {
            return Err(SegmentError::PastLastFrame { frame, offset, len });
        }
        Ok(Self {
            frame,
            len: len.get(),
            offset,
        })
    }

    /// The frame of the first byte, with the flags that hold for all of them.
    #[inline]
    pub const fn frame(self) -> PfnT {
        self.frame
    }

    /// Where in its frame the first byte lies.
    #[inline]
    pub const fn offset(self) -> FrameOffset {
        self.offset
    }

    /// How many bytes; never zero.
    #[inline]
    pub const fn len(self) -> ByteLen {
        ByteLen::new(self.len)
    }

    /// The address of the first byte.
    #[inline]
    pub const fn phys(self) -> PhysAddr {
        PhysAddr::new(self.frame.phys().get() + self.offset.get())
    }

    /// The address of the last byte.
    #[inline]
    pub const fn last_phys(self) -> PhysAddr {
        PhysAddr::new(self.phys().get() + (self.len - 1))
    }

    /// The frames that hold at least one of the bytes.
    #[inline]
    pub const fn frames(self) -> PfnRange {
        let first = self.frame.pfn();
        let last = self.last_phys().pfn();
        let count = FrameCount::new(last.get() - first.get() + 1);
        match PfnRange::try_new(first, count) {
            Ok(range) => range,
            // `last` is a frame number, so the range up to it always is a range.
            Err(_) => unreachable!(),
        }
    }

    /// The first `at` bytes and the rest, or `None` unless `0 < at < len`.
    #[inline]
    pub const fn split_at(self, at: ByteLen) -> Option<(Self, Self)> {
        if at.is_zero() || at.get() >= self.len {
            return None;
        }
        let head = Self {
            frame: self.frame,
            len: at.get(),
            offset: self.offset,
        };
        let tail_at = PhysAddr::new(self.phys().get() + at.get());
        let tail = Self {
            frame: PfnT::new(tail_at.pfn(), self.frame.flags()),
            len: self.len - at.get(),
            offset: tail_at.frame_offset(),
        };
        Some((head, tail))
    }

    /// `len` bytes from the `skip`-th on, or `None` if they are not all there or none at all.
    #[inline]
    pub const fn slice(self, skip: ByteLen, len: ByteLen) -> Option<Self> {
        match skip.checked_add(len) {
            Some(end) if end.get() <= self.len && !len.is_zero() => {}
            _ => return None,
        }
        let at = PhysAddr::new(self.phys().get() + skip.get());
        Some(Self {
            frame: PfnT::new(at.pfn(), self.frame.flags()),
            len: len.get(),
            offset: at.frame_offset(),
        })
    }

    /// Both as one, if `next` begins at the byte after this one's last and the flags are equal.
    ///
    /// Segments with different flags never merge: one may have descriptors where the other
    /// has none.
    pub const fn try_merge(self, next: Self) -> Option<Self> {
        if self.frame.flags().bits() != next.frame.flags().bits() {
            return None;
        }
        match self.last_phys().checked_add(ByteLen::new(1)) {
            Some(end) if end.get() == next.phys().get() => {}
            _ => return None,
        }
        match self.len.checked_add(next.len) {
            Some(len) => Some(Self {
                frame: self.frame,
                len,
                offset: self.offset,
            }),
            None => None,
        }
    }

    /// The segment frame by frame: each piece lies within one frame.
    pub const fn pieces(self) -> FramePieces {
        FramePieces { rest: Some(self) }
    }
}

impl fmt::Debug for PhysSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PhysSegment({self})")
    }
}

impl fmt::Display for PhysSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:#x}+{}", self.frame, self.offset.get(), self.len)
    }
}

/// The pieces of a [`PhysSegment`] that lie within one frame each. Made by
/// [`PhysSegment::pieces`].
#[derive(Clone, Debug)]
pub struct FramePieces {
    rest: Option<PhysSegment>,
}

impl Iterator for FramePieces {
    type Item = PhysSegment;

    fn next(&mut self) -> Option<PhysSegment> {
        let rest = self.rest?;
        match rest.split_at(ByteLen::new(PAGE_SIZE - rest.offset.get())) {
            Some((piece, more)) => {
                self.rest = Some(more);
                Some(piece)
            }
            None => self.rest.take(),
        }
    }
}

impl core::iter::FusedIterator for FramePieces {}

/// Why something is no segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SegmentError {
    /// No bytes: leave the segment out.
    #[error("a segment at frame {frame} with no bytes")]
    Empty {
        /// Where it would have begun.
        frame: PfnT,
    },
    /// The bytes reach past the last frame there can be.
    #[error("{len} from offset {} of frame {frame} on reach past the last frame", offset.get())]
    PastLastFrame {
        /// The first frame.
        frame: PfnT,
        /// Where in it the bytes begin.
        offset: FrameOffset,
        /// How many bytes were asked for.
        len: ByteLen,
    },
    /// `SG_CHAIN` or `SG_LAST` is set: those belong to a table's entry.
    #[error("frame {frame} carries scatter-gather bits, which belong to a table's entry")]
    ScatterGatherBits {
        /// The frame with its flags.
        frame: PfnT,
    },
}

impl SegmentError {
    /// The frame at which the segment would have begun.
    pub const fn pfn(&self) -> Pfn {
        match self {
            Self::Empty { frame }
            | Self::PastLastFrame { frame, .. }
            | Self::ScatterGatherBits { frame } => frame.pfn(),
        }
    }
}
