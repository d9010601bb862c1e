//! Hazard: who must not sleep makes or ends a slab, and waits for others after all.

use alloc::sync::Arc;

use pageless_pfn::ByteLen;
use pageless_vmap::frames::Gfp;
use pageless_vmap::slab::{SlabCache, SlabConfig};

use super::present::all_descriptors;
use super::rig::{Rig, Size, on_each_machine, order};

fn slabs_come_and_go_with_interrupts_off<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        for is_virtual in [false, true] {
            pages.always_fall_back(is_virtual);
            let present = all_descriptors(&world);
            let mut config = SlabConfig::new("atomic", ByteLen::new(3000), order(2));
            config.min_partial = 0;
            let cache = SlabCache::new(Arc::clone(pages), config).unwrap();
            let shootdowns = world.rig.shootdowns();
            world.rig.with_interrupts_off(|| {
                let objects: Vec<_> = (0..20)
                    .map(|_| cache.alloc(&Gfp::atomic()).unwrap())
                    .collect();
                for (n, &object) in objects.iter().enumerate() {
                    pages.write(object, &[n as u8; 3000]).unwrap();
                }
                for (n, &object) in objects.iter().enumerate() {
                    let mut found = [0; 3000];
                    pages.read(object, &mut found).unwrap();
                    assert_eq!(found, [n as u8; 3000]);
                    cache.free(object).unwrap();
                }
            });
            let statistics = cache.statistics();
            assert_eq!((statistics.slabs_made, statistics.slabs_freed), (4, 3));
            assert_eq!(world.rig.shootdowns(), shootdowns);
            drop(cache);
            drop(present);
            world.nothing_remains();
        }
    });
}

on_each_machine! {
    slabs_come_and_go_with_interrupts_off
}
