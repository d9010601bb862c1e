//! Hazard: the head of a virtual block forgets what it is before its tails have been found through it.

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

on_each_machine! {
    a_block_that_ends_takes_its_own_tails_down_and_no_others
}
