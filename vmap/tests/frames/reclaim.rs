//! Who is asked for memory when there is little of it.

use alloc::sync::{Arc, Weak};
use std::sync::Mutex;

use pageless_fault::MaySleep;
use pageless_pfn::FrameCount;
use pageless_vmap::frames::{
    FrameConfig, Gfp, PageBlock, PerCpuPlan, Reclaimer, WatermarkPlan, Watermarks,
};

use crate::{Allocator, bare, frames, on_cpus, order};

/// Keeps blocks and gives them back one by one when it is asked.
struct Keeper {
    allocator: Arc<Allocator>,
    kept: Mutex<Vec<PageBlock>>,
    asked: Mutex<Vec<u64>>,
}

impl Keeper {
    fn new(allocator: &Arc<Allocator>, kept: Vec<PageBlock>) -> Arc<Self> {
        Arc::new(Keeper {
            allocator: Arc::clone(allocator),
            kept: Mutex::new(kept),
            asked: Mutex::default(),
        })
    }

    fn asked(&self) -> Vec<u64> {
        self.asked.lock().unwrap().clone()
    }
}

impl Reclaimer for Keeper {
    fn reclaim(&self, _ctx: &MaySleep, wanted: FrameCount) -> FrameCount {
        // All of these take locks of the allocator.
        self.allocator.self_check().unwrap();
        self.allocator.drain_percpu();
        self.asked.lock().unwrap().push(wanted.get());
        let mut kept = self.kept.lock().unwrap();
        let mut freed = 0;
        while freed < wanted.get()
            && let Some(block) = kept.pop()
        {
            freed += block.order().frames().get();
            self.allocator.free(block);
        }
        FrameCount::new(freed)
    }
}

fn weak(keeper: &Arc<Keeper>) -> Weak<dyn Reclaimer> {
    let keeper: Weak<Keeper> = Arc::downgrade(keeper);
    keeper
}

fn all(allocator: &Allocator, of: u8) -> Vec<PageBlock> {
    core::iter::from_fn(|| allocator.alloc(&Gfp::atomic(), order(of)).ok()).collect()
}

fn marked() -> FrameConfig {
    let marks = Watermarks {
        min: frames(8),
        low: frames(16),
        high: frames(24),
    };
    FrameConfig {
        watermarks: WatermarkPlan::Fixed {
            dma: marks,
            normal: marks,
        },
        percpu: PerCpuPlan::Fixed {
            batch: frames(2),
            high: frames(4),
        },
        ..bare()
    }
}

#[test]
fn below_low_it_is_brought_up_to_high() {
    let ctx = MaySleep::claim();
    let allocator = on_cpus(1, 64, marked());
    let kept: Vec<_> = (0..48)
        .map(|_| allocator.alloc(&Gfp::atomic(), order(0)).unwrap())
        .collect();
    let keeper = Keeper::new(&allocator, kept);
    let _guard = allocator.register_reclaimer(weak(&keeper));
    let first = allocator.alloc(&Gfp::kernel(&ctx), order(0)).unwrap();
    let second = allocator.alloc(&Gfp::kernel(&ctx), order(0)).unwrap();
    // 16 were free, which is low itself; then 15.
    assert_eq!(keeper.asked(), [9]);
    assert_eq!(allocator.statistics().free(), frames(24 - 1));
    let events = allocator.statistics().events;
    assert_eq!((events.reclaims, events.reclaimed), (1, 9));
    allocator.free(first);
    allocator.free(second);
}

#[test]
fn a_large_block_is_put_together_from_what_comes_back() {
    let ctx = MaySleep::claim();
    let allocator = on_cpus(1, 64, bare());
    let keeper = Keeper::new(&allocator, all(&allocator, 0));
    let _guard = allocator.register_reclaimer(weak(&keeper));
    let block = allocator.alloc(&Gfp::kernel(&ctx), order(4)).unwrap();
    assert_eq!(keeper.asked(), [16]);
    allocator.free(block);
}

#[test]
fn who_may_not_sleep_or_will_not_retry_asks_nobody() {
    let ctx = MaySleep::claim();
    let allocator = on_cpus(1, 64, bare());
    let keeper = Keeper::new(&allocator, all(&allocator, 0));
    let _guard = allocator.register_reclaimer(weak(&keeper));
    assert!(allocator.alloc(&Gfp::atomic(), order(0)).is_err());
    assert!(
        allocator
            .alloc(&Gfp::kernel(&ctx).no_retry(), order(0))
            .is_err()
    );
    assert_eq!(keeper.asked(), []);
    assert_eq!(allocator.statistics().events.reclaims, 0);
}

#[test]
fn one_after_the_other_is_asked_until_there_is_enough() {
    let ctx = MaySleep::claim();
    let allocator = on_cpus(1, 64, bare());
    let mut blocks = all(&allocator, 0);
    blocks.sort_by_key(PageBlock::pfn);
    let third = blocks.split_off(40);
    let second = blocks.split_off(20);
    let keepers: Vec<_> = [blocks, second, third]
        .into_iter()
        .map(|kept| Keeper::new(&allocator, kept))
        .collect();
    let guards: Vec<_> = keepers
        .iter()
        .map(|keeper| allocator.register_reclaimer(weak(keeper)))
        .collect();
    // The frames 0..16 come last of the first keeper's.
    let block = allocator.alloc(&Gfp::kernel(&ctx), order(4)).unwrap();
    assert_eq!(keepers[0].asked(), [16, 16]);
    assert_eq!(keepers[1].asked(), [12]);
    assert_eq!(keepers[2].asked(), []);
    drop((block, guards));
}

#[test]
fn nobody_is_asked_after_its_guard_has_gone_and_nobody_twice_who_found_nothing() {
    let ctx = MaySleep::claim();
    let allocator = on_cpus(1, 64, bare());
    let (gone, empty) = (
        Keeper::new(&allocator, all(&allocator, 0)),
        Keeper::new(&allocator, Vec::new()),
    );
    let guard = allocator.register_reclaimer(weak(&gone));
    let _stays = allocator.register_reclaimer(weak(&empty));
    drop(guard);
    assert!(allocator.alloc(&Gfp::kernel(&ctx), order(0)).is_err());
    assert_eq!((gone.asked(), empty.asked()), (vec![], vec![1]));
    // Whoever is dropped without a word is not asked either.
    let forgotten = Keeper::new(&allocator, Vec::new());
    let _guard = allocator.register_reclaimer(weak(&forgotten));
    drop(forgotten);
    assert!(allocator.alloc(&Gfp::kernel(&ctx), order(0)).is_err());
}

#[test]
fn reclaim_that_helps_nobody_ends() {
    /// Says that it freed something.
    struct Liar;
    impl Reclaimer for Liar {
        fn reclaim(&self, _ctx: &MaySleep, wanted: FrameCount) -> FrameCount {
            wanted
        }
    }
    let ctx = MaySleep::claim();
    let allocator = on_cpus(1, 64, bare());
    let _held = all(&allocator, 0);
    let liar = Arc::new(Liar);
    let weak: Weak<Liar> = Arc::downgrade(&liar);
    let _guard = allocator.register_reclaimer(weak);
    assert!(allocator.alloc(&Gfp::kernel(&ctx), order(0)).is_err());
    assert_eq!(allocator.statistics().events.reclaims, 16);
}

#[test]
fn a_large_block_that_would_go_below_low_is_reclaimed_for_first() {
    let ctx = MaySleep::claim();
    let allocator = on_cpus(1, 64, marked());
    // 32 stay free.
    let kept: Vec<_> = (0..32)
        .map(|_| allocator.alloc(&Gfp::atomic(), order(0)).unwrap())
        .collect();
    let keeper = Keeper::new(&allocator, kept);
    let _guard = allocator.register_reclaimer(weak(&keeper));
    let small = allocator.alloc(&Gfp::kernel(&ctx), order(3)).unwrap();
    assert_eq!(keeper.asked(), []);
    let large = allocator.alloc(&Gfp::kernel(&ctx), order(4)).unwrap();
    // 24 were free: up to high, and 16 more.
    assert_eq!(keeper.asked(), [24 + 16 - 24]);
    assert_eq!(allocator.statistics().free(), frames(24));
    allocator.free(small);
    allocator.free(large);
}

#[test]
fn nobody_is_asked_while_another_zone_has_enough() {
    let ctx = MaySleep::claim();
    let config = FrameConfig {
        dma_frames: frames(32),
        lowmem_reserve_ratio: 0,
        percpu: PerCpuPlan::None,
        ..marked()
    };
    let allocator = on_cpus(1, 64, config);
    let mut held: Vec<_> = (0..32)
        .map(|_| allocator.alloc(&Gfp::atomic(), order(0)).unwrap())
        .collect();
    // Both zones are at their low mark.
    assert_eq!(allocator.statistics().events.zone_fallbacks, 16);
    let keeper = Keeper::new(&allocator, held.split_off(8));
    let _guard = allocator.register_reclaimer(weak(&keeper));
    let last = held.pop().unwrap();
    assert!(last.pfn().get() >= 32);
    allocator.free(last);
    held.push(allocator.alloc(&Gfp::kernel(&ctx), order(0)).unwrap());
    assert_eq!(keeper.asked(), []);
    held.push(allocator.alloc(&Gfp::kernel(&ctx), order(0)).unwrap());
    // Normal lacks 8 of high, and the one that was asked for.
    assert_eq!(keeper.asked(), [9]);
    held.into_iter().for_each(|block| allocator.free(block));
}

#[test]
fn that_the_other_zone_is_in_pieces_is_no_reason_to_ask() {
    let ctx = MaySleep::claim();
    let marks = Watermarks {
        min: frames(8),
        low: frames(16),
        high: frames(24),
    };
    let config = FrameConfig {
        dma_frames: frames(32),
        lowmem_reserve_ratio: 0,
        watermarks: WatermarkPlan::Fixed {
            dma: Watermarks::default(),
            normal: marks,
        },
        ..bare()
    };
    let allocator = on_cpus(1, 64, config);
    let single = |gfp: &Gfp<'_>| allocator.alloc(gfp, order(0)).unwrap();
    let dma: Vec<_> = (0..32).map(|_| single(&Gfp::atomic().dma())).collect();
    let mut held: Vec<_> = (0..16).map(|_| single(&Gfp::atomic())).collect();
    // Every second frame of Dma is free; 16 in one piece in Normal.
    let (even, odd): (Vec<_>, Vec<_>) = dma.into_iter().partition(|b| b.pfn().get() % 2 == 0);
    even.into_iter().for_each(|block| allocator.free(block));
    let keeper = Keeper::new(&allocator, odd);
    let _guard = allocator.register_reclaimer(weak(&keeper));
    held.push(allocator.alloc(&Gfp::kernel(&ctx), order(2)).unwrap());
    assert_eq!(keeper.asked(), []);
    held.into_iter().for_each(|block| allocator.free(block));
}
