//! How much stays free, and for whom.
//!
//! ```text
//!   free frames
//!     high  - - - - - - - - - - - - -  reclaim goes on up to here
//!     low   - - - - - - - - - - - - -  below: whoever may sleep reclaims first
//!     min   - - - - - - - - - - - - -  below: whoever may sleep has nothing
//!     3/8 min - - - - - - - - - - - -  below: nobody has anything
//! ```
//!
//! To each of them comes the [reserve](ZoneKind) of a zone that others fall back to. The rules are those of Linux (mm/page_alloc.c:
//! `__zone_watermark_ok`, `__setup_per_zone_wmarks`, `setup_per_zone_lowmem_reserve`).

use pageless_pfn::{FrameCount, PAGE_SIZE};

use super::gfp::ZoneKind;
use super::order::Order;

/// Free frames of a zone at which something changes: `min <= low <= high`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watermarks {
    /// Below it only who cannot sleep is served, and down to 3/8 of it.
    pub min: FrameCount,
    /// Below it whoever may sleep reclaims before it is served.
    pub low: FrameCount,
    /// Where reclaim stops.
    pub high: FrameCount,
}

/// How the watermarks of the zones are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WatermarkPlan {
    /// As Linux does: `min` of all zones together is 4 times the root of the memory in KiB, between 128 KiB and 256 MiB.
    #[default]
    BySize,
    /// `min` of all zones together (`vm.min_free_kbytes`).
    MinFree(FrameCount),
    /// For each zone what is said here.
    Fixed {
        /// Of [`ZoneKind::Dma`].
        dma: Watermarks,
        /// Of [`ZoneKind::Normal`].
        normal: Watermarks,
    },
    /// None: the last frame goes to whoever asks for it.
    None,
}

impl WatermarkPlan {
    /// The marks of a zone of `frames`, of memory of `all`.
    pub(super) fn of(self, kind: ZoneKind, frames: FrameCount, all: FrameCount) -> Watermarks {
        match (self, kind) {
            (WatermarkPlan::BySize, _) => Watermarks::linux(min_free(all), frames, all),
            (WatermarkPlan::MinFree(min), _) => Watermarks::linux(min, frames, all),
            (WatermarkPlan::Fixed { dma, .. }, ZoneKind::Dma) => dma,
            (WatermarkPlan::Fixed { normal, .. }, ZoneKind::Normal) => normal,
            (WatermarkPlan::None, _) => Watermarks::default(),
        }
    }
}

impl Watermarks {
    /// Of a zone of `frames`, if all of memory is to have `min_free`. The marks are a quarter of `min` apart, or 0.1 % of the zone.
    fn linux(min_free: FrameCount, frames: FrameCount, all: FrameCount) -> Self {
        let share = u128::from(min_free.get()) * u128::from(frames.get());
        // A share of `min_free`: it fits.
        let min = (share / u128::from(all.get().max(1))) as u64;
        let apart = (min / 4).max(frames.get() / 1000);
        Watermarks {
            min: FrameCount::new(min),
            low: FrameCount::new(min.saturating_add(apart)),
            high: FrameCount::new(min.saturating_add(apart.saturating_mul(2))),
        }
    }

    pub(super) fn are_in_order(self) -> bool {
        self.min <= self.low && self.low <= self.high
    }
}

/// `min` of all zones together, by the size of memory.
fn min_free(all: FrameCount) -> FrameCount {
    const FRAME_KIB: u64 = PAGE_SIZE / 1024;
    let kib = all.get().saturating_mul(FRAME_KIB);
    let free = kib.saturating_mul(16).isqrt().clamp(128, 256 * 1024);
    FrameCount::new(free / FRAME_KIB)
}

/// Down to where an allocation may go, or up to where reclaim goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    High,
    Low,
    Min,
    /// Half of `min`, and a quarter of that less (`ALLOC_MIN_RESERVE` and `ALLOC_NON_BLOCK`).
    Reserve,
}

impl Mark {
    pub(super) const fn of(self, marks: Watermarks) -> FrameCount {
        match self {
            Mark::High => marks.high,
            Mark::Low => marks.low,
            Mark::Min => marks.min,
            Mark::Reserve => {
                let half = marks.min.get() - marks.min.get() / 2;
                FrameCount::new(half - half / 4)
            }
        }
    }
}

/// Whether a zone in which `free` frames are free may give a block of `order`, if `keep` are to stay.
pub(super) const fn permits(free: FrameCount, order: Order, keep: FrameCount) -> bool {
    match free.checked_sub(order.frames()) {
        Some(left) => left.get() >= keep.get(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_marks_of_known_machines() {
        // 16 GiB: min_free_kbytes 16384; 64 GiB: 32768, as a machine with no highmem and no huge pages reports.
        for (gib, kib) in [(1_u64, 4096), (16, 16384), (64, 32768)] {
            let all = FrameCount::new(gib << 18);
            assert_eq!(min_free(all), FrameCount::new(kib / 4), "{gib} GiB");
        }
        assert_eq!(min_free(FrameCount::new(16)), FrameCount::new(32));
        assert_eq!(min_free(FrameCount::new(1 << 40)), FrameCount::new(65536));
    }

    #[test]
    fn marks_of_a_zone_are_its_share() {
        let all = FrameCount::new(4 << 18);
        let marks = WatermarkPlan::MinFree(FrameCount::new(4096)).of(
            ZoneKind::Normal,
            FrameCount::new(3 << 18),
            all,
        );
        assert_eq!(marks.min, FrameCount::new(3072));
        assert_eq!(marks.low, FrameCount::new(3072 + 786));
        assert_eq!(marks.high, FrameCount::new(3072 + 2 * 786));
        assert!(marks.are_in_order());
    }

    #[test]
    fn the_reserve_is_three_eighths_of_min() {
        let marks = Watermarks {
            min: FrameCount::new(80),
            low: FrameCount::new(100),
            high: FrameCount::new(120),
        };
        assert_eq!(Mark::Reserve.of(marks), FrameCount::new(30));
    }
}
