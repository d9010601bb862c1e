//! Descriptors that are there before somebody asks who must not wait.

use pageless_fault::FrameMemory;
use pageless_memmap::PageRef;
use pageless_pfn::{PfnFlags, PfnT};

use super::rig::{Rig, World};

/// A reference into each chunk: while they live, nobody has to fill one.
pub(crate) fn all_descriptors<R: Rig>(world: &World<R>) -> Vec<PageRef<'_, R::Window>> {
    let frames = world.pages.frames().memory().frames();
    let paged = |pfn| PfnT::new(pfn, PfnFlags::empty()).paged().unwrap();
    let get = |pfn| world.pages.memmap().get(&world.ctx, paged(pfn)).unwrap();
    // 64 descriptors of 64 bytes are the smallest chunk.
    frames.iter().step_by(64).map(get).collect()
}
