//! Hazard: a run that fails leaves something behind.

use core::cell::{Cell, RefCell};

use pageless_fault::sim::schedule::{
    Deviations, Event, FailureKind, Schedule, Task, is_running, step, wait,
};

const EVENT: Event = Event::new("event", 0);

/// Says when it is dropped, and tries to give way then.
struct Guard<'a> {
    name: &'static str,
    dropped: &'a RefCell<Vec<(&'static str, bool)>>,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let running = is_running();
        step(EVENT);
        wait(EVENT);
        self.dropped.borrow_mut().push((self.name, running));
    }
}

#[test]
fn a_panic_is_told_with_its_place_and_everything_is_dropped() {
    for seed in 0..50 {
        let dropped = RefCell::new(Vec::new());
        let task = |name: &'static str, fails: bool| {
            let dropped = &dropped;
            Task::new(name, move || {
                let _guard = Guard { name, dropped };
                for i in 0..10 {
                    step(Event::new("i", i));
                    assert!(!(fails && i == 9), "the tenth of {name}");
                }
                loop {
                    wait(EVENT);
                    step(EVENT);
                }
            })
        };
        let tasks = vec![task("a", false), task("b", true), task("c", false)];
        let failure = Schedule::random(seed).run(tasks).unwrap_err();
        let FailureKind::Panic {
            task,
            message,
            place,
        } = &failure.kind
        else {
            panic!("{failure}");
        };
        assert_eq!(task.as_deref(), Some("b"));
        assert_eq!(message, "the tenth of b");
        assert!(place.as_ref().unwrap().contains("teardown.rs:"));
        let mut dropped = dropped.into_inner();
        assert_eq!(dropped[0], ("b", false), "its own destructors come first");
        dropped.sort_unstable();
        // Those that had not begun had nothing to drop.
        assert!(dropped.len() <= 3);
        assert!(dropped.iter().all(|&(_, running)| !running));
        let mut names: Vec<_> = dropped.iter().map(|&(name, _)| name).collect();
        names.dedup();
        assert_eq!(names.len(), dropped.len(), "each once");
        assert!(!is_running());
    }
}

#[test]
fn a_deadlock_and_a_limit_drop_everything_as_well() {
    for endless in [false, true] {
        let dropped = RefCell::new(Vec::new());
        let task = |name: &'static str| {
            let dropped = &dropped;
            Task::new(name, move || {
                let _guard = Guard { name, dropped };
                loop {
                    wait(EVENT);
                    if endless {
                        step(EVENT);
                    }
                }
            })
        };
        let tasks = vec![task("a"), task("b")];
        let failure = Schedule::random(1).steps_at_most(100).run(tasks);
        let failure = failure.unwrap_err();
        let limit = matches!(failure.kind, FailureKind::TooManySteps { .. });
        assert_eq!(limit, endless, "{failure}");
        dropped.borrow_mut().sort_unstable();
        assert_eq!(dropped.into_inner(), [("a", false), ("b", false)]);
    }
}

#[test]
fn what_a_task_owns_is_dropped_even_if_it_never_ran() {
    let dropped = RefCell::new(Vec::new());
    let guard = Guard {
        name: "never ran",
        dropped: &dropped,
    };
    let tasks = vec![
        Task::new("fails", || panic!("at once")),
        Task::new("never ran", move || drop(guard)),
    ];
    let run = Schedule::replay(&Deviations::default()).run(tasks);
    run.unwrap_err();
    assert_eq!(dropped.into_inner(), [("never ran", false)]);
}

#[test]
fn hooks_are_called_in_pairs_around_every_turn_and_the_unwinding() {
    std::thread_local! {
        static CURRENT: Cell<Option<u32>> = const { Cell::new(None) };
    }
    struct Checks(u32);
    impl Drop for Checks {
        fn drop(&mut self) {
            assert_eq!(CURRENT.get(), Some(self.0));
        }
    }
    for (seed, fails) in (0..40).zip([false, true].into_iter().cycle()) {
        let pairs = Cell::new(0);
        let task = |me: u32| {
            let body = move || {
                let _checks = Checks(me);
                for i in 0..20 {
                    step(Event::new("i", i));
                    assert_eq!(CURRENT.get(), Some(me));
                    wait(EVENT);
                    assert_eq!(CURRENT.get(), Some(me));
                    assert!(!(fails && me == 1 && i == 10), "planned");
                }
            };
            Task::new(format!("cpu {me}"), body)
                .on_resume(move || assert_eq!(CURRENT.replace(Some(me)), None))
                .on_suspend(|| {
                    CURRENT.take().unwrap();
                    pairs.set(pairs.get() + 1);
                })
        };
        let run = Schedule::random(seed).run((0..4).map(task).collect::<Vec<_>>());
        assert_eq!(CURRENT.get(), None);
        match run {
            Ok(run) => assert_eq!(pairs.get(), run.switches + 1),
            Err(failure) => assert!(fails, "{failure}"),
        }
    }
}

#[test]
fn a_panic_that_a_task_catches_itself_is_its_own_business() {
    let task = || {
        Task::new("catches", || {
            for i in 0..20 {
                step(Event::new("i", i));
                let caught = std::panic::catch_unwind(|| {
                    step(EVENT);
                    panic!("caught");
                });
                assert!(caught.is_err());
            }
        })
    };
    for seed in 0..20 {
        let tasks = vec![task(), task()];
        Schedule::random(seed).run(tasks).unwrap();
    }
}

#[test]
fn the_check_at_the_end_fails_the_run() {
    let tasks = vec![Task::new("a", || step(EVENT))];
    let failure = Schedule::random(0)
        .run((tasks, || panic!("not as it should be")))
        .unwrap_err();
    let told = failure.to_string();
    assert!(
        told.starts_with("the check at the end panicked at "),
        "{told}"
    );
    assert!(told.contains("not as it should be"), "{told}");
}

#[test]
fn a_run_after_a_failed_one_starts_afresh() {
    for _ in 0..3 {
        Schedule::random(1)
            .run(vec![Task::new("fails", || panic!("planned"))])
            .unwrap_err();
        let run = Schedule::random(1).run(vec![Task::new("steps", || {
            assert!(is_running());
            step(EVENT);
        })]);
        assert_eq!(run.unwrap().steps, 1);
    }
}

#[test]
#[should_panic(expected = "a run inside a task of another run")]
fn a_run_inside_a_run_is_refused() {
    let tasks = vec![Task::new("outer", || {
        drop(Schedule::random(0).run(Vec::new()));
    })];
    let failure = Schedule::random(0).run(tasks).unwrap_err();
    panic!("{failure}");
}

#[test]
fn a_thousand_tasks_fit_in_one_thread() {
    let task = |me: u64| Task::new("one of many", move || step(Event::new("me", me)));
    let run = Schedule::random(0).run((0..1024).map(task).collect::<Vec<_>>());
    assert_eq!(run.unwrap().steps, 1024);
}
