//! Hazard: memory is there, but in pieces, and whoever needs more than one page in a row fails.

use pageless_vmap::compound::AllocPagesError;
use pageless_vmap::frames::{AllocError, Fragmentation, Gfp};

use super::rig::{Rig, Size, on_each_machine, order};

fn the_fallback_succeeds_until_frames_run_out<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        let how = Fragmentation {
            order: order(4),
            keep_free: 500,
            seed: 7,
        };
        let fragmented = pages.frames().fragment(how).unwrap();
        let free = pages.frames().statistics().free().get();
        assert!(free > 1000, "{free}");
        // Every single one of order 4 fails, however often one asks.
        let contiguous = Gfp::kernel(&world.ctx);
        for _ in 0..100 {
            let failed = pages.alloc(&contiguous, order(4));
            let Err(AllocPagesError::Contiguous(AllocError::Fragmented { .. })) = failed else {
                panic!("{failed:?}");
            };
        }
        let gfp = contiguous.virtual_fallback();
        let mut blocks = Vec::new();
        let last = loop {
            match pages.alloc(&gfp, order(4)) {
                Ok(block) => {
                    assert!(block.is_virtual());
                    block.write(15 * 4096, &[blocks.len() as u8]).unwrap();
                    blocks.push(block);
                }
                Err(error) => break error,
            }
        };
        assert_eq!(blocks.len() as u64, free / 16, "of {free} frames in pieces");
        let AllocPagesError::Frames {
            got,
            source: AllocError::NoMemory { .. },
            ..
        } = last
        else {
            panic!("{last:?}");
        };
        assert_eq!(got, free % 16);
        let counters = pages.counters();
        assert_eq!(counters.fallbacks, free / 16);
        assert_eq!((counters.contiguous, counters.failed_contiguous), (0, 100));
        assert_eq!(counters.failed_frames, 1);
        for (n, block) in blocks.iter().enumerate() {
            let mut seen = [0];
            block.read(15 * 4096, &mut seen).unwrap();
            assert_eq!(seen, [n as u8]);
        }
        assert_eq!(pages.self_check(), Ok((free / 16, free / 16 * 16)));
        drop(blocks);
        // What waits for a shootdown is no loss: whoever needs it has it purged.
        let again = pages.alloc(&gfp, order(4)).unwrap();
        drop(again);
        drop(fragmented);
        world.nothing_remains();
    });
}

fn what_can_be_had_in_one_piece_is<R: Rig>() {
    R::run(Size::default(), |world| {
        let gfp = Gfp::kernel(&world.ctx).virtual_fallback();
        // The memory may begin in the middle of a block.
        let blocks: Vec<_> = (0..3)
            .map(|_| world.pages.alloc(&gfp, order(10)).unwrap())
            .collect();
        assert!(blocks.iter().all(|block| !block.is_virtual()));
        assert_eq!(world.pages.counters().contiguous, 3);
        assert_eq!(world.pages.counters().fallbacks, 0);
    });
}

fn more_than_a_contiguous_block_ever_has_is_virtual<R: Rig>() {
    R::run(Size::default(), |world| {
        let gfp = Gfp::kernel(&world.ctx);
        let failed = world.pages.alloc(&gfp, order(11)).unwrap_err();
        assert!(matches!(
            failed,
            AllocPagesError::Contiguous(AllocError::OrderTooLarge { .. })
        ));
        let block = world
            .pages
            .alloc(&gfp.virtual_fallback(), order(11))
            .unwrap();
        assert!(block.is_virtual());
        assert_eq!(
            block
                .nth(2047)
                .and_then(|page| world.pages.compound_index(page)),
            Some(2047)
        );
        drop(block);
        world.nothing_remains();
    });
}

on_each_machine! {
    the_fallback_succeeds_until_frames_run_out
    what_can_be_had_in_one_piece_is
    more_than_a_contiguous_block_ever_has_is_virtual
}
