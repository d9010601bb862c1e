//! One thread against two, each with its own areas or frames.

use super::books::{self, Books};
use super::ratios::{self, Figure, Line, Report, Target};
use super::{cpus, host};
use core::hint;
use core::sync::atomic::{AtomicUsize, Ordering};
use pageless_fault::Protection;
use pageless_vmap::area::{NoDescriptors, Vmalloc, VmallocConfig};
use pageless_vmap::frames::{FrameAllocator, FrameConfig, Gfp, Order, PageBlock};
use std::thread;
use std::time::Instant;

/// Operations of each thread.
const ROUND: u32 = 1 << 14;

/// Nanoseconds for each operation of `threads` threads together, from the common start to the last one's end.
fn together(threads: usize, operation: impl Fn() + Sync) -> f64 {
    let ready = AtomicUsize::new(0);
    let (operation, all) = (&operation, &ready);
    let worked: Vec<_> = thread::scope(|scope| {
        let run = move |thread: usize| {
            cpus::pin(thread);
            books::run_as(thread as u16);
            (0..ROUND / 16).for_each(|_| operation());
            all.fetch_add(1, Ordering::AcqRel);
            while all.load(Ordering::Acquire) < threads {
                hint::spin_loop();
            }
            let begun = Instant::now();
            (0..ROUND).for_each(|_| operation());
            (begun, Instant::now())
        };
        let running: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || run(thread)))
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let begun = worked.iter().map(|(begun, _)| *begun).min().unwrap();
    let ended = worked.iter().map(|(_, ended)| *ended).max().unwrap();
    ended.duration_since(begun).as_nanos() as f64 / (f64::from(ROUND) * threads as f64)
}

fn add(report: &mut Report, what: &str, operation: impl Fn() + Sync) {
    let pairs = ratios::alternate(
        report.scaled(100, 20),
        || together(2, &operation),
        || together(1, &operation),
    );
    let line = Line {
        name: &format!("throughput of 2 threads, {what}"),
        against: "its own 1-thread run",
        unit: "ns",
        figure: Figure::Speed,
        target: Target::Informs,
    };
    report.add(&line, &pairs);
}

/// Adds the lines of this section.
pub(crate) fn measure(report: &mut Report) {
    let ram = host::ram(4096);
    let frames = host::scattered(&*ram, 0, 4);
    let vmalloc = Vmalloc::new(
        Books::new(2, 1 << 16),
        NoDescriptors,
        VmallocConfig::for_cpus(2),
    );
    add(report, "vmap + vunmap of 4 frames, the books alone", || {
        let ctx = host::ctx();
        let address = vmalloc.vmap(&ctx, &frames, Protection::Read).unwrap();
        vmalloc.vunmap(&ctx, address).unwrap();
    });
    add(
        report,
        "vm_map_ram + vm_unmap_ram of 4 frames, the books alone",
        || {
            let ctx = host::ctx();
            let mapping = vmalloc.vm_map_ram(&ctx, &frames, Protection::Read).unwrap();
            let Ok(_aliased) = vmalloc.vm_unmap_ram(mapping, ()) else {
                panic!("a small mapping refused to go");
            };
        },
    );
    // As many as make the lists of CPUs as long as Linux's. None is touched.
    let frames = FrameAllocator::new(host::untouched(1 << 18), FrameConfig::default()).unwrap();
    // One frame at a time it would be a measurement of one cache line: the states of 64 frames share one.
    add(report, "16 single frames allocated, and freed", || {
        let ctx = host::ctx();
        let one = |_| frames.alloc(&Gfp::kernel(&ctx), Order::ZERO).unwrap();
        let taken: [PageBlock; 16] = core::array::from_fn(one);
        taken.into_iter().for_each(|block| frames.free(block));
    });
}
