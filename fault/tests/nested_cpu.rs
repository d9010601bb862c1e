//! Hazard: code on one CPU that runs something on another, in the same thread or task, and is interrupted inside: what is current
//! must come back as it was.
#![cfg(all(feature = "std", not(loom), not(miri)))]

use pageless_fault::shootdown::CpuId;
use pageless_fault::sim::schedule::Schedule;
use pageless_fault::sim::{Cpu, ScheduledBody, SimConfig, SimMachine};

fn machine() -> SimMachine {
    let machine = SimMachine::new(SimConfig {
        cpus: 4,
        frames: 32,
        ..SimConfig::default()
    });
    machine.unwrap()
}

fn current(machine: &SimMachine) -> Option<CpuId> {
    machine.on_current(Cpu::id)
}

/// Lets the others have turns, and is still on `id` after each.
fn stays_on(machine: &SimMachine, id: CpuId) {
    for _ in 0..16 {
        machine.on_current(Cpu::pause);
        assert_eq!(current(machine), Some(id));
    }
}

#[test]
fn a_task_that_is_suspended_on_another_cpu_goes_on_there() {
    let machine = machine();
    let nests = |first: u16| -> ScheduledBody<'_> {
        let machine = &machine;
        Box::new(move |cpu| {
            stays_on(machine, cpu.id());
            let second = CpuId::new(first + 2);
            machine
                .run_on(second, |_| stays_on(machine, second))
                .unwrap();
            stays_on(machine, cpu.id());
        })
    };
    for seed in 0..64 {
        let run = machine
            .run_scheduled(
                &Schedule::random(seed).preempt_one_in(2),
                vec![nests(0), nests(1)],
            )
            .unwrap_or_else(|failure| panic!("{failure}"));
        assert!(run.switches > 16, "nobody was interrupted");
        for id in 0..4 {
            drop(machine.cpu(CpuId::new(id)).unwrap());
        }
    }
}

#[test]
fn a_run_inside_a_cpu_of_another_machine_leaves_that_one_current() {
    let (outer, inner) = (machine(), machine());
    let id = CpuId::new(3);
    outer
        .run_on(id, |_| {
            let body = |cpu: &Cpu| stays_on(&inner, cpu.id());
            let bodies: Vec<ScheduledBody<'_>> = vec![Box::new(body), Box::new(body)];
            inner
                .run_scheduled(&Schedule::random(1).preempt_one_in(2), bodies)
                .unwrap_or_else(|failure| panic!("{failure}"));
            assert_eq!(current(&outer), Some(id));
        })
        .unwrap();
}
