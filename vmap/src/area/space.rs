//! Addresses: taking them, mapping frames there, and taking frames away again.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::panic::Location;

use crossbeam_queue::SegQueue;
use pageless_fault::sync::atomic::{AtomicU64, Ordering};
use pageless_fault::sync::{Mutex, MutexGuard};
use pageless_fault::{
    MapError, MaySleep, Protection, Unflushed, UnmapError, VirtAddr, Vspace, WindowOffset,
    WindowRange,
};
use pageless_pfn::{FrameCount, PAGE_SIZE, PfnRange};

use crate::area::backlog::LazyPages;
use crate::area::config::VmallocConfig;
use crate::area::counters::AreaCounters;
use crate::area::flushed::Releases;
use crate::area::free_tree::FreeTree;
use crate::area::listing::{AreaInfo, AreaKind, AreaState};
use crate::area::node::{Doomed, Node, Record, State, Waiting};
use crate::area::pool::POOLED_MOST;
use crate::area::purge::{Depth, PurgeState};
use crate::area::ram::RamBlocks;
use crate::area::release::{Holds, Release, Unreachable};
use crate::area::span::{PageNumber, Span, offset};
use crate::frames::{Context, Order};
use crate::mutant::Mutant;

/// The most pages of a zone: areas that begin in the same zone are in the books of the same node. Linux's `vmap_zone_size` is 16, so that the
/// areas of one CPU are in the books of all nodes; here a node takes its addresses from zones of its own, so that CPUs meet only where one
/// unmaps what another has mapped.
const ZONE_MOST: u64 = 4096;
/// The fewest pages of a zone. In a small space zones are small enough for each node to have some.
const ZONE_LEAST: u64 = 16;
/// Pages that a node takes out of the free tree at once, unless a single area is larger.
const REFILL: u64 = 64;
/// Zones that a node looks for addresses in before it takes them from anywhere.
const ZONES_TRIED: u64 = 4;
/// How often somebody who must not wait asks for a lock.
const ATOMIC_TURNS: u32 = 64;

/// Address space for areas: virtual ranges, each followed by a guard page, into which frames are mapped.
///
/// It knows nothing of descriptors or of allocators: what must outlive a mapping is handed over as a [`Release`], and released
/// when the shootdown is proved.
///
/// ```text
///            alloc                    map                      unmap                purge
///   free tree ----> Area (Held) ----------> frames visible ----------> lazy ----+---------> pool or free tree
///   or pool           |                                                         |  one shootdown, then
///                     +--- publish(owned) --> known by its address -- unmap_at -+--------->  owned.release()
///                                                                                   a few areas with each call
/// ```
///
/// # The end
///
/// Dropped, it unmaps what is still known by an address and makes a last purge, so that what areas own is released. Where nobody may wait (with
/// interrupts off, under a spin lock, while a panic unwinds) it does not, and all of that is lost. So is, in any case, what an
/// [`Aliased`](crate::area::Aliased) locks up.
///
/// # Who waits for whom
///
/// Locks are taken one at a time (but for the list of who is releasing, which is taken under others), and nothing is mapped, shot down or
/// released under one. One CPU at a time purges; who wants to purge meanwhile waits, and serves shootdowns while it does. Others go on.
pub struct AreaSpace<S: Vspace> {
    pub(crate) space: S,
    pub(crate) config: VmallocConfig,
    pub(crate) tag: SpaceTag,
    /// All pages.
    pub(crate) whole: Span,
    /// Pages of a zone: a power of two.
    zone: u64,
    pub(crate) nodes: Box<[Node]>,
    /// What is in no pool and no area. Asked when a pool is empty, and for large areas.
    pub(crate) free: Mutex<FreeTree>,
    /// Pages that wait for a shootdown.
    pub(crate) lazy_pages: LazyPages,
    /// What somebody who must not wait has left for the next who may.
    pub(crate) deferred: SegQueue<Deferred>,
    /// How many have taken something out of `deferred` that is not where a purge finds it yet. AcqRel where it is raised, so before the
    /// queue is seen without it; Release where it is lowered; both pair with the Acquire in `drain`.
    carrying: AtomicU64,
    pub(crate) purge: PurgeState,
    pub(crate) releases: Releases,
    pub(crate) ram: RamBlocks,
}

/// Tells the spaces of a process apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpaceTag(u32);

impl SpaceTag {
    fn next() -> Self {
        static NEXT: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0);
        SpaceTag(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Who unmaps an area by its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// Whoever has published it.
    Owner,
    /// Anybody who knows the address. What others build on their areas is not theirs to unmap.
    Anybody,
}

impl By {
    fn may_unmap(self, kind: AreaKind) -> bool {
        match self {
            By::Owner => true,
            By::Anybody => matches!(kind, AreaKind::Map | AreaKind::Alloc),
        }
    }
}

/// What somebody who must not wait has left for the next who may.
#[derive(Debug)]
pub(crate) enum Deferred {
    /// An area that is to be unmapped: its first page, and by whom.
    Unmap(PageNumber, By),
    /// It is unmapped, but not in the list of those that wait.
    Lazy(Unflushed<Doomed>),
    /// It could not be unmapped, and is in use again.
    Restore(PageNumber, Holds),
    /// Addresses that were never mapped.
    Never(Span),
    /// What nothing was ever mapped for.
    Release(Holds),
}

/// Addresses that belong to whoever holds this: `pages` of them can be mapped, and a guard page behind them cannot. Dropped, the
/// addresses are lost.
#[must_use = "addresses that nobody gives back are lost"]
#[derive(Debug)]
pub struct Area {
    tag: SpaceTag,
    span: Span,
    pages: u64,
    /// How many pages, from the first, have ever been mapped.
    mapped: u64,
    home: u16,
}

impl Area {
    /// Pages that can be mapped.
    #[must_use]
    pub const fn pages(&self) -> FrameCount {
        FrameCount::new(self.pages)
    }

    /// Where they are in the space.
    #[must_use]
    pub fn range(&self) -> WindowRange {
        self.span.head(self.pages).range()
    }

    /// The same for somebody who maps frames there himself, such as [`PairWindows`](crate::zsmalloc::PairWindows). From now on all of
    /// it counts as mapped: what other CPUs have cached of what came and went there is shot down before the addresses are anybody else's.
    pub fn lend(&mut self) -> WindowRange {
        self.mapped = self.pages;
        self.range()
    }

    /// Its first page and all its addresses: whoever takes them keeps the books from now on.
    pub(crate) fn into_span(area: Area) -> (PageNumber, Span) {
        (area.span.first(), area.span)
    }
}

/// Why there are no addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AllocAreaError {
    /// Nothing was asked for.
    #[error("an area of no pages")]
    Empty,
    /// No space of this length has so many, used or not.
    #[error("an area of {asked} pages: the space has room for one of {most}")]
    TooMany {
        /// Pages asked for.
        asked: u64,
        /// The largest area there could be.
        most: u64,
    },
    /// No hole is large enough, even after a purge (which only those make who may sleep): unmap something.
    #[error(
        "no room for {asked} pages: {free} are free, {largest} in one piece, {lazy} wait for a shootdown, \
         {quarantined} are lost"
    )]
    NoSpace {
        /// Pages asked for, guard page included.
        asked: u64,
        /// Free pages.
        free: u64,
        /// Pages of the largest hole.
        largest: u64,
        /// Pages that wait for a shootdown.
        lazy: u64,
        /// Pages whose shootdown failed.
        quarantined: u64,
    },
    /// The books were in use and the caller must not wait: try again, or where one may sleep.
    #[error("the books of the space are in use, and the caller must not wait")]
    Contended,
}

/// Why frames are not mapped. Nothing remains of the attempt but what waits for a shootdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MapAreaError {
    /// No addresses.
    #[error(transparent)]
    Alloc(#[from] AllocAreaError),
    /// The machine did not map some of them.
    #[error("page {index} cannot be mapped")]
    Map {
        /// The first page of the area that is not mapped.
        index: u64,
        /// Why.
        #[source]
        source: MapError,
    },
}

/// Why an area is not unmapped, or not purged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VunmapError {
    /// No area begins there.
    #[error("no area begins at {address}")]
    NoSuchArea {
        /// The address.
        address: VirtAddr,
    },
    /// It was unmapped before; its addresses have not been given out again yet.
    #[error("the area at {address} is unmapped already")]
    AlreadyUnmapped {
        /// The address.
        address: VirtAddr,
    },
    /// It belongs to somebody who unmaps it himself.
    #[error("the area at {address} is not to be unmapped by its address")]
    Held {
        /// The address.
        address: VirtAddr,
    },
    /// The machine refused: it is still mapped, try again.
    #[error("the machine did not take the area at {address} down")]
    Refused {
        /// The address.
        address: VirtAddr,
        /// Why.
        #[source]
        source: UnmapError,
    },
    /// The area is unmapped, but a shootdown failed that was due: what it covered is lost.
    #[error("unmapped; but the shootdown of what was waiting failed")]
    Unproved(#[source] UnmapError),
}

/// How much waits for a shootdown, told to somebody who cannot make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "over the cap, somebody who may sleep should purge"]
pub enum Backlog {
    /// At most the cap.
    UnderCap,
    /// More than the cap: whoever may sleep next purges.
    OverCap {
        /// Pages that wait.
        lazy: u64,
        /// The cap, in pages.
        cap: u64,
    },
}

impl<S: Vspace> AreaSpace<S> {
    /// All of `space`, with nothing in it.
    pub fn new(space: S, config: VmallocConfig) -> Self {
        let whole = Span::new(0, space.len().get() / PAGE_SIZE);
        let nodes: Box<[Node]> = (0..config.nodes.max(1)).map(Node::new).collect();
        let quarter = whole.pages() / (4 * nodes.len() as u64);
        let zone = (quarter + 1).next_power_of_two() / 2;
        let ram = RamBlocks::new(space.cpus(), config.ram_block);
        AreaSpace {
            space,
            config,
            tag: SpaceTag::next(),
            whole,
            zone: zone.clamp(ZONE_LEAST, ZONE_MOST),
            nodes,
            free: Mutex::new(FreeTree::of(whole)),
            lazy_pages: LazyPages::new(config.nodes.max(1), config.lazy_max.get() / PAGE_SIZE),
            deferred: SegQueue::new(),
            carrying: AtomicU64::new(0),
            purge: PurgeState::default(),
            releases: Releases::none(),
            ram,
        }
    }

    /// The space that the areas are in.
    pub fn space(&self) -> &S {
        &self.space
    }

    /// The first address of `area`.
    pub fn address(&self, area: &Area) -> VirtAddr {
        self.address_of(area.span.first())
    }

    pub(crate) fn address_of(&self, page: PageNumber) -> VirtAddr {
        self.space.address(offset(page))
    }

    /// The page that `address` is in.
    pub(crate) fn page_of(&self, address: VirtAddr) -> Option<PageNumber> {
        Some(self.space.offset_of(address)?.get() / PAGE_SIZE)
    }

    /// Takes addresses for `pages` pages and a guard page; the first is a multiple of 2^`align` pages from the beginning of the
    /// space.
    ///
    /// # Errors
    ///
    /// See [`AllocAreaError`]. Who may sleep has purged, then.
    #[track_caller]
    pub fn alloc(
        &self,
        context: Context<'_>,
        pages: FrameCount,
        align: Order,
        kind: AreaKind,
    ) -> Result<Area, AllocAreaError> {
        let caller = Location::caller();
        if let Context::MaySleep(ctx) = context {
            self.catch_up(ctx);
        }
        self.fits(pages)?;
        let wanted = pages.get() + self.guard();
        let align = align.frames().get();
        let span = match (self.take(context, wanted, align), context) {
            (Err(AllocAreaError::NoSpace { .. }), Context::MaySleep(ctx)) => {
                // What cannot be proved gone is quarantined: there is nothing more that this caller could do about it.
                let _ = self.purge_to(ctx, Depth::Everything);
                self.take(context, wanted, align)?
            }
            (taken, _) => taken?,
        };
        let home = self.here();
        let record = Record {
            span,
            pages: pages.get(),
            kind,
            caller,
            referenced: 0,
            home,
            state: State::Held,
        };
        let Some(mut areas) = self.lock(context, &self.node_of(span.first()).areas) else {
            self.deferred.push(Deferred::Never(span));
            return Err(AllocAreaError::Contended);
        };
        let before = areas.records.insert(span.first(), record);
        drop(areas);
        debug_assert!(before.is_none(), "addresses in two areas");
        self.nodes[usize::from(home)].counts.allocated.add(1);
        Ok(Area {
            tag: self.tag,
            span,
            pages: pages.get(),
            mapped: 0,
            home,
        })
    }

    /// Makes `runs` appear one behind the other in the pages of `area` that have not been mapped yet.
    ///
    /// # Errors
    ///
    /// The first page that is not mapped, and why; those before it are, and stay until the area is unmapped. If the machine had no
    /// room, who may sleep has purged.
    ///
    /// # Panics
    ///
    /// There are more frames than pages left, or the area is another space's.
    pub fn map(
        &self,
        context: Context<'_>,
        area: &mut Area,
        runs: impl IntoIterator<Item = PfnRange>,
        protection: Protection,
    ) -> Result<(), MapAreaError> {
        assert_eq!(area.tag, self.tag, "an area of another space");
        let span = area.span.head(area.pages);
        self.map_in_a_row(context, span, &mut area.mapped, runs, protection)
            .map_err(|source| MapAreaError::Map {
                index: area.mapped,
                source,
            })
    }

    /// Makes `runs` appear one behind the other in `span`, of which the first `mapped` pages show something already; `mapped` says at any
    /// time how many do.
    ///
    /// # Panics
    ///
    /// There are more frames than pages left.
    pub(crate) fn map_in_a_row(
        &self,
        context: Context<'_>,
        span: Span,
        mapped: &mut u64,
        runs: impl IntoIterator<Item = PfnRange>,
        protection: Protection,
    ) -> Result<(), MapError> {
        for run in runs {
            let (count, left) = (run.count().get(), span.pages() - *mapped);
            assert!(
                count <= left,
                "{count} frames for the {left} pages that are left"
            );
            if count > 0 {
                let at = offset(span.first() + *mapped);
                self.map_run(context, at, run, protection)?;
                *mapped += count;
            }
        }
        Ok(())
    }

    /// One run. What waits for a shootdown takes the machine's room as well, on the host a mapping of the kernel for each run.
    #[inline]
    pub(crate) fn map_run(
        &self,
        context: Context<'_>,
        at: WindowOffset,
        run: PfnRange,
        protection: Protection,
    ) -> Result<(), MapError> {
        let Err(error) = self.space.map(at, run, protection) else {
            return Ok(());
        };
        match (error, context) {
            (MapError::NoRoom { .. }, Context::MaySleep(ctx)) => {
                // If nothing can be proved gone there is no more room, and the second try says so.
                let _ = self.purge_to(ctx, Depth::Quarter);
                self.space.map(at, run, protection)
            }
            (error, _) => Err(error),
        }
    }

    /// Takes addresses for `pages` pages, and maps `runs` there. From then on the area is known by its address, and
    /// [`unmap_at`](Self::unmap_at) ends it.
    ///
    /// # Errors
    ///
    /// See [`MapAreaError`]. `owned` is released all the same: at once, or after the shootdown of what was mapped of it.
    ///
    /// # Panics
    ///
    /// The runs do not have `pages` frames. What was mapped stays, and `owned` with it.
    #[track_caller]
    pub fn map_runs(
        &self,
        context: Context<'_>,
        pages: FrameCount,
        runs: impl IntoIterator<Item = PfnRange>,
        protection: Protection,
        kind: AreaKind,
        owned: Box<dyn Release>,
    ) -> Result<VirtAddr, MapAreaError> {
        // From here on: should `runs` panic, what is mapped stays mapped, and so its owner must not get it back.
        let owned = Holds::new(owned);
        let mut area = match self.alloc(context, pages, Order::ZERO, kind) {
            Ok(area) => area,
            Err(error) => {
                self.count_failure();
                self.never_mapped(context, owned);
                return Err(error.into());
            }
        };
        match self.map(context, &mut area, runs, protection) {
            Ok(()) => {
                assert_eq!(area.mapped, area.pages, "frames for the pages of an area");
                Ok(self.publish(area, 0, owned.into_inner()))
            }
            Err(error) => {
                self.count_failure();
                if let Err((area, owned, _)) = self.unmap(context, area, owned.into_inner()) {
                    // Still mapped, and nobody has its address: others try again.
                    let address = self.publish(area, 0, owned);
                    self.unmap_later(address);
                }
                Err(error)
            }
        }
    }

    /// Hands `area` and what it owns over to whoever knows its address. `referenced` of its pages are so through their
    /// descriptors; that is for the listing.
    ///
    /// # Panics
    ///
    /// Nothing has been mapped in it, or it is another space's.
    pub fn publish(&self, area: Area, referenced: u64, owned: Box<dyn Release>) -> VirtAddr {
        let owned = Holds::new(owned);
        assert_eq!(area.tag, self.tag, "an area of another space");
        assert!(area.mapped > 0, "an area without a mapped page");
        let page = area.span.first();
        let mut areas = self.node_of(page).areas.lock();
        if let Some(record) = areas.records.get_mut(&page) {
            record.pages = area.mapped;
            record.referenced = referenced;
            record.state = State::Busy(owned);
        }
        drop(areas);
        self.address_of(page)
    }

    /// Takes `area` out of the page table. Its addresses, and `owned`, wait for the next purge; one is made now if `context` may sleep
    /// and the cap is passed. An area that was never mapped is given back at once.
    ///
    /// # Errors
    ///
    /// The machine refused; all is as it was.
    pub fn unmap(
        &self,
        context: Context<'_>,
        area: Area,
        owned: Box<dyn Release>,
    ) -> Result<(), (Area, Box<dyn Release>, UnmapError)> {
        assert_eq!(area.tag, self.tag, "an area of another space");
        let first = area.span.first();
        if area.mapped == 0 {
            let removed = match self.lock(context, &self.node_of(first).areas) {
                Some(mut areas) => areas.records.remove(&first).is_some(),
                None => false,
            };
            if removed {
                self.give(context, area.home, area.span);
            } else {
                // The record stays and says `Held`: whoever may wait removes it.
                self.deferred.push(Deferred::Never(area.span));
            }
            self.never_mapped(context, Holds::new(owned));
            return Ok(());
        }
        let doomed = Doomed::Area {
            span: area.span,
            holds: Holds::new(owned),
        };
        match self
            .space
            .take_down(area.span.head(area.mapped).range(), doomed)
        {
            Ok(unflushed) => {
                self.bury(context, area.span, unflushed);
                if let Context::MaySleep(ctx) = context {
                    // Told by the counters: the area is unmapped whatever comes of it.
                    let _ = self.purge_if_due(ctx);
                }
                Ok(())
            }
            Err((Doomed::Area { holds, .. }, error)) => Err((area, holds.into_inner(), error)),
            Err((Doomed::Ram(_), _)) => {
                unreachable!("an area came back as something else")
            }
        }
    }

    /// [`unmap`](Self::unmap) of a published area, by its first address, if it is [`AreaKind::Map`] or [`AreaKind::Alloc`]: what others
    /// build on their areas is theirs to unmap.
    ///
    /// # Errors
    ///
    /// See [`VunmapError`].
    pub fn unmap_at(&self, ctx: &MaySleep, address: VirtAddr) -> Result<(), VunmapError> {
        self.unmap_at_by(ctx, address, By::Anybody)
    }

    pub(crate) fn unmap_at_by(
        &self,
        ctx: &MaySleep,
        address: VirtAddr,
        by: By,
    ) -> Result<(), VunmapError> {
        self.catch_up(ctx);
        let page = self.first_page(address)?;
        self.unmap_page(Context::MaySleep(ctx), page, by)?;
        self.purge_if_due(ctx).map_err(VunmapError::Unproved)
    }

    /// [`unmap_at`](Self::unmap_at) for those who must not wait: sends nothing, and waits for nobody. If the books are in use, the
    /// whole unmapping is left to the next who may sleep.
    ///
    /// # Errors
    ///
    /// See [`VunmapError`]; an area that is left to others is not looked at here.
    pub fn unmap_at_atomic(&self, address: VirtAddr) -> Result<Backlog, VunmapError> {
        self.unmap_at_atomic_by(address, By::Anybody)
    }

    /// Leaves the unmapping of a published area to the next who may sleep; if the machine refuses, to the one after him.
    pub(crate) fn unmap_later(&self, address: VirtAddr) {
        if let Ok(page) = self.first_page(address) {
            self.count().deferred.add(1);
            self.deferred.push(Deferred::Unmap(page, By::Owner));
        }
    }

    pub(crate) fn unmap_at_atomic_by(
        &self,
        address: VirtAddr,
        by: By,
    ) -> Result<Backlog, VunmapError> {
        let page = self.first_page(address)?;
        self.unmap_page(Context::Atomic, page, by)?;
        Ok(self.backlog())
    }

    /// How much waits for a shootdown.
    pub fn backlog(&self) -> Backlog {
        let cap = self.cap();
        match self.lazy_pages.over(cap) {
            Some(lazy) => Backlog::OverCap { lazy, cap },
            None => Backlog::UnderCap,
        }
    }

    /// The area that `address` is in, guard page included.
    pub fn find(&self, address: VirtAddr) -> Option<AreaInfo> {
        let page = self.page_of(address)?;
        self.look(page, |record| self.info(record))
    }

    /// All areas, by address.
    pub fn areas(&self) -> Vec<AreaInfo> {
        let mut all: Vec<_> = self
            .nodes
            .iter()
            .flat_map(|node| {
                let areas = node.areas.lock();
                areas
                    .records
                    .values()
                    .map(|record| self.info(record))
                    .collect::<Vec<_>>()
            })
            .collect();
        all.sort_unstable_by_key(|info| info.start);
        all
    }

    /// What has been done so far.
    pub fn counters(&self) -> AreaCounters {
        let ram = self.ram.done();
        let mut sum = AreaCounters {
            ram_mapped: ram.mapped,
            ram_unmapped: ram.unmapped,
            ram_blocks: ram.blocks,
            lazy_pages: self.lazy(),
            purges: self.purge.counts.purges.get(),
            purged_areas: self.purge.counts.areas.get(),
            purged_pages: self.purge.counts.pages.get(),
            purged_ranges: self.purge.counts.ranges.get(),
            purged_full: self.purge.counts.full.get(),
            quarantined_areas: self.purge.counts.quarantined_areas.get(),
            quarantined_pages: self.purge.counts.quarantined_pages.get(),
            ..AreaCounters::default()
        };
        for Node {
            counts, flushed, ..
        } in &self.nodes
        {
            sum.flushed_areas += flushed.load(Ordering::Relaxed);
            sum.allocated += counts.allocated.get();
            sum.pool_hits += counts.pool_hits.get();
            sum.refills += counts.refills.get();
            sum.unmapped += counts.unmapped.get();
            sum.deferred += counts.deferred.get();
            sum.not_found += counts.not_found.get();
            sum.failed += counts.failed.get();
        }
        sum
    }

    // ---- below: the steps ----

    /// Whether there could be an area of so many pages.
    pub(crate) fn fits(&self, pages: FrameCount) -> Result<(), AllocAreaError> {
        let most = self.whole.pages().saturating_sub(self.guard());
        match pages.get() {
            0 => Err(AllocAreaError::Empty),
            asked if asked > most => Err(AllocAreaError::TooMany { asked, most }),
            _ => Ok(()),
        }
    }

    /// Pages behind each area that are never mapped.
    pub(crate) fn guard(&self) -> u64 {
        u64::from(self.config.guard && !Mutant::GuardPageMissing.active())
    }

    /// The most pages that may wait.
    pub(crate) fn cap(&self) -> u64 {
        self.config.lazy_max.get() / PAGE_SIZE
    }

    /// Pages that are unmapped and not yet shot down: those that wait, and those that a purge is telling the CPUs about.
    pub(crate) fn lazy(&self) -> u64 {
        self.lazy_pages.sum().saturating_add(self.purge.under_way())
    }

    /// The node of the caller's CPU.
    pub(crate) fn here(&self) -> u16 {
        let cpu = self.space.current().index();
        u16::try_from(cpu % self.nodes.len()).unwrap_or(0)
    }

    pub(crate) fn count(&self) -> &crate::area::counters::Counts {
        &self.nodes[usize::from(self.here())].counts
    }

    pub(crate) fn count_failure(&self) {
        self.count().failed.add(1);
    }

    /// The node that has the areas that begin at `page` in its books.
    pub(crate) fn node_of(&self, page: PageNumber) -> &Node {
        &self.nodes[self.node_index(page)]
    }

    /// Its number.
    pub(crate) fn node_index(&self, page: PageNumber) -> usize {
        (page / self.zone % self.nodes.len() as u64) as usize
    }

    /// A lock; `None` if the caller must not wait and it is held.
    pub(crate) fn lock<'a, T>(
        &self,
        context: Context<'_>,
        mutex: &'a Mutex<T>,
    ) -> Option<MutexGuard<'a, T>> {
        match context {
            Context::MaySleep(_) => Some(mutex.lock()),
            Context::Atomic => (0..ATOMIC_TURNS).find_map(|turn| {
                let guard = mutex.try_lock();
                if guard.is_none() {
                    self.space.relax(turn);
                }
                guard
            }),
        }
    }

    /// Addresses that nobody has: from the pool of the caller's node; from the tree, a few at once, if the pool has none.
    fn take(&self, context: Context<'_>, pages: u64, align: u64) -> Result<Span, AllocAreaError> {
        let node = &self.nodes[usize::from(self.here())];
        if pages <= POOLED_MOST {
            let pooled = self
                .lock(context, &node.pools)
                .and_then(|mut pools| pools.take(pages, align));
            if let Some(span) = pooled {
                node.counts.pool_hits.add(1);
                return Ok(span);
            }
        }
        node.counts.refills.add(1);
        let Some(mut free) = self.lock(context, &self.free) else {
            return Err(AllocAreaError::Contended);
        };
        // Several at a time, unless that is more than there is in one piece.
        let several = (REFILL / pages).max(1);
        let refill = match context {
            Context::MaySleep(_) if pages <= POOLED_MOST => {
                self.take_from_own_zone(node, &mut free, pages * several, align)
            }
            _ => None,
        };
        if let Some(refill) = refill {
            drop(free);
            let mut pools = node.pools.lock();
            for n in 1..several {
                let one = Span::new(refill.first() + n * pages, pages);
                if let Err(one) = pools.give(one) {
                    unreachable!("{one:?} fits into a zone, but not into a pool");
                }
            }
            return Ok(refill.head(pages));
        }
        if let Some(span) = free.take(pages, align) {
            return Ok(span);
        }
        let (pages_free, largest) = (free.pages(), free.largest());
        drop(free);
        Err(AllocAreaError::NoSpace {
            asked: pages,
            free: pages_free,
            largest,
            lazy: self.lazy(),
            quarantined: self.purge.counts.quarantined_pages.get(),
        })
    }

    /// Free addresses in a zone of `node`: the one that it has taken from last, or one of the next few.
    fn take_from_own_zone(
        &self,
        node: &Node,
        free: &mut FreeTree,
        pages: u64,
        align: u64,
    ) -> Option<Span> {
        let nodes = self.nodes.len() as u64;
        if nodes == 1 {
            return free.take(pages, align);
        }
        let zones = self.whole.pages().div_ceil(self.zone);
        let mut zone = node.zone.load(Ordering::Relaxed);
        for _ in 0..ZONES_TRIED {
            if zone >= zones {
                // From the beginning; where there are fewer zones than nodes, some have none.
                zone %= nodes;
            }
            if zone >= zones {
                return None;
            }
            let within = Span::new(zone * self.zone, self.zone);
            if let Some(taken) = free.take_within(within, pages, align) {
                node.zone.store(zone, Ordering::Relaxed);
                return Some(taken);
            }
            zone += nodes;
        }
        node.zone.store(zone, Ordering::Relaxed);
        None
    }

    /// Gives addresses back that are flushed, or that were never mapped.
    pub(crate) fn give(&self, context: Context<'_>, home: u16, span: Span) {
        let kept = match self.lock(context, &self.nodes[usize::from(home)].pools) {
            Some(mut pools) => pools.give(span),
            None => Err(span),
        };
        if let Err(span) = kept {
            match self.lock(context, &self.free) {
                Some(mut free) => free.give(span),
                None => self.deferred.push(Deferred::Never(span)),
            }
        }
    }

    /// Releases what nothing was ever mapped for.
    pub(crate) fn never_mapped(&self, context: Context<'_>, holds: Holds) {
        match context {
            Context::MaySleep(ctx) => holds.release(&Unreachable::proved(), ctx),
            Context::Atomic => self.deferred.push(Deferred::Release(holds)),
        }
    }

    /// The first page of the area that is said to begin at `address`.
    fn first_page(&self, address: VirtAddr) -> Result<PageNumber, VunmapError> {
        match self.space.offset_of(address) {
            Some(at) if at.get().is_multiple_of(PAGE_SIZE) => Ok(at.get() / PAGE_SIZE),
            _ => Err(VunmapError::NoSuchArea { address }),
        }
    }

    /// Takes a published area out of the page table.
    pub(crate) fn unmap_page(
        &self,
        context: Context<'_>,
        page: PageNumber,
        by: By,
    ) -> Result<(), VunmapError> {
        let address = self.address_of(page);
        let Some(mut areas) = self.lock(context, &self.node_of(page).areas) else {
            self.count().deferred.add(1);
            self.deferred.push(Deferred::Unmap(page, by));
            return Ok(());
        };
        let Some(record) = areas.records.get_mut(&page) else {
            return Err(VunmapError::NoSuchArea { address });
        };
        if !by.may_unmap(record.kind) {
            return Err(VunmapError::Held { address });
        }
        let holds = match core::mem::replace(&mut record.state, State::Leaving) {
            State::Busy(holds) => holds,
            other => {
                let held = matches!(other, State::Held);
                record.state = other;
                return Err(if held {
                    VunmapError::Held { address }
                } else {
                    VunmapError::AlreadyUnmapped { address }
                });
            }
        };
        let (span, pages) = (record.span, record.pages);
        drop(areas);
        let holds = match context {
            Context::MaySleep(ctx) if Mutant::FrameFreedBeforeFlush.active() => {
                holds.release(&Unreachable::proved(), ctx);
                Holds::new(Box::new(()))
            }
            _ => holds,
        };
        let doomed = Doomed::Area { span, holds };
        match self.space.take_down(span.head(pages).range(), doomed) {
            Ok(unflushed) => {
                self.bury(context, span, unflushed);
                Ok(())
            }
            Err((doomed, source)) => {
                if let Doomed::Area { holds, .. } = doomed {
                    self.restore(context, page, holds);
                }
                Err(VunmapError::Refused { address, source })
            }
        }
    }

    /// An area that could not be unmapped is in use again.
    pub(crate) fn restore(&self, context: Context<'_>, page: PageNumber, holds: Holds) {
        match self.lock(context, &self.node_of(page).areas) {
            Some(mut areas) => {
                if let Some(record) = areas.records.get_mut(&page) {
                    record.state = State::Busy(holds);
                }
            }
            None => self.deferred.push(Deferred::Restore(page, holds)),
        }
    }

    /// Puts what is no longer in the page table where the next purge finds it.
    fn bury(&self, context: Context<'_>, span: Span, unflushed: Unflushed<Doomed>) {
        self.count().unmapped.add(1);
        // Before it can be found, so that the purge that finds it does not take away more than there is.
        self.lazy_pages.add(self.here(), span.pages());
        self.inter(context, span, unflushed);
    }

    /// The second half of `bury`, which may have to be put off.
    pub(crate) fn inter(&self, context: Context<'_>, span: Span, unflushed: Unflushed<Doomed>) {
        let first = span.first();
        let Some(mut areas) = self.lock(context, &self.node_of(first).areas) else {
            self.count().deferred.add(1);
            self.deferred.push(Deferred::Lazy(unflushed));
            return;
        };
        let mut end = span.end();
        if let Some(record) = areas.records.get_mut(&first) {
            record.state = State::Lazy;
            end = record.span.end();
        }
        areas.lazy.push(Waiting { unflushed, end });
        if Mutant::RangeReusedBeforeFlush.active() {
            let record = areas.records.remove(&first);
            drop(areas);
            if let Some(Record { home, span, .. }) = record {
                self.give(context, home, span);
            }
        }
    }

    /// What every call that may sleep does first: finish what others could not, take back a little of what has been shot down, and
    /// purge if too much waits.
    pub(crate) fn catch_up(&self, ctx: &MaySleep) {
        self.take_some_apart(ctx);
        if !self.deferred.is_empty() {
            self.drain(ctx);
        }
        // Told by the counters: it is not this caller's area that could not be proved gone.
        let _ = self.purge_if_over(ctx);
    }

    /// Does what was put off, and waits for others who do: whatever was unmapped before is where a purge finds it then.
    pub(crate) fn drain(&self, ctx: &MaySleep) {
        let context = Context::MaySleep(ctx);
        // What is put off again is for the next time: an unmapping that is refused each time must not keep us here.
        for _ in 0..self.deferred.len() {
            let carrying = Carrying::begin(&self.carrying);
            let next = self.deferred.pop();
            if matches!(next, Some(Deferred::Release(_))) {
                // Takes as long as it likes, and may come here again.
                drop(carrying);
            }
            match next {
                Some(Deferred::Unmap(page, by)) => {
                    match self.unmap_page(context, page, by) {
                        Ok(()) => {}
                        Err(VunmapError::Refused { .. }) => {
                            self.deferred.push(Deferred::Unmap(page, by));
                        }
                        // Whoever asked has gone on long ago.
                        Err(_) => self.count().not_found.add(1),
                    }
                }
                Some(Deferred::Lazy(unflushed)) => {
                    let first = unflushed.range().start().get() / PAGE_SIZE;
                    // Its length does not matter: its pages are counted, and its record has the rest.
                    self.inter(context, Span::new(first, 1), unflushed);
                }
                Some(Deferred::Restore(page, holds)) => self.restore(context, page, holds),
                Some(Deferred::Never(span)) => {
                    let first = span.first();
                    self.node_of(first).areas.lock().records.remove(&first);
                    self.free.lock().give(span);
                }
                Some(Deferred::Release(holds)) => self.never_mapped(context, holds),
                None => break,
            }
        }
        // They neither purge nor release anything meanwhile.
        let mut turn = 0_u32;
        while self.carrying.load(Ordering::Acquire) > 0 {
            self.space.relax(turn);
            turn = turn.saturating_add(1);
        }
    }

    fn purge_if_over(&self, ctx: &MaySleep) -> Result<(), UnmapError> {
        match self.backlog() {
            Backlog::OverCap { .. } if !Mutant::LazyListOverCap.active() => {
                self.purge_to(ctx, Depth::Quarter).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn purge_if_due(&self, ctx: &MaySleep) -> Result<(), UnmapError> {
        if self.config.always_eager {
            let purged = self.purge_to(ctx, Depth::Quarter);
            self.take_all_apart(ctx, Depth::Quarter);
            purged.map(|_| ())
        } else {
            self.purge_if_over(ctx)
        }
    }

    /// Asks the record of the area that has `page`.
    pub(crate) fn look<R>(&self, page: PageNumber, ask: impl Fn(&Record) -> R) -> Option<R> {
        let (nodes, zone) = (self.nodes.len(), self.node_index(page));
        // It begins in this zone, or in one before it.
        (0..nodes).find_map(|back| {
            let areas = self.nodes[(zone + nodes - back) % nodes].areas.lock();
            let (_, record) = areas.records.range(..=page).next_back()?;
            (page < record.span.end()).then(|| ask(record))
        })
    }

    pub(crate) fn info(&self, record: &Record) -> AreaInfo {
        AreaInfo {
            start: self.address_of(record.span.first()),
            end: self.address_of(record.span.end()),
            pages: FrameCount::new(record.pages),
            referenced: FrameCount::new(record.referenced),
            kind: record.kind,
            state: match record.state {
                State::Held | State::Busy(_) => AreaState::Busy,
                State::Leaving | State::Lazy => AreaState::Lazy,
                State::Quarantined => AreaState::Quarantined,
            },
            caller: record.caller,
        }
    }
}

/// Somebody has something in his hands that was put off.
struct Carrying<'c>(&'c AtomicU64);

impl<'c> Carrying<'c> {
    fn begin(count: &'c AtomicU64) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Carrying(count)
    }
}

impl Drop for Carrying<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl<S: Vspace> Drop for AreaSpace<S> {
    fn drop(&mut self) {
        let Some(ctx) = MaySleep::try_claim().filter(|_| self.space.may_wait()) else {
            return;
        };
        let published = |node: &Node| {
            let areas = node.areas.lock();
            let busy = areas
                .records
                .values()
                .filter(|record| matches!(record.state, State::Busy(_)));
            busy.map(|record| record.span.first()).collect::<Vec<_>>()
        };
        self.drain(&ctx);
        for page in self.nodes.iter().flat_map(published).collect::<Vec<_>>() {
            // What is refused stays mapped, and what it owns is lost: nobody is left to try again.
            let _ = self.unmap_page(Context::MaySleep(&ctx), page, By::Owner);
        }
        // What cannot be proved gone is lost as well.
        let _ = self.purge_to(&ctx, Depth::Everything);
    }
}

impl<S: Vspace> fmt::Debug for AreaSpace<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AreaSpace")
            .field("config", &self.config)
            .field("pages", &self.whole.pages())
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
