//! Frames from the buddy allocator: all of them come back, whatever fails in between.

use alloc::sync::Arc;

use pageless_fault::{FrameMemory, MaySleep};
use pageless_pfn::FrameCount;
use pageless_vmap::frames::{FrameAllocator, FrameConfig, Gfp, Injection, WatermarkPlan};
use pageless_vmap::zsmalloc::{MallocError, Zsmalloc};

use super::rig::{host_ram, store, text};

fn allocator(frames: u64) -> FrameAllocator<impl FrameMemory> {
    let config = FrameConfig {
        dma_frames: FrameCount::ZERO,
        watermarks: WatermarkPlan::None,
        ..FrameConfig::default()
    };
    FrameAllocator::new(Arc::new(host_ram(frames)), config).unwrap()
}

fn free_frames(allocator: &FrameAllocator<impl FrameMemory>) -> u64 {
    allocator.drain_percpu();
    let ctx = MaySleep::claim();
    let mut taken = Vec::new();
    let order = pageless_vmap::frames::Order::ZERO;
    while let Ok(block) = allocator.alloc(&Gfp::kernel(&ctx).no_retry(), order) {
        taken.push(block);
    }
    let free = taken.len() as u64;
    for block in taken {
        allocator.free(block);
    }
    free
}

#[test]
fn a_pool_takes_all_frames_there_are_and_gives_them_all_back() {
    let allocator = allocator(256);
    let all = free_frames(&allocator);
    let pool = Zsmalloc::new(&allocator);
    let ctx = MaySleep::claim();
    let mut objects = Vec::new();
    let missing = loop {
        let bytes = text(objects.len() as u64, 900 + objects.len() % 3000);
        match pool.malloc(&Gfp::kernel(&ctx), bytes.len()) {
            Ok(handle) => {
                pool.write(&handle, &bytes).unwrap();
                objects.push((handle, bytes));
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(missing, MallocError::NoFrame { .. }), "{missing}");
    assert!(all - pool.pages_used().get() < 8);
    assert_eq!(pool.self_check(), Ok(()));
    for (handle, bytes) in objects {
        let seen = pool.segments(&handle, |first, second| [first, second].concat());
        assert_eq!(seen, Ok(bytes));
        pool.free(handle).unwrap();
    }
    assert_eq!(free_frames(&allocator), all);
}

#[test]
fn an_allocation_that_fails_at_any_frame_leaves_no_frame_behind() {
    let allocator = allocator(64);
    let all = free_frames(&allocator);
    let pool = Zsmalloc::new(&allocator);
    let ctx = MaySleep::claim();
    // A zspage of the most frames.
    let shapes = pool.class_table().shapes().iter();
    let shape = *shapes.max_by_key(|shape| shape.pages).unwrap();
    assert_eq!(shape.pages, 8);
    for nth in 0..shape.pages {
        allocator.inject(Some(Injection::Nth(nth.into())));
        let missing = MallocError::NoFrame {
            had: nth,
            wanted: shape.pages,
        };
        let answer = pool.malloc(&Gfp::kernel(&ctx), shape.capacity());
        assert_eq!(answer, Err(missing));
        assert_eq!(allocator.inject(None).failures, 1);
        assert_eq!(free_frames(&allocator), all, "frame {nth}");
    }
    pool.free(store(&pool, &text(0, shape.capacity()))).unwrap();
    assert_eq!(free_frames(&allocator), all);
}
