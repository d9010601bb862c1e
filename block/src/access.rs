//! The only way to the bytes behind a frame number.

use alloc::boxed::Box;
use alloc::sync::Arc;

use pageless_pfn::{ByteLen, Pfn, PhysSegment};
use thiserror::Error;

use crate::copy::Span;
use crate::status::{BlkError, Failure};

/// Whoever can make the bytes of some frames reachable, for a moment.
///
/// This is what `kmap` is in a kernel: a frame number says where bytes are, and only inside the
/// call do they have an address. No reference to them ever exists, since a device and a program
/// may touch them at the same time; a [`Span`] is copied from and to.
///
/// ```
/// use pageless_block::{FrameAccess, RamFrames};
/// use pageless_pfn::{ByteLen, FrameCount, Pfn};
/// let ram = RamFrames::new(Pfn::try_new(0x100)?, FrameCount::new(4))?;
/// let buffer = ram.segment(512, ByteLen::new(5)).unwrap();
/// ram.write_bytes(buffer, b"hello")?;
/// let mut back = [0; 5];
/// ram.read_bytes(buffer, &mut back)?;
/// assert_eq!(&back, b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait FrameAccess {
    /// Whether this provider knows the frame.
    fn covers(&self, pfn: Pfn) -> bool;

    /// Calls `f` with a span that begins at the segment's first byte.
    ///
    /// The span holds at least one byte and at most the whole segment; where it is shorter, the
    /// rest is reached by a further call. It is gone when `f` returns.
    ///
    /// # Errors
    /// [`AccessError`]; `f` has then not been called.
    fn with<R>(
        &self,
        segment: PhysSegment,
        f: impl FnOnce(Span<'_>) -> R,
    ) -> Result<R, AccessError>;

    /// Copies from the segment to `out`, as many bytes as the shorter of the two has.
    ///
    /// # Errors
    /// [`AccessError`]; the first bytes of `out` may have been written.
    fn read_bytes(&self, segment: PhysSegment, out: &mut [u8]) -> Result<(), AccessError> {
        let mut at = 0;
        for_each_span(self, segment, out.len() as u64, |span| {
            let len = span.len();
            span.read_into(&mut out[at..at + len]);
            at += len;
        })
    }

    /// Copies from `data` to the segment, as many bytes as the shorter of the two has.
    ///
    /// # Errors
    /// [`AccessError`]; the first bytes of the segment may have been written.
    fn write_bytes(&self, segment: PhysSegment, data: &[u8]) -> Result<(), AccessError> {
        let mut at = 0;
        for_each_span(self, segment, data.len() as u64, |span| {
            let len = span.len();
            span.write_from(&data[at..at + len]);
            at += len;
        })
    }

    /// Makes every byte of the segment zero.
    ///
    /// # Errors
    /// [`AccessError`]; the first bytes may have been zeroed.
    fn zero_bytes(&self, segment: PhysSegment) -> Result<(), AccessError> {
        for_each_span(self, segment, u64::MAX, |span| span.zero())
    }
}

/// Calls `f` with one span after the other, for the first `most` bytes of `segment`.
fn for_each_span<A: FrameAccess + ?Sized>(
    access: &A,
    segment: PhysSegment,
    most: u64,
    mut f: impl FnMut(Span<'_>),
) -> Result<(), AccessError> {
    let total = segment.len().get().min(most);
    let mut at = 0;
    // `slice` answers `None` for no bytes, which is when all are done.
    while let Some(rest) = segment.slice(ByteLen::new(at), ByteLen::new(total - at)) {
        at += access.with(rest, |span| {
            let len = span.len() as u64;
            f(span);
            len
        })?;
    }
    Ok(())
}

/// Copies the bytes of `src` to `dst`, as many as the shorter of the two has.
///
/// Where the two overlap, the bytes of the overlap are unspecified afterwards.
///
/// # Errors
/// [`AccessError`]; the first bytes of `dst` may have been written.
#[inline]
pub fn copy_frames(
    from: &(impl FrameAccess + ?Sized),
    src: PhysSegment,
    to: &(impl FrameAccess + ?Sized),
    dst: PhysSegment,
) -> Result<(), AccessError> {
    each_pair(from, src, to, dst, |src, dst| src.copy_to(&dst))
}

/// As [`copy_frames`], past the caches: see [`Span::stream_to`].
///
/// # Errors
/// [`AccessError`]; the first bytes of `dst` may have been written.
#[inline]
pub fn stream_frames(
    from: &(impl FrameAccess + ?Sized),
    src: PhysSegment,
    to: &(impl FrameAccess + ?Sized),
    dst: PhysSegment,
) -> Result<(), AccessError> {
    each_pair(from, src, to, dst, |src, dst| src.stream_to(&dst))
}

#[inline]
fn each_pair(
    from: &(impl FrameAccess + ?Sized),
    src: PhysSegment,
    to: &(impl FrameAccess + ?Sized),
    dst: PhysSegment,
    copy: impl Fn(Span<'_>, Span<'_>) -> usize,
) -> Result<(), AccessError> {
    let total = src.len().get().min(dst.len().get());
    let mut at = 0;
    loop {
        let (here, left) = (ByteLen::new(at), ByteLen::new(total - at));
        let (Some(src), Some(dst)) = (src.slice(here, left), dst.slice(here, left)) else {
            return Ok(());
        };
        let copied = from.with(src, |src| to.with(dst, |dst| copy(src, dst)))??;
        at += copied as u64;
    }
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<A: FrameAccess + ?Sized> FrameAccess for $pointer {
            #[inline]
            fn covers(&self, pfn: Pfn) -> bool {
                (**self).covers(pfn)
            }

            #[inline]
            fn with<R>(
                &self,
                segment: PhysSegment,
                f: impl FnOnce(Span<'_>) -> R,
            ) -> Result<R, AccessError> {
                (**self).with(segment, f)
            }
        }
    )*};
}

forward!(&A, Box<A>, Arc<A>);

/// Frames of either provider; the first one is asked first. Nest pairs for more.
impl<A: FrameAccess, B: FrameAccess> FrameAccess for (A, B) {
    #[inline]
    fn covers(&self, pfn: Pfn) -> bool {
        self.0.covers(pfn) || self.1.covers(pfn)
    }

    #[inline]
    fn with<R>(
        &self,
        segment: PhysSegment,
        f: impl FnOnce(Span<'_>) -> R,
    ) -> Result<R, AccessError> {
        if self.0.covers(segment.frame().pfn()) {
            self.0.with(segment, f)
        } else {
            self.1.with(segment, f)
        }
    }
}

/// Why the bytes of a frame cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AccessError {
    /// The provider does not know the frame, or not all of the frames.
    #[error("no memory is known behind frame {pfn}")]
    NotBacked {
        /// The first frame of what was asked for.
        pfn: Pfn,
    },
    /// All windows onto the device are in use, or the host maps no further one: try again.
    #[error("no window onto frame {pfn} is to be had: {windows} are in use or cannot be mapped")]
    NoWindow {
        /// The first frame of what was asked for.
        pfn: Pfn,
        /// How many windows the provider has.
        windows: usize,
    },
}

impl From<AccessError> for BlkError {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::NotBacked { .. } => Self::Io,
            AccessError::NoWindow { .. } => Self::Resource,
        }
    }
}

impl From<AccessError> for Failure {
    #[inline]
    fn from(error: AccessError) -> Self {
        BlkError::from(error).into()
    }
}
