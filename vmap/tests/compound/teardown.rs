//! Hazard: the head of a virtual block forgets what it is before its tails have been found through it.

use alloc::sync::Arc;

use pageless_vmap::area::{NoDescriptors, Vmalloc, VunmapError};
use pageless_vmap::frames::Gfp;

use super::rig::{Rig, Size, on_each_machine, order};

fn a_block_that_ends_takes_its_own_tails_down_and_no_others<R: Rig>() {
    R::run(
        Size {
            frames: 256,
            ..Size::default()
        },
        |world| {
            let pages = &world.pages;
            let gfp = Gfp::kernel(&world.ctx).virtual_fallback();
            // Virtual blocks whose frames are mixed with each other's: behind each head lie pages of others.
            pages.always_fall_back(true);
            let mut singles: Vec<_> = (0..256)
                .map(|_| pages.alloc(&gfp, order(0)).unwrap())
                .collect();
            singles.sort_by_key(|page| page.head().get() % 7);
            let mut blocks = Vec::new();
            while singles.len() >= 32 {
                singles.truncate(singles.len() - 32);
                blocks.extend((0..2).map(|_| pages.alloc(&gfp, order(4)).unwrap()));
            }
            drop(singles);
            let mut left = blocks.len() as u64;
            while let Some(block) = blocks.pop() {
                drop(block);
                left -= 1;
                assert_eq!(
                    pages.self_check(),
                    Ok((left, left * 16)),
                    "with {left} blocks left"
                );
            }
            world.nothing_remains();
        },
    );
}

fn a_block_whose_mapping_is_not_taken_down_at_its_end_goes_later<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        pages.always_fall_back(true);
        let gfp = Gfp::kernel(&world.ctx).virtual_fallback();
        let block = pages.alloc(&gfp, order(2)).unwrap();
        pages.areas().space().refuse_clear();
        drop(block);
        assert_eq!(pages.areas().space().mapped(), 4);
        let counters = pages.counters();
        assert_eq!((counters.freed, counters.lost), (1, 0));
        pages.areas().purge(&world.ctx).unwrap();
        world.nothing_remains();
    });
}

fn who_knows_the_address_of_a_block_cannot_unmap_it<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        let gfp = Gfp::kernel(&world.ctx).virtual_fallback();
        pages.always_fall_back(true);
        let block = pages.alloc(&gfp, order(2)).unwrap();
        let address = block.address();
        let held = VunmapError::Held { address };
        // There is one space, and others have areas in it as well.
        let vm = Vmalloc::over(Arc::clone(pages.areas()), NoDescriptors);
        assert_eq!(vm.vunmap(&world.ctx, address), Err(held));
        assert_eq!(vm.vunmap_atomic(address), Err(held));
        assert_eq!(pages.areas().unmap_at(&world.ctx, address), Err(held));
        assert_eq!(pages.areas().unmap_at_atomic(address), Err(held));
        vm.purge(&world.ctx).unwrap();
        block.write(3 * 4096, b"its own").unwrap();
        drop(block);
        assert_eq!(pages.counters().lost, 0);
        world.nothing_remains();
    });
}

on_each_machine! {
    a_block_whose_mapping_is_not_taken_down_at_its_end_goes_later
    who_knows_the_address_of_a_block_cannot_unmap_it
    a_block_that_ends_takes_its_own_tails_down_and_no_others
}
