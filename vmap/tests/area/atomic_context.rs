//! Those who must not wait.

use pageless_fault::{AtomicSection, Protection};
use pageless_vmap::area::{Backlog, VunmapError};

use crate::rig::{Rig, small, special};

pub(crate) fn an_unmapping_sends_nothing_and_the_next_sleeper_purges<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let vm = rig.vmalloc(512, small(8));
        let frames: Vec<_> = (0..4).map(|n| special(rig.frame(n))).collect();
        let areas: Vec<_> = (0..10)
            .map(|_| vm.vmap(ctx, &frames, Protection::Read).unwrap())
            .collect();
        {
            let _section = AtomicSection::enter(ctx);
            for (n, at) in (1..).zip(&areas) {
                let backlog = vm.vunmap_atomic(*at).unwrap();
                let lazy = 5 * n;
                let expected = match lazy {
                    ..=8 => Backlog::UnderCap,
                    _ => Backlog::OverCap { lazy, cap: 8 },
                };
                assert_eq!(backlog, expected);
            }
            assert_eq!(vm.counters().purges, 0);
        }
        vm.vmap(ctx, &frames[..1], Protection::Read).unwrap();
        assert_eq!((vm.counters().purges, vm.counters().lazy_pages), (1, 0));
        vm.self_check().unwrap();
    });
}

pub(crate) fn what_is_unmapped_by_address_twice_is_refused<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let vm = rig.vmalloc(512, small(64));
        let frames: Vec<_> = (0..4).map(|n| special(rig.frame(n))).collect();
        let address = vm.vmap(ctx, &frames, Protection::Read).unwrap();
        for inside in [1, 4095, 4096, 4 * 4096] {
            let address = address.checked_add(inside).unwrap();
            let none = VunmapError::NoSuchArea { address };
            assert_eq!(vm.vunmap(ctx, address), Err(none));
            assert_eq!(vm.vunmap_atomic(address), Err(none));
        }
        let block = vm.vm_map_ram(ctx, &frames, Protection::Read).unwrap();
        let held = VunmapError::Held {
            address: block.address(),
        };
        assert_eq!(vm.vunmap(ctx, block.address()), Err(held));
        vm.vunmap(ctx, address).unwrap();
        let again = VunmapError::AlreadyUnmapped { address };
        assert_eq!(vm.vunmap(ctx, address), Err(again));
        assert_eq!(vm.vunmap_atomic(address), Err(again));
        vm.purge(ctx).unwrap();
        let none = VunmapError::NoSuchArea { address };
        assert_eq!(vm.vunmap(ctx, address), Err(none));
        vm.self_check().unwrap();
    });
}
