//! Who gets what when little is left.

use pageless_fault::MaySleep;
use pageless_pfn::Pfn;
use pageless_vmap::frames::{
    AllocError, FrameConfig, FrameConfigError, Gfp, PageBlock, PerCpuPlan, WatermarkPlan,
    Watermarks, ZoneKind,
};

use crate::{Allocator, HeapMemory, allocator, bare, frames, order};

fn marks(min: u64, low: u64, high: u64) -> Watermarks {
    Watermarks {
        min: frames(min),
        low: frames(low),
        high: frames(high),
    }
}

/// One zone with these marks.
fn marked(min: u64, low: u64, high: u64) -> FrameConfig {
    FrameConfig {
        watermarks: WatermarkPlan::Fixed {
            dma: Watermarks::default(),
            normal: marks(min, low, high),
        },
        ..bare()
    }
}

fn take_all(frames: &Allocator, gfp: &Gfp<'_>) -> (Vec<PageBlock>, AllocError) {
    let mut held = Vec::new();
    loop {
        match frames.alloc(gfp, order(0)) {
            Ok(block) => held.push(block),
            Err(error) => return (held, error),
        }
    }
}

#[test]
fn who_may_sleep_stops_at_min_and_who_may_not_at_three_eighths_of_it() {
    let ctx = MaySleep::claim();
    for percpu in [
        PerCpuPlan::None,
        PerCpuPlan::Fixed {
            batch: frames(7),
            high: frames(20),
        },
    ] {
        let config = FrameConfig {
            percpu,
            ..marked(16, 20, 24)
        };
        let allocator = allocator(0, 128, config);
        let (held, error) = take_all(&allocator, &Gfp::kernel(&ctx));
        assert_eq!(held.len(), 128 - 16);
        let expected = |free, keep| AllocError::BelowWatermark {
            order: order(0),
            free: frames(free),
            keep: frames(keep),
        };
        assert_eq!(error, expected(16, 16));
        assert_eq!(allocator.statistics().events.from_reserve, 0);
        let (more, error) = take_all(&allocator, &Gfp::atomic());
        assert_eq!(more.len(), 10);
        assert_eq!(error, expected(6, 6));
        assert_eq!(allocator.statistics().events.from_reserve, 10);
        assert_eq!(allocator.statistics().events.below_watermark, 2);
        for block in held.into_iter().chain(more) {
            allocator.free(block);
        }
        allocator.self_check().unwrap();
        // Above the marks nothing of this is to be seen.
        let slow = allocator.statistics().events.slow;
        allocator.free(allocator.alloc(&Gfp::atomic(), order(0)).unwrap());
        assert_eq!(allocator.statistics().events.slow, slow);
    }
}

#[test]
fn a_large_block_counts_as_a_whole_against_the_mark() {
    let ctx = MaySleep::claim();
    let allocator = allocator(0, 64, marked(32, 32, 32));
    let block = allocator.alloc(&Gfp::kernel(&ctx), order(4)).unwrap();
    assert_eq!(
        allocator.alloc(&Gfp::kernel(&ctx), order(5)),
        Err(AllocError::BelowWatermark {
            order: order(5),
            free: frames(48),
            keep: frames(32)
        })
    );
    let other = allocator.alloc(&Gfp::kernel(&ctx), order(4)).unwrap();
    assert!(allocator.alloc(&Gfp::kernel(&ctx), order(0)).is_err());
    allocator.free(block);
    allocator.free(other);
}

#[test]
fn normal_falls_back_to_dma_and_leaves_its_reserve() {
    let ctx = MaySleep::claim();
    let config = FrameConfig {
        dma_frames: frames(32),
        lowmem_reserve_ratio: 8,
        watermarks: WatermarkPlan::Fixed {
            dma: marks(4, 4, 4),
            normal: Watermarks::default(),
        },
        ..bare()
    };
    let allocator = allocator(16, 32 + 96, config);
    let (held, error) = take_all(&allocator, &Gfp::kernel(&ctx));
    // 96 of its own; of the 32 of Dma stay 4, and 96 / 8.
    assert_eq!(held.len(), 96 + 32 - 4 - 12);
    assert_eq!(
        error,
        AllocError::BelowWatermark {
            order: order(0),
            free: frames(16),
            keep: frames(16)
        }
    );
    let limit = Pfn::try_new(16 + 32).unwrap();
    let (own, fallen): (Vec<_>, Vec<_>) = held.into_iter().partition(|b| b.pfn() >= limit);
    assert_eq!((own.len(), fallen.len()), (96, 16));
    assert_eq!(allocator.statistics().events.zone_fallbacks, 16);
    // Who asks for Dma has the reserve.
    let (dma, _) = take_all(&allocator, &Gfp::kernel(&ctx).dma());
    assert_eq!(dma.len(), 12);
    assert!(dma.iter().all(|block| block.pfn() < limit));
    // And nothing else, however much there is.
    own.into_iter().for_each(|block| allocator.free(block));
    assert!(allocator.alloc(&Gfp::kernel(&ctx).dma(), order(0)).is_err());
    let zones = allocator.statistics().zones;
    assert_eq!(
        (zones[0].kind, zones[1].kind),
        (ZoneKind::Dma, ZoneKind::Normal)
    );
    assert_eq!(
        (zones[0].owned(), zones[1].owned()),
        (frames(28), frames(0))
    );
    for block in fallen.into_iter().chain(dma) {
        allocator.free(block);
    }
    allocator.self_check().unwrap();
}

#[test]
fn the_default_has_the_marks_of_linux() {
    // 64 MiB: min_free_kbytes is 1024, a quarter of which (16 of 64 MiB) is Dma's.
    let allocator = allocator(0, 64 << 8, FrameConfig::default());
    let zones = allocator.statistics().zones;
    assert_eq!(zones[0].watermarks, marks(64, 80, 96));
    assert_eq!(zones[1].watermarks, marks(192, 240, 288));
    assert_eq!(zones[0].reserve, frames((48 << 8) / 256));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let memory = HeapMemory::new(0, 16, 1);
    let why = |config| Allocator::new(memory.clone(), config).unwrap_err();
    assert_eq!(
        why(marked(3, 2, 4)),
        FrameConfigError::Watermarks {
            zone: ZoneKind::Normal,
            marks: marks(3, 2, 4)
        }
    );
    let (batch, high) = (frames(4), frames(3));
    let percpu = PerCpuPlan::Fixed { batch, high };
    assert_eq!(
        why(FrameConfig { percpu, ..bare() }),
        FrameConfigError::PerCpu { batch, high }
    );
    let none = Allocator::new(HeapMemory::new(0, 0, 1), bare());
    assert_eq!(none.unwrap_err(), FrameConfigError::NoFrames);
}
