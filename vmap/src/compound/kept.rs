//! References to blocks that are kept beside a mapping: what [`vmap`](crate::area::Vmalloc::vmap) takes for pages of blocks.

use alloc::sync::Arc;
use core::fmt;

use pageless_fault::{FrameMemory, MaySleep, Vspace, Window};
use pageless_pfn::{PagedPfn, Pfn};

use super::pages::Pages;
use crate::area::{Descriptors, ReferenceError};

/// A reference to a block that borrows nothing, and keeps the allocator of the block as well. Dropped, it is given back, without
/// sleeping and without an interrupt.
///
/// What is mapped into the space that the blocks have themselves keeps that space, and is kept by it: it goes when it is unmapped, and not
/// with the last handle to the space.
pub struct KeptBlock<M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    pages: Arc<Pages<M, S, W>>,
    head: Pfn,
}

/// Pages of blocks: the reference is one to the block ([`get_page`](Pages::get_page)), so the block stays as long as any of its pages is
/// mapped. A reference to the descriptor alone would not do: it keeps the descriptor, and the frames of a block go with the last
/// reference to the block.
///
/// A page that is part of no block is [nobody's](ReferenceError::NotAttached).
impl<M, S, W> Descriptors for Arc<Pages<M, S, W>>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
    Pages<M, S, W>: Send + Sync,
{
    type Reference = KeptBlock<M, S, W>;

    fn reference(&self, _: &MaySleep, pfn: PagedPfn) -> Result<Self::Reference, ReferenceError> {
        let pfn = pfn.pfn();
        let page = self.get_page(pfn);
        let page = page.ok_or(ReferenceError::NotAttached { pfn })?;
        Ok(KeptBlock {
            pages: Arc::clone(self),
            head: page.into_raw(),
        })
    }
}

impl<M, S, W> Drop for KeptBlock<M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    fn drop(&mut self) {
        drop(self.pages.assume(self.head));
    }
}

impl<M, S, W> fmt::Debug for KeptBlock<M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptBlock")
            .field("head", &self.head)
            .finish_non_exhaustive()
    }
}
