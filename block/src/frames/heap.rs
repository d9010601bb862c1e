//! Frames on the heap: memory for I/O where there is no operating system to map any.
#![expect(
    unsafe_code,
    reason = "zeroed frames straight from the allocator, and spans of them"
)]

use alloc::alloc::alloc_zeroed;
use alloc::boxed::Box;
use core::alloc::Layout;
use core::cell::UnsafeCell;
use core::fmt;
use core::ptr;

use pageless_pfn::{ByteLen, FrameCount, FrameOffset, PAGE_SIZE, Pfn, PfnRange, PfnT, PhysSegment};
use pageless_pfn::{PhysAddr, RangeOutOfRange};
use thiserror::Error;

use crate::access::{AccessError, FrameAccess};
use crate::copy::Span;

/// Bytes of a frame, as Rust counts them.
const FRAME: usize = PAGE_SIZE as usize;

/// A frame's bytes, at an address that is a multiple of the frame size.
///
/// # Invariants
/// No reference to the bytes is ever made; they are reached by [`Span`] alone.
#[repr(C, align(4096))]
pub(crate) struct Frame(UnsafeCell<[u8; FRAME]>);

const _: () = assert!(size_of::<Frame>() == FRAME && align_of::<Frame>() == FRAME);

// SAFETY: through a shared reference bytes are only copied, by `Span`, which makes no references
// and expects others to touch them at the same time.
unsafe impl Sync for Frame {}

impl Frame {
    /// A frame of zeroes, or `None` if there is no memory for it.
    pub(crate) fn try_zeroed() -> Option<Box<Self>> {
        // SAFETY: a frame's layout has a size that is not zero.
        let frame = unsafe { alloc_zeroed(Layout::new::<Self>()) }.cast::<Self>();
        if frame.is_null() {
            return None;
        }
        // SAFETY: just allocated by the global allocator with the layout of a frame, owned by
        // nobody else, and bytes of zero are a frame.
        Some(unsafe { Box::from_raw(frame) })
    }

    /// That many frames of zeroes, one after the other, or `None` if there is no memory for them.
    pub(crate) fn try_zeroed_slice(count: usize) -> Option<Box<[Self]>> {
        let layout = Layout::array::<Self>(count).ok()?;
        if layout.size() == 0 {
            return Some(Box::default());
        }
        // SAFETY: the layout's size is not zero, by the line above.
        let first = unsafe { alloc_zeroed(layout) }.cast::<Self>();
        if first.is_null() {
            return None;
        }
        // SAFETY: just allocated by the global allocator with the layout of `count` frames, owned
        // by nobody else, and bytes of zero are frames.
        Some(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(first, count)) })
    }

    /// `len` bytes from `offset` on, in frames that lie one after the other; `None` unless they are
    /// all there.
    #[inline]
    pub(crate) fn span(frames: &[Self], offset: u64, len: u64) -> Option<Span<'_>> {
        let total = size_of_val(frames) as u64;
        if len > total || offset > total - len {
            return None;
        }
        // Within `usize`, because within the frames. A pointer to all of them, and not to the
        // first.
        let start = frames.as_ptr().cast::<u8>().cast_mut();
        // SAFETY: `offset..offset + len` lies within the frames, by the check above, which are
        // borrowed for as long as the span lives. They are cells throughout, so that writing
        // through a shared reference is allowed, and by the invariant nobody has a reference to the
        // bytes.
        Some(unsafe { Span::from_raw(start.add(offset as usize), len as usize) })
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({:p})", self.0.get())
    }
}

/// Frames of RAM from the heap, zeroed at first. Needs no operating system and takes its memory at
/// once; with one, `RamFrames` takes it where it is touched.
///
/// Which number the first frame has is the caller's choice; ranges of several providers should not
/// overlap (a [`PhysMap`](pageless_pfn::PhysMap) checks that).
///
/// ```
/// use pageless_block::{FrameAccess, HeapFrames};
/// use pageless_pfn::{ByteLen, FrameCount, Pfn};
/// let heap = HeapFrames::new(Pfn::try_new(0x100)?, FrameCount::new(4))?;
/// let buffer = heap.segment(4090, ByteLen::new(12)).unwrap();
/// heap.write_bytes(buffer, b"two frames ")?;
/// let mut back = [0; 12];
/// heap.read_bytes(buffer, &mut back)?;
/// assert_eq!(&back, b"two frames \0");
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct HeapFrames {
    range: PfnRange,
    /// As many as the range has.
    frames: Box<[Frame]>,
}

impl HeapFrames {
    /// `count` frames, numbered from `base` on.
    ///
    /// # Errors
    /// [`HeapError`] if the last would have no number, or if there is no memory for them.
    pub fn new(base: Pfn, count: FrameCount) -> Result<Self, HeapError> {
        let range = PfnRange::try_new(base, count)?;
        let frames = usize::try_from(count.get())
            .ok()
            .and_then(Frame::try_zeroed_slice)
            .ok_or(HeapError::Memory { count })?;
        Ok(Self { range, frames })
    }

    /// Which frames.
    pub const fn range(&self) -> PfnRange {
        self.range
    }

    /// `len` bytes from byte `offset` of the first frame on, or `None` unless they all lie within
    /// and there is at least one.
    pub fn segment(&self, offset: u64, len: ByteLen) -> Option<PhysSegment> {
        let end = offset.checked_add(len.get())?;
        if end > size_of_val(&*self.frames) as u64 {
            return None;
        }
        let frame = self.range.nth(offset / PAGE_SIZE)?;
        let within = FrameOffset::try_new(offset % PAGE_SIZE).ok()?;
        PhysSegment::try_new(PfnT::from(frame), within, len).ok()
    }

    /// How far `at` lies after the first byte, if it does.
    #[inline]
    fn offset_of(&self, at: PhysAddr) -> Option<u64> {
        at.checked_offset_from(self.range.start().phys())
            .map(ByteLen::get)
    }
}

impl FrameAccess for HeapFrames {
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
        let total = size_of_val(&*self.frames) as u64;
        let span = self.offset_of(segment.phys()).and_then(|offset| {
            // A segment may run on into the frames of another provider: this one ends where it
            // ends.
            let len = segment.len().get().min(total.checked_sub(offset)?);
            Frame::span(&self.frames, offset, len)
        });
        match span {
            Some(span) if !span.is_empty() => Ok(f(span)),
            _ => Err(AccessError::NotBacked {
                pfn: segment.frame().pfn(),
            }),
        }
    }
}

/// Why there are no such frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeapError {
    /// The last would have no number.
    #[error(transparent)]
    Range(#[from] RangeOutOfRange),
    /// The heap has no room for them.
    #[error("no memory for {count}")]
    Memory {
        /// The count asked for.
        count: FrameCount,
    },
}
