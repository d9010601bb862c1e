//! Access through a virtual compound page of order 10, against one in one piece: raw loads and stores at the address of each.
#![expect(unsafe_code, reason = "loads and stores at the address of a page")]

use super::ratios::{self, Figure, Line, Pairs, Report, Target};
use super::{cpus, host};
use alloc::sync::Arc;
use core::hint::black_box;
use pageless_fault::FrameMemory;
use pageless_fault::host::{HostMachine, HostRam, HostVspace, HostWindow};
use pageless_memmap::{Config, Memmap};
use pageless_pfn::FrameCount;
use pageless_vmap::area::{AreaSpace, VmallocConfig};
use pageless_vmap::compound::{Page, Pages};
use pageless_vmap::frames::{FrameAllocator, FrameConfig, Gfp, Order, PageBlock, WatermarkPlan};
use std::time::Instant;

type Block<'p> = Page<'p, HostRam, HostVspace, HostWindow>;

/// Words of a block of order 10.
const WORDS: usize = 1024 * 512;
/// Loads of a random sample.
const LOADS: usize = 1 << 16;

/// Memory of 64 MiB, and address space for it twice over.
pub(crate) fn pages() -> Pages<HostRam, HostVspace, HostWindow> {
    let ram = host::ram(16384);
    let space = host::space(&ram, 1 << 15);
    let machine = HostMachine::new().unwrap();
    let memmap = Memmap::attach(&machine, ram.frames(), Config::default()).unwrap();
    let config = FrameConfig {
        dma_frames: FrameCount::ZERO,
        watermarks: WatermarkPlan::None,
        ..FrameConfig::default()
    };
    let frames = FrameAllocator::new(ram, config).unwrap();
    let areas = AreaSpace::new(space, VmallocConfig::for_cpus(2));
    Pages::new(Arc::new(frames), Arc::new(memmap), Arc::new(areas))
}

/// Takes single frames, and gives every other one of them back, in any order: what is single now has no neighbour.
pub(crate) fn scatter(pages: &Pages<HostRam, HostVspace, HostWindow>, seed: u64) -> Vec<PageBlock> {
    let ctx = host::ctx();
    let single = |_| {
        pages
            .frames()
            .alloc(&Gfp::kernel(&ctx), Order::ZERO)
            .unwrap()
    };
    let mut taken: Vec<_> = (0..4096).map(single).collect();
    taken.sort_by_key(PageBlock::pfn);
    let (mut free, kept): (Vec<_>, Vec<_>) = taken
        .into_iter()
        .partition(|block| block.pfn().get() % 2 == 0);
    fastrand::Rng::with_seed(seed).shuffle(&mut free);
    free.into_iter()
        .for_each(|block| pages.frames().free(block));
    kept
}

fn start(block: &Block<'_>) -> *mut u64 {
    core::ptr::with_exposed_provenance_mut(block.address().get() as usize)
}

/// ns for each word, all read in order.
fn read(block: &Block<'_>) -> f64 {
    let start = start(block);
    let begun = Instant::now();
    let mut sum = 0_u64;
    for word in 0..WORDS {
        // SAFETY: a word of a block that is ours alone, mapped while there is a reference to it.
        sum = sum.wrapping_add(unsafe { start.add(word).read() });
    }
    black_box(sum);
    begun.elapsed().as_nanos() as f64 / WORDS as f64
}

/// ns for each word, all written in order.
fn write(block: &Block<'_>) -> f64 {
    let start = start(block);
    let begun = Instant::now();
    for word in 0..WORDS {
        // SAFETY: as in `read`. Volatile, so that it does not become a call with ways of its own.
        unsafe { start.add(word).write_volatile(word as u64) };
    }
    begun.elapsed().as_nanos() as f64 / WORDS as f64
}

/// ns for each load of a word of a random cache line.
fn random(block: &Block<'_>, rng: &mut fastrand::Rng) -> f64 {
    let start = start(block);
    let mut own = rng.fork();
    let begun = Instant::now();
    let mut sum = 0_u64;
    for _ in 0..LOADS {
        let word = own.usize(..WORDS);
        // SAFETY: as in `read`.
        sum = sum.wrapping_add(unsafe { start.add(word).read() });
    }
    black_box(sum);
    begun.elapsed().as_nanos() as f64 / LOADS as f64
}

/// The same two blocks built anew, `first` or second: which memory the kernel gives for them is worth as much as what is measured.
fn built(round: usize, pairs: usize) -> [Pairs; 3] {
    let pages = pages();
    let ctx = host::ctx();
    let order = Order::try_new(10).unwrap();
    let kept = scatter(&pages, round as u64);
    let gfp = Gfp::kernel(&ctx);
    let contiguous = || pages.alloc(&gfp, order).unwrap();
    let virtually = || {
        pages.always_fall_back(true);
        let block = pages.alloc(&gfp.virtual_fallback(), order).unwrap();
        pages.always_fall_back(false);
        block
    };
    let (ours, theirs);
    if round.is_multiple_of(2) {
        ours = virtually();
        theirs = contiguous();
    } else {
        theirs = contiguous();
        ours = virtually();
    }
    assert!(ours.is_virtual() && !theirs.is_virtual());
    // Who is touched first gets the kernel's memory first.
    let mut touched = [&ours, &theirs];
    if round / 2 % 2 == 1 {
        touched.reverse();
    }
    for block in touched {
        write(block);
    }
    let (mut one, mut other) = (fastrand::Rng::with_seed(1), fastrand::Rng::with_seed(1));
    let taken = [
        ratios::alternate(pairs, || read(&ours), || read(&theirs)),
        ratios::alternate(pairs, || write(&ours), || write(&theirs)),
        ratios::alternate(
            pairs,
            || random(&ours, &mut one),
            || random(&theirs, &mut other),
        ),
    ];
    drop((ours, theirs));
    kept.into_iter()
        .for_each(|block| pages.frames().free(block));
    taken
}

/// Adds the lines of this section.
pub(crate) fn measure(report: &mut Report) {
    cpus::pin(0);
    // Many blocks rather than many samples of each.
    let (rounds, pairs) = (report.scaled(40, 4), report.scaled(12, 8));
    let taken = (1..rounds).fold(built(0, pairs), |taken, round| {
        let [read, write, random] = taken;
        let [more_read, more_write, more_random] = built(round, pairs);
        [
            read.and(more_read),
            write.and(more_write),
            random.and(more_random),
        ]
    });
    for ((name, target), taken) in [
        ("all words read in order", Target::AtMost(1.05)),
        ("all words written in order", Target::AtMost(1.05)),
        ("words of random cache lines read", Target::Informs),
    ]
    .into_iter()
    .zip(&taken)
    {
        let line = Line {
            name: &format!("virtual compound page of order 10, {name}"),
            against: "one in one piece",
            unit: "ns",
            figure: Figure::Cost,
            target,
        };
        report.add(&line, taken);
    }
}
