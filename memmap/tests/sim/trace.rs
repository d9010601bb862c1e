//! What a person gets to read when a run fails: the few deviations that matter, and what then happened.

use alloc::sync::Arc;

use pageless_fault::MaySleep;
use pageless_fault::shootdown::PolicyKind;
use pageless_fault::sim::schedule::{Program, Schedule};
use pageless_fault::sim::{ScheduledBody, SimMachine};

use crate::world::{attach, chunk, config, first_failure, program, told, touch};

/// Flushes itself and says that everybody has.
fn two_cpus_under_a_policy_that_lies() -> Program<'static> {
    let machine = SimMachine::new(config(2, PolicyKind::NoRemote)).unwrap();
    let memmap = attach(&machine, 2, 2);
    let bodies = (0..2)
        .map(|_| -> ScheduledBody<'static> {
            let memmap = Arc::clone(&memmap);
            let machine = machine.clone();
            Box::new(move |_| {
                let ctx = MaySleep::claim();
                for _ in 0..4 {
                    touch(&memmap, &ctx, 0);
                    memmap.reclaim(&ctx, 0).unwrap();
                    drop(memmap.try_get(chunk(0)));
                    let incidents = machine.incidents();
                    assert!(incidents.is_empty(), "{}", incidents[0]);
                }
            })
        })
        .collect();
    program(&machine, bodies, || ())
}

#[test]
fn a_failing_schedule_is_told_in_a_few_lines_and_can_be_had_again() {
    let failure = first_failure(0..1000, two_cpus_under_a_policy_that_lies)
        .expect("a policy that flushes nobody else is not caught");
    let many = failure.deviations.list.len();
    let shrunk = told(failure, two_cpus_under_a_policy_that_lies);
    println!("{many} deviations, of which matter:\n{shrunk}");
    assert!(shrunk.deviations.list.len() <= 4, "{shrunk}");
    let again = Schedule::replay(&shrunk.deviations)
        .run(two_cpus_under_a_policy_that_lies())
        .unwrap_err();
    assert_eq!(again.kind, shrunk.kind);
}
