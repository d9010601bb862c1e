//! Hazard: tasks that wait for each other for ever, or keep each other busy for ever.

use alloc::rc::Rc;
use core::cell::Cell;

use pageless_fault::sim::schedule::{Deviations, Event, FailureKind, Schedule, Task, step, wait};

use crate::programs::{Spin, kept_update, opposite_locks};

const ONE: Event = Event::new("one", 1);
const TWO: Event = Event::new("two", 2);

#[test]
fn a_deadlock_names_every_task_and_what_it_waits_for() {
    let deviations: Deviations = "0@2>1".parse().unwrap();
    let failure = Schedule::replay(&deviations)
        .run(opposite_locks())
        .unwrap_err();
    let FailureKind::Deadlock { waiting } = &failure.kind else {
        panic!("{failure}");
    };
    let waiting: Vec<_> = waiting.iter().map(|w| (w.task.as_str(), w.on)).collect();
    assert_eq!(
        waiting,
        [
            ("ab", Event::new("lock", 0xb)),
            ("ba", Event::new("lock", 0xa))
        ]
    );
    assert!(
        failure
            .to_string()
            .starts_with("deadlock: ab waits for lock 0xb, ba waits for lock 0xa\n")
    );
}

#[test]
fn random_schedules_find_the_deadlock() {
    let found = (0..100).find(|&seed| {
        let run = Schedule::random(seed).run(opposite_locks());
        run.is_err_and(|failure| matches!(failure.kind, FailureKind::Deadlock { .. }))
    });
    assert!(found.is_some());
}

#[test]
fn a_task_that_waits_alone_is_a_deadlock() {
    let forever = || {
        vec![Task::new("lonely", || {
            loop {
                wait(ONE);
            }
        })]
    };
    for schedule in [Schedule::random(1), Schedule::by_clock(1)] {
        let failure = schedule.run(forever()).unwrap_err();
        assert!(
            matches!(failure.kind, FailureKind::Deadlock { .. }),
            "{failure}"
        );
        assert!(failure.steps < 10);
    }
}

#[test]
fn a_holder_that_ends_with_the_lock_is_a_deadlock() {
    let program = || {
        let lock = Rc::new(Spin::new(7));
        let same = Rc::clone(&lock);
        vec![
            Task::new("keeps it", move || lock.lock()),
            Task::new("wants it", move || same.lock()),
        ]
    };
    let failure = Schedule::replay(&Deviations::default())
        .run(program())
        .unwrap_err();
    assert_eq!(
        failure.kind.to_string(),
        "deadlock: wants it waits for lock 0x7"
    );
}

#[test]
fn waiting_for_one_after_the_other_is_not_a_deadlock() {
    // What "second" waits for has come true long ago, one after the other and with no step by anyone.
    let program = || {
        let turn = Rc::new(Cell::new(0_u64));
        let waiter = |name: &str, mine: u64| {
            let turn = Rc::clone(&turn);
            Task::new(name, move || {
                for round in 0..10 {
                    while turn.get() < 2 * round + mine {
                        wait(Event::new("turn", 2 * round + mine));
                    }
                    turn.set(turn.get() + 1);
                }
            })
        };
        vec![waiter("first", 0), waiter("second", 1)]
    };
    for seed in 0..50 {
        Schedule::random(seed).run(program()).unwrap();
    }
    Schedule::replay(&Deviations::default())
        .run(program())
        .unwrap();
}

#[test]
fn alternating_waits_without_a_step_are_a_deadlock() {
    let restless = |name: &str| {
        Task::new(name, || {
            loop {
                wait(ONE);
                wait(TWO);
            }
        })
    };
    let failure = Schedule::random(3)
        .run(vec![restless("a"), restless("b")])
        .unwrap_err();
    assert!(
        matches!(failure.kind, FailureKind::Deadlock { .. }),
        "{failure}"
    );
    assert!(failure.steps < 1000);
}

#[test]
fn tasks_that_keep_each_other_busy_are_stopped() {
    let busy = || {
        Task::new("busy", || {
            loop {
                step(ONE);
            }
        })
    };
    for schedule in [Schedule::random(5), Schedule::by_clock(5)] {
        for traced in [false, true] {
            let failure = schedule
                .clone()
                .steps_at_most(1000)
                .record_trace(traced)
                .run(vec![busy(), busy()])
                .unwrap_err();
            assert_eq!(failure.kind, FailureKind::TooManySteps { most: 1000 });
            assert_eq!(failure.steps, 1001);
        }
    }
}

#[test]
fn a_program_of_exactly_the_limit_ends() {
    let task = || {
        Task::new("counts", || {
            (0..1000).for_each(|i| step(Event::new("i", i)));
        })
    };
    let schedule = Schedule::random(5).steps_at_most(2000);
    assert_eq!(schedule.run(vec![task(), task()]).unwrap().steps, 2000);
}

#[test]
fn tasks_that_wait_do_not_starve_the_one_they_wait_for() {
    for seed in 0..20 {
        let run = Schedule::random(seed).run(kept_update(64, 2)).unwrap();
        assert!(run.steps < 64 * 64 * 8, "{} steps", run.steps);
    }
}
