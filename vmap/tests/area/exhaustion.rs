//! A space that is full.

use pageless_fault::Protection;
use pageless_vmap::area::{AllocAreaError, VmapError};

use crate::rig::{Rig, small, special};

pub(crate) fn a_full_space_is_purged_once_before_the_error_with_the_numbers<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        // A cap that is never reached: only want of addresses makes a purge.
        let vm = rig.vmalloc(512, small(10_000));
        let frames: Vec<_> = (0..31).map(|n| special(rig.frame(n))).collect();
        let areas: Vec<_> = (0..16)
            .map(|_| vm.vmap(ctx, &frames, Protection::Read).unwrap())
            .collect();
        let no_space = |free, largest| {
            Err(VmapError::Alloc(AllocAreaError::NoSpace {
                asked: 32,
                free,
                largest,
                lazy: 0,
                quarantined: 0,
            }))
        };
        assert_eq!(vm.vmap(ctx, &frames, Protection::Read), no_space(0, 0));
        assert_eq!(vm.counters().purges, 0);
        // All of it waits: a purge makes room for one as large as all of them.
        for at in &areas {
            vm.vunmap(ctx, *at).unwrap();
        }
        assert_eq!(vm.counters().purges, 0);
        let large: Vec<_> = (0..511).map(|n| special(rig.frame(n))).collect();
        let at = vm.vmap(ctx, &large, Protection::Read).unwrap();
        assert_eq!((vm.counters().purges, vm.counters().purged_areas), (1, 16));
        vm.self_check().unwrap();
        vm.vunmap(ctx, at).unwrap();
        // Every second one stays: enough is free, but not in one piece.
        let areas: Vec<_> = (0..32)
            .map(|_| vm.vmap(ctx, &frames[..15], Protection::Read).unwrap())
            .collect();
        let mut sorted = areas;
        sorted.sort_unstable();
        for at in sorted.iter().step_by(2) {
            vm.vunmap(ctx, *at).unwrap();
        }
        assert_eq!(vm.vmap(ctx, &frames, Protection::Read), no_space(256, 16));
        vm.self_check().unwrap();
    });
}

pub(crate) fn no_list_and_too_long_a_list_are_refused<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let vm = rig.vmalloc(512, small(64));
        let empty = Err(VmapError::Alloc(AllocAreaError::Empty));
        assert_eq!(vm.vmap(ctx, &[], Protection::Read), empty);
        let frames: Vec<_> = (0..512).map(|n| special(rig.frame(n))).collect();
        let too_many = Err(VmapError::Alloc(AllocAreaError::TooMany {
            asked: 512,
            most: 511,
        }));
        assert_eq!(vm.vmap(ctx, &frames, Protection::Read), too_many);
        vm.self_check().unwrap();
    });
}
