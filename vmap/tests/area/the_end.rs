//! What is left when an address space is dropped.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use pageless_fault::{MaySleep, Protection, SpinLock};
use pageless_pfn::FrameCount;
use pageless_vmap::area::{AreaKind, Release, Unreachable, Vmalloc};
use pageless_vmap::frames::Context;

use crate::rig::{Rig, TestVmalloc, one, paged, references, small, special};

/// Counts how often it was released.
struct Counted(Arc<AtomicU64>);

impl Release for Counted {
    fn release(self: Box<Self>, _: &Unreachable<'_>, _: &MaySleep) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn map_owned<R: Rig>(rig: &R, vm: &TestVmalloc<R>, ctx: &MaySleep, released: &Arc<AtomicU64>) {
    let at = vm.map_owned(
        Context::MaySleep(ctx),
        FrameCount::new(1),
        [one(rig.frame(0))],
        Protection::Read,
        AreaKind::Compound,
        Box::new(Counted(Arc::clone(released))),
    );
    let _published = at.unwrap();
}

pub(crate) fn what_areas_own_comes_back_whether_they_are_mapped_or_waiting<R: Rig>(rig: &R) {
    let regions = rig.regions();
    let vm = Vmalloc::new(rig.space(512), Arc::clone(&regions), small(64));
    let released = Arc::new(AtomicU64::new(0));
    let list = [
        paged(rig.frame(1)),
        special(rig.frame(2)),
        paged(rig.frame(1)),
    ];
    rig.on_cpu(|ctx| {
        for _ in 0..3 {
            map_owned(rig, &vm, ctx, &released);
        }
        let mapped = vm.vmap(ctx, &list, Protection::Read).unwrap();
        let waits = vm.vmap(ctx, &list, Protection::Read).unwrap();
        vm.vunmap(ctx, waits).unwrap();
        let _small = vm.vm_map_ram(ctx, &list[1..2], Protection::Read).unwrap();
        assert_eq!(references(&regions, ctx, rig.frame(1)), 4);
        assert!(vm.find_area(mapped).is_some());
        assert_eq!(released.load(Ordering::Relaxed), 0);
    });
    rig.on_cpu(move |_| drop(vm));
    rig.on_cpu(|ctx| assert_eq!(references(&regions, ctx, rig.frame(1)), 0));
    assert_eq!(released.load(Ordering::Relaxed), 3);
}

pub(crate) fn under_a_spin_lock_nothing_is_shot_down_and_what_areas_own_is_lost<R: Rig>(rig: &R) {
    let vm = rig.vmalloc(512, small(64));
    let released = Arc::new(AtomicU64::new(0));
    rig.on_cpu(|ctx| map_owned(rig, &vm, ctx, &released));
    rig.on_cpu(|ctx| {
        let lock = SpinLock::new(());
        let _held = lock.lock(ctx);
        drop(vm);
    });
    assert_eq!(released.load(Ordering::Relaxed), 0);
}
