//! Hazard: somebody writes where he should not, and the next allocation follows what he wrote.

use alloc::sync::Arc;

use pageless_fault::VirtAddr;
use pageless_pfn::ByteLen;
use pageless_vmap::frames::Gfp;
use pageless_vmap::slab::{SlabCache, SlabConfig, SlabFreeError};

use super::rig::{Rig, Size, on_each_machine, order};

fn config(debug: bool) -> SlabConfig {
    SlabConfig {
        debug,
        ..SlabConfig::new("test", ByteLen::new(120), order(1))
    }
}

fn behind(object: VirtAddr, bytes: u64) -> VirtAddr {
    object.checked_add(bytes).unwrap()
}

fn a_link_that_was_overwritten_leads_nowhere<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        let gfp = Gfp::kernel(&world.ctx);
        for is_virtual in [false, true] {
            pages.always_fall_back(is_virtual);
            // Beyond all objects; the object itself; one that is out; none, although there are more.
            for link in [u32::MAX, 2, 1, 0] {
                let cache = SlabCache::new(Arc::clone(pages), config(false)).unwrap();
                let first = cache.alloc(&gfp).unwrap();
                let second = cache.alloc(&gfp).unwrap();
                cache.free(second).unwrap();
                pages.write(second, &link.to_le_bytes()).unwrap();
                let again = cache.alloc(&gfp).unwrap();
                assert_eq!(again, second);
                let other = cache.alloc(&gfp).unwrap();
                assert!(other != first && other != second, "link {link}");
                assert_eq!(cache.statistics().damaged, 66, "link {link}");
                cache.self_check().unwrap();
                for object in [first, again, other] {
                    cache.free(object).unwrap();
                }
                cache.self_check().unwrap();
                drop(cache);
                world.nothing_remains();
            }
        }
    });
}

fn an_overrun_is_reported_by_whoever_frees<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        let gfp = Gfp::kernel(&world.ctx);
        for is_virtual in [false, true] {
            pages.always_fall_back(is_virtual);
            let cache = SlabCache::new(Arc::clone(pages), config(true)).unwrap();
            let object = cache.alloc(&gfp).unwrap();
            pages.write(object, &[1; 120]).unwrap();
            cache.free(object).unwrap();
            let object = cache.alloc(&gfp).unwrap();
            pages.write(behind(object, 120), &[1]).unwrap();
            let found = Err(SlabFreeError::Overrun { address: object });
            assert_eq!(cache.free(object), found);
            let statistics = cache.statistics();
            assert_eq!((statistics.overruns, statistics.out), (1, 0));
            assert_eq!((statistics.allocated, statistics.freed), (2, 2));
            // It has been put right.
            assert_eq!(cache.alloc(&gfp), Ok(object));
            cache.free(object).unwrap();
            drop(cache);
            world.nothing_remains();
        }
    });
}

fn an_object_written_while_it_was_free_is_withdrawn<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        let gfp = Gfp::kernel(&world.ctx);
        for at in [0, 119, 120] {
            let cache = SlabCache::new(Arc::clone(pages), config(true)).unwrap();
            let object = cache.alloc(&gfp).unwrap();
            cache.free(object).unwrap();
            pages.write(behind(object, at), &[0]).unwrap();
            let other = cache.alloc(&gfp).unwrap();
            assert_ne!(other, object);
            let statistics = cache.statistics();
            assert_eq!((statistics.damaged, statistics.out), (1, 1));
            cache.self_check().unwrap();
            cache.free(other).unwrap();
            cache.shrink(&world.ctx);
            assert_eq!(cache.statistics().slabs, 0);
            drop(cache);
            world.nothing_remains();
        }
    });
}

/// Freed, written and freed again: it is nobody's to free, and its slab stays while somebody has another object of it.
fn an_object_that_was_withdrawn_is_not_taken_back<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        let gfp = Gfp::kernel(&world.ctx);
        for is_virtual in [false, true] {
            pages.always_fall_back(is_virtual);
            let cache = SlabCache::new(Arc::clone(pages), config(true)).unwrap();
            let spoilt = cache.alloc(&gfp).unwrap();
            cache.free(spoilt).unwrap();
            pages.write(spoilt, &[0]).unwrap();
            let kept = cache.alloc(&gfp).unwrap();
            assert_eq!(cache.statistics().damaged, 1);
            let again = Err(SlabFreeError::AlreadyFree { address: spoilt });
            assert_eq!(cache.free(spoilt), again);
            cache.self_check().unwrap();
            cache.shrink(&world.ctx);
            assert_eq!(cache.statistics().slabs, 1, "with an object that is out");
            pages.write(kept, &[1; 120]).unwrap();
            cache.free(kept).unwrap();
            cache.shrink(&world.ctx);
            assert_eq!(cache.statistics().slabs, 0);
            drop(cache);
            world.nothing_remains();
        }
    });
}

on_each_machine! {
    an_object_that_was_withdrawn_is_not_taken_back
    a_link_that_was_overwritten_leads_nowhere
    an_overrun_is_reported_by_whoever_frees
    an_object_written_while_it_was_free_is_withdrawn
}
