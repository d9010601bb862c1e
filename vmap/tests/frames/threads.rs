//! Several threads after few frames: no frame is ever two threads'.

use core::sync::atomic::{AtomicU32, Ordering};

use pageless_fault::MaySleep;
use pageless_vmap::frames::{FrameConfig, Gfp, PageBlock, PerCpuPlan};

use crate::memory::run_on;
use crate::{bare, frames, on_cpus, order};

const FRAMES: u64 = 96;
const THREADS: u16 = 4;

/// `cpus`: how many lists the threads share.
fn storm(cpus: u16, percpu: PerCpuPlan, rounds: u32) {
    let config = FrameConfig { percpu, ..bare() };
    let allocator = on_cpus(cpus, FRAMES, config);
    let owners: Vec<AtomicU32> = (0..FRAMES).map(|_| AtomicU32::new(0)).collect();
    let swap = |block: &PageBlock, from: u32, to: u32| {
        for pfn in block.frames() {
            // Relaxed: the frame's hand-over is the allocator's to order, and a second owner shows in whatever order.
            let was = owners[pfn.get() as usize].swap(to, Ordering::Relaxed);
            assert_eq!(was, from, "frame {pfn} is two threads'");
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (allocator, swap) = (&allocator, &swap);
            scope.spawn(move || {
                run_on(thread);
                let ctx = MaySleep::claim();
                let me = u32::from(thread) + 1;
                let mut rng = fastrand::Rng::with_seed(u64::from(me));
                let mut held: Vec<PageBlock> = Vec::new();
                for round in 0..rounds {
                    match rng.u8(..16) {
                        0..9 => {
                            let gfp = if rng.bool() {
                                Gfp::atomic()
                            } else {
                                Gfp::kernel(&ctx)
                            };
                            let wanted = order(rng.u8(..4).saturating_sub(1));
                            if let Ok(block) = allocator.alloc(&gfp, wanted) {
                                swap(&block, 0, me);
                                held.push(block);
                            }
                        }
                        9..14 if !held.is_empty() => {
                            let block = held.swap_remove(rng.usize(..held.len()));
                            swap(&block, me, 0);
                            allocator.free(block);
                        }
                        14 if !held.is_empty() => {
                            let block = held.swap_remove(rng.usize(..held.len()));
                            held.extend(allocator.split(block));
                        }
                        15 if round % 8 == 0 => {
                            allocator.drain_percpu();
                        }
                        _ => {
                            if round % 64 == 0 {
                                allocator.self_check().unwrap();
                            }
                        }
                    }
                }
                for block in held {
                    swap(&block, me, 0);
                    allocator.free(block);
                }
            });
        }
    });
    allocator.self_check().unwrap();
    assert_eq!(allocator.statistics().free(), frames(FRAMES));
    allocator.drain_percpu();
    assert_eq!(allocator.statistics().blocks().of(order(5)), 1);
    assert_eq!(allocator.statistics().blocks().of(order(6)), 1);
    let events = allocator.statistics().events;
    assert!(
        events.no_memory + events.fragmented > 0,
        "memory was never short"
    );
}

fn short_lists() -> PerCpuPlan {
    PerCpuPlan::Fixed {
        batch: frames(3),
        high: frames(7),
    }
}

#[test]
fn no_frame_has_two_owners_with_a_list_for_each_thread() {
    storm(THREADS, short_lists(), 20_000);
}

#[test]
fn no_frame_has_two_owners_with_lists_that_threads_share() {
    storm(2, short_lists(), 20_000);
}

#[test]
fn no_frame_has_two_owners_without_lists() {
    storm(1, PerCpuPlan::None, 20_000);
}

#[test]
fn frames_freed_on_another_cpu_come_round() {
    let config = FrameConfig {
        percpu: short_lists(),
        ..bare()
    };
    let allocator = on_cpus(2, FRAMES, config);
    let (to, from) = std::sync::mpsc::sync_channel::<PageBlock>(8);
    std::thread::scope(|scope| {
        let allocator = &allocator;
        scope.spawn(move || {
            run_on(1);
            from.into_iter().for_each(|block| allocator.free(block));
        });
        run_on(0);
        for _ in 0..20 * FRAMES {
            // At most 8 are on their way, one is here and one there: it cannot fail.
            to.send(allocator.alloc(&Gfp::atomic(), order(0)).unwrap())
                .unwrap();
        }
        drop(to);
    });
    assert_eq!(allocator.statistics().free(), frames(FRAMES));
    allocator.self_check().unwrap();
}
