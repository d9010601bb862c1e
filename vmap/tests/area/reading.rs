//! Reading across areas and what lies between them.

use pageless_fault::{Protection, VirtAddr};

use crate::rig::{Rig, fill, small, special, tag_at};

pub(crate) fn holes_and_guard_pages_read_as_zeroes<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let vm = rig.vmalloc(512, small(64));
        for n in 0..8 {
            fill(rig, rig.frame(n), 100 + n);
        }
        let frames: Vec<_> = (0..8).map(|n| special(rig.frame(n))).collect();
        let mut areas = [
            vm.vmap(ctx, &frames[..2], Protection::Read).unwrap(),
            vm.vmap(ctx, &frames[2..4], Protection::Read).unwrap(),
            vm.vmap(ctx, &frames[4..6], Protection::Read).unwrap(),
        ];
        areas.sort_unstable();
        vm.vunmap(ctx, areas[1]).unwrap();
        let small = vm.vm_map_ram(ctx, &frames[6..], Protection::Read).unwrap();
        // The whole space, and beyond its end, from the middle of a word.
        let base = pageless_fault::Vspace::base(vm.space());
        let mut all = vec![0xff; 512 * 4096 + 4096];
        let found = vm.vread(base, &mut all);
        assert_eq!(found.read, 6 * 4096);
        assert_eq!(found.read + found.zeroed, all.len());
        let tag = |address: VirtAddr| {
            let at = address.checked_offset_from(base).unwrap() as usize;
            u64::from_le_bytes(all[at..at + 8].try_into().unwrap())
        };
        for (page, start) in [
            (0, areas[0]),
            (1, areas[0]),
            (0, areas[2]),
            (0, small.address()),
        ] {
            let at = start.checked_add(page * 4096).unwrap();
            assert_eq!(Some(tag(at)), tag_at(vm.space(), at, 0));
            assert_ne!(tag(at), 0);
        }
        for start in [areas[0], areas[1], areas[2]] {
            assert_eq!(tag(start.checked_add(2 * 4096).unwrap()), 0);
        }
        assert_eq!(tag(areas[1]), 0);
        // A few bytes across the end of an area.
        let mut few = [0xff; 10];
        let found = vm.vread(areas[0].checked_add(2 * 4096 - 3).unwrap(), &mut few);
        assert_eq!((found.read, found.zeroed), (3, 7));
        assert_eq!(few, [0; 10]);
    });
}

pub(crate) fn what_is_unmapped_is_not_read_through_an_old_translation<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let vm = rig.vmalloc(512, small(64));
        fill(rig, rig.frame(0), 9);
        let frames = [special(rig.frame(0))];
        let at = vm.vmap(ctx, &frames, Protection::Read).unwrap();
        let mut tag = [0; 8];
        assert_eq!(vm.vread(at, &mut tag).read, 8);
        assert_eq!(u64::from_le_bytes(tag), 9);
        vm.vunmap(ctx, at).unwrap();
        assert_eq!(vm.vread(at, &mut tag).zeroed, 8);
        assert_eq!(tag, [0; 8]);
    });
}
