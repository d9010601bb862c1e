//! Lists in which some frames have descriptors and some have not.

use pageless_fault::Protection;
use pageless_pfn::{PfnFlags, PfnT};
use pageless_vmap::area::{Vmalloc, VmapError};

use crate::rig::{Rig, fill, paged, references, small, special, tag_at};

pub(crate) fn a_mixed_list_references_those_with_descriptors_until_the_flush<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let regions = rig.regions();
        let vm = Vmalloc::new(rig.space(512), regions.clone(), small(64));
        let numbers = [7, 8, 3, 500, 9, 10, 11, 2];
        let frames: Vec<_> = numbers
            .iter()
            .map(|&n| match n % 2 {
                0 => paged(rig.frame(n)),
                _ => special(rig.frame(n)),
            })
            .collect();
        for &n in &numbers {
            fill(rig, rig.frame(n), n);
        }
        let list = frames.clone();
        let at = vm.vmap(ctx, &list, Protection::Read).unwrap();
        assert_eq!(list, frames);
        let expect = |held: bool| {
            for &n in &numbers {
                let expected = u32::from(held && n % 2 == 0);
                assert_eq!(
                    references(&regions, ctx, rig.frame(n)),
                    expected,
                    "frame {n}"
                );
            }
        };
        expect(true);
        for (page, &n) in (0..).zip(&numbers) {
            assert_eq!(tag_at(vm.space(), at, page), Some(n));
            let address = at.checked_add(page * 4096 + 123).unwrap();
            assert_eq!(vm.vmalloc_to_pfn(address), Some(rig.frame(n)));
        }
        assert_eq!(vm.find_area(at).unwrap().referenced.get(), 4);
        vm.vunmap(ctx, at).unwrap();
        assert_eq!(vm.vmalloc_to_pfn(at), None);
        // Some CPU may still see them.
        expect(true);
        vm.purge(ctx).unwrap();
        expect(false);
        vm.self_check().unwrap();
    });
}

pub(crate) fn a_page_may_be_in_a_list_many_times<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let regions = rig.regions();
        let vm = Vmalloc::new(rig.space(512), regions.clone(), small(64));
        let pfn = rig.frame(5);
        let one = vm
            .vmap(ctx, &[paged(pfn); 3], Protection::ReadWrite)
            .unwrap();
        let other = vm.vmap(ctx, &[paged(pfn); 2], Protection::Read).unwrap();
        assert_eq!(references(&regions, ctx, pfn), 5);
        fill(rig, pfn, 77);
        for (at, page) in [(one, 0), (one, 2), (other, 1)] {
            assert_eq!(tag_at(vm.space(), at, page), Some(77));
        }
        vm.vunmap(ctx, one).unwrap();
        vm.purge(ctx).unwrap();
        assert_eq!(references(&regions, ctx, pfn), 2);
        vm.vunmap(ctx, other).unwrap();
        vm.purge(ctx).unwrap();
        assert_eq!(references(&regions, ctx, pfn), 0);
    });
}

pub(crate) fn the_place_of_a_table_is_no_frame<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let vm = rig.vmalloc(512, small(64));
        let table = PfnT::new(rig.frame(1), PfnFlags::SG_CHAIN);
        let list = [special(rig.frame(0)), table];
        let refused = vm.vmap(ctx, &list, Protection::Read);
        assert_eq!(refused, Err(VmapError::Chain { index: 1 }));
        vm.self_check().unwrap();
    });
}
