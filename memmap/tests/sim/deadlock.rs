//! Hazard: CPUs wait for each other in a circle. Two that shoot each other, one that faults with interrupts off, and one
//! that reclaims because it faults: whoever waits must serve, and nobody waits who cannot.

use alloc::sync::Arc;

use pageless_fault::shootdown::PolicyKind;
use pageless_fault::sim::schedule::{Program, explore};
use pageless_fault::sim::{ScheduledBody, SimConfig, SimMachine, Speculation};
use pageless_fault::{
    FaultReason, Machine, MaySleep, UnmapError, Window, WindowLen, WindowOffset, WindowRange, Word,
};

use crate::world::{
    SimMemmap, assert_clean, attach, chunk, config, on, over_seeds, program, safe, touch, visit,
};

/// Two reclaimers of a memmap each, one CPU that looks up with interrupts off, and one that reclaims whenever it faults.
fn four_cpus(config: SimConfig, rounds: u64) -> Program<'static> {
    let machine = SimMachine::new(config).unwrap();
    // Two chunks each, and their table.
    let (a, b) = (attach(&machine, 2, 1), attach(&machine, 2, 1));
    on(&machine, 0, |ctx| {
        touch(&a, ctx, 0);
        touch(&b, ctx, 0);
    });
    let reclaimer = |memmap: &Arc<SimMemmap>| -> ScheduledBody<'static> {
        let memmap = Arc::clone(memmap);
        Box::new(move |_| {
            let ctx = MaySleep::claim();
            for _ in 0..rounds {
                memmap.reclaim(&ctx, 0).unwrap();
                visit(&memmap, &ctx, 1);
            }
        })
    };
    let (one, other) = (reclaimer(&a), reclaimer(&b));
    let bodies: Vec<ScheduledBody<'static>> = vec![
        one,
        other,
        {
            let a = Arc::clone(&a);
            Box::new(move |cpu| {
                for round in 0..2 * rounds {
                    cpu.with_interrupts_off(|| drop(a.try_get(chunk(round % 2))));
                }
            })
        },
        {
            let b = Arc::clone(&b);
            Box::new(move |_| {
                let ctx = MaySleep::claim();
                for round in 0..3 * rounds {
                    // One more than the budget has room for.
                    visit(&b, &ctx, 2 + round % 3);
                }
            })
        },
    ];
    let checked = machine.clone();
    program(&machine, bodies, move || {
        a.self_check().unwrap();
        b.self_check().unwrap();
        assert_clean(&checked);
    })
}

/// Two CPUs that unmap a page each, and one that touches both with interrupts off: the same circle, small enough for two
/// preemptions anywhere.
fn two_initiators(policy: PolicyKind) -> Program<'static> {
    let machine = SimMachine::new(SimConfig {
        speculation: Speculation::Off,
        nmi_one_in: 0,
        frames: 24,
        ..config(3, policy)
    })
    .unwrap();
    let page = WindowRange::try_new(WindowOffset::new(0), 4096).unwrap();
    let windows = [(); 2].map(|()| {
        let window = machine
            .reserve(WindowLen::covering(4096).unwrap(), 4096)
            .unwrap();
        on(&machine, 0, |ctx| window.populate(page, ctx)).unwrap();
        Arc::new(window)
    });
    let initiator = |n: usize| -> ScheduledBody<'static> {
        let window = Arc::clone(&windows[n]);
        Box::new(move |_| {
            let ctx = MaySleep::claim();
            let debt = window
                .unmap(&[page], ())
                .map_err(|(_, error)| error)
                .unwrap();
            debt.settle(&ctx).map_err(|(_, error)| error).unwrap();
        })
    };
    let (one, other) = (initiator(0), initiator(1));
    let touched = windows.clone();
    let bodies: Vec<ScheduledBody<'static>> = vec![
        one,
        other,
        Box::new(move |cpu| {
            cpu.with_interrupts_off(|| {
                for window in &touched {
                    let word = window.word(WindowOffset::new(0)).unwrap();
                    let found = word.fetch_add(1).get();
                    assert!(matches!(found, Ok(0) | Err(FaultReason::NotPresent)));
                }
            });
        }),
    ];
    let checked = machine.clone();
    program(&machine, bodies, move || {
        drop(windows);
        assert_clean(&checked);
    })
}

/// Every schedule with so many deviations from the default one ends, and nothing stale is met.
fn explored_to_the_end(bound: u32, make: impl Fn() -> Program<'static>) {
    let explored = explore(bound, 1_000_000, make);
    if let Some(failure) = explored.failure {
        panic!("{failure}");
    }
    println!("{} schedules", explored.schedules);
    assert!(explored.complete, "{} schedules", explored.schedules);
}

#[test]
fn two_initiators_and_a_cpu_with_interrupts_off_end_under_every_schedule_of_two_preemptions() {
    explored_to_the_end(2, || two_initiators(PolicyKind::ConcurrentIpi));
}

#[test]
fn two_initiators_and_a_cpu_with_interrupts_off_end_under_every_schedule_of_three_preemptions() {
    explored_to_the_end(3, || two_initiators(PolicyKind::ConcurrentIpi));
}

#[test]
fn under_every_safe_policy_they_end_under_every_schedule_of_two_preemptions() {
    for policy in safe() {
        explored_to_the_end(2, || two_initiators(policy));
    }
}

#[test]
fn two_reclaimers_a_fault_with_interrupts_off_and_one_that_must_reclaim_end_under_every_preemption()
{
    let quiet = SimConfig {
        speculation: Speculation::Off,
        nmi_one_in: 0,
        ..config(4, PolicyKind::ConcurrentIpi)
    };
    // Two deviations are half a million schedules: a minute. Asked for by PAGELESS_BOUND=2.
    match std::env::var("PAGELESS_BOUND").as_deref() {
        Ok("2") => explored_to_the_end(2, || four_cpus(quiet, 1)),
        _ => explored_to_the_end(1, || four_cpus(quiet, 2)),
    }
}

#[test]
fn they_end_under_thousands_of_random_schedules_whatever_the_policy() {
    for policy in safe() {
        let config = config(4, policy);
        over_seeds(policy.name(), 300, || four_cpus(config, 2));
    }
}

#[test]
fn a_shootdown_is_not_waited_for_with_interrupts_off() {
    let machine = SimMachine::new(config(2, PolicyKind::ConcurrentIpi)).unwrap();
    let memmap = attach(&machine, 2, 1);
    machine
        .run_on(pageless_fault::shootdown::CpuId::new(0), |cpu| {
            let ctx = MaySleep::claim();
            touch(&memmap, &ctx, 0);
            let refused = cpu.with_interrupts_off(|| memmap.reclaim(&ctx, 0));
            // EDEADLK: two that did it would never end.
            assert!(
                matches!(refused, Err(UnmapError::Refused { errno: 35, .. })),
                "{refused:?}"
            );
            assert_eq!(memmap.counters().quarantined_bytes, 4096);
        })
        .unwrap();
}
