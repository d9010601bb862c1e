//! Where the frames of a pool come from.

use alloc::sync::Arc;

use pageless_fault::FrameMemory;
use pageless_pfn::Pfn;

use crate::frames::{FrameAllocator, Gfp, Order, PageBlock};

/// One frame, which belongs to whoever holds this. Dropped, it is lost: nobody uses it again.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame that nobody gives back is lost"]
pub struct Frame(Pfn);

impl Frame {
    /// The frame `pfn`, which nobody else uses or will be given: for those who hand out frames.
    pub const fn from_unused(pfn: Pfn) -> Self {
        Frame(pfn)
    }

    /// Its number.
    #[must_use]
    pub const fn pfn(&self) -> Pfn {
        self.0
    }
}

/// No frame could be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no frame")]
pub struct NoFrame;

/// Frames, one at a time, and the memory that they are.
pub trait FrameSource: Send + Sync {
    /// The memory.
    type Memory: FrameMemory;

    /// The memory. Every frame that [`take`](Self::take) answers is in it, and reached by nobody else.
    fn memory(&self) -> &Self::Memory;

    /// A frame, asked for as `gfp` says.
    ///
    /// # Errors
    ///
    /// There is none.
    fn take(&self, gfp: &Gfp<'_>) -> Result<Frame, NoFrame>;

    /// Takes a frame back, in any context. Nothing translates to it any more that anybody will use.
    fn give_back(&self, frame: Frame);
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<F: FrameSource> FrameSource for $pointer {
            type Memory = F::Memory;

            fn memory(&self) -> &F::Memory {
                (**self).memory()
            }

            fn take(&self, gfp: &Gfp<'_>) -> Result<Frame, NoFrame> {
                (**self).take(gfp)
            }

            fn give_back(&self, frame: Frame) {
                (**self).give_back(frame);
            }
        }
    )*};
}

forward!(&F, Arc<F>);

impl<M: FrameMemory> FrameSource for FrameAllocator<M> {
    type Memory = M;

    fn memory(&self) -> &M {
        self.memory()
    }

    fn take(&self, gfp: &Gfp<'_>) -> Result<Frame, NoFrame> {
        match self.alloc(gfp, Order::ZERO) {
            Ok(block) => Ok(Frame(block.pfn())),
            Err(_) => Err(NoFrame),
        }
    }

    fn give_back(&self, frame: Frame) {
        self.free(PageBlock::new(frame.0, Order::ZERO));
    }
}
