//! Hazard: an allocation for each request, which no way would show and every figure would carry.

extern crate alloc;

use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicU64, Ordering};
use std::alloc::System;

use pageless::job::{Bytes, IniFile, Job, PlanOptions};
use pageless::run::{
    Control, EagerPins, LazyPins, MemmapOptions, NoPins, Stage, StageOptions, Way,
};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is handed on to the system's allocator, whose guarantees are the same; the
// count beside it allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `block` came from `alloc` above and so from the system's allocator.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(ios: u64, way: Way) -> u64 {
    let text = format!(
        "[a]\nrw=randrw\nbssplit=4k/80:64k/20\nsize=16m\niodepth=16\nverify=crc32c\n\
         norandommap\nio_size=100g\nnumber_ios={ios}\ndo_verify=0\n"
    );
    let ini = IniFile::parse("a.fio", &text, |_| None).expect("parses");
    let job = Job::from_ini(&ini).expect("understood");
    let plan = job.plan(&PlanOptions::default()).expect("fits");
    let stage = Stage::prepare(&plan, &StageOptions::default()).expect("prepares");
    let control = Control::default();
    let frames = stage.device_frames();
    let count = |run: &dyn Fn()| {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        run();
        ALLOCATIONS.load(Ordering::Relaxed) - before
    };
    match way {
        Way::Pfn => count(&|| drop(stage.run(way, &NoPins, &control, &mut ()).expect("runs"))),
        Way::Lazy => {
            // Reclaim may allocate for a batch of chunks; here it has nothing to do.
            let budget = Some(Bytes::new(4 << 20));
            let config = MemmapOptions {
                chunk: None,
                budget,
            }
            .config(frames.count().get())
            .expect("a budget");
            let pins = LazyPins::attach(frames, config).expect("attaches");
            count(&|| drop(stage.run(way, &pins, &control, &mut ()).expect("runs")))
        }
        Way::Eager => {
            let pins = EagerPins::attach(frames).expect("attaches");
            count(&|| drop(stage.run(way, &pins, &control, &mut ()).expect("runs")))
        }
    }
}

#[test]
fn a_request_allocates_nothing_whichever_way() {
    for way in Way::ALL {
        let few = allocations(2_000, way);
        let many = allocations(22_000, way);
        // What depends on time rather than on requests (ticks of the watcher) may differ a little.
        assert!(
            many < few + 500,
            "{way}: 20000 more requests, {few} -> {many} allocations"
        );
    }
}
