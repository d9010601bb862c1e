//! Hazard: a page of a block is not found, or another one is, because the block is not what its user takes it for.

use pageless_fault::{FrameMemory, VirtAddr, Vspace};
use pageless_vmap::frames::Gfp;

use super::rig::{Block, Rig, Size, World, on_each_machine, order};

fn pattern(n: u64, block: u64) -> [u8; 64] {
    core::array::from_fn(|at| (n * 31 + block * 7 + at as u64) as u8)
}

/// Head, tail, n-th page and address, in both directions; and contents, through the addresses and frame by frame.
fn check_block<R: Rig>(world: &World<R>, block: &Block<'_, R>, number: u64) {
    let pages = &world.pages;
    let (head, order) = (block.head(), block.order());
    assert_eq!(pages.compound_order(head), Some(order));
    let start = block.address();
    assert_eq!(
        pages.areas().space().offset_of(start).is_some(),
        block.is_virtual()
    );
    let count = order.frames().get();
    for n in 0..count {
        let page = block.nth(n).unwrap();
        assert_eq!(pages.compound_nth_page(head, n), Some(page));
        assert_eq!(pages.compound_head(page), Some(head), "page {n}");
        assert_eq!(pages.compound_index(page), Some(n));
        let address = start.checked_add(n * 4096).unwrap();
        assert_eq!(pages.page_to_addr(page), Some(address), "page {n}");
        for inside in [0, 77, 4095] {
            let inside = address.checked_add(inside).unwrap();
            assert_eq!(pages.addr_to_page(inside), Some(page));
            assert_eq!(pages.virt_to_head_page(inside), Some(head));
        }
        if n > 0 {
            assert_eq!(pages.compound_order(page), None, "a tail has no order");
            assert_eq!(pages.compound_nth_page(page, 0), None);
        }
        // Across the boundary to the next page.
        let at = n * 4096 + 4096 - 32;
        let len = if n + 1 == count { 32 } else { 64 };
        block.write(at, &pattern(n, number)[..len]).unwrap();
    }
    assert_eq!(block.nth(count), None);
    check_segments(world, block);
    assert!(block.write(count * 4096 - 1, &[0; 2]).is_err());
    for n in 0..count {
        let mut seen = [0; 4096];
        let page = block.nth(n).unwrap();
        pages
            .frames()
            .memory()
            .read(page.phys(), &mut seen)
            .unwrap();
        assert_eq!(seen[4064..], pattern(n, number)[..32], "end of page {n}");
        if n > 0 {
            assert_eq!(
                seen[..32],
                pattern(n - 1, number)[32..],
                "start of page {n}"
            );
        }
        let mut through = [0; 4096];
        block.read(n * 4096, &mut through).unwrap();
        assert!(through == seen, "page {n} by its address and by its number");
    }
}

/// The same frames, in as few stretches as can be.
fn check_segments<R: Rig>(world: &World<R>, block: &Block<'_, R>) {
    let segments: Vec<_> = block.segments().collect();
    if !block.is_virtual() {
        assert_eq!(segments.len(), 1);
    }
    let mut pairs = segments.windows(2);
    assert!(pairs.all(|pair| pair[0].try_merge(pair[1]).is_none()));
    let frames = segments.iter().flat_map(|segment| segment.frames());
    let count = block.order().frames().get();
    assert!(frames.eq((0..count).map(|n| block.nth(n).unwrap())));
    let bytes: u64 = segments.iter().map(|segment| segment.len().get()).sum();
    assert_eq!(bytes, block.bytes());
    if let Some(tail) = block.nth(1) {
        assert_eq!(world.pages.compound_segments(tail).next(), None, "a tail");
    }
}

fn every_page_of_every_order_is_found_from_everywhere<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        for is_virtual in [false, true] {
            pages.always_fall_back(is_virtual);
            for n in 0..=10 {
                let gfp = Gfp::kernel(&world.ctx).virtual_fallback();
                let block = pages.alloc(&gfp, order(n)).unwrap();
                assert_eq!(block.is_virtual(), is_virtual && n > 0, "order {n}");
                check_block(&world, &block, u64::from(n));
                assert_eq!(pages.self_check(), Ok((1, 1 << n)));
                let (head, address) = (block.head(), block.address());
                let all: Vec<_> = (0..1 << n).map(|n| block.nth(n).unwrap()).collect();
                drop(block);
                for page in all {
                    assert_eq!(
                        pages.compound_head(page),
                        None,
                        "a page of a block that has gone"
                    );
                }
                assert_eq!(pages.compound_order(head), None);
                assert_eq!(pages.compound_segments(head).next(), None);
                if is_virtual && n > 0 {
                    assert_eq!(pages.addr_to_page(address), None);
                }
                world.nothing_remains();
            }
        }
    });
}

fn blocks_of_both_kinds_live_side_by_side<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        let gfp = Gfp::kernel(&world.ctx).virtual_fallback();
        let mut blocks = Vec::new();
        for n in 0..24 {
            pages.always_fall_back(n % 3 != 0);
            blocks.push(pages.alloc(&gfp, order(n % 6)).unwrap());
        }
        for (n, block) in blocks.iter().enumerate() {
            check_block(&world, block, n as u64);
        }
        // Others that come and go change nothing in those that stay.
        let kept: Vec<_> = blocks
            .into_iter()
            .enumerate()
            .filter(|(n, _)| n % 2 == 1)
            .collect();
        for (n, block) in &kept {
            let mut seen = [0; 32];
            block.read(4064, &mut seen).unwrap();
            assert_eq!(seen, pattern(0, *n as u64)[..32]);
        }
        let count = kept.iter().map(|(_, block)| block.bytes() / 4096).sum();
        assert_eq!(pages.self_check(), Ok((12, count)));
        drop(kept);
        world.nothing_remains();
    });
}

fn a_zeroed_block_is_zero_whatever_was_there<R: Rig>() {
    R::run(
        Size {
            frames: 64,
            ..Size::default()
        },
        |world| {
            let gfp = Gfp::kernel(&world.ctx).virtual_fallback();
            for is_virtual in [true, false] {
                world.pages.always_fall_back(is_virtual);
                for _ in 0..3 {
                    let dirty = world.pages.alloc(&gfp, order(5)).unwrap();
                    dirty.write(0, &[0xff; 32 * 4096]).unwrap();
                    drop(dirty);
                    let clean = world.pages.alloc(&gfp.zeroed(), order(5)).unwrap();
                    let mut seen = vec![1; 32 * 4096];
                    clean.read(0, &mut seen).unwrap();
                    assert!(seen.iter().all(|byte| *byte == 0));
                }
            }
        },
    );
}

fn an_address_of_nothing_is_nobodys<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        assert_eq!(pages.addr_to_page(VirtAddr::new(0x1000)), None);
        assert_eq!(pages.addr_to_page(pages.areas().space().base()), None);
        assert!(pages.read(VirtAddr::new(0x1000), &mut [0]).is_err());
        assert!(pages.write(VirtAddr::new(0x1000), &[0]).is_err());
        let outside = pageless_pfn::Pfn::try_new(1 << 39).unwrap();
        assert_eq!(pages.compound_head(outside), None);
        assert_eq!(pages.page_to_addr(outside), None);
        assert!(pages.get_page(outside).is_none());
        // The end of a block is the end: behind it is a guard page.
        pages.always_fall_back(true);
        let gfp = Gfp::kernel(&world.ctx).virtual_fallback();
        let block = pages.alloc(&gfp, order(2)).unwrap();
        let end = block.address().checked_add(4 * 4096).unwrap();
        let error = pages.read(
            end.checked_offset_from(VirtAddr::new(4))
                .map(VirtAddr::new)
                .unwrap(),
            &mut [0; 8],
        );
        assert_eq!(error.unwrap_err().address, end);
    });
}

on_each_machine! {
    every_page_of_every_order_is_found_from_everywhere
    blocks_of_both_kinds_live_side_by_side
    a_zeroed_block_is_zero_whatever_was_there
    an_address_of_nothing_is_nobodys
}
