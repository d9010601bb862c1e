//! Hazard: somebody else's purge is under way. What it has taken out of the lists is neither there nor back.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex, OnceLock};
use std::thread::ThreadId;

use pageless_fault::host::HostVspace;
use pageless_fault::{MaySleep, Protection, VirtAddr};
use pageless_pfn::FrameCount;
use pageless_vmap::area::{
    AreaKind, AreaSpace, Backlog, NoDescriptors, Release, Unreachable, Vmalloc,
};
use pageless_vmap::frames::Context;

use crate::rig::failing::{Failing, Step};
use crate::rig::host::HostRig;
use crate::rig::{Rig, one, small, special};

type Areas = Vmalloc<Failing<HostVspace>, NoDescriptors>;

/// More turns of waiting than anybody needs here.
const TURNS_MOST: u64 = 1 << 18;

fn areas(rig: &HostRig, cap: u64) -> Arc<Areas> {
    let space = Failing::new(rig.space(512));
    Arc::new(Vmalloc::new(space, NoDescriptors, small(cap)))
}

fn map(rig: &HostRig, vm: &Areas, ctx: &MaySleep, owned: Box<dyn Release>) -> VirtAddr {
    let (context, frame) = (Context::MaySleep(ctx), one(rig.frame(0)));
    let (pages, kind) = (FrameCount::new(1), AreaKind::Map);
    vm.map_owned(context, pages, [frame], Protection::Read, kind, owned)
        .unwrap()
}

fn until(flag: &AtomicBool) {
    while !flag.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
}

#[test]
fn whoever_unmaps_meanwhile_goes_on_up_to_the_cap() {
    let rig = HostRig::new(0);
    let ctx = MaySleep::claim();
    let cap = 8;
    let vm = areas(&rig, cap);
    let frame = special(rig.frame(0));
    // With its guard page each is two of the pages that may wait.
    let mut areas: Vec<_> = (0..9)
        .map(|_| vm.vmap(&ctx, &[frame], Protection::Read).unwrap())
        .collect();
    let meanwhile = Mutex::new(areas.split_off(5));

    let (told, weak) = (Arc::new(AtomicU64::new(0)), Arc::downgrade(&vm));
    let seen = Arc::clone(&told);
    vm.space().before_steps(move |step| match step {
        Step::Wait => {
            // The last purge of all is the space's own.
            let Some(vm) = weak.upgrade() else {
                return;
            };
            for at in core::mem::take(&mut *meanwhile.lock().unwrap()) {
                vm.vunmap(&MaySleep::claim(), at).unwrap();
                assert_eq!(vm.area_space().backlog(), Backlog::UnderCap);
            }
            seen.fetch_max(vm.counters().lazy_pages, Ordering::Relaxed);
        }
        Step::Relax => panic!("somebody waits for the purge that is under way"),
        _ => {}
    });
    for at in areas {
        vm.vunmap(&ctx, at).unwrap();
    }
    // Those that the purge had, and as many again as may wait.
    assert_eq!(told.load(Ordering::Relaxed), 10 + cap);
    assert_eq!((vm.counters().purges, vm.counters().lazy_pages), (1, cap));
    vm.self_check().unwrap();
}

/// Says that it is being released, and ends when the other one waits for that, or has given up.
struct Slow {
    begun: AtomicBool,
    waits_or_ended: AtomicBool,
    waiter: OnceLock<ThreadId>,
}

struct Slowly(Arc<Slow>);

impl Release for Slowly {
    fn release(self: Box<Self>, _: &Unreachable<'_>, _: &MaySleep) {
        self.0.begun.store(true, Ordering::Release);
        until(&self.0.waits_or_ended);
    }
}

#[test]
fn whoever_is_short_of_frames_gets_those_that_another_purge_is_releasing() {
    let rig = HostRig::new(0);
    let ctx = MaySleep::claim();
    let vm = areas(&rig, 64);
    let slow = Arc::new(Slow {
        begun: AtomicBool::new(false),
        waits_or_ended: AtomicBool::new(false),
        waiter: OnceLock::new(),
    });
    let told = Arc::clone(&slow);
    vm.space().before_steps(move |step| {
        let waits = told.waiter.get() == Some(&std::thread::current().id());
        if step == Step::Relax && waits {
            told.waits_or_ended.store(true, Ordering::Release);
        }
    });
    let at = map(&rig, &vm, &ctx, Box::new(Slowly(Arc::clone(&slow))));
    vm.vunmap(&ctx, at).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| vm.purge(&MaySleep::claim()).unwrap());
        scope.spawn(|| {
            // It has a number of its own before the other one's is asked for.
            until(&slow.begun);
            slow.waiter.set(std::thread::current().id()).unwrap();
            let got = vm.area_space().purge_for_frames(&MaySleep::claim());
            slow.waits_or_ended.store(true, Ordering::Release);
            assert_eq!(got, Ok(FrameCount::new(1)));
        });
    });
    assert_eq!(vm.counters().purges, 1);
}

/// Purges itself, while another one like it does.
struct Purges {
    areas: Arc<AreaSpace<Failing<HostVspace>>>,
    begun: Arc<AtomicBool>,
    both: Arc<Barrier>,
}

impl Release for Purges {
    fn release(self: Box<Self>, _: &Unreachable<'_>, ctx: &MaySleep) {
        self.begun.store(true, Ordering::Release);
        self.both.wait();
        self.areas.purge(ctx).unwrap();
    }
}

#[test]
fn of_two_who_purge_while_they_release_neither_waits_for_the_other() {
    let rig = HostRig::new(0);
    let vm = areas(&rig, 64);
    let turns = AtomicU64::new(0);
    vm.space().before_steps(move |step| {
        if step == Step::Relax {
            let turn = turns.fetch_add(1, Ordering::Relaxed);
            assert!(turn < TURNS_MOST, "each waits for the other");
        }
    });
    let begun = Arc::new(AtomicBool::new(false));
    let both = Arc::new(Barrier::new(2));
    let purge = || {
        let ctx = MaySleep::claim();
        let owned = Purges {
            areas: Arc::clone(vm.area_space()),
            begun: Arc::clone(&begun),
            both: Arc::clone(&both),
        };
        let at = map(&rig, &vm, &ctx, Box::new(owned));
        vm.vunmap(&ctx, at).unwrap();
        vm.purge(&ctx).unwrap();
    };
    std::thread::scope(|scope| {
        scope.spawn(purge);
        scope.spawn(|| {
            // Not by one purge: each has its own.
            until(&begun);
            purge();
        });
    });
    assert_eq!(vm.counters().purges, 2);
    vm.self_check().unwrap();
}
