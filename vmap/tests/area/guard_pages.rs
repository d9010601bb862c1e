//! An overrun must fault, and not end in the next area.

use pageless_fault::{Protection, Untranslated, Vspace};

use crate::rig::{Rig, small, special};

pub(crate) fn an_overrun_finds_no_translation<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let vm = rig.vmalloc(512, small(64));
        // Neighbours on both sides, of the same size and of others.
        let areas: Vec<_> = [3, 3, 1, 3, 2, 16, 3]
            .into_iter()
            .map(|pages| {
                let frames: Vec<_> = (0..pages).map(|n| special(rig.frame(n))).collect();
                let at = vm.vmap(ctx, &frames, Protection::ReadWrite).unwrap();
                (at, pages)
            })
            .collect();
        for (at, pages) in areas {
            let end = vm.space().offset_of(at).unwrap().get() + pages * 4096;
            let last = pageless_fault::WindowOffset::new(end - 2);
            let found = |write| Err(Untranslated { at: end, write });
            assert_eq!(vm.space().read(last, &mut [0; 4]), found(false));
            assert_eq!(vm.space().write(last, &[1; 4]), found(true));
            vm.vunmap(ctx, at).unwrap();
        }
        vm.purge(ctx).unwrap();
        vm.self_check().unwrap();
    });
}

pub(crate) fn neighbours_are_a_guard_page_apart<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let vm = rig.vmalloc(512, small(64));
        let frames: Vec<_> = (0..4).map(|n| special(rig.frame(n))).collect();
        for _ in 0..20 {
            vm.vmap(ctx, &frames, Protection::Read).unwrap();
        }
        let areas = vm.areas();
        assert_eq!(areas.len(), 20);
        for pair in areas.windows(2) {
            assert!(pair[0].end <= pair[1].start);
        }
        for area in areas {
            assert_eq!(area.size().get(), 5 * 4096);
            assert_eq!(area.pages.get(), 4);
        }
        vm.self_check().unwrap();
    });
}
