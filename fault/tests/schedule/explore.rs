//! Hazard: a mistake that needs one particular schedule.

use alloc::rc::Rc;
use core::cell::RefCell;
use std::collections::HashSet;

use pageless_fault::sim::schedule::{Event, FailureKind, Task, explore, step};

use crate::programs::{kept_update, lost_update, opposite_locks};

/// `tasks` tasks of `steps` steps that have nothing to do with each other.
fn counting(tasks: u32, steps: u64) -> Vec<Task<'static>> {
    let task = |me| {
        Task::new(format!("cpu {me}"), move || {
            (0..steps).for_each(|i| step(Event::new("i", i)));
        })
    };
    (0..tasks).map(task).collect()
}

#[test]
fn the_number_of_schedules_is_the_one_counted_by_hand() {
    // Nothing otherwise: one. Two tasks of 3 steps: the first can be stopped at 3 places, and then the
    // second at 3, and then the first at as many as it has not yet come to.
    for (bound, schedules) in [(0, 1), (1, 1 + 3), (2, 1 + 3 + 9)] {
        let explored = explore(bound, 1000, || counting(2, 3));
        assert!(explored.complete);
        assert_eq!(explored.schedules, schedules, "bound {bound}");
    }
    // Three tasks of 1 step, one deviation: task 0 at its step, or at its end, then task 1 at its step.
    // At the step one of two others can run; at the end, one besides the next; then one.
    assert_eq!(explore(1, 1000, || counting(3, 1)).schedules, 1 + 2 + 1 + 1);
}

#[test]
fn without_a_bound_every_order_comes_up_once() {
    let orders = RefCell::new(HashSet::new());
    let explored = explore(u32::MAX, 100_000, || {
        let order = Rc::new(RefCell::new(Vec::new()));
        let task = |me: u32| {
            let order = Rc::clone(&order);
            Task::new(format!("cpu {me}"), move || {
                for i in 0..3 {
                    step(Event::new("i", i));
                    order.borrow_mut().push(me);
                }
            })
        };
        let tasks = vec![task(0), task(1)];
        let orders = &orders;
        (tasks, move || {
            orders.borrow_mut().insert(order.take());
        })
    });
    assert!(explored.complete);
    // 6 over 3 ways to shuffle two times three steps.
    assert_eq!(orders.borrow().len(), 20);
}

#[test]
fn one_preemption_finds_the_lost_update() {
    let explored = explore(1, 1000, || lost_update(2));
    assert!(!explored.complete);
    assert_eq!(explored.failure.unwrap().deviations.to_string(), "0@2>1");
    let none = explore(0, 1000, || lost_update(2));
    assert!(none.complete && none.failure.is_none());
}

#[test]
fn the_deadlock_of_two_locks_in_opposite_order_is_found() {
    let failure = explore(1, 1000, opposite_locks).failure.unwrap();
    assert!(
        matches!(failure.kind, FailureKind::Deadlock { .. }),
        "{failure}"
    );
    assert_eq!(failure.deviations.list.len(), 1, "{failure}");
}

#[test]
fn a_right_program_is_explored_to_the_end() {
    let explored = explore(2, 1_000_000, || kept_update(3, 1));
    assert!(explored.complete && explored.failure.is_none());
    assert!(explored.schedules > 100, "{}", explored.schedules);
}

#[test]
fn a_limit_of_runs_leaves_exploring_incomplete() {
    let explored = explore(2, 10, || kept_update(3, 1));
    assert_eq!(explored.schedules, 10);
    assert!(!explored.complete && explored.failure.is_none());
}
