//! Hazard: who waits at one address of a place in memory is not found by who wakes at the other.

use core::cell::Cell;

use pageless_fault::{FrameMemory, VirtAddr};
use pageless_pfn::PAGE_SIZE;
use pageless_vmap::frames::Gfp;
use pageless_vmap::wait_table::{WaitKey, WaitTable, WaitTableError};

use super::rig::{AllPages, Rig, Size, on_each_machine, order};

/// Where a frame is in the direct map, whatever block it is part of.
fn direct<R: Rig>(pages: &AllPages<R>, page: pageless_pfn::Pfn) -> VirtAddr {
    let memory = pages.frames().memory();
    let index = memory.frames().index_of(page).unwrap();
    memory.direct_map().checked_add(index * PAGE_SIZE).unwrap()
}

fn both_addresses_of_a_place_lead_to_the_same_queue<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        let gfp = Gfp::kernel(&world.ctx).virtual_fallback();
        for is_virtual in [false, true] {
            pages.always_fall_back(is_virtual);
            let table = WaitTable::new(pages, &gfp, 2048).unwrap();
            assert_eq!(table.block().is_virtual(), is_virtual);
            let block = pages.alloc(&gfp, order(3)).unwrap();
            let mut keys = Vec::new();
            for n in 0..8 {
                let seen = block.address().checked_add(n * PAGE_SIZE + 24).unwrap();
                let aside = direct::<R>(pages, block.nth(n).unwrap());
                let aside = aside.checked_add(24).unwrap();
                assert_eq!(seen == aside, !is_virtual);
                for bit in [0, 7] {
                    let key = table.bit_waitqueue(seen, bit).unwrap();
                    assert_eq!(table.bit_waitqueue(aside, bit), Ok(key));
                    assert_eq!(table.bucket(key), table.bucket(key));
                    assert!(!keys.contains(&key));
                    keys.push(key);
                }
            }
            let gone = block.address();
            drop(block);
            assert!(table.bit_waitqueue(gone, 0).is_err());
            assert!(table.bit_waitqueue(VirtAddr::new(8), 0).is_err());
            drop(table);
            world.nothing_remains();
        }
    });
}

fn a_table_is_as_large_as_it_has_to_be<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        let gfp = Gfp::kernel(&world.ctx);
        for (asked, of_order, buckets) in
            [(0, 0, 512), (512, 0, 512), (513, 1, 1024), (4096, 3, 4096)]
        {
            let table = WaitTable::new(pages, &gfp, asked).unwrap();
            assert_eq!(table.block().order(), order(of_order));
            assert_eq!(table.buckets(), buckets);
        }
        for buckets in [u64::MAX, 1 << 40] {
            let refused = WaitTable::new(pages, &gfp, buckets).unwrap_err();
            assert_eq!(refused, WaitTableError::Buckets { buckets });
        }
        let refused = WaitTable::new(pages, &gfp, 1 << 25).unwrap_err();
        assert!(matches!(refused, WaitTableError::Block { .. }), "{refused}");
        world.nothing_remains();
    });
}

fn keys_spread_over_the_buckets<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        let gfp = Gfp::kernel(&world.ctx);
        let table = WaitTable::new(pages, &gfp, 512).unwrap();
        let block = pages.alloc(&gfp, order(2)).unwrap();
        let places = (0..2048_u64).map(|n| {
            let address = block.address().checked_add(n * 8).unwrap();
            table.bit_waitqueue(address, 0).unwrap()
        });
        let numbers = pages.frames().memory().frames();
        let numbers = numbers
            .iter()
            .take(2048)
            .map(|pfn| WaitKey::of_page(pfn, 0));
        for keys in [places.collect::<Vec<_>>(), numbers.collect()] {
            let mut counts = vec![0_u64; 512];
            for key in keys {
                counts[table.bucket(key) as usize] += 1;
            }
            // Four on the average.
            let most = counts.iter().max().unwrap();
            let empty = counts.iter().filter(|&&count| count == 0).count();
            assert!(*most <= 16 && empty < 64, "at most {most}, {empty} empty");
        }
    });
}

fn who_is_woken_while_he_gets_ready_does_not_sleep<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        let gfp = Gfp::kernel(&world.ctx);
        for is_virtual in [false, true] {
            pages.always_fall_back(is_virtual);
            let table = WaitTable::new(pages, &gfp, 1024).unwrap();
            let key = WaitKey::of_page(table.block().head(), 1);
            // Somebody else's, in the same queue.
            let mut others = (2..).map(|bit| WaitKey::of_page(table.block().head(), bit));
            let other = others.find(|&other| table.bucket(other) == table.bucket(key));
            let other = other.unwrap();
            let asked = Cell::new(0);
            // What others would do in between, done by the question itself.
            table.wait(&world.ctx, key, || {
                asked.set(asked.get() + 1);
                match asked.get() {
                    1 => {
                        assert_eq!(table.wake(key, 1), 0, "woken before he stands there");
                        false
                    }
                    2 => {
                        assert_eq!(table.waiting(key), 1);
                        assert_eq!(table.waiting(other), 0);
                        assert_eq!(table.wake(other, 1), 0, "somebody else's bit");
                        assert_eq!(table.wake(key, 0), 0);
                        assert_eq!(table.wake(key, 9), 1);
                        assert_eq!(table.wake(key, 9), 0, "woken twice");
                        false
                    }
                    _ => true,
                }
            });
            assert_eq!(asked.get(), 3);
            // One who finds it over when he stands already leaves no trace.
            let asked = Cell::new(0);
            table.wait(&world.ctx, key, || asked.replace(asked.get() + 1) > 0);
            assert_eq!(table.waiting(key), 0);
            table.wait(&world.ctx, key, || true);
            let statistics = table.statistics();
            assert_eq!((statistics.queued, statistics.woken), (2, 1));
            assert_eq!(statistics.at_once, 1);
            let mut block = vec![1; table.block().bytes() as usize];
            table.block().read(0, &mut block).unwrap();
            assert!(block.iter().all(|&byte| byte == 0), "somebody stands there");
            drop(table);
            world.nothing_remains();
        }
    });
}

on_each_machine! {
    both_addresses_of_a_place_lead_to_the_same_queue
    a_table_is_as_large_as_it_has_to_be
    keys_spread_over_the_buckets
    who_is_woken_while_he_gets_ready_does_not_sleep
}
