//! Whichever step fails, nothing is left behind: no addresses, no mappings, no references.

use core::sync::atomic::{AtomicU64, Ordering};

use alloc::sync::Arc;
use pageless_fault::{MaySleep, Protection, Vspace};
use pageless_pfn::{FrameCount, PagedPfn, PfnT};
use pageless_vmap::area::{
    AreaKind, AreaState, Descriptors, MapRamError, ReferenceError, Vmalloc, VmapError, VunmapError,
};
use pageless_vmap::frames::Context;

use crate::rig::failing::{Failing, Step};
use crate::rig::{Rig, one, paged, small, special};

/// References are only counted. Those that are said to be missing are refused.
#[derive(Default)]
struct Ledger {
    held: Arc<AtomicU64>,
    taken: AtomicU64,
    /// The reference that is refused, counted from 1; 0 for none.
    refused: AtomicU64,
}

struct Reference(Arc<AtomicU64>);

impl Drop for Reference {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Descriptors for Ledger {
    type Reference = Reference;

    fn reference(&self, _: &MaySleep, pfn: PagedPfn) -> Result<Reference, ReferenceError> {
        let nth = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
        if nth == self.refused.load(Ordering::Relaxed) {
            return Err(ReferenceError::NotAttached { pfn: pfn.pfn() });
        }
        self.held.fetch_add(1, Ordering::Relaxed);
        Ok(Reference(Arc::clone(&self.held)))
    }
}

impl Ledger {
    fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// A reference that was taken without asking.
    fn one(&self) -> Vec<Reference> {
        self.held.fetch_add(1, Ordering::Relaxed);
        vec![Reference(Arc::clone(&self.held))]
    }

    fn refuse(&self, nth: u64) {
        self.taken.store(0, Ordering::Relaxed);
        self.refused.store(nth, Ordering::Relaxed);
    }
}

/// Two of three have descriptors; no two are neighbours.
fn scattered<R: Rig>(rig: &R, count: u64) -> Vec<PfnT> {
    (0..count)
        .map(|n| match n % 3 {
            0 => special(rig.frame(2 * n)),
            _ => paged(rig.frame(2 * n)),
        })
        .collect()
}

fn clean<S: Vspace>(vm: &Vmalloc<S, &Ledger>, ledger: &Ledger, areas: usize) {
    vm.self_check().unwrap();
    assert_eq!(vm.areas().len(), areas);
    assert_eq!(ledger.held(), 0);
    assert_eq!(vm.counters().lazy_pages, 0);
}

pub(crate) fn a_failed_mapping_leaves_nothing_behind_whichever_page_fails<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let ledger = Ledger::default();
        let vm = Vmalloc::new(Failing::new(rig.space(512)), &ledger, small(64));
        let frames = scattered(rig, 9);
        for page in 0..9 {
            vm.space().fail(Step::Map, page);
            let failed = vm.vmap(ctx, &frames, Protection::Read);
            assert!(
                matches!(failed, Err(VmapError::Map { index, .. }) if index == page),
                "{failed:?}"
            );
            // What was mapped, if only for a moment, may be cached.
            assert_eq!(ledger.held(), if page > 0 { 6 } else { 0 });
            vm.self_check().unwrap();
            vm.purge(ctx).unwrap();
            clean(&vm, &ledger, 0);
        }
        vm.space().fail(Step::Map, 9);
        let at = vm.vmap(ctx, &frames, Protection::Read).unwrap();
        vm.vunmap(ctx, at).unwrap();
        vm.purge(ctx).unwrap();
        clean(&vm, &ledger, 0);
    });
}

pub(crate) fn what_a_failed_mapping_could_not_take_down_goes_later<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let ledger = Ledger::default();
        let vm = Vmalloc::new(Failing::new(rig.space(512)), &ledger, small(64));
        let frames = scattered(rig, 9);
        let run = |n| one(rig.frame(n));
        for owned in [false, true] {
            vm.space().fail(Step::Map, 4);
            vm.space().fail(Step::Clear, 0);
            let failed = if owned {
                let (context, kind) = (Context::MaySleep(ctx), AreaKind::Map);
                let (pages, owned) = (FrameCount::new(9), Box::new(ledger.one()));
                let runs = (0..9).map(|n| run(2 * n));
                let mapped = vm.map_owned(context, pages, runs, Protection::Read, kind, owned);
                mapped.map_err(VmapError::from)
            } else {
                vm.vmap(ctx, &frames, Protection::Read)
            };
            assert!(matches!(failed, Err(VmapError::Map { .. })), "{failed:?}");
            // Nobody has the address: whoever comes next tries again.
            assert!(!vm.space().is_pending(Step::Clear));
            assert_eq!(ledger.held(), if owned { 1 } else { 6 });
            vm.self_check().unwrap();
            vm.purge(ctx).unwrap();
            clean(&vm, &ledger, 0);
        }
    });
}

pub(crate) fn a_failed_reference_leaves_nothing_behind_whichever_it_is<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let ledger = Ledger::default();
        let vm = Vmalloc::new(rig.space(512), &ledger, small(64));
        let frames = scattered(rig, 9);
        for nth in 1..=6 {
            ledger.refuse(nth);
            let failed = vm.vmap(ctx, &frames, Protection::Read);
            let expected = [1, 2, 4, 5, 7, 8][nth as usize - 1];
            assert!(
                matches!(failed, Err(VmapError::Reference { index, .. }) if index == expected),
                "{failed:?}"
            );
            // Nothing was mapped: nothing has to wait.
            clean(&vm, &ledger, 0);
        }
    });
}

pub(crate) fn where_the_machine_has_no_room_a_purge_makes_some<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let ledger = Ledger::default();
        let vm = Vmalloc::new(Failing::new(rig.space(512)), &ledger, small(64));
        let frames = scattered(rig, 9);
        let at = vm.vmap(ctx, &frames, Protection::Read).unwrap();
        vm.vunmap(ctx, at).unwrap();
        vm.space().fail_for_want_of_room(4);
        let at = vm.vmap(ctx, &frames, Protection::Read).unwrap();
        assert_eq!((vm.counters().purges, vm.counters().failed), (1, 0));
        vm.self_check().unwrap();
        vm.vunmap(ctx, at).unwrap();
        vm.purge(ctx).unwrap();
        clean(&vm, &ledger, 0);
    });
}

pub(crate) fn a_failed_small_mapping_leaves_nothing_behind<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let ledger = Ledger::default();
        let vm = Vmalloc::new(Failing::new(rig.space(2048)), &ledger, small(64));
        let frames = scattered(rig, 9);
        for page in 0..9 {
            vm.space().fail(Step::Map, page);
            let failed = vm.vm_map_ram(ctx, &frames, Protection::Read);
            assert!(
                matches!(failed, Err(MapRamError::Map { index, .. }) if index == page),
                "{failed:?}"
            );
            assert_eq!(vm.counters().lazy_pages, page);
            vm.self_check().unwrap();
            vm.purge(ctx).unwrap();
            // The block stays, for the next.
            clean(&vm, &ledger, 1);
        }
        let mapping = vm.vm_map_ram(ctx, &frames, Protection::Read).unwrap();
        vm.space().fail(Step::Clear, 0);
        let (mapping, owned, _) = vm.vm_unmap_ram(mapping, 5).unwrap_err();
        assert_eq!(owned, 5);
        let aliased = vm.vm_unmap_ram(mapping, owned).unwrap();
        // A shootdown that fails gives nothing back, then or later.
        vm.space().fail(Step::Shoot, 0);
        vm.vm_unmap_aliases(ctx).unwrap_err();
        let aliased = vm.unaliased(aliased).unwrap_err();
        vm.vm_unmap_aliases(ctx).unwrap();
        let _locked_in = vm.unaliased(aliased).unwrap_err();
        assert_eq!(vm.counters().quarantined_pages, 9);
        let mapping = vm.vm_map_ram(ctx, &frames, Protection::Read).unwrap();
        let aliased = vm.vm_unmap_ram(mapping, 6).unwrap();
        vm.vm_unmap_aliases(ctx).unwrap();
        assert_eq!(vm.unaliased(aliased).unwrap(), 6);
        clean(&vm, &ledger, 1);
    });
}

pub(crate) fn a_refused_unmapping_leaves_all_as_it_was<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let ledger = Ledger::default();
        let vm = Vmalloc::new(Failing::new(rig.space(512)), &ledger, small(64));
        let frames = scattered(rig, 9);
        let at = vm.vmap(ctx, &frames, Protection::Read).unwrap();
        for atomic in [false, true] {
            vm.space().fail(Step::Clear, 0);
            let refused = if atomic {
                vm.vunmap_atomic(at).map(drop)
            } else {
                vm.vunmap(ctx, at)
            };
            assert!(
                matches!(refused, Err(VunmapError::Refused { .. })),
                "{refused:?}"
            );
            vm.purge(ctx).unwrap();
            assert_eq!(ledger.held(), 6);
            assert_eq!(vm.find_area(at).unwrap().state, AreaState::Busy);
            assert_eq!(vm.vmalloc_to_pfn(at), Some(rig.frame(0)));
            vm.self_check().unwrap();
        }
        vm.vunmap(ctx, at).unwrap();
        vm.purge(ctx).unwrap();
        clean(&vm, &ledger, 0);
    });
}

pub(crate) fn a_failed_shootdown_locks_everything_in<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let ledger = Ledger::default();
        let vm = Vmalloc::new(Failing::new(rig.space(512)), &ledger, small(64));
        let frames = scattered(rig, 9);
        let mut lost = Vec::new();
        for step in [Step::Shoot, Step::Wait] {
            let at = vm.vmap(ctx, &frames, Protection::Read).unwrap();
            vm.vunmap(ctx, at).unwrap();
            vm.space().fail(step, 0);
            vm.purge(ctx).unwrap_err();
            assert!(!vm.space().is_pending(step));
            lost.push(at);
            for at in &lost {
                assert_eq!(vm.find_area(*at).unwrap().state, AreaState::Quarantined);
            }
            vm.purge(ctx).unwrap();
            vm.self_check().unwrap();
        }
        let counters = vm.counters();
        assert_eq!(
            (counters.quarantined_areas, counters.quarantined_pages),
            (2, 20)
        );
        assert_eq!((counters.lazy_pages, counters.purges), (0, 0));
        assert_eq!(ledger.held(), 12);
        // Their addresses never come again; a purge that is due and fails is told, and the area is unmapped all the same.
        let large: Vec<_> = (0..60).map(|n| special(rig.frame(n))).collect();
        for _ in 0..30 {
            let at = vm.vmap(ctx, &large, Protection::Read).unwrap();
            assert!(
                lost.iter()
                    .all(|lost| *lost < at || at.checked_add(61 * 4096).unwrap() <= *lost)
            );
            vm.vunmap(ctx, at).unwrap();
        }
        vm.purge(ctx).unwrap();
        let at = vm.vmap(ctx, &large, Protection::Read).unwrap();
        let other = vm.vmap(ctx, &large, Protection::Read).unwrap();
        vm.vunmap(ctx, at).unwrap();
        vm.space().fail(Step::Shoot, 0);
        let unproved = vm.vunmap(ctx, other);
        assert!(
            matches!(unproved, Err(VunmapError::Unproved(_))),
            "{unproved:?}"
        );
        assert_eq!(vm.counters().quarantined_pages, 20 + 2 * 61);
        vm.self_check().unwrap();
    });
}
