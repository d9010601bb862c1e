//! Frames that are counted as they come and go.

use pageless_fault::sync::atomic::{AtomicU64, Ordering};
use pageless_pfn::FrameCount;

use crate::frames::Gfp;
use crate::zsmalloc::{Frame, FrameSource, NoFrame};

/// A source of frames that knows how many of them are out.
///
/// A store asks that with each page it takes in, and its pool would have to look into each of its classes.
#[derive(Debug)]
pub struct Counted<F> {
    source: F,
    /// Relaxed: nobody waits for anybody by it.
    out: AtomicU64,
}

impl<F> Counted<F> {
    pub(super) fn new(source: F) -> Self {
        Counted {
            source,
            out: AtomicU64::new(0),
        }
    }

    /// The source itself.
    pub fn source(&self) -> &F {
        &self.source
    }

    /// How many frames have been taken and not given back.
    pub fn out(&self) -> FrameCount {
        FrameCount::new(self.out.load(Ordering::Relaxed))
    }
}

impl<F: FrameSource> FrameSource for Counted<F> {
    type Memory = F::Memory;

    fn memory(&self) -> &F::Memory {
        self.source.memory()
    }

    fn take(&self, gfp: &Gfp<'_>) -> Result<Frame, NoFrame> {
        let frame = self.source.take(gfp)?;
        self.out.fetch_add(1, Ordering::Relaxed);
        Ok(frame)
    }

    fn give_back(&self, frame: Frame) {
        self.out.fetch_sub(1, Ordering::Relaxed);
        self.source.give_back(frame);
    }
}
