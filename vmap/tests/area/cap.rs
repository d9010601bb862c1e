//! What waits for a shootdown is bounded.

use pageless_fault::Protection;
use pageless_vmap::area::Backlog;

use crate::rig::{Rig, small, special};

pub(crate) fn after_a_call_that_may_sleep_no_more_waits_than_the_cap<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let cap = 32;
        let vm = rig.vmalloc(512, small(cap));
        let frames: Vec<_> = (0..20).map(|n| special(rig.frame(n))).collect();
        let lazy = || vm.counters().lazy_pages;
        for round in 0..100 {
            let pages = 1 + (round * 7) % 20;
            let at = vm.vmap(ctx, &frames[..pages], Protection::Read).unwrap();
            vm.vunmap(ctx, at).unwrap();
            assert!(lazy() <= cap, "{} pages wait", lazy());
        }
        assert!(vm.counters().purges < 60, "{}", vm.counters());
        // Those who must not wait may pass it; the next who may does not.
        let areas: Vec<_> = (0..8)
            .map(|_| vm.vmap(ctx, &frames[..8], Protection::Read).unwrap())
            .collect();
        let mut told = Backlog::UnderCap;
        for at in areas {
            told = vm.vunmap_atomic(at).unwrap();
        }
        assert_eq!(told, Backlog::OverCap { lazy: lazy(), cap });
        let at = vm.vmap(ctx, &frames[..1], Protection::Read).unwrap();
        assert!(lazy() <= cap, "{} pages wait", lazy());
        vm.vunmap(ctx, at).unwrap();
        vm.self_check().unwrap();
    });
}

pub(crate) fn nothing_is_shot_down_below_the_cap<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let vm = rig.vmalloc(1024, small(200));
        let frames: Vec<_> = (0..4).map(|n| special(rig.frame(n))).collect();
        // 40 areas of 5 pages with their guard pages: the cap, and not above it.
        for _ in 0..40 {
            let at = vm.vmap(ctx, &frames, Protection::Read).unwrap();
            vm.vunmap(ctx, at).unwrap();
        }
        assert_eq!((vm.counters().purges, vm.counters().lazy_pages), (0, 200));
        let at = vm.vmap(ctx, &frames[..1], Protection::Read).unwrap();
        vm.vunmap(ctx, at).unwrap();
        assert_eq!((vm.counters().purges, vm.counters().lazy_pages), (1, 0));
        assert_eq!(vm.counters().purged_areas, 41);
    });
}

pub(crate) fn an_eager_space_shoots_every_unmapping_down<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let vm = rig.vmalloc(512, small(200).eager());
        for n in 1..=5 {
            let at = vm
                .vmap(ctx, &[special(rig.frame(n))], Protection::Read)
                .unwrap();
            vm.vunmap(ctx, at).unwrap();
            assert_eq!((vm.counters().purges, vm.counters().lazy_pages), (n, 0));
        }
    });
}
