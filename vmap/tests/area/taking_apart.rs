//! What a purge has proved gone comes back bit by bit, and all of it in the end.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use pageless_fault::{MaySleep, Protection, VirtAddr};
use pageless_pfn::FrameCount;
use pageless_vmap::area::{AreaKind, Release, Unreachable};
use pageless_vmap::frames::Context;

use crate::rig::{Rig, TestVmalloc, one, small};

/// Counts how often it was released.
struct Counted(Arc<AtomicU64>);

impl Release for Counted {
    fn release(self: Box<Self>, _: &Unreachable<'_>, _: &MaySleep) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Areas of one page, so that with their guard pages the last one's unmapping passes a cap of 64 pages.
const AREAS: u64 = 33;

fn map<R: Rig>(
    rig: &R,
    vm: &TestVmalloc<R>,
    ctx: &MaySleep,
    released: &Arc<AtomicU64>,
) -> VirtAddr {
    let owned = Box::new(Counted(Arc::clone(released)));
    let (pages, frame) = (FrameCount::new(1), one(rig.frame(0)));
    vm.map_owned(
        Context::MaySleep(ctx),
        pages,
        [frame],
        Protection::Read,
        AreaKind::Map,
        owned,
    )
    .unwrap()
}

pub(crate) fn a_purge_at_the_cap_leaves_the_areas_to_the_calls_behind_it<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let vm = rig.vmalloc(512, small(64));
        let released = Arc::new(AtomicU64::new(0));
        let areas: Vec<_> = (0..AREAS).map(|_| map(rig, &vm, ctx, &released)).collect();
        for at in areas {
            vm.vunmap(ctx, at).unwrap();
        }
        let now = || {
            let counters = vm.counters();
            vm.self_check().unwrap();
            (counters.flushed_areas, released.load(Ordering::Relaxed))
        };
        assert_eq!((vm.counters().purges, vm.counters().lazy_pages), (1, 0));
        assert_eq!(now(), (AREAS, 0));
        for left in [AREAS - 16, AREAS - 32, 0, 0] {
            let _one_more = map(rig, &vm, ctx, &Arc::new(AtomicU64::new(0)));
            assert_eq!(now(), (left, AREAS - left));
        }
    });
}

pub(crate) fn a_purge_by_name_takes_all_of_them_apart<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let vm = rig.vmalloc(512, small(64));
        let released = Arc::new(AtomicU64::new(0));
        let areas: Vec<_> = (0..=AREAS).map(|_| map(rig, &vm, ctx, &released)).collect();
        for at in areas {
            let _backlog = vm.vunmap_atomic(at).unwrap();
        }
        assert_eq!(released.load(Ordering::Relaxed), 0);
        // One shootdown, whatever has to be taken apart.
        assert_eq!(vm.purge(ctx).unwrap().areas, AREAS + 1);
        assert_eq!(released.load(Ordering::Relaxed), AREAS + 1);
        let counters = vm.counters();
        assert_eq!((counters.purges, counters.flushed_areas), (1, 0));
        assert!(vm.areas().is_empty());
        vm.self_check().unwrap();
    });
}

pub(crate) fn whoever_needs_addresses_gets_those_that_have_been_flushed<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let vm = rig.vmalloc(512, small(64));
        let released = Arc::new(AtomicU64::new(0));
        let areas: Vec<_> = (0..AREAS).map(|_| map(rig, &vm, ctx, &released)).collect();
        for at in areas {
            vm.vunmap(ctx, at).unwrap();
        }
        assert_eq!(vm.counters().flushed_areas, AREAS);
        // All there is, but for the guard page.
        let whole = vm.map_owned(
            Context::MaySleep(ctx),
            FrameCount::new(511),
            (0..511).map(|n| one(rig.frame(n))),
            Protection::Read,
            AreaKind::Map,
            Box::new(()),
        );
        let _whole = whole.unwrap();
        assert_eq!(released.load(Ordering::Relaxed), AREAS);
        vm.self_check().unwrap();
    });
}
