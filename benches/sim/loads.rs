//! What the simulated CPUs are made to do, and how long it takes here: a core's time, never modelled time.

use core::hint::black_box;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pageless_fault::shootdown::{CpuId, PolicyKind, Processor, SpaceId};
use pageless_fault::sim::schedule::{self, Event, Schedule, Task};
use pageless_fault::sim::{Cpu, SimConfig, SimMachine};
use rustix::time::{ClockId, clock_gettime};

/// Where the pages are mapped: in nobody's window.
const BASE: u64 = 0x40_0000;
/// Pages that a CPU goes round in: they fit its TLB.
pub(crate) const PAGES: u64 = 32;

/// How an array is gone through: page by page, another word of each every time.
fn address(n: u64) -> u64 {
    (n % PAGES) << 12 | (n & 511) << 3
}

/// Who decides when another CPU runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// A seed: one preemption in so many steps.
    Seeded(u32),
    /// The modelled clock: the CPU that is furthest behind.
    Clock,
}

impl Order {
    fn schedule(self) -> Schedule {
        let schedule = match self {
            Order::Seeded(one_in) => Schedule::random(7).preempt_one_in(one_in),
            Order::Clock => Schedule::by_clock(7),
        };
        schedule.steps_at_most(u64::MAX)
    }
}

/// A machine of `cpus` on which `PAGES * cpus` pages are mapped, writable.
fn machine(cpus: u16) -> SimMachine {
    let machine = SimMachine::new(SimConfig {
        cpus,
        frames: 64 + PAGES as u32 * u32::from(cpus),
        ..SimConfig::default()
    })
    .unwrap();
    for page in 0..PAGES * u64::from(cpus) {
        let frame = machine.alloc().unwrap();
        let va = BASE + (page << 12);
        machine.map(SpaceId::new(0), va, frame, true).unwrap();
    }
    machine
}

/// What is done at each address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// A load of 8 bytes.
    Load,
    /// A locked add to 4 bytes.
    Add,
}

fn touch(cpu: &Cpu, what: Access, va: u64) {
    match what {
        Access::Load => drop(black_box(cpu.load(va))),
        Access::Add => drop(black_box(
            cpu.update_u32(va, |old| Some(old.wrapping_add(1))),
        )),
    }
}

/// CPU `n`'s own pages, `accesses` times.
fn go_round(cpu: &Cpu, what: Access, accesses: u64) {
    let base = BASE + u64::from(cpu.id().get()) * (PAGES << 12);
    for n in 0..accesses {
        touch(cpu, what, base + address(n));
    }
}

/// ns for one access whose translation is cached, on `cpus` interleaved in one thread.
pub(crate) fn hits(cpus: u16, order: Order, what: Access, accesses: u64) -> f64 {
    let machine = machine(cpus);
    let each = accesses / u64::from(cpus);
    let begun = on_this_core();
    let bodies = (0..cpus)
        .map(|_| {
            let body: Box<dyn FnOnce(&Cpu)> = Box::new(move |cpu: &Cpu| go_round(cpu, what, each));
            body
        })
        .collect();
    machine.run_scheduled(&order.schedule(), bodies).unwrap();
    per(begun, each * u64::from(cpus))
}

/// ns for one such access on one CPU that is a thread.
pub(crate) fn hits_of_a_thread(what: Access, accesses: u64) -> f64 {
    let machine = machine(1);
    let begun = on_this_core();
    machine
        .run_on(CpuId::new(0), |cpu| go_round(cpu, what, accesses))
        .unwrap();
    per(begun, accesses)
}

/// ns for the effect alone, on an array of as many words.
pub(crate) fn effects(what: Access, accesses: u64) -> f64 {
    let words: Vec<AtomicU64> = (0..PAGES * 512).map(|_| AtomicU64::new(0)).collect();
    let begun = on_this_core();
    for n in 0..accesses {
        let word = &words[(address(n) >> 3) as usize];
        match what {
            Access::Load => black_box(word.load(Ordering::Acquire)),
            Access::Add => black_box(word.fetch_add(1, Ordering::SeqCst)),
        };
    }
    per(begun, accesses)
}

/// ns for one access that walks: through the cached table (`whole` is false) or from the root.
pub(crate) fn misses(whole: bool, accesses: u64) -> f64 {
    let machine = machine(1);
    let begun = on_this_core();
    let body: Box<dyn FnOnce(&Cpu)> = Box::new(move |cpu: &Cpu| {
        for n in 0..accesses / PAGES {
            for page in 0..PAGES {
                let va = BASE + (page << 12);
                if whole {
                    cpu.invalidate_page(va);
                } else if page == 0 {
                    cpu.invalidate_all();
                }
                black_box(cpu.load(va + (n & 511) * 8).unwrap());
            }
        }
    });
    machine
        .run_scheduled(&Order::Seeded(0).schedule(), vec![body])
        .unwrap();
    per(begun, accesses / PAGES * PAGES)
}

/// ns for one step of a task that is not preempted.
pub(crate) fn steps(steps: u64) -> f64 {
    let begun = on_this_core();
    let task = Task::new("steps", move || {
        for n in 0..steps {
            schedule::step(Event::new("step", n));
        }
    });
    Order::Seeded(0).schedule().run(vec![task]).unwrap();
    per(begun, steps)
}

/// ns for one switch among `tasks` that do nothing else.
pub(crate) fn switches(tasks: u64, switches: u64) -> f64 {
    let begun = on_this_core();
    let tasks = (0..tasks)
        .map(|task| {
            Task::new(task.to_string(), move || {
                for n in 0..switches / tasks {
                    schedule::charge(1);
                    schedule::step(Event::new("step", n));
                }
            })
        })
        .collect::<Vec<_>>();
    let run = Order::Clock.schedule().run(tasks).unwrap();
    per(begun, run.switches)
}

/// ns for one shootdown of one page on `cpus` CPUs, all of them running, the frame freed and mapped again.
pub(crate) fn shootdowns(cpus: u16, policy: PolicyKind, order: Order, times: u64) -> f64 {
    let machine = SimMachine::new(SimConfig {
        cpus,
        frames: 64,
        policy,
        ..SimConfig::default()
    })
    .unwrap();
    let done = AtomicBool::new(false);
    let (shared, over) = (&machine, &done);
    let initiator: Box<dyn FnOnce(&Cpu) + '_> = Box::new(move |cpu: &Cpu| {
        for _ in 0..times {
            let frame = shared.alloc_on(cpu).unwrap().unwrap();
            shared.map(SpaceId::new(0), BASE, frame, true).unwrap();
            cpu.store(BASE, 1).unwrap();
            let unmapped = shared.unmap(cpu, SpaceId::new(0), BASE).unwrap();
            if unmapped.pending().is_deferred() {
                shared.park(cpu, unmapped).unwrap();
            } else if let Err((_, error)) = unmapped.free(shared, cpu) {
                panic!("{error}");
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    let targets = (1..cpus).map(|_| {
        let body: Box<dyn FnOnce(&Cpu) + '_> = Box::new(move |cpu: &Cpu| {
            while !over.load(Ordering::Relaxed) {
                cpu.relax(0);
            }
        });
        body
    });
    let bodies = core::iter::once(initiator).chain(targets).collect();
    let begun = on_this_core();
    machine.run_scheduled(&order.schedule(), bodies).unwrap();
    let took = per(begun, times);
    assert_eq!(machine.counters().given_up, 0);
    assert_eq!(machine.stale_hits(), 0);
    took
}

/// What this thread has had of a core so far, in ns. All that is measured here runs in one thread, and others' use of the machine is
/// not its cost.
fn on_this_core() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}

fn per(begun: f64, times: u64) -> f64 {
    (on_this_core() - begun) / times.max(1) as f64
}
