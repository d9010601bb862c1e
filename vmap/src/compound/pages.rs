//! The allocator of blocks.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::mem::ManuallyDrop;

use pageless_fault::sync::atomic::{AtomicBool, Ordering};
use pageless_fault::{FrameMemory, MaySleep, Protection, Vspace, Window};
use pageless_memmap::{Memmap, PageRef};
use pageless_pfn::{FrameCount, Pfn, PfnFlags, PfnT};

use super::counters::{Counts, PageCounters, count};
use super::destructor::{Destructor, DestructorId, Destructors};
use super::error::AllocPagesError;
use super::mark::{Mark, Marked};
use super::page::Page;
use super::teardown::{VirtualFrames, chain};
use crate::area::{AreaKind, AreaSpace, MapAreaError};
use crate::frames::{FrameAllocator, Gfp, Order, PageBlock, Reclaimer, ReclaimerGuard};

/// Frames and their descriptors: what outlives the mappings of a block.
pub(super) struct Ram<M: FrameMemory, W: Window> {
    pub(super) frames: Arc<FrameAllocator<M>>,
    pub(super) memmap: Arc<Memmap<W>>,
    pub(super) counts: Counts,
    pub(super) destructors: Destructors,
}

/// Allocates blocks of pages: contiguous ones, or, where the caller permits it, virtually contiguous ones.
pub struct Pages<M: FrameMemory, S: Vspace, W: Window> {
    pub(super) ram: Arc<Ram<M, W>>,
    pub(super) areas: Arc<AreaSpace<S>>,
    /// For debugging: whatever permits the fallback gets it. Relaxed: whoever sets it does not care who notices when.
    always_falls_back: AtomicBool,
    /// Frames that wait for a shootdown come back when others are short of them.
    _purges: ReclaimerGuard,
    _purger: Arc<dyn Reclaimer>,
}

/// Gives frames back that only wait for a shootdown.
struct Purger<S: Vspace>(Arc<AreaSpace<S>>);

impl<S: Vspace> Reclaimer for Purger<S> {
    fn reclaim(&self, ctx: &MaySleep, _frames: FrameCount) -> FrameCount {
        // What cannot be proved gone is no frame for anybody.
        self.0.purge_for_frames(ctx).unwrap_or(FrameCount::ZERO)
    }
}

impl<M, S, W> Pages<M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    /// Blocks of the frames of `frames`, all of which `memmap` covers, mapped if need be into `areas`.
    pub fn new(
        frames: Arc<FrameAllocator<M>>,
        memmap: Arc<Memmap<W>>,
        areas: Arc<AreaSpace<S>>,
    ) -> Self {
        let purger: Arc<dyn Reclaimer> = Arc::new(Purger(Arc::clone(&areas)));
        let purges = frames.register_reclaimer(Arc::downgrade(&purger));
        Pages {
            ram: Arc::new(Ram {
                frames,
                memmap,
                counts: Counts::default(),
                destructors: Destructors::default(),
            }),
            areas,
            always_falls_back: AtomicBool::new(false),
            _purges: purges,
            _purger: purger,
        }
    }

    /// The frames.
    pub fn frames(&self) -> &Arc<FrameAllocator<M>> {
        &self.ram.frames
    }

    /// The descriptors.
    pub fn memmap(&self) -> &Arc<Memmap<W>> {
        &self.ram.memmap
    }

    /// The addresses.
    pub fn areas(&self) -> &Arc<AreaSpace<S>> {
        &self.areas
    }

    /// Whether everything above order 0 that permits the fallback gets it, so that the code that uses it is tested (2007's
    /// `CONFIG_FALLBACK_ALWAYS`).
    pub fn always_fall_back(&self, always: bool) {
        self.always_falls_back.store(always, Ordering::Relaxed);
    }

    /// What has happened so far.
    pub fn counters(&self) -> PageCounters {
        self.ram.counts.read()
    }

    /// Makes `destructor` known, so that [`Page::set_destructor`] can name it.
    pub fn register_destructor(&self, destructor: Destructor) -> DestructorId {
        self.ram.destructors.register(destructor)
    }

    /// A block of `order`: in one piece if there is one, if need be after reclaim. If there is none, and `gfp` permits it, of single frames
    /// that stand together through a mapping.
    ///
    /// # Errors
    ///
    /// See [`AllocPagesError`].
    #[track_caller]
    pub fn alloc(&self, gfp: &Gfp<'_>, order: Order) -> Result<Page<'_, M, S, W>, AllocPagesError> {
        let may_fall_back = gfp.falls_back() && order > Order::ZERO;
        if may_fall_back && self.always_falls_back.load(Ordering::Relaxed) {
            return self.stand_together(gfp, order);
        }
        match self.ram.frames.alloc(&gfp.contiguous_only(), order) {
            Ok(block) => self.in_one_piece(gfp, block),
            Err(_) if may_fall_back => self.stand_together(gfp, order),
            Err(error) => {
                count(&self.ram.counts.failed_contiguous);
                Err(AllocPagesError::Contiguous(error))
            }
        }
    }

    fn in_one_piece(
        &self,
        gfp: &Gfp<'_>,
        block: PageBlock,
    ) -> Result<Page<'_, M, S, W>, AllocPagesError> {
        let (head, order) = (block.pfn(), block.order());
        for (index, pfn) in block.frames().iter().enumerate() {
            if let Err(error) = self.ram.pin(gfp, pfn) {
                for pinned in block.frames().iter().take(index) {
                    self.ram.unpin(pinned);
                }
                self.ram.frames.free(block);
                return Err(error);
            }
        }
        for (index, pfn) in block.frames().iter().enumerate().skip(1) {
            self.ram.mark_tail(pfn, head, index, false);
        }
        self.ram.mark_head(head, order, None);
        count(&self.ram.counts.contiguous);
        Ok(Page::of_head(self, head))
    }

    /// Single frames, one behind the other in a mapping.
    #[track_caller]
    fn stand_together(
        &self,
        gfp: &Gfp<'_>,
        order: Order,
    ) -> Result<Page<'_, M, S, W>, AllocPagesError> {
        let frames = self.single_frames(gfp, order)?;
        let head = frames.head();
        let location = match self.map(gfp, order, frames) {
            Ok(location) => location,
            Err(source) => {
                count(match source {
                    MapAreaError::Alloc(_) => &self.ram.counts.failed_addresses,
                    MapAreaError::Map { .. } => &self.ram.counts.failed_mapping,
                });
                return Err(AllocPagesError::Mapping { order, source });
            }
        };
        // Only now: pages whose mapping failed wait for a shootdown, and are part of nothing.
        for (index, pfn) in chain(&self.ram, Some((head, head))).enumerate().skip(1) {
            self.ram.mark_tail(pfn, head, index, true);
        }
        self.ram.mark_head(head, order, Some(location));
        count(&self.ram.counts.fallbacks);
        Ok(Page::of_head(self, head))
    }

    /// Frames with their descriptors pinned, each with a link to the next: no list of them is kept anywhere else, so
    /// there is none that could not be allocated.
    fn single_frames(
        &self,
        gfp: &Gfp<'_>,
        order: Order,
    ) -> Result<VirtualFrames<M, W>, AllocPagesError> {
        let mut frames = VirtualFrames::none(&self.ram);
        for got in 0..order.frames().get() {
            let block = match self.ram.frames.alloc(&gfp.contiguous_only(), Order::ZERO) {
                Ok(block) => block,
                Err(source) => {
                    frames.free();
                    count(&self.ram.counts.failed_frames);
                    return Err(AllocPagesError::Frames { order, got, source });
                }
            };
            let pfn = block.pfn();
            if let Err(error) = self.ram.pin(gfp, pfn) {
                self.ram.frames.free(block);
                frames.free();
                return Err(error);
            }
            frames.append(block);
        }
        Ok(frames)
    }

    /// Maps the frames, and locks them up in their mapping. The number of its first page.
    #[track_caller]
    fn map(
        &self,
        gfp: &Gfp<'_>,
        order: Order,
        frames: VirtualFrames<M, W>,
    ) -> Result<u64, MapAreaError> {
        let runs = frames.runs();
        let address = self.areas.map_runs(
            gfp.context(),
            order.frames(),
            runs,
            Protection::ReadWrite,
            AreaKind::Compound,
            Box::new(frames),
        )?;
        match self.areas.space().offset_of(address) {
            Some(offset) => Ok(offset.get() / pageless_pfn::PAGE_SIZE),
            None => unreachable!("an area outside its space"),
        }
    }
}

impl<M: FrameMemory, W: Window> Ram<M, W> {
    /// Takes the block's reference to the descriptor of `pfn`.
    pub(super) fn pin(&self, gfp: &Gfp<'_>, pfn: Pfn) -> Result<(), AllocPagesError> {
        let pfn = match PfnT::new(pfn, PfnFlags::empty()).paged() {
            Ok(paged) => paged,
            Err(_) => unreachable!("ordinary memory has pages"),
        };
        let held = match gfp.may_sleep() {
            Some(ctx) => self
                .memmap
                .get(ctx, pfn)
                .map_err(AllocPagesError::Descriptor),
            None => self
                .memmap
                .try_get(pfn)
                .map_err(AllocPagesError::DescriptorNow),
        };
        match held {
            Ok(held) => {
                // Nobody reads it yet: what somebody else has left in it is not to be taken for a mark.
                held.set_mark(Mark::NONE);
                core::mem::forget(held);
                Ok(())
            }
            Err(error) => {
                count(&self.counts.failed_descriptors);
                Err(error)
            }
        }
    }

    /// Gives the block's reference back.
    pub(super) fn unpin(&self, pfn: Pfn) {
        drop(self.memmap.assume_pinned(pfn));
    }

    /// The descriptor of a page of a block that is out.
    pub(super) fn held(&self, pfn: Pfn) -> ManuallyDrop<PageRef<'_, W>> {
        match self.memmap.assume_pinned(pfn) {
            // The reference stays the block's.
            Some(page) => ManuallyDrop::new(page),
            None => unreachable!("a block of memory that the memmap does not cover"),
        }
    }

    pub(super) fn mark_tail(&self, pfn: Pfn, head: Pfn, index: usize, is_virtual: bool) {
        let page = self.held(pfn);
        page.set_count(0);
        page.set_location(head.get());
        page.set_which(index as u32);
        page.set_mark(Mark::tail(is_virtual));
    }

    /// The last that is done to a new block: from now on it is one. It has one reference.
    pub(super) fn mark_head(&self, pfn: Pfn, order: Order, location: Option<u64>) {
        let page = self.held(pfn);
        // It may have been a tail: whoever reads where its head is must not be told where its mapping is.
        page.set_mark(Mark::NONE);
        page.set_location(location.unwrap_or(0));
        page.set_which(0);
        page.set_count(0);
        page.set_mark(Mark::head(order, location.is_some()));
        // Nobody gets a reference before there is one, and whoever gets one finds the marks.
        page.set_count(1);
    }
}

impl<M: FrameMemory, S: Vspace, W: Window> fmt::Debug for Pages<M, S, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages")
            .field("counters", &self.ram.counts.read())
            .finish_non_exhaustive()
    }
}
