//! What there is, for people to read.

use pageless_fault::{Protection, VirtAddr};
use pageless_vmap::area::{AreaKind, AreaState};

use crate::rig::{Rig, paged, small, special};

pub(crate) fn areas_are_listed_by_address_with_who_asked<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let vm = rig.vmalloc(4096, small(64).nodes(4));
        let frames = [
            special(rig.frame(0)),
            paged(rig.frame(1)),
            paged(rig.frame(9)),
        ];
        let line = line!() + 1;
        let first = vm.vmap(ctx, &frames, Protection::Read).unwrap();
        let second = vm.vmap(ctx, &frames[..1], Protection::Read).unwrap();
        let small = vm.vm_map_ram(ctx, &frames, Protection::Read).unwrap();
        vm.vunmap(ctx, second).unwrap();
        let areas = vm.areas();
        assert!(areas.is_sorted_by_key(|area| area.start));
        let states: Vec<_> = [first, second]
            .into_iter()
            .map(|at| areas.iter().find(|area| area.start == at).unwrap())
            .map(|area| {
                (
                    area.kind,
                    area.state,
                    area.pages.get(),
                    area.referenced.get(),
                )
            })
            .collect();
        assert_eq!(
            states,
            [
                (AreaKind::Map, AreaState::Busy, 3, 2),
                (AreaKind::Map, AreaState::Lazy, 1, 0)
            ]
        );
        let block = areas.iter().find(|area| area.kind == AreaKind::RamBlock);
        assert!(block.is_some_and(|area| area.start <= small.address()));
        let info = vm.find_area(first).unwrap();
        assert_eq!(
            info.to_string(),
            format!(
                "{}-{}    16384 {}:{line} pages=3 referenced=2 vmap",
                info.start,
                info.end,
                file!()
            )
        );
        assert!(
            vm.find_area(second)
                .unwrap()
                .to_string()
                .ends_with(" vmap unpurged")
        );
        vm.purge(ctx).unwrap();
        assert_eq!(vm.find_area(second), None);
        assert_eq!(vm.areas().len(), 2);
    });
}

pub(crate) fn every_address_of_an_area_finds_it<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let vm = rig.vmalloc(4096, small(64).nodes(5));
        let frames: Vec<_> = (0..100).map(|n| special(rig.frame(n))).collect();
        // Over several zones, and so over several nodes.
        for pages in [1, 100, 15, 16, 17, 63] {
            let at = vm.vmap(ctx, &frames[..pages], Protection::Read).unwrap();
            for page in 0..=pages as u64 {
                let address = at.checked_add(page * 4096 + 4095).unwrap();
                assert_eq!(vm.find_area(address).map(|area| area.start), Some(at));
            }
        }
        let base = pageless_fault::Vspace::base(vm.space());
        assert!(vm.is_vmalloc_addr(base));
        assert!(!vm.is_vmalloc_addr(VirtAddr::new(base.get() - 1)));
        assert!(!vm.is_vmalloc_addr(base.checked_add(4096 * 4096).unwrap()));
        assert_eq!(vm.find_area(VirtAddr::new(0)), None);
    });
}
