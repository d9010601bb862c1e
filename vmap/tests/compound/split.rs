//! Hazard: pages of a block that was split are freed together, or seen at the old addresses.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use pageless_fault::FrameMemory;
use pageless_vmap::compound::{NotSplit, SplitError};
use pageless_vmap::frames::Gfp;

use super::rig::{Rig, Size, on_each_machine, order, refused};

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
        let NotSplit { block, why } = pages.split_page(&world.ctx, block).unwrap_err();
        let references = 2;
        assert_eq!(why, SplitError::Shared { head, references });
        other.write(3 * 4096, b"whole").unwrap();
        assert_eq!(other.references(), 2);
        drop(other);
        // Now there is nobody else.
        let single = pages.split_page(&world.ctx, block.unwrap()).unwrap();
        assert_eq!(single.len(), 4);
        drop(single);
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

fn a_block_whose_mapping_the_machine_does_not_take_down_comes_back_whole<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        pages.always_fall_back(true);
        let ended = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&ended);
        let destructor = pages.register_destructor(Arc::new(move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
        }));
        let gfp = Gfp::kernel(&world.ctx).virtual_fallback();
        let mut block = pages.alloc(&gfp, order(2)).unwrap();
        block.set_destructor(destructor);
        block.write(4090, b"across the boundary").unwrap();
        let (head, tail, address) = (block.head(), block.nth(3).unwrap(), block.address());
        let source = refused(4 * 4096);
        for _ in 0..3 {
            pages.areas().space().refuse_clear();
            let NotSplit { block: whole, why } = pages.split_page(&world.ctx, block).unwrap_err();
            assert_eq!(why, SplitError::Refused { head, source });
            block = whole.unwrap();
            assert_eq!((block.references(), block.order().get()), (1, 2));
            assert!(block.is_virtual());
            assert_eq!((block.address(), block.nth(3)), (address, Some(tail)));
            let mut seen = [0; 19];
            block.read(4090, &mut seen).unwrap();
            assert_eq!(&seen, b"across the boundary");
            assert_eq!(pages.get_page(tail).unwrap().head(), head);
            assert_eq!(pages.self_check(), Ok((1, 4)));
        }
        assert_eq!((pages.counters().lost, pages.counters().split), (0, 0));
        // It ends as it would have: with its destructor, and its frames come back.
        drop(block);
        assert_eq!(ended.load(Ordering::Relaxed), 1);
        world.nothing_remains();
    });
}

fn a_block_whose_shootdown_fails_is_lost_and_no_other<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        pages.always_fall_back(true);
        let gfp = Gfp::kernel(&world.ctx).virtual_fallback();
        let all = world.free_frames();
        let kept = pages.alloc(&gfp, order(2)).unwrap();
        let block = pages.alloc(&gfp, order(2)).unwrap();
        let head = block.head();
        pages.areas().space().refuse_shoot();
        let NotSplit { block, why } = pages.split_page(&world.ctx, block).unwrap_err();
        assert!(block.is_none());
        let source = refused(4 * 4096);
        assert_eq!(why, SplitError::Unproved { head, source });
        assert_eq!((pages.counters().lost, pages.counters().split), (1, 0));
        assert!(pages.get_page(head).is_none());
        let single = pages.split_page(&world.ctx, kept).unwrap();
        drop(single);
        assert_eq!(world.free_frames(), all - 4, "its frames never come back");
    });
}

on_each_machine! {
    a_block_whose_mapping_the_machine_does_not_take_down_comes_back_whole
    a_block_whose_shootdown_fails_is_lost_and_no_other
    nobody_gets_a_block_while_it_is_split
    pages_of_a_split_block_go_one_by_one
    a_block_that_others_refer_to_is_not_split
}
