//! Hazard: a CPU that waits for a lock does not answer its holder, who waits for the answer. With interrupts off that is a deadlock of
//! the program; with interrupts on it would be one of the model.

use alloc::rc::Rc;
use core::cell::Cell;

use pageless_fault::shootdown::{PolicyKind, Processor, SpaceId};
use pageless_fault::sim::schedule::{FailureKind, Program, Schedule, explore};
use pageless_fault::sim::{Cpu, ScheduledBody, SimConfig, SimMachine};
use pageless_fault::sync::Mutex;

const VA: u64 = 0x1000;
const SPACE: SpaceId = SpaceId::new(0);

/// CPU 0 unmaps under a lock what CPU 1 has used; CPU 1 wants the lock.
fn scene(policy: PolicyKind, wants: fn(&Cpu, &Mutex<()>)) -> Program<'static> {
    let config = SimConfig {
        cpus: 2,
        frames: 32,
        policy,
        ..SimConfig::default()
    };
    let machine = SimMachine::new(config).unwrap();
    let frame = machine.alloc().unwrap();
    machine.map(SPACE, VA, frame, true).unwrap();
    let (lock, locked) = (Rc::new(Mutex::new(())), Rc::new(Cell::new(false)));
    let bodies: Vec<ScheduledBody<'static>> = vec![
        {
            let (machine, lock, locked) = (machine.clone(), Rc::clone(&lock), Rc::clone(&locked));
            Box::new(move |cpu| {
                let held = lock.lock();
                locked.set(true);
                let unmapped = machine.unmap(cpu, SPACE, VA).unwrap();
                let freed = unmapped.free(&machine, cpu);
                assert!(freed.is_ok(), "nobody answers");
                drop(held);
            })
        },
        Box::new(move |cpu| {
            // Its word is in the first page's place only as long as that is mapped.
            let _ = cpu.load(VA);
            while !locked.get() {
                cpu.relax(0);
            }
            wants(cpu, &lock);
        }),
    ];
    let tasks = machine.tasks(bodies).unwrap();
    let check = move || assert_eq!(machine.stale_hits(), 0, "{:?}", machine.incidents());
    (tasks, check).into()
}

#[test]
fn a_cpu_that_waits_for_a_lock_answers_its_holder() {
    for policy in [
        PolicyKind::SyncIpi,
        PolicyKind::ConcurrentIpi,
        PolicyKind::Sweep,
        PolicyKind::Broadcast,
    ] {
        let explored = explore(1, 10_000, || scene(policy, |_, lock| drop(lock.lock())));
        if let Some(failure) = explored.failure {
            panic!("{}: {failure}", policy.name());
        }
        assert!(explored.complete, "{}", policy.name());
    }
}

#[test]
fn a_cpu_that_waits_for_a_lock_with_interrupts_off_is_found_to_deadlock() {
    let wants: fn(&Cpu, &Mutex<()>) = |cpu, lock| cpu.with_interrupts_off(|| drop(lock.lock()));
    let failed = (0..20).find_map(|seed| {
        Schedule::random(seed)
            .run(scene(PolicyKind::SyncIpi, wants))
            .err()
    });
    let failure = failed.expect("nobody waited for anybody");
    assert!(
        matches!(failure.kind, FailureKind::Deadlock { .. }),
        "{failure}"
    );
}
