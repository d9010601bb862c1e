//! Hazard: a block ends while somebody refers to it, or never.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use pageless_pfn::{PfnFlags, PfnT};
use pageless_vmap::frames::{Gfp, Order};

use super::rig::{Rig, Size, on_each_machine, order};

fn the_last_reference_ends_the_block_whoever_has_it<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        let gfp = Gfp::kernel(&world.ctx).virtual_fallback();
        for is_virtual in [false, true] {
            pages.always_fall_back(is_virtual);
            let block = pages.alloc(&gfp, order(3)).unwrap();
            let tail = block.nth(5).unwrap();
            assert_eq!(block.references(), 1);
            let second = block.get();
            // Through any of its pages it is the same block.
            let third = pages.get_page(tail).unwrap();
            assert_eq!(third.head(), block.head());
            assert_eq!(block.references(), 3);
            drop(block);
            drop(third);
            second.write(5 * 4096, b"still there").unwrap();
            assert_eq!(pages.self_check(), Ok((1, 8)));
            let kept = second.into_raw();
            let again = pages.assume(kept).unwrap();
            assert_eq!(again.references(), 1);
            again.put(&world.ctx);
            assert!(pages.get_page(tail).is_none());
            assert!(pages.assume(kept).is_none());
            world.nothing_remains();
        }
        assert_eq!(pages.counters().freed, 2);
    });
}

fn the_destructor_is_called_once_while_the_block_can_be_read<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        let called = Arc::new(AtomicU64::new(0));
        let destructor = pages.register_destructor(Arc::new({
            let called = Arc::clone(&called);
            move |head, of: Order| {
                let sum = called.load(Ordering::Relaxed);
                called.store(
                    sum + 1 + head.get() * 100 + u64::from(of.get()) * 10,
                    Ordering::Relaxed,
                );
            }
        }));
        let gfp = Gfp::kernel(&world.ctx).virtual_fallback();
        for is_virtual in [false, true] {
            pages.always_fall_back(is_virtual);
            called.store(0, Ordering::Relaxed);
            let block = pages.alloc(&gfp, order(2)).unwrap();
            block.set_destructor(destructor);
            let other = block.get();
            let head = block.head().get();
            drop(block);
            assert_eq!(called.load(Ordering::Relaxed), 0);
            drop(other);
            assert_eq!(called.load(Ordering::Relaxed), head * 100 + 21);
            // Nor does the next block in the same place inherit it.
            drop(pages.alloc(&gfp, order(2)).unwrap());
            assert_eq!(called.load(Ordering::Relaxed), head * 100 + 21);
        }
    });
}

/// Whoever asks about a page whose block ends meanwhile may find its words half old and half new: as if somebody wrote them here.
fn an_answer_of_two_blocks_is_an_answer_and_no_panic<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        pages.always_fall_back(true);
        let gfp = Gfp::kernel(&world.ctx).virtual_fallback();
        let block = pages.alloc(&gfp, order(1)).unwrap();
        let both = [block.head(), block.nth(1).unwrap()];
        let described = both.map(|page| {
            let page = PfnT::new(page, PfnFlags::empty()).paged().unwrap();
            pages.memmap().get(&world.ctx, page).unwrap()
        });
        // Words 2 and 3 say where a head is mapped, and which the head of a tail is; word 4 the place of a tail.
        for (n, word) in [(0, 2), (0, 3), (1, 2), (1, 3), (1, 4)] {
            let right = described[n].private(word);
            for wrong in [0, 1, 0x1_0000, 1 << 28, u32::MAX] {
                described[n].set_private(word, wrong);
                for page in both {
                    let _ = (pages.page_to_addr(page), pages.compound_head(page));
                    let _ = (pages.compound_index(page), pages.compound_order(page));
                    let _ = (pages.compound_nth_page(page, 1), pages.get_page(page));
                }
            }
            described[n].set_private(word, right);
        }
        drop(described);
        assert_eq!(block.references(), 1);
        drop(block);
        world.nothing_remains();
    });
}

on_each_machine! {
    an_answer_of_two_blocks_is_an_answer_and_no_panic
    the_last_reference_ends_the_block_whoever_has_it
    the_destructor_is_called_once_while_the_block_can_be_read
}
