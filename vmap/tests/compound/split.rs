//! Hazard: pages of a block that was split are freed together, or seen at the old addresses.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use pageless_fault::FrameMemory;
use pageless_vmap::compound::SplitError;
use pageless_vmap::frames::Gfp;

use super::rig::{Rig, Size, on_each_machine, order};

fn pages_of_a_split_block_go_one_by_one<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        let gfp = Gfp::kernel(&world.ctx).virtual_fallback();
        for is_virtual in [false, true] {
            pages.always_fall_back(is_virtual);
            let all = world.free_frames();
            let block = pages.alloc(&gfp, order(3)).unwrap();
            let address = block.address();
            for n in 0..8 {
                block.write(n * 4096, &[n as u8 + 1; 8]).unwrap();
            }
            let expected: Vec<_> = (0..8).map(|n| block.nth(n).unwrap()).collect();
            let mut single = pages.split_page(&world.ctx, block).unwrap();
            assert_eq!(
                single.iter().map(|page| page.head()).collect::<Vec<_>>(),
                expected
            );
            if is_virtual {
                assert_eq!(pages.addr_to_page(address), None);
                assert!(
                    pages.read(address, &mut [0]).is_err(),
                    "seen at the old address"
                );
            }
            for (n, page) in single.iter().enumerate() {
                assert!(!page.is_virtual());
                assert_eq!(page.order().get(), 0);
                let mut seen = [0; 8];
                pages
                    .frames()
                    .memory()
                    .read(page.head().phys(), &mut seen)
                    .unwrap();
                assert_eq!(seen, [n as u8 + 1; 8]);
                page.read(0, &mut seen).unwrap();
                assert_eq!(seen, [n as u8 + 1; 8]);
            }
            assert_eq!(pages.self_check(), Ok((8, 8)));
            for left in (0..8).rev() {
                drop(single.pop());
                assert_eq!(world.free_frames(), all - left);
            }
            world.nothing_remains();
        }
        assert_eq!(pages.counters().split, 2);
    });
}

fn a_block_that_others_refer_to_is_not_split<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        pages.always_fall_back(true);
        let gfp = Gfp::kernel(&world.ctx).virtual_fallback();
        let block = pages.alloc(&gfp, order(2)).unwrap();
        let other = block.get();
        let head = block.head();
        let refused = pages.split_page(&world.ctx, block).unwrap_err();
        assert_eq!(
            refused,
            SplitError::Shared {
                head,
                references: 2
            }
        );
        other.write(3 * 4096, b"whole").unwrap();
        assert_eq!(other.references(), 1);
        drop(other);
        world.nothing_remains();
    });
}

fn nobody_gets_a_block_while_it_is_split<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        pages.always_fall_back(true);
        let gfp = Gfp::kernel(&world.ctx).virtual_fallback();
        let block = pages.alloc(&gfp, order(1)).unwrap();
        let both = [block.head(), block.nth(1).unwrap()];
        let (got, asked) = (Arc::new(AtomicU64::new(0)), Arc::clone(pages));
        let answers = Arc::clone(&got);
        pages.areas().space().before_clear(move || {
            for page in both {
                let got = asked.get_page(page).map(|page| page.into_raw());
                answers.fetch_add(1 + 100 * u64::from(got.is_some()), Ordering::Relaxed);
            }
        });
        let single = pages.split_page(&world.ctx, block).unwrap();
        assert_eq!(
            got.load(Ordering::Relaxed),
            2,
            "whom else does it belong to?"
        );
        drop(single);
        world.nothing_remains();
    });
}

on_each_machine! {
    nobody_gets_a_block_while_it_is_split
    pages_of_a_split_block_go_one_by_one
    a_block_that_others_refer_to_is_not_split
}
