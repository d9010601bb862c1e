//! Hazard: actions out of the order of their modelled time.

use core::cell::{Cell, RefCell};

use pageless_fault::sim::schedule::{
    Event, Schedule, Task, advance_to, charge, now, pick, step, wait,
};

const ACT: Event = Event::new("act", 0);

#[test]
fn actions_happen_in_the_order_of_their_time() {
    let acted = RefCell::new(Vec::new());
    let task = |me: u64| {
        let acted = &acted;
        Task::new(format!("cpu {me}"), move || {
            for turn in 0..50 {
                step(ACT);
                acted.borrow_mut().push((now(), me));
                charge((me * 37 + turn * 11) % 29 + 1);
            }
        })
    };
    let run = Schedule::by_clock(1).run((0..8).map(task).collect::<Vec<_>>());
    let run = run.unwrap();
    let acted = acted.into_inner();
    assert!(acted.is_sorted_by_key(|&(at, _)| at));
    assert_eq!(acted.len(), 400);
    assert!(run.switches > 100);
    assert_eq!(run.deviations.list, []);
}

#[test]
fn a_task_that_waits_is_pulled_up_to_the_time_of_what_it_waits_for() {
    let done_at = Cell::new(0);
    let seen_at = Cell::new(0);
    let tasks = vec![
        Task::new("waits", || {
            step(ACT);
            while done_at.get() == 0 {
                wait(Event::new("done", 0));
            }
            seen_at.set(now());
            charge(5);
            step(ACT);
        }),
        Task::new("works", || {
            for _ in 0..10 {
                step(ACT);
                charge(100);
            }
            step(ACT);
            done_at.set(now());
            step(ACT);
            charge(7);
            step(ACT);
        }),
    ];
    let run = Schedule::by_clock(0).run(tasks).unwrap();
    assert_eq!(done_at.get(), 1000);
    // The next action behind it is 7 ns later.
    assert!((1000..=1007).contains(&seen_at.get()), "{}", seen_at.get());
    assert_eq!(run.clocks, [seen_at.get() + 5, 1007]);
}

#[test]
fn a_task_ahead_of_the_others_is_not_pulled_back() {
    let go = Cell::new(false);
    let tasks = vec![
        Task::new("ahead", || {
            charge(1_000_000);
            step(ACT);
            while !go.get() {
                wait(ACT);
            }
            assert_eq!(now(), 1_000_000);
        }),
        Task::new("behind", || {
            charge(10);
            step(ACT);
            go.set(true);
        }),
    ];
    assert_eq!(Schedule::by_clock(0).run(tasks).unwrap().clocks[1], 10);
}

#[test]
fn what_carries_its_time_is_exact() {
    let sent = Cell::new(None);
    let tasks = vec![
        Task::new("receives", || {
            let at: u64 = loop {
                match sent.get() {
                    Some(at) => break at,
                    None => wait(Event::new("message", 0)),
                }
            };
            advance_to(at + 150);
            advance_to(at); // never back
            step(ACT);
        }),
        Task::new("sends", || {
            charge(500);
            step(ACT);
            sent.set(Some(now()));
            charge(30);
            step(ACT);
        }),
    ];
    let run = Schedule::by_clock(0).run(tasks).unwrap();
    assert_eq!(run.clocks, [650, 530]);
}

#[test]
fn every_task_has_a_clock_of_its_own_in_a_random_schedule_too() {
    let task = |me: u64| {
        Task::new(format!("cpu {me}"), move || {
            for turn in 0..100 {
                step(ACT);
                assert_eq!(now(), turn * me);
                charge(me);
            }
        })
    };
    for seed in 0..20 {
        let run = Schedule::random(seed).run((0..4).map(task).collect::<Vec<_>>());
        assert_eq!(run.unwrap().clocks, [0, 100, 200, 300]);
    }
    assert_eq!(now(), 0);
    charge(10);
    assert_eq!(now(), 0, "outside of a run there is no clock");
}

#[test]
fn the_seed_of_a_clocked_run_is_for_draws() {
    let drawn = |seed| {
        let all = RefCell::new(Vec::new());
        let task = |me: u64| {
            let all = &all;
            Task::new(format!("cpu {me}"), move || {
                for _ in 0..10 {
                    step(ACT);
                    all.borrow_mut().push(pick("number", 1000));
                    charge(10);
                }
            })
        };
        Schedule::by_clock(seed)
            .run((0..3).map(task).collect::<Vec<_>>())
            .unwrap();
        all.into_inner()
    };
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
}

#[test]
fn a_task_alone_among_waiting_ones_runs_until_it_waits() {
    // Nobody charges anything, so there is no time to go by.
    let go = Cell::new(0);
    let waiter = |me: u32| {
        let go = &go;
        Task::new(format!("cpu {me}"), move || {
            while go.get() < me {
                wait(ACT);
            }
            step(ACT);
            go.set(go.get() + 1);
        })
    };
    let tasks: Vec<_> = (0..8).rev().map(waiter).collect();
    Schedule::by_clock(0).run(tasks).unwrap();
    assert_eq!(go.get(), 8);
}
