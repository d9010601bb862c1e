//! Hazard: a purge does not find what somebody else is about to finish.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::OnceLock;
use std::thread::ThreadId;

use pageless_fault::host::HostVspace;
use pageless_fault::{MaySleep, Protection, VirtAddr, Vspace};
use pageless_vmap::area::{NoDescriptors, Vmalloc};

use crate::rig::failing::{Failing, Step};
use crate::rig::host::HostRig;
use crate::rig::{Rig, small, special};

/// What the threads know of each other.
#[derive(Default)]
struct Progress {
    /// Whoever lists the areas, and so has their lock, unmaps this one.
    unmaps: OnceLock<VirtAddr>,
    has_unmapped: AtomicBool,
    /// What was put off is in somebody's hands.
    in_hand: AtomicBool,
    purger: OnceLock<ThreadId>,
    /// The purger waits, or its purge has ended.
    waits_or_ended: AtomicBool,
}

type Areas = Vmalloc<Failing<HostVspace>, NoDescriptors>;

fn until(flag: &AtomicBool) {
    while !flag.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
}

fn step(progress: &Progress, vm: &Areas, step: Step) {
    let purges = progress.purger.get() == Some(&std::thread::current().id());
    match step {
        Step::Base => {
            if let Some(&at) = progress.unmaps.get()
                && !progress.has_unmapped.swap(true, Ordering::Relaxed)
            {
                let _backlog = vm.vunmap_atomic(at).unwrap();
            }
        }
        Step::Clear if !purges && !progress.in_hand.swap(true, Ordering::AcqRel) => {
            until(&progress.waits_or_ended);
        }
        Step::Relax if purges => progress.waits_or_ended.store(true, Ordering::Release),
        _ => {}
    }
}

#[test]
fn a_purge_waits_for_whoever_finishes_what_was_put_off() {
    let rig = HostRig::new(0);
    let ctx = MaySleep::claim();
    let space = Failing::new(rig.space(512));
    let vm: Arc<Areas> = Arc::new(Vmalloc::new(space, NoDescriptors, small(512)));
    let frame = special(rig.frame(0));
    let at = vm.vmap(&ctx, &[frame], Protection::Read).unwrap();
    let offset = vm.space().offset_of(at).unwrap();

    let progress = Arc::new(Progress::default());
    let (told, weak) = (Arc::clone(&progress), Arc::downgrade(&vm));
    vm.space().before_steps(move |now| {
        if let Some(vm) = weak.upgrade() {
            step(&told, &vm, now);
        }
    });
    progress.unmaps.set(at).unwrap();
    let _areas = vm.areas();
    assert_eq!(vm.counters().deferred, 1, "nobody was in the way");

    std::thread::scope(|scope| {
        scope.spawn(|| vm.purge(&MaySleep::claim()).unwrap());
        scope.spawn(|| {
            until(&progress.in_hand);
            progress.purger.set(std::thread::current().id()).unwrap();
            let purged = vm.purge(&MaySleep::claim());
            // Its owner gives the frame to somebody else now.
            let shown = vm.space().translate(offset);
            progress.waits_or_ended.store(true, Ordering::Release);
            purged.unwrap();
            assert_eq!(shown, None, "a purge that began after it was unmapped");
        });
    });
    vm.self_check().unwrap();
}
