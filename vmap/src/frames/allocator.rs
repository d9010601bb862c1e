//! The allocator: zones in the order in which they are tried, and what is done when the first try fails.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;

use pageless_fault::{Flushed, FrameMemory, MaySleep};
use pageless_pfn::{FrameCount, Pfn, PfnRange};

use super::block_at::BlockAt;
use super::config::{FrameConfig, FrameConfigError};
use super::counters::Counters;
use super::free_blocks::{FreeBlocks, mark};
use super::gfp::{Context, Gfp, ZoneKind};
use super::injection::{Injected, Injection, Injector};
use super::order::{Order, PageBlock};
use super::percpu::CpuList;
use super::reclaimer::{Reclaimer, ReclaimerGuard, Reclaimers};
use super::states::{State, States};
use super::watermark::Mark;
use super::zone::Zone;

/// How often reclaimers are asked again for one allocation while they find something (`MAX_RECLAIM_RETRIES`).
const RECLAIM_ROUNDS: u32 = 16;

/// How often an allocation that saw a block, which somebody else then took or moved, looks again.
const RACE_ROUNDS: u32 = 8;

/// Why there is no block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AllocError {
    /// Fewer frames are free than were asked for: give something back.
    #[error("no memory for order {}: {free} are free", .order.get())]
    NoMemory {
        /// The order asked for.
        order: Order,
        /// Free frames in the zones that it may come from, those in the lists of CPUs included.
        free: FrameCount,
    },
    /// Enough is free, but not in one piece: ask for less at a time, or for something that is contiguous only virtually.
    #[error(
        "no contiguous memory for order {}: {free} are free, in blocks of at most order {}", .order.get(), .largest.get()
    )]
    Fragmented {
        /// The order asked for.
        order: Order,
        /// Free frames in the zones that it may come from, those in the lists of CPUs included.
        free: FrameCount,
        /// The largest free block.
        largest: Order,
    },
    /// There is such a block, but what is free stays free for those who cannot wait: sleep and reclaim, or give something back.
    #[error("order {} would leave less than {keep} of {free} free", .order.get())]
    BelowWatermark {
        /// The order asked for.
        order: Order,
        /// Free frames in the zone that has the block.
        free: FrameCount,
        /// How many are to stay there.
        keep: FrameCount,
    },
    /// No such block is ever there: ask for something that is contiguous only virtually.
    #[error("order {}: blocks here have at most order {}", .order.get(), .max.get())]
    OrderTooLarge {
        /// The order asked for.
        order: Order,
        /// The largest there is.
        max: Order,
    },
    /// It was told to fail: see [`Injection`].
    #[error("order {} failed by injection", .order.get())]
    Injected {
        /// The order asked for.
        order: Order,
    },
}

/// Why a block was not taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no block of order {} at {pfn} is out: it belongs to another allocator, or came back already", .order.get())]
pub struct NotTaken {
    /// Its first frame.
    pub pfn: Pfn,
    /// Its order.
    pub order: Order,
}

/// The frame allocator: see the [module](super).
///
/// ```
/// # #[cfg(feature = "std")] {
/// use std::sync::Arc;
/// use pageless_fault::MaySleep;
/// use pageless_fault::sim::{SimConfig, SimMachine};
/// use pageless_pfn::FrameCount;
/// use pageless_vmap::frames::{FrameAllocator, FrameConfig, Gfp, Order};
///
/// let machine = SimMachine::new(SimConfig::default())?;
/// let ram = machine.ram(FrameCount::new(256)).ok_or("no such memory")?;
/// let frames = FrameAllocator::new(Arc::new(ram), FrameConfig::default())?;
///
/// let ctx = MaySleep::claim();
/// let block = frames.alloc(&Gfp::kernel(&ctx).zeroed(), Order::try_new(3)?)?;
/// assert_eq!(block.frames().count(), FrameCount::new(8));
/// let single = frames.alloc(&Gfp::atomic(), Order::ZERO)?;
/// assert_eq!(frames.statistics().owned(), FrameCount::new(9));
/// frames.free(block);
/// frames.free(single);
/// # }
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub struct FrameAllocator<M: FrameMemory> {
    pub(super) memory: Arc<M>,
    pub(super) states: States,
    /// By ascending frame number; at least one, and none is empty.
    pub(super) zones: Vec<Zone>,
    pub(super) max_order: Order,
    pub(super) injector: Injector,
    pub(super) counters: Counters,
    reclaimers: Arc<Reclaimers>,
}

impl<M: FrameMemory> FrameAllocator<M> {
    /// An allocator of all frames of `memory`, which nobody else uses.
    ///
    /// # Errors
    ///
    /// See [`FrameConfigError`].
    pub fn new(memory: Arc<M>, config: FrameConfig) -> Result<Self, FrameConfigError> {
        config.check()?;
        let frames = memory.frames();
        if frames.is_empty() {
            return Err(FrameConfigError::NoFrames);
        }
        let no_books = || FrameConfigError::Books {
            frames: frames.count(),
            // A byte of state, and two bits and a bit for the sets.
            bytes: frames
                .count()
                .get()
                .saturating_add(frames.count().get() / 4),
        };
        let states = match States::new(frames) {
            Ok(Some(states)) => states,
            Ok(None) | Err(_) => return Err(no_books()),
        };
        let dma = config.dma_frames.min(frames.count());
        let (low, rest) = frames.split_at(dma).ok_or_else(no_books)?;
        let mut zones = Vec::new();
        for (kind, span) in [(ZoneKind::Dma, low), (ZoneKind::Normal, rest)] {
            if span.is_empty() {
                continue;
            }
            let marks = config.watermarks.of(kind, span.count(), frames.count());
            if !marks.are_in_order() {
                return Err(FrameConfigError::Watermarks { zone: kind, marks });
            }
            let reserve = match kind {
                ZoneKind::Dma => rest
                    .count()
                    .get()
                    .checked_div(config.lowmem_reserve_ratio)
                    .unwrap_or(0),
                ZoneKind::Normal => 0,
            };
            let blocks = FreeBlocks::new(span, config.max_order).map_err(|_| no_books())?;
            let lengths = config.percpu.of(span.count(), marks, memory.cpus());
            let mut lists = Vec::new();
            for _ in 0..memory.cpus().max(1) {
                lists.push(CpuList::new(lengths).map_err(|_| no_books())?);
            }
            let keep = (marks, FrameCount::new(reserve));
            zones.push(Zone::new(kind, blocks, span, keep, lists, &states));
        }
        Ok(FrameAllocator {
            memory,
            states,
            zones,
            max_order: config.max_order,
            injector: Injector::new(),
            counters: Counters::default(),
            reclaimers: Arc::new(Reclaimers::new()),
        })
    }

    /// The memory that the frames are of.
    pub fn memory(&self) -> &Arc<M> {
        &self.memory
    }

    /// The largest order there is.
    pub fn max_order(&self) -> Order {
        self.max_order
    }

    /// Bytes that the books take, the lists of CPUs not included.
    pub fn book_bytes(&self) -> usize {
        let sets: usize = self.zones.iter().map(|zone| zone.lock().bytes()).sum();
        self.states.bytes() + sets
    }

    /// A block of `order`, for whoever asks as `gfp` says.
    ///
    /// ```text
    ///   free above low? -- yes --> list of this CPU (order 0) or zone ----------> block
    ///        | no, or no block
    ///        v
    ///   may sleep and retries: ask reclaimers, up to high (if it is below low)
    ///        v
    ///   above min (who may not sleep: 3/8 of min), lists given back first if more than one frame is wanted --> block
    ///        | no
    ///        v
    ///   may sleep and retries: ask reclaimers and try again, as long as they find something
    ///        v
    ///   AllocError
    /// ```
    ///
    /// # Errors
    ///
    /// See [`AllocError`].
    #[inline]
    pub fn alloc(&self, gfp: &Gfp<'_>, order: Order) -> Result<PageBlock, AllocError> {
        if order > self.max_order {
            self.counters.order_too_large.add(1);
            let max = self.max_order;
            return Err(AllocError::OrderTooLarge { order, max });
        }
        if self.injector.strikes(order) {
            self.counters.injected.add(1);
            return Err(AllocError::Injected { order });
        }
        let found = self
            .zones_for(gfp)
            .filter(|zone| zone.permits(zone.free(), order, Mark::Low, gfp.zone()))
            .find_map(|zone| {
                let block = self.take(zone, order)?;
                self.count_zone(zone, gfp);
                Some(block)
            });
        let block = match found {
            Some(block) => block,
            None => self.alloc_slowly(gfp, order)?,
        };
        if gfp.is_zeroed()
            && let Err(error) = self.memory.zero(block.frames())
        {
            unreachable!("a frame of the memory: {error}");
        }
        Ok(block)
    }

    #[cold]
    fn alloc_slowly(&self, gfp: &Gfp<'_>, order: Order) -> Result<PageBlock, AllocError> {
        self.counters.slow.add(1);
        let mark = match gfp.context() {
            Context::MaySleep(_) => Mark::Min,
            Context::Atomic => Mark::Reserve,
        };
        // Who may ask others for memory, as long as they find some.
        let mut asks = gfp.may_sleep().filter(|_| gfp.retries());
        let mut rounds = 0..RECLAIM_ROUNDS;
        let short = self.short_of_high(gfp, order);
        if let Some(ctx) = asks
            && !short.is_zero()
        {
            rounds.next();
            asks = asks.filter(|_| !self.reclaim(ctx, short).is_zero());
        }
        if let Some(block) = self.take_down_to(gfp, order, mark) {
            return Ok(block);
        }
        while let Some(ctx) = asks
            && rounds.next().is_some()
        {
            let wanted = self.short_of_high(gfp, order).max(order.frames());
            asks = asks.filter(|_| !self.reclaim(ctx, wanted).is_zero());
            if asks.is_some()
                && let Some(block) = self.take_down_to(gfp, order, mark)
            {
                return Ok(block);
            }
        }
        for _ in 0..RACE_ROUNDS {
            match self.failure(gfp, order, mark) {
                Some(error) => return Err(error),
                None => {
                    if let Some(block) = self.take_down_to(gfp, order, mark) {
                        return Ok(block);
                    }
                }
            }
        }
        self.counters.no_memory.add(1);
        Err(AllocError::NoMemory {
            order,
            free: self.available(gfp),
        })
    }

    /// From the first zone that has such a block and may go down to `mark`.
    fn take_down_to(&self, gfp: &Gfp<'_>, order: Order, mark: Mark) -> Option<PageBlock> {
        if order > Order::ZERO && gfp.may_sleep().is_some() {
            // What the lists hold may be what keeps buddies apart.
            self.drain_percpu();
        }
        self.zones_for(gfp)
            .filter(|zone| zone.permits(zone.available(), order, mark, gfp.zone()))
            .find_map(|zone| {
                let min = zone.keeps(Mark::Min, gfp.zone());
                let low = zone.available().get() < min.get().saturating_add(order.frames().get());
                let block = self.take(zone, order).or_else(|| self.steal(zone, order))?;
                self.count_zone(zone, gfp);
                if low && mark == Mark::Reserve {
                    self.counters.from_reserve.add(1);
                }
                Some(block)
            })
    }

    /// The zones in which `gfp` is served, the best one first.
    fn zones_for(&self, gfp: &Gfp<'_>) -> impl Iterator<Item = &Zone> {
        let asked = gfp.zone();
        self.zones
            .iter()
            .rev()
            .filter(move |zone| zone.kind <= asked)
    }

    /// A block, whatever the watermarks say.
    fn take(&self, zone: &Zone, order: Order) -> Option<PageBlock> {
        let first = self.take_listed(zone, order).or_else(|| {
            let mut blocks = zone.lock();
            let block = blocks.take(order, State::Taken(order), &self.states)?;
            blocks.count_taken();
            Some(block.first)
        })?;
        Some(PageBlock::new(first, order))
    }

    fn count_zone(&self, zone: &Zone, gfp: &Gfp<'_>) {
        if zone.kind != gfp.zone() {
            self.counters.zone_fallbacks.add(1);
        }
    }

    /// A single frame from the list of this CPU.
    fn take_listed(&self, zone: &Zone, order: Order) -> Option<Pfn> {
        if order > Order::ZERO {
            return None;
        }
        self.own_list(zone)?.take(zone, &self.states)
    }

    /// A single frame from the list of any CPU.
    fn steal(&self, zone: &Zone, order: Order) -> Option<PageBlock> {
        if order > Order::ZERO {
            return None;
        }
        let pfn = zone
            .lists
            .iter()
            .find_map(|list| list.steal(&self.states))?;
        Some(PageBlock::new(pfn, order))
    }

    fn own_list<'z>(&self, zone: &'z Zone) -> Option<&'z CpuList> {
        zone.lists.get(self.memory.current().index())
    }

    fn zone_of(&self, pfn: Pfn) -> Option<&Zone> {
        self.zones.iter().find(|zone| zone.contains(pfn))
    }

    /// Frames that the best zone for `gfp` lacks to be above its high watermark with a block of `order` gone, if no zone is above the low
    /// one then.
    fn short_of_high(&self, gfp: &Gfp<'_>, order: Order) -> FrameCount {
        let lacks = |zone: &Zone| {
            let wanted = zone.keeps(Mark::High, gfp.zone()).get();
            let wanted = wanted.saturating_add(order.frames().get());
            wanted.saturating_sub(zone.available().get())
        };
        let enough = |zone: &Zone| zone.permits(zone.available(), order, Mark::Low, gfp.zone());
        if self.zones_for(gfp).any(enough) {
            return FrameCount::ZERO;
        }
        FrameCount::new(self.zones_for(gfp).next().map_or(0, lacks))
    }

    /// Nobody holds a lock here.
    fn reclaim(&self, ctx: &MaySleep, frames: FrameCount) -> FrameCount {
        let got = self.reclaimers.reclaim(ctx, frames);
        self.counters.reclaims.add(1);
        self.counters.reclaimed.add(got.get());
        got
    }

    /// Free frames of the zones that `gfp` may have.
    fn available(&self, gfp: &Gfp<'_>) -> FrameCount {
        let zones = self.zones_for(gfp);
        FrameCount::new(zones.map(|zone| zone.available().get()).sum())
    }

    /// What is in the way. `None` if nothing is: others were at work meanwhile.
    fn failure(&self, gfp: &Gfp<'_>, order: Order, mark: Mark) -> Option<AllocError> {
        let mut largest = None;
        for zone in self.zones_for(gfp) {
            let available = zone.available();
            let in_zone = match zone.lock().largest() {
                None if available.is_zero() => None,
                // All of them are in lists.
                None => Some(Order::ZERO),
                largest => largest,
            };
            largest = largest.max(in_zone);
            if in_zone >= Some(order) && !zone.permits(available, order, mark, gfp.zone()) {
                self.counters.below_watermark.add(1);
                return Some(AllocError::BelowWatermark {
                    order,
                    free: available,
                    keep: zone.keeps(mark, gfp.zone()),
                });
            }
        }
        if largest >= Some(order) {
            return None;
        }
        let free = self.available(gfp);
        Some(match largest {
            Some(largest) if free >= order.frames() => {
                self.counters.fragmented.add(1);
                AllocError::Fragmented {
                    order,
                    free,
                    largest,
                }
            }
            _ => {
                self.counters.no_memory.add(1);
                AllocError::NoMemory { order, free }
            }
        })
    }

    /// Takes `block` back and ends the life of its frames: whoever had them mapped has seen to it that no translation is left
    /// ([`free_flushed`](Self::free_flushed) has the proof). Neither sleeps nor waits for anybody who does.
    ///
    /// # Panics
    ///
    /// `block` is not out: another allocator handed it out, and this one has no block there or has it back. See
    /// [`try_free`](Self::try_free).
    #[track_caller]
    pub fn free(&self, block: PageBlock) {
        if let Err((_, error)) = self.try_free(block) {
            panic!("{error}");
        }
    }

    /// As [`free`](Self::free).
    ///
    /// # Errors
    ///
    /// [`NotTaken`]; the block comes back, and nothing has happened.
    pub fn try_free(&self, block: PageBlock) -> Result<(), (PageBlock, NotTaken)> {
        let (first, order) = (block.pfn(), block.order());
        let (taken, returning) = (State::Taken(order), State::Returning(order));
        let zone = match self.zone_of(first) {
            Some(zone) if self.states.step(first, taken, returning) => zone,
            _ => {
                self.counters.refused.add(1);
                let error = NotTaken { pfn: first, order };
                return Err((block, error));
            }
        };
        // Nobody else has it now, and no lock is held.
        self.memory.retire(block.frames());
        let listed = order == Order::ZERO
            && self
                .own_list(zone)
                .is_some_and(|list| list.put(first, zone, &self.states));
        if !listed {
            let mut blocks = zone.lock();
            blocks.put(BlockAt { first, order }, returning, &self.states);
            blocks.count_freed();
        }
        Ok(())
    }

    /// Takes back blocks that had been mapped.
    ///
    /// # Panics
    ///
    /// As [`free`](Self::free).
    pub fn free_flushed(&self, blocks: Flushed<impl IntoIterator<Item = PageBlock>>) {
        for block in blocks.into_inner() {
            self.free(block);
        }
    }

    /// The frames of `block` one by one, each to be freed on its own (`split_page`).
    ///
    /// # Panics
    ///
    /// As [`free`](Self::free).
    pub fn split(&self, block: PageBlock) -> impl ExactSizeIterator<Item = PageBlock> + use<M> {
        let (first, order) = (block.pfn(), block.order());
        let one = State::Taken(Order::ZERO);
        // Under the lock, so that whoever checks all states finds them before or after.
        let zone = self.zone_of(first);
        let held = zone.map(Zone::lock);
        assert!(
            held.is_some() && self.states.step(first, State::Taken(order), one),
            "{}",
            NotTaken { pfn: first, order }
        );
        for pfn in block.frames().iter().skip(1) {
            mark(&self.states, pfn, State::Tail, one);
        }
        SplitBlock {
            rest: block.frames(),
        }
    }

    /// Gives all frames in the lists of CPUs back to their zones, where they meet their buddies. Answers how many it was.
    pub fn drain_percpu(&self) -> FrameCount {
        self.counters.drains.add(1);
        self.drain_lists()
    }

    pub(super) fn drain_lists(&self) -> FrameCount {
        let drained = self.zones.iter().flat_map(|zone| {
            zone.lists
                .iter()
                .map(|list| list.drain(zone, &self.states) as u64)
        });
        FrameCount::new(drained.sum())
    }

    /// From now on asks `reclaimer` when somebody who may sleep is short of memory, for as long as the guard lives.
    ///
    /// It is not kept alive by that. No lock of the allocator is held while it works.
    pub fn register_reclaimer(&self, reclaimer: Weak<dyn Reclaimer>) -> ReclaimerGuard {
        self.reclaimers.add(reclaimer)
    }

    /// From now on makes allocations fail as `what` says; `None` ends it. Answers what has come of the injection before.
    pub fn inject(&self, what: Option<Injection>) -> Injected {
        self.injector.set(what)
    }

    /// What has come so far of the injection that is set.
    pub fn injected(&self) -> Injected {
        self.injector.injected()
    }
}

impl<M: FrameMemory> fmt::Debug for FrameAllocator<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameAllocator")
            .field("frames", &self.memory.frames())
            .field("max_order", &self.max_order)
            .finish_non_exhaustive()
    }
}

/// The frames of a block that has been split.
#[must_use = "frames that nobody frees are lost"]
struct SplitBlock {
    rest: PfnRange,
}

impl Iterator for SplitBlock {
    type Item = PageBlock;

    fn next(&mut self) -> Option<PageBlock> {
        let (one, rest) = self.rest.split_at(FrameCount::new(1))?;
        self.rest = rest;
        Some(PageBlock::new(one.start(), Order::ZERO))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // At most 2^20.
        let left = self.rest.count().get() as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for SplitBlock {}
