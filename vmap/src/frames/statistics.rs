//! How much is free, in which pieces, and how far that is from being useful.

use alloc::vec::Vec;
use core::fmt;

use pageless_fault::FrameMemory;
use pageless_pfn::{FrameCount, PfnRange};

use super::allocator::FrameAllocator;
use super::counters::EventCounts;
use super::gfp::ZoneKind;
use super::order::Order;
use super::percpu::ListCounts;
use super::watermark::Watermarks;

/// Thousandths. Shown as a fraction, with three places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PerMille(pub i64);

impl fmt::Display for PerMille {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let n = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:03}", n / 1000, n % 1000)
    }
}

/// Free blocks by order, as a line of `/proc/buddyinfo`; with the two indices that `/sys/kernel/debug/extfrag` has (mm/vmstat.c).
///
/// ```
/// use pageless_vmap::frames::{FreeBlockCounts, Order, PerMille};
/// // 64 single frames and one block of 16.
/// let free = FreeBlockCounts::new([64, 0, 0, 0, 1]);
/// let order = Order::try_new(4)?;
/// assert_eq!(free.unusable_index(order), PerMille(800));
/// assert_eq!(free.fragmentation_index(order), None);
/// // Without that one: 64 frames would do for four.
/// let free = FreeBlockCounts::new([64]);
/// assert_eq!(free.fragmentation_index(order), Some(PerMille(922)));
/// # Ok::<(), pageless_vmap::frames::OrderOutOfRange>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FreeBlockCounts(Vec<u64>);

impl FreeBlockCounts {
    /// So many blocks of order 0, 1, 2, ...
    pub fn new(blocks: impl IntoIterator<Item = u64>) -> Self {
        FreeBlockCounts(blocks.into_iter().collect())
    }

    /// How many of `order`.
    #[must_use]
    pub fn of(&self, order: Order) -> u64 {
        self.0.get(usize::from(order.get())).copied().unwrap_or(0)
    }

    /// All orders, from 0 on.
    #[must_use]
    pub fn by_order(&self) -> &[u64] {
        &self.0
    }

    /// How many blocks, of whatever order.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Frames in all of them.
    #[must_use]
    pub fn frames(&self) -> FrameCount {
        self.frames_from(Order::ZERO)
    }

    /// Frames in blocks of `order` and above.
    fn frames_from(&self, order: Order) -> FrameCount {
        let blocks = self.0.iter().enumerate();
        let fitting = blocks.skip(usize::from(order.get()));
        FrameCount::new(fitting.map(|(order, &blocks)| blocks << order).sum())
    }

    /// How many allocations of `order` they are good for.
    #[must_use]
    pub fn suitable(&self, order: Order) -> u64 {
        self.frames_from(order).get() >> order.get()
    }

    /// Which part of the free frames is of no use for `order`: 0 is none of them, 1000 all (or nothing is free).
    #[must_use]
    pub fn unusable_index(&self, order: Order) -> PerMille {
        let free = self.frames().get();
        if free == 0 {
            return PerMille(1000);
        }
        let unusable = free - self.frames_from(order).get();
        // At most 1000.
        PerMille((u128::from(unusable) * 1000 / u128::from(free)) as i64)
    }

    /// Why an allocation of `order` fails: towards 0 (and below) there is too little memory, towards 1000 it is in too many pieces.
    /// `None` if it does not fail; Linux shows -1.000 then.
    #[must_use]
    pub fn fragmentation_index(&self, order: Order) -> Option<PerMille> {
        let blocks = self.total();
        if blocks == 0 {
            return Some(PerMille(0));
        }
        if self.suitable(order) > 0 {
            return None;
        }
        // Every block is smaller than what was asked for, so this is below 1500.
        let wanted = u128::from(self.frames().get()) * 1000 / u128::from(order.frames().get());
        let index = (1000 + wanted) / u128::from(blocks);
        Some(PerMille(1000 - index as i64))
    }
}

impl fmt::Display for FreeBlockCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|blocks| write!(f, "{blocks:>7}"))
    }
}

/// The list of one CPU in one zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ListStatistics {
    /// Frames in it.
    pub parked: FrameCount,
    /// What it has seen.
    pub counts: ListCounts,
}

/// One zone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ZoneStatistics {
    /// Which one.
    pub kind: ZoneKind,
    /// Its frames, free or not.
    pub frames: PfnRange,
    /// Its watermarks.
    pub watermarks: Watermarks,
    /// What those who asked for another zone leave here, beside the watermark.
    pub reserve: FrameCount,
    /// Free blocks, in no list.
    pub free: FreeBlockCounts,
    /// By CPU.
    pub lists: Vec<ListStatistics>,
    /// Blocks that were handed out other than from a list.
    pub taken: u64,
    /// Blocks that came back other than to a list.
    pub freed: u64,
}

impl ZoneStatistics {
    /// Free frames that are in the lists of CPUs.
    #[must_use]
    pub fn parked(&self) -> FrameCount {
        FrameCount::new(self.lists.iter().map(|list| list.parked.get()).sum())
    }

    /// Frames that somebody owns.
    #[must_use]
    pub fn owned(&self) -> FrameCount {
        let free = self.free.frames().get() + self.parked().get();
        FrameCount::new(self.frames.count().get() - free)
    }
}

/// The line of `/proc/buddyinfo`.
impl fmt::Display for ZoneStatistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            ZoneKind::Dma => "DMA",
            ZoneKind::Normal => "Normal",
        };
        write!(f, "Node 0, zone {name:>8}{}", self.free)
    }
}

/// All there is to know about an allocator, as of one moment, but for the [events](Self::events), which go on meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FrameStatistics {
    /// By ascending frame number.
    pub zones: Vec<ZoneStatistics>,
    /// What happened so far.
    pub events: EventCounts,
}

impl FrameStatistics {
    /// Free frames, those in lists of CPUs included.
    #[must_use]
    pub fn free(&self) -> FrameCount {
        let free = self.zones.iter();
        FrameCount::new(
            free.map(|zone| zone.free.frames().get() + zone.parked().get())
                .sum(),
        )
    }

    /// Frames that somebody owns.
    #[must_use]
    pub fn owned(&self) -> FrameCount {
        FrameCount::new(self.zones.iter().map(|zone| zone.owned().get()).sum())
    }

    /// Free blocks of all zones.
    #[must_use]
    pub fn blocks(&self) -> FreeBlockCounts {
        let orders = self.zones.iter().map(|zone| zone.free.0.len()).max();
        FreeBlockCounts::new((0..orders.unwrap_or(0)).map(|order| {
            let zones = self.zones.iter();
            zones.filter_map(|zone| zone.free.0.get(order)).sum()
        }))
    }
}

/// `/proc/buddyinfo`, a line for each zone.
impl fmt::Display for FrameStatistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.zones.iter().try_for_each(|zone| writeln!(f, "{zone}"))
    }
}

impl<M: FrameMemory> FrameAllocator<M> {
    /// What is free, and what happened so far. Takes all locks for it.
    pub fn statistics(&self) -> FrameStatistics {
        let held = self.lock_all();
        let zones = self.zones.iter().zip(&held);
        let zones = zones.map(|(zone, held)| ZoneStatistics {
            kind: zone.kind,
            frames: zone.span,
            watermarks: zone.marks,
            reserve: zone.reserve,
            free: FreeBlockCounts::new(
                self.max_order
                    .up_to()
                    .map(|order| held.blocks.blocks(order)),
            ),
            lists: held
                .lists
                .iter()
                .map(|list| ListStatistics {
                    parked: FrameCount::new(list.frames().count() as u64),
                    counts: list.counts,
                })
                .collect(),
            taken: held.blocks.counts().0,
            freed: held.blocks.counts().1,
        });
        FrameStatistics {
            zones: zones.collect(),
            events: self.counters.read(),
        }
    }
}
