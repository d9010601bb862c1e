//! What a person gets to read when a run fails: the few deviations that matter, and what then happened.

use alloc::sync::Arc;

use pageless_fault::MaySleep;
use pageless_fault::shootdown::PolicyKind;
use pageless_fault::sim::schedule::{Program, Schedule};
use pageless_fault::sim::{ScheduledBody, SimConfig, SimMachine, Speculation};

use crate::world::{attach, config, first_failure, program, told, touch};

/// One CPU takes a chunk away under a policy that flushes nobody else, the other uses what it has.
fn two_cpus_under_a_policy_that_lies() -> Program<'static> {
    let machine = SimMachine::new(SimConfig {
        speculation: Speculation::Off,
        ..config(2, PolicyKind::NoRemote)
    })
    .unwrap();
    let memmap = attach(&machine, 2, 2);
    let (taken, used, seen) = (Arc::clone(&memmap), Arc::clone(&memmap), machine.clone());
    let bodies: Vec<ScheduledBody<'static>> = vec![
        Box::new(move |_| {
            let ctx = MaySleep::claim();
            taken.reclaim(&ctx, 0).unwrap();
        }),
        Box::new(move |_| {
            let ctx = MaySleep::claim();
            for _ in 0..3 {
                touch(&used, &ctx, 0);
                if let Some(incident) = seen.incidents().first() {
                    panic!("{incident}");
                }
            }
        }),
    ];
    // The window outlives the tasks: its end is not part of the story.
    program(&machine, bodies, move || drop(memmap))
}

#[test]
fn a_failing_schedule_is_told_in_a_few_lines_and_can_be_had_again() {
    let failure = first_failure(10_000, two_cpus_under_a_policy_that_lies)
        .expect("a policy that flushes nobody else is not caught");
    let before = failure.deviations.list.len();
    let shrunk = told(failure, two_cpus_under_a_policy_that_lies);
    println!("{before} deviations; those that matter:\n{shrunk}");
    assert!(shrunk.deviations.list.len() <= 3, "{shrunk}");
    assert!(shrunk.to_string().lines().count() <= 25, "{shrunk}");
    let again = Schedule::replay(&shrunk.deviations)
        .run(two_cpus_under_a_policy_that_lies())
        .unwrap_err();
    assert_eq!(again.kind, shrunk.kind);
}
