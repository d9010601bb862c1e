//! Memory of one's own that is contiguous only virtually.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use pageless_fault::{FrameMemory, MaySleep, Protection, VirtAddr, Vspace};
use pageless_pfn::{ByteLen, FrameCount, FrameOffset, PAGE_SIZE, PfnFlags, PfnT, PhysSegment};

use crate::area::descriptors::Descriptors;
use crate::area::listing::{AreaInfo, AreaKind, AreaState};
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

/// Not memory from [`vmalloc`](Vmalloc::vmalloc), or not all of it, or not any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len} from {address} on are not memory of one vmalloc area")]
pub struct NotVmalloc {
    /// Where it was to begin.
    pub address: VirtAddr,
    /// Bytes asked for.
    pub len: ByteLen,
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

    /// `len` bytes of one area from [`vmalloc`](Self::vmalloc), from `address` on, as stretches of frames, in order: what a block device takes.
    ///
    /// They are the area's for as long as it is not freed. What [`vmap`](Self::vmap) has mapped is refused: whether a frame has a descriptor
    /// is in the list that it was mapped from, and not in the page table.
    ///
    /// # Errors
    ///
    /// See [`NotVmalloc`].
    pub fn vmalloc_to_segments(
        &self,
        address: VirtAddr,
        len: ByteLen,
    ) -> Result<Vec<PhysSegment>, NotVmalloc> {
        let refused = NotVmalloc { address, len };
        let mut segments: Vec<PhysSegment> = Vec::new();
        if !self.is_memory(address, len) {
            return Err(refused);
        }
        let mut done = 0;
        while done < len.get() {
            let piece = self.within_page(address, done, len);
            let piece = piece.ok_or(refused)?;
            done += piece.len().get();
            match segments.last_mut() {
                Some(last) if let Some(longer) = last.try_merge(piece) => *last = longer,
                _ => segments.push(piece),
            }
        }
        Ok(segments)
    }

    /// Whether all of it is memory of one area that is in use.
    fn is_memory(&self, address: VirtAddr, len: ByteLen) -> bool {
        let inside = |area: AreaInfo| {
            let ours = area.kind == AreaKind::Alloc && area.state == AreaState::Busy;
            let before = address.checked_offset_from(area.start).filter(|_| ours)?;
            let behind = area.pages.bytes()?.get().checked_sub(before)?;
            Some(len.get() <= behind)
        };
        self.find_area(address).and_then(inside) == Some(true)
    }

    /// What is left from byte `done` on, as far as it lies in one page.
    fn within_page(&self, address: VirtAddr, done: u64, len: ByteLen) -> Option<PhysSegment> {
        let at = address.checked_add(done)?;
        let offset = at.get() % PAGE_SIZE;
        let here = (PAGE_SIZE - offset).min(len.get() - done);
        let frame = PfnT::new(self.vmalloc_to_pfn(at)?, PfnFlags::empty());
        let offset = FrameOffset::try_new(offset).ok()?;
        PhysSegment::try_new(frame, offset, ByteLen::new(here)).ok()
    }
}
