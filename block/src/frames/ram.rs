//! Memory of this process that stands for frames of RAM: where I/O buffers live.

use pageless_pfn::{ByteLen, FrameCount, FrameOffset, PAGE_SIZE, Pfn, PfnRange, PfnT, PhysAddr};
use pageless_pfn::{PhysSegment, RangeOutOfRange};
use thiserror::Error;

use super::mapping::{MapError, Mapping};
use crate::access::{AccessError, FrameAccess};
use crate::copy::Span;

/// Frames of RAM, zeroed at first, that take memory only where they are touched.
///
/// Which number the first frame has is the caller's choice; ranges of several providers should
/// not overlap (a [`PhysMap`](pageless_pfn::PhysMap) checks that).
///
/// ```
/// use pageless_block::RamFrames;
/// use pageless_pfn::{ByteLen, FrameCount, Pfn};
/// let ram = RamFrames::new(Pfn::try_new(0x100)?, FrameCount::new(16))?;
/// let buffer = ram.segment(4096, ByteLen::new(8192)).unwrap();
/// assert_eq!(buffer.frame().pfn().get(), 0x101);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RamFrames {
    range: PfnRange,
    memory: Mapping,
}

impl RamFrames {
    /// `count` frames, numbered from `base` on.
    ///
    /// # Errors
    /// [`RamError`] if there are none, if the last would have no number, or if they cannot be
    /// mapped.
    pub fn new(base: Pfn, count: FrameCount) -> Result<Self, RamError> {
        let range = PfnRange::try_new(base, count)?;
        let bytes = match count.bytes() {
            Some(bytes) if !bytes.is_zero() => bytes,
            _ => return Err(RamError::Count { count }),
        };
        Ok(Self {
            range,
            memory: Mapping::anonymous(bytes)?,
        })
    }

    /// Which frames.
    pub const fn range(&self) -> PfnRange {
        self.range
    }

    /// `len` bytes from byte `offset` of the first frame on, or `None` unless they all lie
    /// within and there is at least one.
    pub fn segment(&self, offset: u64, len: ByteLen) -> Option<PhysSegment> {
        let end = offset.checked_add(len.get())?;
        if end > self.range.count().get() * PAGE_SIZE {
            return None;
        }
        let frame = self.range.nth(offset / PAGE_SIZE)?;
        let within = FrameOffset::try_new(offset % PAGE_SIZE).ok()?;
        PhysSegment::try_new(PfnT::from(frame), within, len).ok()
    }
}

impl FrameAccess for RamFrames {
    #[inline]
    fn covers(&self, pfn: Pfn) -> bool {
        self.range.contains(pfn)
    }

    #[inline]
    fn with<R>(
        &self,
        segment: PhysSegment,
        f: impl FnOnce(Span<'_>) -> R,
    ) -> Result<R, AccessError> {
        let offset = offset_in(self.range, segment.phys());
        // A segment may run on into the frames of another provider: this one ends where it ends.
        let len = within(self.range, offset, segment.len().get());
        match self.memory.span(offset, len) {
            Some(span) if len > 0 => Ok(f(span)),
            _ => Err(AccessError::NotBacked {
                pfn: segment.frame().pfn(),
            }),
        }
    }
}

/// How many bytes `at` lies after the range's first; huge if it lies before.
#[inline]
pub(super) fn offset_in(range: PfnRange, at: PhysAddr) -> u64 {
    at.get().wrapping_sub(range.start().phys().get())
}

/// How much of `len` bytes, `offset` after the range's first, lies in the range.
#[inline]
pub(super) fn within(range: PfnRange, offset: u64, len: u64) -> u64 {
    let total = range.count().get().saturating_mul(PAGE_SIZE);
    len.min(total.saturating_sub(offset))
}

/// Why there are no such frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RamError {
    /// None, or more than 64 bits of bytes.
    #[error("{count} of RAM: must be at least one, and fit in 64 bits of bytes")]
    Count {
        /// The count asked for.
        count: FrameCount,
    },
    /// The last would have no number.
    #[error(transparent)]
    Range(#[from] RangeOutOfRange),
    /// They cannot be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
}
