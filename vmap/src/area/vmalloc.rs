//! Memory of one's own that is contiguous only virtually.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use pageless_fault::{FrameMemory, MaySleep, Protection, VirtAddr, Vspace};
use pageless_pfn::{ByteLen, FrameCount};

use crate::area::descriptors::Descriptors;
use crate::area::listing::AreaKind;
use crate::area::release::{Release, Unreachable};
use crate::area::space::{Backlog, MapAreaError, VunmapError};
use crate::area::vmap::Vmalloc;
use crate::frames::{AllocError, FrameAllocator, Gfp, Order, PageBlock};

/// Why there is no virtually contiguous memory. Nothing remains of the attempt but what waits for a shootdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VmallocError {
    /// Not enough frames.
    #[error("{got} of {wanted} frames were to be had")]
    NoFrames {
        /// Frames there were.
        got: u64,
        /// Frames asked for.
        wanted: u64,
        /// Why there was not one more.
        #[source]
        source: AllocError,
    },
    /// The frames could not be mapped.
    #[error(transparent)]
    Map(#[from] MapAreaError),
}

/// Frames of an area, and who gets them back.
struct Owned<M: FrameMemory> {
    frames: Arc<FrameAllocator<M>>,
    blocks: Vec<PageBlock>,
}

impl<M: FrameMemory> Release for Owned<M> {
    fn release(self: Box<Self>, _: &Unreachable<'_>, _: &MaySleep) {
        self.free();
    }
}

impl<M: FrameMemory> Owned<M> {
    /// Nobody sees them.
    fn free(self) {
        for block in self.blocks {
            self.frames.free(block);
        }
    }

    /// `wanted` frames, in as few blocks as come easily: only for single frames is anything reclaimed.
    fn fill(&mut self, gfp: &Gfp<'_>, wanted: u64) -> Result<(), VmallocError> {
        let mut order = self.frames.max_order();
        let mut got = 0;
        while got < wanted {
            let fits = (wanted - got).ilog2().min(u32::from(order.get()));
            order = u8::try_from(fits)
                .ok()
                .and_then(|order| Order::try_new(order).ok())
                .unwrap_or(Order::ZERO);
            let gfp = match order {
                Order::ZERO => *gfp,
                _ => gfp.no_retry(),
            };
            match self.frames.alloc(&gfp.contiguous_only(), order) {
                Ok(block) => {
                    got += order.frames().get();
                    self.blocks.push(block);
                }
                Err(source) if order == Order::ZERO => {
                    return Err(VmallocError::NoFrames {
                        got,
                        wanted,
                        source,
                    });
                }
                Err(_) => order = smaller(order),
            }
        }
        Ok(())
    }
}

fn smaller(order: Order) -> Order {
    let below = order.get().saturating_sub(1);
    Order::try_new(below).unwrap_or(Order::ZERO)
}

impl<S: Vspace, D: Descriptors> Vmalloc<S, D> {
    /// `bytes` of memory, rounded up to whole pages, of frames that `frames` has. They are its own: nobody else has them, and no
    /// descriptor is asked for. [`vfree`](Self::vfree) gives them back.
    ///
    /// # Errors
    ///
    /// See [`VmallocError`].
    #[track_caller]
    pub fn vmalloc<M: FrameMemory + 'static>(
        &self,
        gfp: &Gfp<'_>,
        bytes: ByteLen,
        frames: &Arc<FrameAllocator<M>>,
    ) -> Result<VirtAddr, VmallocError> {
        let pages = FrameCount::covering(bytes);
        self.area_space().fits(pages).map_err(MapAreaError::Alloc)?;
        let mut owned = Owned {
            frames: Arc::clone(frames),
            blocks: Vec::new(),
        };
        if let Err(error) = owned.fill(gfp, pages.get()) {
            self.area_space().count_failure();
            owned.free();
            return Err(error);
        }
        let runs: Vec<_> = owned.blocks.iter().map(PageBlock::frames).collect();
        let address = self.map_owned(
            gfp.context(),
            pages,
            runs,
            Protection::ReadWrite,
            AreaKind::Alloc,
            Box::new(owned),
        )?;
        Ok(address)
    }

    /// Gives memory from [`vmalloc`](Self::vmalloc) back. The frames are free again after the next purge.
    ///
    /// # Errors
    ///
    /// See [`VunmapError`].
    pub fn vfree(&self, ctx: &MaySleep, address: VirtAddr) -> Result<(), VunmapError> {
        self.vunmap(ctx, address)
    }

    /// [`vfree`](Self::vfree) for those who must not wait.
    ///
    /// # Errors
    ///
    /// See [`VunmapError`].
    pub fn vfree_atomic(&self, address: VirtAddr) -> Result<Backlog, VunmapError> {
        self.vunmap_atomic(address)
    }
}
