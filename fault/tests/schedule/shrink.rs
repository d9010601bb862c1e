//! Hazard: a failing schedule that nobody can read.

use core::cell::Cell;

use pageless_fault::sim::schedule::{
    Deviation, Deviations, Event, Failure, FailureKind, Schedule, Task, chance, pick, shrink, step,
};

use crate::programs::{logging, lost_update, opposite_locks};

fn failing<'a, P>(make: impl Fn() -> P) -> impl Iterator<Item = Box<Failure>>
where
    P: Into<pageless_fault::sim::schedule::Program<'a>>,
{
    (0..200).filter_map(move |seed| Schedule::random(seed).run(make()).err())
}

#[test]
fn a_lost_update_shrinks_to_what_a_person_reads() {
    let mut shrunk_runs = 0;
    for failure in failing(|| lost_update(4)) {
        let shrunk = shrink(failure, || lost_update(4));
        let text = shrunk.failure.trace.to_string();
        assert!(shrunk.failure.deviations.switches() <= 2, "{shrunk}");
        assert!(text.lines().count() <= 12, "{shrunk}");
        assert!(shrunk.failure.seed.is_some());
        shrunk_runs += 1;
    }
    assert!(shrunk_runs > 50, "{shrunk_runs}");

    let failure = failing(|| lost_update(2)).next().unwrap();
    let shrunk = shrink(failure, || lost_update(2));
    let expected = "     1  cpu 0  load 0x0
     2  cpu 1  load 0x0
     3         store 0x0
     4         ends
     5  cpu 0  store 0x0
     6         ends
";
    assert_eq!(shrunk.failure.trace.to_string(), expected);
}

#[test]
fn a_deadlock_stays_a_deadlock_and_needs_one_preemption() {
    for failure in failing(opposite_locks).take(20) {
        let shrunk = shrink(failure, opposite_locks);
        assert!(matches!(shrunk.failure.kind, FailureKind::Deadlock { .. }));
        assert_eq!(shrunk.failure.deviations.list.len(), 1, "{shrunk}");
    }
}

/// Fails only if both coins came up heads, and something was chosen, among much that does not matter.
fn coins() -> Vec<Task<'static>> {
    let both = alloc::rc::Rc::new(Cell::new(0));
    let task = |me: u32| {
        let both = alloc::rc::Rc::clone(&both);
        Task::new(format!("cpu {me}"), move || {
            for i in 0..50 {
                step(Event::new("i", i));
                let _ = chance("noise", 2);
                if i == 20 && chance("late walk", 2) {
                    both.set(both.get() + 1);
                }
                if i == 40 && pick("frame", 8) == 5 && both.get() == 2 {
                    panic!("seen by {me}");
                }
            }
        })
    };
    vec![task(0), task(1)]
}

#[test]
fn only_the_coins_and_choices_that_matter_remain() {
    let failure = failing(coins).next().unwrap();
    assert!(failure.deviations.list.len() > 50);
    let shrunk = shrink(failure, coins);
    let (mut heads, mut chosen) = (0, 0);
    for deviation in &shrunk.failure.deviations.list {
        match deviation {
            Deviation::Chance { what, .. } if what == "late walk" => heads += 1,
            Deviation::Pick { value: 5, .. } => chosen += 1,
            Deviation::Preempt { .. } => {}
            other => panic!("{other} does not matter"),
        }
    }
    assert_eq!((heads, chosen), (2, 1));
    let again: Deviations = shrunk.failure.deviations.to_string().parse().unwrap();
    assert!(Schedule::replay(&again).run(coins()).is_err());
}

#[test]
fn nothing_can_be_left_out_of_what_remains() {
    for failure in failing(|| lost_update(3)).take(20) {
        let shrunk = shrink(failure, || lost_update(3)).failure.deviations;
        for gone in 0..shrunk.list.len() {
            let mut fewer = shrunk.clone();
            fewer.list.remove(gone);
            let run = Schedule::replay(&fewer).run(lost_update(3));
            assert!(run.is_ok(), "{shrunk} fails without its {gone}");
        }
    }
}

#[test]
fn a_failure_that_does_not_come_again_comes_back_as_it_was() {
    let failure = failing(|| lost_update(3)).next().unwrap();
    let log = crate::programs::Log::default();
    let shrunk = shrink(failure.clone(), || logging(&log, 3, 4));
    assert_eq!(shrunk.failure, failure);
    assert_eq!(shrunk.runs, 1);
}

#[test]
fn a_run_that_kept_no_deviations_shrinks_from_its_seed() {
    let failure = (0..200)
        .find_map(|seed| {
            let schedule = Schedule::random(seed).record_deviations(false);
            schedule.run(lost_update(2)).err()
        })
        .unwrap();
    assert!(failure.deviations.list.is_empty());
    assert!(failure.to_string().contains("not recorded"), "{failure}");
    let shrunk = shrink(failure, || lost_update(2));
    assert_eq!(shrunk.failure.deviations.to_string(), "0@2>1");
}
