//! Hazard: two threads at once. On the host, where there are threads.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::Mutex;
use std::sync::mpsc::{TrySendError, sync_channel};
use std::thread;

use pageless_fault::{MaySleep, VirtAddr};
use pageless_pfn::{ByteLen, PAGE_SIZE};
use pageless_vmap::buffer_pool::BufferPool;
use pageless_vmap::frames::Gfp;
use pageless_vmap::slab::{SlabCache, SlabConfig};
use pageless_vmap::wait_table::WaitTable;

use super::rig::{Host, Rig, Size, order};

#[test]
fn objects_go_from_hand_to_hand_and_stay_what_they_are() {
    Host::run(Size::default(), |world| {
        let pages = &world.pages;
        for is_virtual in [false, true] {
            pages.always_fall_back(is_virtual);
            let mut config = SlabConfig::new("stress", ByteLen::new(200), order(1));
            config.min_partial = 1;
            let cache = SlabCache::new(Arc::clone(pages), config).unwrap();
            // Everybody gives what he allocated to his neighbour, who frees it.
            thread::scope(|scope| {
                let (mut senders, mut receivers) = (Vec::new(), Vec::new());
                for _ in 0..4 {
                    let (sender, receiver) = sync_channel::<(VirtAddr, [u8; 200])>(64);
                    senders.push(sender);
                    receivers.push(receiver);
                }
                senders.rotate_left(1);
                for (me, (sender, receiver)) in (1_u8..).zip(senders.into_iter().zip(receivers)) {
                    let cache = &cache;
                    scope.spawn(move || {
                        let ctx = MaySleep::claim();
                        let free = |(object, bytes): (VirtAddr, [u8; 200])| {
                            let mut found = [0; 200];
                            pages.read(object, &mut found).unwrap();
                            assert_eq!(found, bytes);
                            cache.free(object).unwrap();
                        };
                        for n in 0..2000_u32 {
                            let object = cache.alloc(&Gfp::kernel(&ctx)).unwrap();
                            let bytes = [(n as u8).wrapping_mul(me); 200];
                            pages.write(object, &bytes).unwrap();
                            if n % 3 == 0 {
                                free((object, bytes));
                            } else {
                                let mut given = (object, bytes);
                                while let Err(refused) = sender.try_send(given) {
                                    given = match refused {
                                        TrySendError::Full(given) => given,
                                        TrySendError::Disconnected(_) => panic!("alone"),
                                    };
                                    if let Ok(got) = receiver.try_recv() {
                                        free(got);
                                    }
                                    thread::yield_now();
                                }
                            }
                            while let Ok(got) = receiver.try_recv() {
                                free(got);
                            }
                            if n % 500 == 0 {
                                cache.shrink(&ctx);
                            }
                        }
                        drop(sender);
                        receiver.into_iter().for_each(free);
                    });
                }
            });
            cache.self_check().unwrap();
            let statistics = cache.statistics();
            assert_eq!((statistics.allocated, statistics.freed), (8000, 8000));
            assert_eq!((statistics.out, statistics.damaged), (0, 0));
            cache.shrink(&world.ctx);
            assert_eq!(cache.statistics().slabs, 0);
            drop(cache);
            world.nothing_remains();
        }
    });
}

#[test]
fn a_buffer_has_one_owner_at_a_time() {
    Host::run(Size::default(), |world| {
        let pages = &world.pages;
        for is_virtual in [false, true] {
            pages.always_fall_back(is_virtual);
            let pool = BufferPool::new(Arc::clone(pages), order(3), 2);
            thread::scope(|scope| {
                for me in 1..=4_u8 {
                    let pool = &pool;
                    scope.spawn(move || {
                        let ctx = MaySleep::claim();
                        for n in 0..500_u32 {
                            let buffer = pool.get(&Gfp::kernel(&ctx)).unwrap();
                            for page in 0..8 {
                                buffer.write(page * PAGE_SIZE, &[me; 64]).unwrap();
                            }
                            for page in 0..8 {
                                let mut found = [0; 64];
                                buffer.read(page * PAGE_SIZE, &mut found).unwrap();
                                assert_eq!(found, [me; 64]);
                            }
                            drop(buffer);
                            if n % 100 == 0 {
                                pool.drain(&ctx);
                            }
                        }
                    });
                }
            });
            let statistics = pool.statistics();
            assert_eq!(statistics.reused + statistics.made, 2000);
            drop(pool);
            world.nothing_remains();
        }
    });
}

#[test]
fn who_waits_is_woken_in_turn_and_nobody_else_is() {
    Host::run(Size::default(), |world| {
        let pages = &world.pages;
        let gfp = Gfp::kernel(&world.ctx).virtual_fallback();
        for is_virtual in [false, true] {
            pages.always_fall_back(is_virtual);
            // One bucket page: keys share buckets.
            let table = WaitTable::new(pages, &gfp, 1).unwrap();
            let block = pages.alloc(&gfp, order(2)).unwrap();
            let second = block.address().checked_add(PAGE_SIZE).unwrap();
            let key = table.bit_waitqueue(second, 0).unwrap();
            let other = table.bit_waitqueue(second, 1).unwrap();
            let turn = AtomicU32::new(0);
            let order_of_waking = Mutex::new(Vec::new());
            let done = AtomicBool::new(false);
            // Who has asked twice, and is not told that it is over, stands in the queue until he is woken.
            let asked = AtomicU32::new(0);
            let all_have_asked = |times: u32| {
                while asked.load(Ordering::Acquire) < times {
                    thread::yield_now();
                }
            };
            thread::scope(|scope| {
                for me in 0..4_u32 {
                    let (table, turn, order_of_waking) = (&table, &turn, &order_of_waking);
                    let asked = &asked;
                    scope.spawn(move || {
                        let ctx = MaySleep::claim();
                        table.wait(&ctx, key, || {
                            let is_over = turn.load(Ordering::Acquire) > me;
                            asked.fetch_add(1, Ordering::Release);
                            is_over
                        });
                        order_of_waking.lock().unwrap().push(me);
                    });
                    all_have_asked(2 * (me + 1));
                    assert_eq!(table.waiting(key), me as usize + 1);
                }
                let waits_for_other = scope.spawn(|| {
                    let ctx = MaySleep::claim();
                    table.wait(&ctx, other, || {
                        let is_over = done.load(Ordering::Acquire);
                        asked.fetch_add(1, Ordering::Release);
                        is_over
                    });
                });
                all_have_asked(10);
                assert_eq!(table.waiting(other), 1);
                for me in 0..4 {
                    turn.store(me + 1, Ordering::Release);
                    assert_eq!(table.wake(key, 1), 1);
                    while order_of_waking.lock().unwrap().len() <= me as usize {
                        thread::yield_now();
                    }
                }
                assert_eq!(table.waiting(other), 1);
                assert!(!waits_for_other.is_finished());
                done.store(true, Ordering::Release);
                assert_eq!(table.wake(other, usize::MAX), 1);
            });
            assert_eq!(*order_of_waking.lock().unwrap(), [0, 1, 2, 3]);
            drop(block);
            drop(table);
            world.nothing_remains();
        }
    });
}

#[test]
fn a_lock_made_of_a_bit_and_a_queue_lets_one_in_at_a_time() {
    Host::run(Size::default(), |world| {
        let pages = &world.pages;
        let gfp = Gfp::kernel(&world.ctx).virtual_fallback();
        pages.always_fall_back(true);
        let table = WaitTable::new(pages, &gfp, 1024).unwrap();
        let block = pages.alloc(&gfp, order(1)).unwrap();
        // Across the boundary between two frames.
        let at = PAGE_SIZE - 4;
        let key = table.bit_waitqueue(block.address(), 0).unwrap();
        let locked = AtomicBool::new(false);
        let entered = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let ctx = MaySleep::claim();
                    for _ in 0..2000 {
                        table.wait(&ctx, key, || !locked.swap(true, Ordering::Acquire));
                        let mut count = [0; 8];
                        block.read(at, &mut count).unwrap();
                        let count = u64::from_le_bytes(count) + 1;
                        if entered.fetch_add(1, Ordering::Relaxed).is_multiple_of(16) {
                            // Long enough for others to come.
                            thread::yield_now();
                        }
                        block.write(at, &count.to_le_bytes()).unwrap();
                        locked.store(false, Ordering::Release);
                        table.wake(key, 1);
                    }
                });
            }
        });
        let mut count = [0; 8];
        block.read(at, &mut count).unwrap();
        assert_eq!(u64::from_le_bytes(count), 8000);
        assert_eq!(table.waiting(key), 0);
        drop(block);
        drop(table);
        world.nothing_remains();
    });
}
