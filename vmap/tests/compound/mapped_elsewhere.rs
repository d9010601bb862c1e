//! Hazard: a block ends while one of its pages is mapped somewhere else, and whoever reads there sees what its next user writes.

use alloc::sync::Arc;

use pageless_fault::{Protection, Vspace};
use pageless_pfn::{Pfn, PfnFlags, PfnT};
use pageless_vmap::area::{ReferenceError, Vmalloc, VmapError};
use pageless_vmap::frames::{Gfp, Order};

use super::rig::{Rig, Size, on_each_machine, order};

fn paged(pfn: Pfn) -> PfnT {
    PfnT::new(pfn, PfnFlags::empty())
}

fn a_block_stays_as_long_as_one_of_its_pages_is_mapped<R: Rig>() {
    let size = Size {
        frames: 64,
        ..Size::default()
    };
    R::run(size, |world| {
        let pages = &world.pages;
        let gfp = Gfp::kernel(&world.ctx).virtual_fallback();
        let vm = Vmalloc::over(Arc::clone(pages.areas()), Arc::clone(pages));
        for is_virtual in [false, true] {
            pages.always_fall_back(is_virtual);
            let block = pages.alloc(&gfp, order(2)).unwrap();
            block.write(3 * 4096, b"kept").unwrap();
            let (head, last) = (block.head(), block.nth(3).unwrap());
            // A tail, and twice.
            let list = [paged(last), paged(head), paged(last)];
            let at = vm.vmap(&world.ctx, &list, Protection::Read).unwrap();
            assert_eq!(block.references(), 4);
            drop(block);
            // Whoever takes all memory there is does not get those frames.
            let mut others = Vec::new();
            while let Ok(other) = pages.alloc(&gfp, Order::ZERO) {
                other.write(0, b"next").unwrap();
                others.push(other);
            }
            assert_eq!(others.len(), 60);
            let space = pages.areas().space();
            for page in [0, 2] {
                let mut seen = [0; 4];
                let at = at.checked_add(page * 4096).unwrap();
                space.read(space.offset_of(at).unwrap(), &mut seen).unwrap();
                assert_eq!(&seen, b"kept");
            }
            vm.vunmap(&world.ctx, at).unwrap();
            assert!(pages.get_page(last).is_some(), "before the shootdown");
            vm.purge(&world.ctx).unwrap();
            assert!(pages.get_page(last).is_none());
            drop(others);
            world.nothing_remains();
        }
    });
}

fn a_page_of_no_block_is_not_mapped<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        let vm = Vmalloc::over(Arc::clone(pages.areas()), Arc::clone(pages));
        let block = pages.alloc(&Gfp::kernel(&world.ctx), Order::ZERO).unwrap();
        let gone = pages.alloc(&Gfp::kernel(&world.ctx), order(1)).unwrap();
        let pfn = gone.head();
        drop(gone);
        let list = [paged(block.head()), paged(pfn)];
        assert_eq!(
            vm.vmap(&world.ctx, &list, Protection::Read),
            Err(VmapError::Reference {
                index: 1,
                source: ReferenceError::NotAttached { pfn }
            })
        );
        assert_eq!(block.references(), 1);
        drop(block);
        world.nothing_remains();
    });
}

on_each_machine! {
    a_block_stays_as_long_as_one_of_its_pages_is_mapped
    a_page_of_no_block_is_not_mapped
}
