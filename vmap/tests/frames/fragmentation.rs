//! Memory that is free in pieces too small, and what the statistics say of it.

use pageless_fault::MaySleep;
use pageless_vmap::frames::{
    AllocError, Fragmentation, FrameConfig, FreeBlockCounts, Gfp, PageBlock, PerCpuPlan, PerMille,
    WatermarkPlan,
};

use crate::{Allocator, allocator, bare, frames, order};

fn take_all(frames: &Allocator, gfp: &Gfp<'_>, of: u8) -> Vec<PageBlock> {
    core::iter::from_fn(|| frames.alloc(gfp, order(of)).ok()).collect()
}

#[test]
fn every_large_allocation_fails_and_single_frames_succeed_until_none_is_left() {
    let ctx = MaySleep::claim();
    let allocator = allocator(3, 2048, bare());
    for seed in 0..20 {
        for (wanted, keep_free) in [(4, 500), (4, 900), (1, 400), (9, 990), (10, 0)] {
            let fragmented = allocator
                .fragment(Fragmentation {
                    order: order(wanted),
                    keep_free,
                    seed,
                })
                .unwrap();
            allocator.self_check().unwrap();
            let free = allocator.statistics().free().get();
            assert_eq!(free + fragmented.taken().get(), 2048);
            assert_eq!(free, 2048 * u64::from(keep_free) / 1000);
            for larger in wanted..=10 {
                match allocator.alloc(&Gfp::kernel(&ctx), order(larger)) {
                    Err(AllocError::Fragmented {
                        free: all, largest, ..
                    }) => {
                        assert_eq!(all, frames(free));
                        assert!(largest < order(wanted));
                        assert!(free >= 1 << larger);
                    }
                    Err(AllocError::NoMemory { free: all, .. }) => {
                        assert_eq!(all, frames(free));
                        assert!(free < 1 << larger);
                    }
                    other => panic!("order {larger}: {other:?}"),
                }
            }
            let single = take_all(&allocator, &Gfp::kernel(&ctx), 0);
            assert_eq!(single.len() as u64, free);
            assert_eq!(
                allocator.alloc(&Gfp::kernel(&ctx), order(0)),
                Err(AllocError::NoMemory {
                    order: order(0),
                    free: frames(0)
                })
            );
            single.into_iter().for_each(|block| allocator.free(block));
            drop(fragmented);
            allocator.self_check().unwrap();
            assert_eq!(allocator.statistics().free(), frames(2048));
        }
    }
    // Frames 3 to 2050: nothing of all that is left.
    let blocks = allocator.statistics().blocks();
    assert_eq!(blocks.by_order(), [2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
}

#[test]
fn one_seed_is_one_pattern() {
    let pattern = |seed| {
        let allocator = allocator(0, 512, bare());
        let how = Fragmentation {
            order: order(3),
            keep_free: 600,
            seed,
        };
        let _fragmented = allocator.fragment(how).unwrap();
        let free: Vec<_> = take_all(&allocator, &Gfp::atomic(), 0);
        free.iter().map(PageBlock::pfn).collect::<Vec<_>>()
    };
    assert_eq!(pattern(1), pattern(1));
    assert_ne!(pattern(1), pattern(2));
}

#[test]
fn what_was_owned_before_stays_owned_and_its_neighbours_do_not_merge_when_it_goes() {
    let allocator = allocator(0, 256, bare());
    let mut held = take_all(&allocator, &Gfp::atomic(), 0);
    // Every second frame is somebody's.
    let (kept, freed): (Vec<_>, Vec<_>) = held.drain(..).partition(|b| b.pfn().get() % 2 == 0);
    freed.into_iter().for_each(|block| allocator.free(block));
    let how = Fragmentation {
        order: order(2),
        keep_free: 1000,
        seed: 5,
    };
    let fragmented = allocator.fragment(how).unwrap();
    assert_eq!(fragmented.taken(), frames(64));
    for block in kept {
        assert!(allocator.alloc(&Gfp::atomic(), order(2)).is_err());
        allocator.free(block);
    }
    assert!(allocator.alloc(&Gfp::atomic(), order(2)).is_err());
    drop(fragmented);
    assert_eq!(allocator.statistics().blocks().of(order(8)), 1);
}

#[test]
fn fragmenting_sees_neither_watermarks_nor_injection_nor_lists() {
    let ctx = MaySleep::claim();
    let config = FrameConfig {
        watermarks: WatermarkPlan::MinFree(frames(64)),
        percpu: PerCpuPlan::Fixed {
            batch: frames(8),
            high: frames(16),
        },
        ..bare()
    };
    let allocator = allocator(0, 256, config);
    let block = allocator.alloc(&Gfp::kernel(&ctx), order(0)).unwrap();
    allocator.inject(Some(pageless_vmap::frames::Injection::FromOrder(order(0))));
    let how = Fragmentation {
        order: order(4),
        keep_free: 0,
        seed: 1,
    };
    let fragmented = allocator.fragment(how).unwrap();
    assert_eq!(fragmented.taken(), frames(255));
    assert_eq!(allocator.statistics().free(), frames(0));
    assert_eq!(allocator.injected().visits, 0);
    drop(fragmented);
    allocator.free(block);
    allocator.drain_percpu();
    assert_eq!(allocator.statistics().blocks().of(order(8)), 1);
}

#[test]
fn indices_of_a_known_pattern() {
    let allocator = allocator(0, 64, bare());
    // Frames 0..32 are one block; of the other 32 every second one is free.
    let lower = allocator.alloc(&Gfp::atomic(), order(5)).unwrap();
    let mut upper = take_all(&allocator, &Gfp::atomic(), 0);
    let (odd, _even): (Vec<_>, Vec<_>) = upper.drain(..).partition(|b| b.pfn().get() % 2 == 1);
    odd.into_iter().for_each(|block| allocator.free(block));
    allocator.free(lower);
    let statistics = allocator.statistics();
    let free = statistics.blocks();
    assert_eq!(free.by_order(), [16, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
    assert_eq!(free.frames(), frames(48));
    assert_eq!((free.suitable(order(2)), free.suitable(order(5))), (8, 1));
    assert_eq!(free.unusable_index(order(0)), PerMille(0));
    assert_eq!(free.unusable_index(order(3)), PerMille(333));
    assert_eq!(free.unusable_index(order(6)), PerMille(1000));
    assert_eq!(free.fragmentation_index(order(5)), None);
    // 48 frames would do for 0.75 of a block of 64, and lie in 17 pieces.
    assert_eq!(
        free.fragmentation_index(order(6)),
        Some(PerMille(1000 - 1750 / 17))
    );
    assert_eq!(
        statistics.to_string(),
        "Node 0, zone   Normal     16      0      0      0      0      1      0      0      0      0      0\n"
    );
}

#[test]
fn indices_of_nothing() {
    let none = FreeBlockCounts::default();
    assert_eq!(none.unusable_index(order(0)), PerMille(1000));
    assert_eq!(none.fragmentation_index(order(4)), Some(PerMille(0)));
    // Half of what is asked for, in one piece: it is memory that is lacking.
    let half = FreeBlockCounts::new([0, 1]);
    assert_eq!(half.fragmentation_index(order(2)), Some(PerMille(-500)));
    assert_eq!(PerMille(-500).to_string(), "-0.500");
    assert_eq!(PerMille(1000).to_string(), "1.000");
}
