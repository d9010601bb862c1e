//! Hazard: an allocation that fails half-way leaves something behind.

use pageless_fault::Vspace;
use pageless_pfn::{Pfn, PfnFlags, PfnT};
use pageless_vmap::area::{AllocAreaError, MapAreaError};
use pageless_vmap::compound::AllocPagesError;
use pageless_vmap::frames::{Gfp, Injection, Order, PageBlock};

use super::rig::{Rig, Size, World, on_each_machine, order};

const ORDER: u8 = 4;

fn no_frame_fails_alone<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        pages.always_fall_back(true);
        let gfp = Gfp::kernel(&world.ctx).virtual_fallback();
        for step in 0..1 << ORDER {
            pages.frames().inject(Some(Injection::Nth(step)));
            let failed = pages.alloc(&gfp, order(ORDER)).unwrap_err();
            let AllocPagesError::Frames { got, .. } = failed else {
                panic!("{failed:?}")
            };
            assert_eq!(got, step);
            pages.frames().inject(None);
            world.nothing_remains();
        }
        assert_eq!(pages.counters().failed_frames, 1 << ORDER);
        // In one piece there is one step; with the fallback it is not the last.
        pages.always_fall_back(false);
        pages.frames().inject(Some(Injection::Nth(0)));
        assert!(pages.alloc(&gfp, order(ORDER)).unwrap().is_virtual());
        pages
            .frames()
            .inject(Some(Injection::FromOrder(Order::ZERO)));
        assert!(pages.alloc(&gfp.contiguous_only(), order(ORDER)).is_err());
        assert!(pages.alloc(&gfp, Order::ZERO).is_err());
        pages.frames().inject(None);
        world.nothing_remains();
    });
}

/// The defect of the series of April 2008: the frames went back, and what had been set up to see them through stayed.
fn a_mapping_that_fails_after_its_addresses_were_taken_leaves_none_of_them<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        pages.always_fall_back(true);
        let gfp = Gfp::kernel(&world.ctx).virtual_fallback();
        // No two frames in a row: a mapping for each.
        let scattered = scatter(&world);
        for step in 0..1 << ORDER {
            pages.areas().space().fail_after(step);
            let failed = pages.alloc(&gfp, order(ORDER)).unwrap_err();
            let AllocPagesError::Mapping {
                source: MapAreaError::Map { index, .. },
                ..
            } = failed
            else {
                panic!("{failed:?}")
            };
            assert_eq!(index, step);
            pages.areas().space().fail_after(u64::MAX);
            pages.areas().purge(&world.ctx).unwrap();
            assert_eq!(pages.areas().areas(), [], "step {step}");
            assert_eq!(pages.areas().space().mapped(), 0);
            assert_eq!(
                pages.self_check(),
                Ok((scattered.len() as u64, scattered.len() as u64))
            );
        }
        assert_eq!(pages.counters().failed_mapping, 1 << ORDER);
        drop(scattered);
        world.nothing_remains();
    });
}

/// Every second frame, so that what is free lies apart.
fn scatter<R: Rig>(world: &World<R>) -> Vec<super::rig::Block<'_, R>> {
    let gfp = Gfp::kernel(&world.ctx);
    let mut blocks = Vec::new();
    while let Ok(block) = world.pages.alloc(&gfp, Order::ZERO) {
        blocks.push(block);
    }
    blocks.retain(|block| block.head().get() % 2 == 0);
    blocks
}

fn addresses_that_run_out_take_nothing_with_them<R: Rig>() {
    let size = Size {
        pages: 512,
        ..Size::default()
    };
    R::run(size, |world| {
        let pages = &world.pages;
        pages.always_fall_back(true);
        let gfp = Gfp::kernel(&world.ctx).virtual_fallback();
        let space = pages.areas().space().len().get() / 4096;
        let mut blocks = Vec::new();
        let failed = loop {
            match pages.alloc(&gfp, order(ORDER)) {
                Ok(block) => blocks.push(block),
                Err(error) => break error,
            }
        };
        let AllocPagesError::Mapping {
            source: MapAreaError::Alloc(AllocAreaError::NoSpace { .. }),
            ..
        } = failed
        else {
            panic!("{failed:?}")
        };
        assert_eq!(blocks.len() as u64, space / 17, "guard pages included");
        assert_eq!(pages.counters().failed_addresses, 1);
        let frames = blocks.len() as u64 * 16;
        assert_eq!(world.free_frames(), size.frames - frames);
        // One that goes makes room for another, by a purge in between.
        drop(blocks.pop());
        blocks.push(pages.alloc(&gfp, order(ORDER)).unwrap());
        drop(blocks);
        world.nothing_remains();
    });
}

fn descriptors_that_cannot_be_had_take_nothing_with_them<R: Rig>() {
    // Room for two chunks of 64 descriptors: a block of 256 pages needs four.
    let size = Size {
        descriptors: 2 * (4096 + 4096),
        frames: 512,
        ..Size::default()
    };
    R::run(size, |world| {
        let pages = &world.pages;
        let gfp = Gfp::kernel(&world.ctx).virtual_fallback();
        for fall_back in [true, false] {
            pages.always_fall_back(fall_back);
            let failed = pages.alloc(&gfp, order(8)).unwrap_err();
            assert!(
                matches!(failed, AllocPagesError::Descriptor(_)),
                "{failed:?}"
            );
            // Who must not wait finds none at all.
            world.nothing_remains();
            let atomic = Gfp::atomic().virtual_fallback();
            let failed = pages.alloc(&atomic, order(2)).unwrap_err();
            assert!(
                matches!(failed, AllocPagesError::DescriptorNow(_)),
                "{failed:?}"
            );
            world.nothing_remains();
        }
        assert_eq!(pages.counters().failed_descriptors, 4);
    });
}

/// Frames that lie so far apart that no two of their descriptors are in one chunk; the first to be handed out first. All others are taken.
fn far_apart<R: Rig>(world: &World<R>) -> (Vec<Pfn>, Vec<PageBlock>) {
    let frames = world.pages.frames();
    let gfp = Gfp::kernel(&world.ctx);
    let mut taken = Vec::new();
    while let Ok(block) = frames.alloc(&gfp, Order::ZERO) {
        taken.push(block);
    }
    taken.sort_by_key(|block| block.pfn());
    let first = taken[0].pfn().get();
    let is_one = |block: &mut PageBlock| (block.pfn().get() - first).is_multiple_of(128);
    let free: Vec<_> = taken.extract_if(.., is_one).take(1 << ORDER).collect();
    let apart = free.iter().map(PageBlock::pfn).collect();
    free.into_iter().rev().for_each(|block| frames.free(block));
    (apart, taken)
}

fn no_descriptor_fails_alone<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        let (frames, memmap) = (pages.frames(), pages.memmap());
        pages.always_fall_back(true);
        let atomic = Gfp::atomic().virtual_fallback();
        let (apart, taken) = far_apart(&world);
        let present = |page: &Pfn| {
            let page = PfnT::new(*page, PfnFlags::empty()).paged().unwrap();
            memmap.get(&world.ctx, page).unwrap()
        };
        for step in 0..1 << ORDER {
            // Who must not wait finds the descriptors of the first few, and those of no other.
            let held: Vec<_> = apart[..step].iter().map(present).collect();
            assert!(held.iter().all(|page| page.references() == 1));
            let failed = pages.alloc(&atomic, order(ORDER)).unwrap_err();
            assert!(
                matches!(failed, AllocPagesError::DescriptorNow(_)),
                "{failed:?}"
            );
            assert!(
                held.iter().all(|page| page.references() == 1),
                "step {step}"
            );
            drop(held);
            assert_eq!(world.free_frames(), 1 << ORDER, "step {step}");
            memmap.reclaim(&world.ctx, 0).unwrap();
            assert_eq!(memmap.counters().live_bytes, 0, "step {step}");
            // In the same order again.
            let again = (0..1 << ORDER).map(|_| frames.alloc(&atomic, Order::ZERO).unwrap());
            let mut again: Vec<_> = again.collect();
            again.sort_by_key(|block| core::cmp::Reverse(block.pfn()));
            again.into_iter().for_each(|block| frames.free(block));
        }
        let held: Vec<_> = apart.iter().map(present).collect();
        drop(pages.alloc(&atomic, order(ORDER)).unwrap());
        drop(held);
        assert_eq!(pages.counters().failed_descriptors, 1 << ORDER);
        taken.into_iter().for_each(|block| frames.free(block));
        world.nothing_remains();
    });
}

on_each_machine! {
    no_descriptor_fails_alone
    no_frame_fails_alone
    a_mapping_that_fails_after_its_addresses_were_taken_leaves_none_of_them
    addresses_that_run_out_take_nothing_with_them
    descriptors_that_cannot_be_had_take_nothing_with_them
}
