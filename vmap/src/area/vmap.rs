//! The vmalloc address space: frames of all kinds, seen in one piece.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use pageless_fault::{MapError, MaySleep, Protection, UnmapError, VirtAddr, Vspace};
use pageless_pfn::{FrameCount, Pfn, PfnFlags, PfnRange, PfnT};

use crate::area::config::VmallocConfig;
use crate::area::counters::AreaCounters;
use crate::area::descriptors::{Descriptors, ReferenceError};
use crate::area::listing::{AreaInfo, AreaKind};
use crate::area::purge::Purged;
use crate::area::ram::{Aliased, MapRamError, RamMapping};
use crate::area::read::Vread;
use crate::area::release::Release;
use crate::area::space::{AllocAreaError, AreaSpace, Backlog, MapAreaError, VunmapError};
use crate::frames::{Context, Order};
use crate::mutant::Mutant;
use crate::runs::runs;

/// The vmalloc address space of a machine.
///
/// Shared by reference: all of it may be called from anywhere at once.
///
/// # Who keeps what
///
/// [`vmap`](Self::vmap) takes a list of frames of any kind. Those that have a descriptor are referenced, and the references
/// are given back when the shootdown of the area is proved, not before; those that have none are just shown. The
/// caller's list is only read. So whoever maps a frame with a descriptor may forget it at once (if a reference of these
/// [`Descriptors`] keeps the frame), and whoever maps one without must keep it until a [`purge`](Self::purge) that began after
/// [`vunmap`](Self::vunmap).
///
/// # Context
///
/// What may sleep takes a [`MaySleep`]. For those who must not there is [`vunmap_atomic`](Self::vunmap_atomic), which
/// sends no interrupt and waits for nobody: what it unmaps waits for the next who may sleep.
///
/// Linux: mm/vmalloc.c.
pub struct Vmalloc<S: Vspace, D: Descriptors> {
    areas: Arc<AreaSpace<S>>,
    descriptors: D,
}

/// Why a list of frames is not mapped. Nothing remains of the attempt but what waits for a shootdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VmapError {
    /// No addresses.
    #[error(transparent)]
    Alloc(#[from] AllocAreaError),
    /// It is the place of a scatter-gather table, not a frame of data.
    #[error("entry {index} of the list leads to a scatter-gather table")]
    Chain {
        /// Which entry of the list.
        index: usize,
    },
    /// The descriptor of a frame could not be referenced.
    #[error("entry {index} of the list cannot be referenced")]
    Reference {
        /// Which entry of the list.
        index: usize,
        /// Why.
        #[source]
        source: ReferenceError,
    },
    /// The machine did not map some of the frames.
    #[error("entry {index} of the list cannot be mapped")]
    Map {
        /// The first entry that is not mapped.
        index: u64,
        /// Why.
        #[source]
        source: MapError,
    },
}

impl From<MapAreaError> for VmapError {
    fn from(error: MapAreaError) -> Self {
        match error {
            MapAreaError::Alloc(error) => VmapError::Alloc(error),
            MapAreaError::Map { index, source } => VmapError::Map { index, source },
        }
    }
}

impl<S: Vspace, D: Descriptors> Vmalloc<S, D> {
    /// All of `space`. `descriptors` has those of the frames that have one.
    pub fn new(space: S, descriptors: D, config: VmallocConfig) -> Self {
        Self::over(Arc::new(AreaSpace::new(space, config)), descriptors)
    }

    /// The same over addresses that others take from as well: there is one such space in a machine.
    pub fn over(areas: Arc<AreaSpace<S>>, descriptors: D) -> Self {
        Vmalloc { areas, descriptors }
    }

    /// The addresses, for those who keep what they map themselves.
    pub fn area_space(&self) -> &Arc<AreaSpace<S>> {
        &self.areas
    }

    /// The space that the areas are in.
    pub fn space(&self) -> &S {
        self.areas.space()
    }

    /// Makes `frames` appear one behind the other, and a page behind them that never shows anything. (`vmap`, `vmap_pfn`, and the
    /// `vmap_pages` of 2002.)
    ///
    /// # Errors
    ///
    /// See [`VmapError`]. References that were taken are given back, those whose frames were mapped after their shootdown.
    #[track_caller]
    pub fn vmap(
        &self,
        ctx: &MaySleep,
        frames: &[PfnT],
        protection: Protection,
    ) -> Result<VirtAddr, VmapError> {
        if let Some(index) = chain(frames) {
            return Err(VmapError::Chain { index });
        }
        let context = Context::MaySleep(ctx);
        let count = FrameCount::new(frames.len() as u64);
        let mut area = self
            .areas
            .alloc(context, count, Order::ZERO, AreaKind::Map)?;
        let references = match self.reference(ctx, frames) {
            Ok(references) => references,
            Err(error) => {
                self.areas.count_failure();
                // Never mapped: it cannot be refused.
                let _ = self.areas.unmap(context, area, Box::new(()));
                return Err(error);
            }
        };
        let referenced = references.len() as u64;
        // Nothing to keep takes no memory.
        let owned: Box<dyn Release> = match references.is_empty() {
            true => Box::new(()),
            false => Box::new(references),
        };
        match self
            .areas
            .map(context, &mut area, runs_of(frames), protection)
        {
            Ok(()) => Ok(self.areas.publish(area, referenced, owned)),
            Err(error) => {
                self.areas.count_failure();
                let undone = self.areas.unmap(context, area, owned);
                if let Err((area, owned, _)) = undone {
                    // Still mapped, and nobody has its address: others try again.
                    let address = self.areas.publish(area, referenced, owned);
                    self.areas.unmap_later(address);
                }
                Err(error.into())
            }
        }
    }

    /// Takes the area at `address` down, if it is [`AreaKind::Map`] or [`AreaKind::Alloc`]: a block of pages that stands together through
    /// one goes by its last reference, not by its address. The addresses may be given out again, and the references are given back, after
    /// the next purge; this makes one if more waits than the cap.
    ///
    /// # Errors
    ///
    /// See [`VunmapError`].
    pub fn vunmap(&self, ctx: &MaySleep, address: VirtAddr) -> Result<(), VunmapError> {
        self.areas.unmap_at(ctx, address)
    }

    /// [`vunmap`](Self::vunmap) for those who must not wait. If the books are in use, all of it is left to the next who may sleep.
    ///
    /// # Errors
    ///
    /// See [`VunmapError`].
    pub fn vunmap_atomic(&self, address: VirtAddr) -> Result<Backlog, VunmapError> {
        self.areas.unmap_at_atomic(address)
    }

    /// Makes up to [`RAM_MOST`](crate::area::RAM_MOST) frames appear one behind the other, for a short time. No reference is taken, and
    /// no guard page follows. See [`ram`](crate::area#small-mappings).
    ///
    /// # Errors
    ///
    /// See [`MapRamError`].
    #[track_caller]
    pub fn vm_map_ram(
        &self,
        ctx: &MaySleep,
        frames: &[PfnT],
        protection: Protection,
    ) -> Result<RamMapping, MapRamError> {
        let pages = FrameCount::new(frames.len() as u64);
        self.areas.map_ram(ctx, pages, runs_of(frames), protection)
    }

    /// Takes a small mapping down. `owned` is what must not be used for anything else until no CPU can see it through this mapping: it
    /// comes back from [`unaliased`](Self::unaliased).
    ///
    /// # Errors
    ///
    /// The machine refused; all is as it was.
    pub fn vm_unmap_ram<T>(
        &self,
        mapping: RamMapping,
        owned: T,
    ) -> Result<Aliased<T>, (RamMapping, T, UnmapError)> {
        self.areas.unmap_ram(mapping, owned)
    }

    /// One shootdown for all that was unmapped and not yet shot down, small mappings and areas: afterwards everything
    /// [`Aliased`] until now comes back.
    ///
    /// # Errors
    ///
    /// See [`purge`](Self::purge).
    pub fn vm_unmap_aliases(&self, ctx: &MaySleep) -> Result<Purged, UnmapError> {
        self.areas.purge(ctx)
    }

    /// What was seen through a small mapping, if it was shot down since.
    ///
    /// # Errors
    ///
    /// It was not: `aliased` comes back.
    pub fn unaliased<T>(&self, aliased: Aliased<T>) -> Result<T, Aliased<T>> {
        self.areas.unaliased(aliased)
    }

    /// See [`AreaSpace::purge`].
    ///
    /// # Errors
    ///
    /// See there.
    pub fn purge(&self, ctx: &MaySleep) -> Result<Purged, UnmapError> {
        self.areas.purge(ctx)
    }

    /// The frame that `address` shows, by the page table. Never faults.
    pub fn vmalloc_to_pfn(&self, address: VirtAddr) -> Option<Pfn> {
        let at = self.space().offset_of(address)?;
        self.space().translate(at)
    }

    /// Whether `address` lies in the space, mapped or not.
    pub fn is_vmalloc_addr(&self, address: VirtAddr) -> bool {
        self.space().offset_of(address).is_some()
    }

    /// See [`AreaSpace::vread`].
    pub fn vread(&self, address: VirtAddr, into: &mut [u8]) -> Vread {
        self.areas.vread(address, into)
    }

    /// The area that `address` is in, guard page included.
    pub fn find_area(&self, address: VirtAddr) -> Option<AreaInfo> {
        self.areas.find(address)
    }

    /// All areas, by address: each prints as a line of `/proc/vmallocinfo`.
    pub fn areas(&self) -> Vec<AreaInfo> {
        self.areas.areas()
    }

    /// What has been done so far.
    pub fn counters(&self) -> AreaCounters {
        self.areas.counters()
    }

    /// See [`AreaSpace::self_check`].
    ///
    /// # Errors
    ///
    /// What is wrong.
    pub fn self_check(&self) -> Result<(), &'static str> {
        self.areas.self_check()
    }

    /// Maps frames that `owned` keeps, from wherever `context` allows. `owned` is released after the shootdown of the area, or of as
    /// much of it as was mapped.
    ///
    /// # Errors
    ///
    /// See [`MapAreaError`].
    ///
    /// # Panics
    ///
    /// The runs do not have `pages` frames.
    #[track_caller]
    pub fn map_owned(
        &self,
        context: Context<'_>,
        pages: FrameCount,
        runs: impl IntoIterator<Item = PfnRange>,
        protection: Protection,
        kind: AreaKind,
        owned: Box<dyn Release>,
    ) -> Result<VirtAddr, MapAreaError> {
        self.areas
            .map_runs(context, pages, runs, protection, kind, owned)
    }

    /// References to those of `frames` that have descriptors.
    fn reference(&self, ctx: &MaySleep, frames: &[PfnT]) -> Result<Vec<D::Reference>, VmapError> {
        let mut references = Vec::new();
        if Mutant::ReferenceNotTaken.active() {
            return Ok(references);
        }
        for (index, frame) in frames.iter().enumerate() {
            let Ok(paged) = frame.paged() else {
                continue;
            };
            match self.descriptors.reference(ctx, paged) {
                Ok(reference) => references.push(reference),
                Err(source) => return Err(VmapError::Reference { index, source }),
            }
        }
        Ok(references)
    }
}

impl<S: Vspace, D: Descriptors> fmt::Debug for Vmalloc<S, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vmalloc")
            .field("areas", &self.areas)
            .finish_non_exhaustive()
    }
}

/// The first entry that is not a frame of data.
fn chain(frames: &[PfnT]) -> Option<usize> {
    frames
        .iter()
        .position(|frame| frame.flags().contains(PfnFlags::SG_CHAIN))
}

/// A list of frames, in as few runs as can be.
fn runs_of(frames: &[PfnT]) -> impl Iterator<Item = PfnRange> {
    runs(frames.iter().map(|frame| frame.pfn()))
}
