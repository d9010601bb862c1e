//! Addresses, and what an area owns, are free only when no CPU can reach them any more.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use pageless_fault::{FrameMemory, MaySleep, Protection, VirtAddr, Vspace};
use pageless_pfn::{FrameCount, Pfn};
use pageless_vmap::area::{AreaKind, AreaSpace, Release, Unreachable};
use pageless_vmap::frames::Context;

use crate::rig::{Rig, cpu, fill, one, small, special, tag_at};

/// A frame that is dead when it is released.
struct Mortal<M> {
    memory: Arc<M>,
    pfn: Pfn,
    dead: Arc<AtomicU64>,
}

impl<M: FrameMemory> Release for Mortal<M> {
    fn release(self: Box<Self>, _: &Unreachable<'_>, _: &MaySleep) {
        self.memory.retire(one(self.pfn));
        self.dead.fetch_add(1, Ordering::Relaxed);
    }
}

pub(crate) fn addresses_and_owned_things_come_back_only_after_the_flush<R: Rig>(rig: &R) {
    let vm = rig.vmalloc(512, small(256));
    let dead = Arc::new(AtomicU64::new(0));
    let map = |ctx: &MaySleep, n: u64| {
        let pfn = rig.frame(n);
        fill(rig, pfn, n);
        let owned = Mortal {
            memory: Arc::clone(rig.memory()),
            pfn,
            dead: Arc::clone(&dead),
        };
        vm.map_owned(
            Context::MaySleep(ctx),
            FrameCount::new(1),
            [one(pfn)],
            Protection::ReadWrite,
            AreaKind::Map,
            Box::new(owned),
        )
        .unwrap()
    };
    let mut seen = Vec::new();
    for n in 0..40 {
        let at = rig.on_cpu(|ctx| map(ctx, n));
        assert!(
            !seen.contains(&at),
            "{at} is given out before it is flushed"
        );
        seen.push(at);
        // Every CPU has it cached before it goes.
        rig.cpus(
            (0..3)
                .map(|_| cpu(|_| assert_eq!(tag_at(vm.space(), at, 0), Some(n))))
                .collect(),
        );
        rig.on_cpu(|ctx| vm.vunmap(ctx, at).unwrap());
        assert_eq!(dead.load(Ordering::Relaxed), 0);
    }
    rig.on_cpu(|ctx| {
        let purged = vm.purge(ctx).unwrap();
        assert_eq!((purged.areas, purged.pages), (40, 40));
        assert_eq!(dead.load(Ordering::Relaxed), 40);
        vm.self_check().unwrap();
    });
    // Now they come again, and show what is there now on every CPU.
    let again: Vec<_> = (100..120)
        .map(|n| (rig.on_cpu(|ctx| map(ctx, n)), n))
        .collect();
    assert!(again.iter().any(|(at, _)| seen.contains(at)));
    rig.cpus(
        (0..3)
            .map(|_| {
                cpu(|_| {
                    for (at, n) in &again {
                        assert_eq!(tag_at(vm.space(), *at, 0), Some(*n));
                    }
                    for at in &seen {
                        if again.iter().all(|(used, _)| used != at) {
                            assert_eq!(tag_at(vm.space(), *at, 0), None);
                        }
                    }
                })
            })
            .collect(),
    );
    rig.on_cpu(|_| drop(vm));
}

/// An area that is unmapped, and purged, when another one is released.
struct Next<S: Vspace> {
    areas: Arc<AreaSpace<S>>,
    address: VirtAddr,
}

impl<S: Vspace> Release for Next<S> {
    fn release(self: Box<Self>, _: &Unreachable<'_>, ctx: &MaySleep) {
        self.areas.unmap_at(ctx, self.address).unwrap();
        self.areas.purge(ctx).unwrap();
    }
}

pub(crate) fn what_is_released_may_unmap_and_purge_itself<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let vm = rig.vmalloc(512, small(64));
        let map = |owned| {
            vm.map_owned(
                Context::MaySleep(ctx),
                FrameCount::new(1),
                [one(rig.frame(0))],
                Protection::Read,
                AreaKind::Map,
                owned,
            )
            .unwrap()
        };
        let mut address = map(Box::new(()));
        for _ in 0..10 {
            address = map(Box::new(Next {
                areas: Arc::clone(vm.area_space()),
                address,
            }));
        }
        vm.vunmap(ctx, address).unwrap();
        vm.purge(ctx).unwrap();
        assert_eq!((vm.counters().purges, vm.areas().len()), (11, 0));
        vm.self_check().unwrap();
    });
}

pub(crate) fn one_shootdown_covers_the_actual_ranges<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let vm = rig.vmalloc(1024, small(512));
        let frames: Vec<_> = (0..8).map(|n| special(rig.frame(n))).collect();
        let areas: Vec<_> = (0..24)
            .map(|_| vm.vmap(ctx, &frames, Protection::Read).unwrap())
            .collect();
        // Two, far apart: their pages and no others.
        vm.vunmap(ctx, areas[0]).unwrap();
        vm.vunmap(ctx, areas[20]).unwrap();
        let purged = vm.purge(ctx).unwrap();
        assert_eq!((purged.areas, purged.pages, purged.ranges), (2, 16, 2));
        assert!(!purged.full);
        // More pages than are worth naming: areas that are neighbours are one range.
        for at in &areas[1..20] {
            vm.vunmap(ctx, *at).unwrap();
        }
        let purged = vm.purge(ctx).unwrap();
        assert_eq!((purged.areas, purged.pages), (19, 19 * 8));
        assert!(purged.full);
        assert!(purged.ranges < 19, "{purged}");
        assert_eq!(vm.purge(ctx).unwrap().ranges, 0);
        assert_eq!(vm.counters().purges, 2);
        vm.self_check().unwrap();
    });
}
