//! What an allocator is made with.

use pageless_pfn::{FrameCount, PAGE_SIZE};

use super::gfp::ZoneKind;
use super::order::Order;
use super::watermark::{WatermarkPlan, Watermarks};

/// What an allocator is made with. The default is what Linux does with as much memory.
///
/// ```
/// use pageless_pfn::FrameCount;
/// use pageless_vmap::frames::{FrameConfig, Order, WatermarkPlan};
/// let config = FrameConfig {
///     dma_frames: FrameCount::ZERO,
///     watermarks: WatermarkPlan::None,
///     ..FrameConfig::default()
/// };
/// assert_eq!(config.max_order, Order::MAX_PAGE_ORDER);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameConfig {
    /// Free blocks are put together up to this order; larger ones cannot be asked for.
    pub max_order: Order,
    /// How many frames, from the first one on, are [`ZoneKind::Dma`]. If there are no more, there is no other zone.
    pub dma_frames: FrameCount,
    /// How much is to stay free.
    pub watermarks: WatermarkPlan,
    /// What falls back from [`ZoneKind::Normal`] leaves one frame of [`ZoneKind::Dma`] for each so many frames of Normal
    /// (`vm.lowmem_reserve_ratio`). 0: it leaves nothing.
    pub lowmem_reserve_ratio: u64,
    /// The lists of single frames that each CPU has.
    pub percpu: PerCpuPlan,
}

impl Default for FrameConfig {
    fn default() -> Self {
        FrameConfig {
            max_order: Order::MAX_PAGE_ORDER,
            // 16 MiB.
            dma_frames: FrameCount::new(4096),
            watermarks: WatermarkPlan::BySize,
            lowmem_reserve_ratio: 256,
            percpu: PerCpuPlan::BySize,
        }
    }
}

/// How long the lists of single frames are that each CPU has for each zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PerCpuPlan {
    /// As Linux does: a batch of up to 63 frames, and lists that together hold what lies below the low watermark.
    #[default]
    BySize,
    /// As said here.
    Fixed {
        /// How many frames go between a list and its zone at once.
        batch: FrameCount,
        /// How many a list holds before a batch goes back.
        high: FrameCount,
    },
    /// No lists: single frames come from their zone as all others do.
    None,
}

/// Lengths of the lists of one zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ListLengths {
    /// At least 1, unless `high` is 0.
    pub(super) batch: usize,
    pub(super) high: usize,
}

impl PerCpuPlan {
    /// mm/page_alloc.c: `zone_batchsize`, `zone_highsize`.
    pub(super) fn of(self, frames: FrameCount, marks: Watermarks, cpus: u16) -> ListLengths {
        let (batch, high) = match self {
            PerCpuPlan::None => (0, 0),
            PerCpuPlan::Fixed { batch, high } => (batch.get(), high.get()),
            PerCpuPlan::BySize => {
                const MOST: u64 = 1024 * 1024 / PAGE_SIZE;
                let quarter = ((frames.get() / 1024).min(MOST) / 4).max(1);
                let power = 1_u64 << (quarter + quarter / 2).ilog2();
                let batch = (power - 1).max(1);
                let share = marks.low.get() / u64::from(cpus.max(1));
                (batch, share.max(4 * batch))
            }
        };
        // A list longer than its zone never fills.
        let most = frames.get();
        ListLengths {
            batch: batch.min(most) as usize,
            high: high.min(most) as usize,
        }
    }
}

/// Why there is no allocator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameConfigError {
    /// The memory has no frames.
    #[error("a memory without frames")]
    NoFrames,
    /// No memory for the books.
    #[error("no memory for the books of {frames}: about {bytes} bytes")]
    Books {
        /// How many frames there are.
        frames: FrameCount,
        /// What their books take.
        bytes: u64,
    },
    /// Watermarks are not in order.
    #[error("watermarks of zone {zone:?} are not in order: {marks:?}")]
    Watermarks {
        /// Which zone.
        zone: ZoneKind,
        /// What was asked for.
        marks: Watermarks,
    },
    /// A list that never fills, or a batch that does not fit into it.
    #[error("lists of {high} with batches of {batch}: a batch is at least 1 and at most the list")]
    PerCpu {
        /// How many frames go at once.
        batch: FrameCount,
        /// How many a list holds.
        high: FrameCount,
    },
}

impl FrameConfig {
    /// What can be told to be wrong before looking at the memory.
    pub(super) fn check(&self) -> Result<(), FrameConfigError> {
        if let WatermarkPlan::Fixed { dma, normal } = self.watermarks {
            for (zone, marks) in [(ZoneKind::Dma, dma), (ZoneKind::Normal, normal)] {
                if !marks.are_in_order() {
                    return Err(FrameConfigError::Watermarks { zone, marks });
                }
            }
        }
        match self.percpu {
            PerCpuPlan::Fixed { batch, high } if batch.is_zero() || batch > high => {
                Err(FrameConfigError::PerCpu { batch, high })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_of_a_large_zone_is_63() {
        let marks = Watermarks {
            low: FrameCount::new(20_000),
            ..Watermarks::default()
        };
        let lengths = PerCpuPlan::BySize.of(FrameCount::new(4 << 18), marks, 4);
        assert_eq!((lengths.batch, lengths.high), (63, 5000));
        let lengths = PerCpuPlan::BySize.of(FrameCount::new(4 << 18), marks, 512);
        assert_eq!((lengths.batch, lengths.high), (63, 252));
    }

    #[test]
    fn a_small_zone_has_short_lists() {
        let lengths = PerCpuPlan::BySize.of(FrameCount::new(1024), Watermarks::default(), 4);
        assert_eq!((lengths.batch, lengths.high), (1, 4));
    }
}
