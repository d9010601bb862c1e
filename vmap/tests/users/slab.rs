//! Hazard: a cache whose slabs are larger than a page takes it for granted that they are in one piece.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use pageless_pfn::ByteLen;
use pageless_vmap::compound::AllocPagesError;
use pageless_vmap::frames::{Fragmentation, Gfp};
use pageless_vmap::slab::{SlabAllocError, SlabCache, SlabConfig, SlabFreeError};

use super::rig::{Rig, Size, World, on_each_machine, order};

fn config(object: u64, of_order: u8) -> SlabConfig {
    SlabConfig {
        min_partial: 1,
        ..SlabConfig::new("test", ByteLen::new(object), order(of_order))
    }
}

/// Everything that somebody sees who uses a cache and looks at no address.
fn transcript<R: Rig>(world: &World<R>) -> Vec<String> {
    let pages = &world.pages;
    let gfp = Gfp::kernel(&world.ctx);
    let cache = SlabCache::new(Arc::clone(pages), config(700, 3)).unwrap();
    let mut seen = Vec::new();
    let mut objects = Vec::new();
    for n in 0..200_u64 {
        let object = cache.alloc(&gfp).unwrap();
        // Across a page boundary, where the object has one.
        let bytes: Vec<u8> = (0..700).map(|at| (n * 7 + at) as u8).collect();
        pages.write(object, &bytes).unwrap();
        objects.push((object, bytes));
    }
    for round in [3, 5, 7] {
        let mut n = 0;
        objects.retain(|(object, bytes)| {
            n += 1;
            let goes = n % round == 0;
            if goes {
                let mut found = vec![0; 700];
                pages.read(*object, &mut found).unwrap();
                assert_eq!(found, *bytes);
                seen.push(format!("{n}: {:?}", cache.free(*object)));
            }
            !goes
        });
        cache.self_check().unwrap();
        seen.push(format!("{:?}", cache.statistics()));
        let given = cache.shrink(&world.ctx);
        seen.push(format!("{given:?} {}", cache.statistics()));
    }
    for (object, bytes) in objects {
        let mut found = vec![0; 700];
        pages.read(object, &mut found).unwrap();
        assert_eq!(found, bytes);
        cache.free(object).unwrap();
    }
    cache.self_check().unwrap();
    seen.push(format!("{:?}", cache.statistics()));
    drop(cache);
    seen
}

fn nobody_can_tell_which_kind_slabs_are<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        let physical = transcript(&world);
        world.nothing_remains();
        let before = pages.counters();
        assert_eq!(before.fallbacks, 0);
        pages.always_fall_back(true);
        assert_eq!(transcript(&world), physical);
        world.nothing_remains();
        let after = pages.counters();
        assert_eq!(after.contiguous, before.contiguous);
        assert_eq!(after.fallbacks, before.contiguous);
        // Nor when it is not for debugging, but for want of memory in one piece.
        pages.always_fall_back(false);
        let how = Fragmentation {
            order: order(3),
            keep_free: 500,
            seed: 11,
        };
        let fragmented = pages.frames().fragment(how).unwrap();
        assert_eq!(transcript(&world), physical);
        assert_eq!(pages.counters().contiguous, before.contiguous);
        drop(fragmented);
        world.nothing_remains();
    });
}

fn an_object_lies_in_its_block_alone_and_leads_to_it<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        for is_virtual in [false, true] {
            pages.always_fall_back(is_virtual);
            let mut config = config(96, 2);
            config.align = ByteLen::new(64);
            let cache = SlabCache::new(Arc::clone(pages), config).unwrap();
            let gfp = Gfp::kernel(&world.ctx);
            let objects: Vec<_> = (0..300).map(|_| cache.alloc(&gfp).unwrap()).collect();
            let mut sorted: Vec<_> = objects.iter().map(|object| object.get()).collect();
            sorted.sort_unstable();
            assert!(sorted.windows(2).all(|pair| pair[0] + 128 <= pair[1]));
            assert!(sorted.iter().all(|address| address % 64 == 0));
            let heads: BTreeSet<_> = objects
                .iter()
                .map(|&object| pages.virt_to_head_page(object).unwrap())
                .collect();
            // 128 objects of a stride of 128 bytes in 16 KiB.
            assert_eq!(heads.len(), 3);
            for &head in &heads {
                assert_eq!(pages.compound_order(head), Some(order(2)));
            }
            for object in objects {
                cache.free(object).unwrap();
            }
            drop(cache);
            world.nothing_remains();
        }
    });
}

fn an_object_is_constructed_once_and_keeps_it<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        let gfp = Gfp::kernel(&world.ctx);
        for is_virtual in [false, true] {
            pages.always_fall_back(is_virtual);
            let called = Arc::new(AtomicU64::new(0));
            let mut config = SlabConfig::new("test", ByteLen::new(1000), order(1));
            config.constructor = Some(Arc::new({
                let called = Arc::clone(&called);
                move |bytes: &mut [u8]| {
                    assert_eq!(bytes, [0; 1000]);
                    called.fetch_add(1, Ordering::Relaxed);
                    bytes.fill(0x5a);
                }
            }));
            let cache = SlabCache::new(Arc::clone(pages), config).unwrap();
            for _ in 0..50 {
                let objects: Vec<_> = (0..16).map(|_| cache.alloc(&gfp).unwrap()).collect();
                for object in objects {
                    let mut found = [0; 1000];
                    pages.read(object, &mut found).unwrap();
                    assert_eq!(found, [0x5a; 1000]);
                    cache.free(object).unwrap();
                }
            }
            let statistics = cache.statistics();
            assert_eq!(statistics.objects_per_slab, 8);
            assert_eq!(statistics.allocated, 800);
            assert_eq!(called.load(Ordering::Relaxed), statistics.slabs_made * 8);
            assert!(statistics.slabs_made <= 3, "{statistics:?}");
            let zeroed = cache.alloc(&gfp.zeroed());
            assert_eq!(zeroed, Err(SlabAllocError::ZeroedConstructed));
            drop(cache);
            world.nothing_remains();
        }
    });
}

fn zeroes_are_had_where_something_else_was<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        let gfp = Gfp::kernel(&world.ctx);
        let cache = SlabCache::new(Arc::clone(pages), config(5000, 3)).unwrap();
        let object = cache.alloc(&gfp).unwrap();
        pages.write(object, &[0xff; 5000]).unwrap();
        cache.free(object).unwrap();
        let again = cache.alloc(&gfp.zeroed()).unwrap();
        assert_eq!(again, object);
        let mut found = vec![1; 5000];
        pages.read(again, &mut found).unwrap();
        assert_eq!(found, [0; 5000]);
        cache.free(again).unwrap();
    });
}

fn what_is_no_object_is_not_taken_back<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        let gfp = Gfp::kernel(&world.ctx);
        for is_virtual in [false, true] {
            pages.always_fall_back(is_virtual);
            let cache = SlabCache::new(Arc::clone(pages), config(100, 1)).unwrap();
            let other = SlabCache::new(Arc::clone(pages), config(100, 1)).unwrap();
            let object = cache.alloc(&gfp).unwrap();
            let within = object.checked_add(8).unwrap();
            let nowhere = pageless_fault::VirtAddr::new(8);
            for address in [within, nowhere] {
                let refused = Err(SlabFreeError::NotAnObject { address });
                assert_eq!(cache.free(address), refused);
            }
            let refused = Err(SlabFreeError::NotAnObject { address: object });
            assert_eq!(other.free(object), refused);
            cache.free(object).unwrap();
            let refused = Err(SlabFreeError::AlreadyFree { address: object });
            assert_eq!(cache.free(object), refused);
            cache.self_check().unwrap();
            assert_eq!(cache.statistics().out, 0);
            // Nor is it once the slab is gone.
            assert_eq!(cache.shrink(&world.ctx).get(), 2);
            let refused = Err(SlabFreeError::NotAnObject { address: object });
            assert_eq!(cache.free(object), refused);
        }
    });
}

fn memory_runs_out_and_comes_back<R: Rig>() {
    R::run(
        Size {
            frames: 128,
            ..Size::default()
        },
        |world| {
            let pages = &world.pages;
            let gfp = Gfp::kernel(&world.ctx);
            for is_virtual in [false, true] {
                pages.always_fall_back(is_virtual);
                let cache = SlabCache::new(Arc::clone(pages), config(4000, 2)).unwrap();
                let mut objects = Vec::new();
                let error = loop {
                    match cache.alloc(&gfp) {
                        Ok(object) => objects.push(object),
                        Err(error) => break error,
                    }
                };
                assert_eq!(objects.len(), 128);
                assert!(
                    matches!(
                        error,
                        SlabAllocError::Slab(AllocPagesError::Frames { got: 0, .. })
                    ),
                    "{error:?}"
                );
                cache.self_check().unwrap();
                for object in objects {
                    cache.free(object).unwrap();
                }
                let statistics = cache.statistics();
                // One that nobody has to himself, and the CPU's own.
                assert!(statistics.slabs <= 2, "{statistics:?}");
                drop(cache);
                world.nothing_remains();
            }
        },
    );
}

fn an_object_that_is_out_keeps_its_slab_when_the_cache_goes<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        pages.always_fall_back(true);
        let cache = SlabCache::new(Arc::clone(pages), config(2000, 1)).unwrap();
        let gfp = Gfp::kernel(&world.ctx);
        let objects: Vec<_> = (0..12).map(|_| cache.alloc(&gfp).unwrap()).collect();
        for object in &objects[1..] {
            cache.free(*object).unwrap();
        }
        pages.write(objects[0], b"still somebody's").unwrap();
        drop(cache);
        let mut found = [0; 16];
        pages.read(objects[0], &mut found).unwrap();
        assert_eq!(&found, b"still somebody's");
        assert_eq!(pages.self_check(), Ok((1, 2)));
    });
}

on_each_machine! {
    nobody_can_tell_which_kind_slabs_are
    an_object_lies_in_its_block_alone_and_leads_to_it
    an_object_is_constructed_once_and_keeps_it
    zeroes_are_had_where_something_else_was
    what_is_no_object_is_not_taken_back
    memory_runs_out_and_comes_back
    an_object_that_is_out_keeps_its_slab_when_the_cache_goes
}
