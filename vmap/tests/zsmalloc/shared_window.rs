//! A local flush is enough for a window that one CPU has for itself, and not for one that CPUs share. In the model, where hardware looks
//! ahead: a CPU that reads near a window may load the window's translations, though it never uses them.

use core::cell::Cell;

use pageless_fault::shootdown::CpuId;
use pageless_fault::sim::schedule::Schedule;
use pageless_fault::sim::{
    Body, ScheduledBody, SimConfig, SimMachine, SimRam, SimVspace, Speculation,
};
use pageless_fault::sync::Mutex;
use pageless_fault::{
    Cpus, FrameMemory, MaySleep, OwnRange, Protection, Vspace, WindowLen, WindowOffset, WindowRange,
};
use pageless_pfn::{FrameCount, PfnRange};
use pageless_vmap::zsmalloc::{
    ClaimError, FrameSource, Handle, MapPolicy, PairWindow, PairWindows, Zsmalloc,
};

use super::rig::{Frames, store};

const CPUS: u16 = 4;
/// Objects in three frames, of which two cross a boundary.
const LEN: usize = 3000;
const GROUP: usize = 4;

fn machine(seed: u64) -> (SimMachine, SimRam, SimVspace) {
    let config = SimConfig {
        cpus: CPUS,
        speculation: Speculation::Marked,
        speculate_one_in: 3,
        seed,
        ..SimConfig::default()
    };
    let machine = SimMachine::new(config).unwrap();
    let ram = machine.ram(FrameCount::new(256)).unwrap();
    let space = machine
        .reserve_vspace(WindowLen::covering(1).unwrap())
        .unwrap();
    (machine, ram, space)
}

fn pages(first: u64, count: u64) -> WindowRange {
    WindowRange::try_new(WindowOffset::new(first * 4096), count * 4096).unwrap()
}

/// Some objects of a CPU, each of bytes that no other object has had lately.
struct Objects<'p, F: FrameSource> {
    pool: &'p Zsmalloc<F>,
    all: Vec<(Handle, u8)>,
    next: u8,
}

impl<'p, F: FrameSource> Objects<'p, F> {
    fn new(pool: &'p Zsmalloc<F>, first: u8) -> Self {
        Objects {
            pool,
            all: Vec::new(),
            next: first,
        }
    }

    /// Frees all objects, and with them frames, and stores others.
    fn renew(&mut self) {
        self.free();
        for _ in 0..GROUP {
            let handle = store(self.pool, &[self.next; LEN]);
            self.all.push((handle, self.next));
            self.next = self.next.wrapping_add(1);
        }
    }

    fn free(&mut self) {
        for (handle, _) in self.all.drain(..) {
            self.pool.free(handle).unwrap();
        }
    }
}

/// Bytes of a mapped object that are not what was stored: looks at the first, at the last, and at some in each page.
fn wrong_bytes<S: Vspace, F: FrameSource>(
    window: &mut PairWindow<'_, &S>,
    objects: &Objects<'_, F>,
    nth: usize,
) -> u64 {
    let (handle, stored) = &objects.all[nth];
    let mapping = window.map(objects.pool, handle, Protection::Read).unwrap();
    let mut wrong = 0;
    for at in [0, LEN / 4, LEN / 2, LEN * 3 / 4, LEN - 1] {
        let mut byte = [0];
        mapping.read(at, &mut byte).unwrap();
        wrong += u64::from(byte[0] != *stored);
    }
    mapping.unmap().unwrap();
    wrong
}

/// How many operations each CPU does; `PAGELESS_SEEDS` multiplies them.
fn rounds(least: u64) -> u64 {
    let times = std::env::var("PAGELESS_SEEDS").ok();
    least * times.and_then(|times| times.parse().ok()).unwrap_or(1)
}

#[test]
fn with_windows_of_their_own_no_cpu_ever_uses_a_stale_translation() {
    let (machine, ram, space) = machine(11);
    let frames = Frames::new(&ram);
    let pool = Zsmalloc::new(&frames);
    // Next to each other, so that whoever reads in one looks ahead into the next.
    let windows = PairWindows::new(&space, pages(8, 3 * u64::from(CPUS)));
    let rounds = rounds(20_000);
    let body = |cpu: u16| {
        let (pool, windows) = (&pool, &windows);
        let body: Body<'_> = Box::new(move |_| {
            let ctx = MaySleep::claim();
            let window = windows.claim(&ctx).unwrap();
            let mut window = window.with_policy(MapPolicy::Always);
            let mut objects = Objects::new(pool, (cpu * 60) as u8);
            for round in 0..rounds {
                if round % 4 == 0 {
                    objects.renew();
                }
                let wrong = wrong_bytes(&mut window, &objects, round as usize % GROUP);
                assert_eq!(wrong, 0, "{cpu}, round {round}");
            }
            objects.free();
        });
        body
    };
    machine.run_threads((0..CPUS).map(body).collect()).unwrap();
    assert_eq!(machine.stale_hits(), 0, "{:?}", machine.incidents());
    assert_eq!(frames.out(), 0);
}

/// Fewer windows than CPUs: they go from one to another, with a shootdown in between.
#[test]
fn a_window_that_changes_its_cpu_leaves_nothing_behind() {
    for seed in 0..rounds(6) {
        let (machine, ram, space) = machine(seed);
        let frames = Frames::new(&ram);
        let pool = Zsmalloc::new(&frames);
        let windows = PairWindows::new(&space, pages(8, 3));
        let beside = beside(&space);
        let body = |cpu: u16| {
            let (pool, windows, space) = (&pool, &windows, &space);
            let body: ScheduledBody<'_> = Box::new(move |_| {
                let ctx = MaySleep::claim();
                let mut objects = Objects::new(pool, (cpu * 60) as u8);
                for round in 0..6 {
                    objects.renew();
                    let mut turn = 0;
                    let window = loop {
                        // It reads near the window, and looks ahead into it.
                        for _ in 0..40 {
                            space.read(beside, &mut [0]).unwrap();
                        }
                        match windows.claim(&ctx) {
                            Ok(window) => break window,
                            Err(ClaimError::AllTaken { .. }) => space.relax(turn),
                            Err(error) => panic!("{error}"),
                        }
                        turn += 1;
                    };
                    let mut window = window.with_policy(MapPolicy::Always);
                    for nth in 0..GROUP {
                        let wrong = wrong_bytes(&mut window, &objects, nth);
                        assert_eq!(wrong, 0, "{cpu}, round {round}");
                    }
                }
                objects.free();
            });
            body
        };
        let bodies = (0..CPUS).map(body).collect();
        let run = machine.run_scheduled(&Schedule::random(seed), bodies);
        run.unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(machine.stale_hits(), 0, "{:?}", machine.incidents());
    }
}

/// Maps a page just before page 8, for good, and says where.
fn beside(space: &SimVspace) -> WindowOffset {
    let machine = space.machine();
    let ram = machine.ram(FrameCount::new(1)).unwrap();
    let at = pages(7, 1).start();
    machine
        .run_on(CpuId::new(0), |_| {
            space.map(at, ram.frames(), Protection::Read).unwrap();
        })
        .unwrap();
    at
}

/// The same step by step, and the reason for it all: one CPU maps, another one looks ahead, and gets the window later.
#[test]
fn what_a_cpu_has_looked_ahead_to_is_gone_before_it_gets_the_window() {
    let (machine, ram, space) = machine(13);
    let frames = Frames::new(&ram);
    let pool = Zsmalloc::new(&frames);
    let windows = PairWindows::new(&space, pages(8, 3));
    let beside = beside(&space);
    let ctx = MaySleep::claim();
    let mut objects = Objects::new(&pool, 1);
    for round in 0..50 {
        let cpu = round % 2;
        machine
            .run_on(CpuId::new(cpu), |_| {
                objects.renew();
                let window = windows.claim(&ctx).unwrap();
                let mut window = window.with_policy(MapPolicy::Always);
                let (handle, stored) = &objects.all[1];
                let mapping = window.map(&pool, handle, Protection::Read).unwrap();
                // The other CPU reads near it, often enough to have looked ahead to both pages.
                machine
                    .run_on(CpuId::new(1 - cpu), |_| {
                        for _ in 0..200 {
                            space.read(beside, &mut [0]).unwrap();
                        }
                    })
                    .unwrap();
                let right = mapping.with(|bytes| bytes.iter().all(|byte| byte == stored));
                assert_eq!(right, Ok(true));
            })
            .unwrap();
    }
    objects.free();
    assert_eq!(machine.stale_hits(), 0, "{:?}", machine.incidents());
}

/// What zsmalloc did not have in 2012: CPUs take turns at the same addresses, and each flushes its own TLB only. The lock around it
/// does not help.
#[test]
fn with_one_window_for_all_cpus_a_local_flush_leaves_stale_translations_that_are_used() {
    let wrong = Cell::new(0_u64);
    let (machine, ram, space) = machine(14);
    let frames = Frames::new(&ram);
    let pool = Zsmalloc::new(&frames);
    let beside = beside(&space);
    let at = pages(8, 1).start();
    let turn = Mutex::new(());
    let body = |cpu: u16| {
        let (pool, space, turn, wrong, ram) = (&pool, &space, &turn, &wrong, &ram);
        let body: ScheduledBody<'_> = Box::new(move |_| {
            let _ = ram;
            // The lie: every CPU says so of the same page.
            let own = OwnRange::claim(space, pages(8, 1));
            for round in 0..60_u8 {
                let frame = pool
                    .source()
                    .take(&pageless_vmap::frames::Gfp::atomic())
                    .unwrap();
                let stored = round ^ (cpu as u8) << 6;
                ram.write(frame.pfn().phys(), &[stored]).unwrap();
                {
                    let _mine = turn.lock();
                    let frames = PfnRange::try_new(frame.pfn(), FrameCount::new(1)).unwrap();
                    space.map(at, frames, Protection::Read).unwrap();
                    let mut seen = [0];
                    for _ in 0..4 {
                        space.read(at, &mut seen).unwrap();
                        wrong.set(wrong.get() + u64::from(seen[0] != stored));
                    }
                    let down = space.take_down(pages(8, 1), frame).unwrap();
                    let flushed = space.shoot_down_here(&own, down).unwrap();
                    pool.source().give_back(flushed.into_inner());
                }
                // A walk takes some instructions.
                for _ in 0..40 {
                    space.read(beside, &mut [0]).unwrap();
                }
            }
        });
        body
    };
    let bodies = (0..CPUS).map(body).collect();
    machine.run_scheduled(&Schedule::random(5), bodies).unwrap();
    let rounds = 60 * u64::from(CPUS);
    println!(
        "{} CPUs, {rounds} rounds: {} wrong bytes, {} stale hits",
        CPUS,
        wrong.get(),
        machine.stale_hits()
    );
    assert!(machine.stale_hits() > 0, "nobody looked ahead");
    assert!(
        wrong.get() > 0,
        "a stale translation showed what was stored"
    );
}
