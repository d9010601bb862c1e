//! Hazard: a run that cannot be had again explains nothing.

use pageless_fault::sim::schedule::{Deviation, Deviations, Schedule, pick, step, wait};
use pageless_fault::sim::schedule::{Event, Task, chance, is_running};
use proptest::prelude::*;

use crate::programs::{Log, kept_update, logging, lost_update};

fn log_of(schedule: &Schedule) -> (Vec<(u32, u64)>, Deviations, u64) {
    let log = Log::default();
    let run = schedule.run(logging(&log, 5, 40)).unwrap();
    (log.take(), run.deviations, run.steps)
}

#[test]
fn equal_seeds_are_equal_runs_and_others_are_not() {
    let mut before = None;
    let mut differ = 0;
    for seed in 0..100 {
        let once = log_of(&Schedule::random(seed));
        assert_eq!(once, log_of(&Schedule::random(seed)), "seed {seed}");
        assert_eq!(once.2, 200);
        differ += u32::from(before.is_some_and(|before| before != once));
        before = Some(once);
    }
    assert_eq!(differ, 99);
}

#[test]
fn recording_the_trace_does_not_change_the_run() {
    for seed in 0..50 {
        for schedule in [Schedule::random(seed), Schedule::by_clock(seed)] {
            let traced = schedule.clone().record_trace(true);
            assert_eq!(log_of(&schedule), log_of(&traced), "seed {seed}");
        }
    }
}

#[test]
fn the_deviations_of_a_run_are_the_run_also_as_text() {
    for seed in 0..100 {
        for schedule in [Schedule::random(seed), Schedule::by_clock(seed)] {
            let once = log_of(&schedule);
            let text = once.1.to_string();
            let again = Schedule::replay(&text.parse().unwrap());
            assert_eq!(once, log_of(&again), "seed {seed}: {text}");
        }
    }
}

#[test]
fn a_run_with_waits_replays_exactly() {
    for seed in 0..200 {
        let run = Schedule::random(seed).run(kept_update(5, 3)).unwrap();
        let again = Schedule::replay(&run.deviations).run(kept_update(5, 3));
        assert_eq!(again.unwrap(), run, "seed {seed}");
    }
}

#[test]
fn a_failure_replays_from_its_seed_and_from_its_deviations() {
    let mut failed = 0;
    for seed in 0..100 {
        let Err(failure) = Schedule::random(seed).run(lost_update(3)) else {
            continue;
        };
        failed += 1;
        let again = Schedule::random(seed).run(lost_update(3)).unwrap_err();
        assert_eq!(again, failure);
        let replayed = Schedule::replay(&failure.deviations).run(lost_update(3));
        let replayed = replayed.unwrap_err();
        assert_eq!(replayed.kind, failure.kind);
        assert_eq!(replayed.deviations, failure.deviations);
        let told = failure.to_string();
        assert!(
            told.contains(&format!("Schedule::random({seed})")),
            "{told}"
        );
        assert!(told.contains("Schedule::replay("), "{told}");
    }
    assert!(failed > 10, "{failed} of 100 seeds lose an update");
}

#[test]
fn the_default_schedule_runs_one_task_after_the_other() {
    let log = Log::default();
    let run = Schedule::replay(&Deviations::default())
        .run(logging(&log, 3, 4))
        .unwrap();
    let expected: Vec<_> = (0..3).flat_map(|me| (0..4).map(move |i| (me, i))).collect();
    assert_eq!(log.take(), expected);
    assert_eq!(run.switches, 2);
    assert_eq!(run.deviations, Deviations::default());
}

#[test]
fn a_deviation_means_the_same_when_another_one_is_left_out() {
    let of = |text: &str| {
        let log = Log::default();
        let deviations: Deviations = text.parse().unwrap();
        Schedule::replay(&deviations)
            .run(logging(&log, 3, 4))
            .unwrap();
        log.take()
    };
    let both = of("0@2>2 2@3>1");
    let one = of("2@3>1");
    // Task 2 is stopped behind its second step both times, wherever that was.
    let after = |log: &[(u32, u64)]| {
        let at = log.iter().position(|&did| did == (2, 1)).unwrap();
        log[at + 1].0
    };
    assert_eq!(after(&both), 1);
    // All others have ended by then, so there is nobody to run instead.
    assert_eq!(after(&one), 2);
}

#[test]
fn outside_of_a_run_nothing_happens() {
    let event = Event::new("nothing", 0);
    step(event);
    wait(event);
    assert!(!is_running());
    assert!(!chance("heads", 1));
    assert_eq!(pick("number", 10), 0);
}

#[test]
fn deviations_of_tasks_that_do_not_exist_change_nothing() {
    let deviations: Deviations = ">9 7@1>0 0@1>9 0@1>0 1.>9".parse().unwrap();
    let log = Log::default();
    let run = Schedule::replay(&deviations).run(logging(&log, 3, 4));
    assert_eq!(run.unwrap().deviations, Deviations::default());
}

#[test]
fn an_empty_program_ends() {
    let none: Vec<Task<'_>> = Vec::new();
    assert_eq!(Schedule::random(1).run(none).unwrap().steps, 0);
}

#[test]
fn a_word_that_is_no_deviation_is_named() {
    for (text, position, word) in [
        ("0@1>1 zero", 2, "zero"),
        ("+1@2>3", 1, "+1@2>3"),
        ("0@1>1 clock", 2, "clock"),
        ("0@1/1?a%zz;", 1, "0@1/1?a%zz;"),
        ("0@99999999999999999999>1", 1, "0@99999999999999999999>1"),
        (">", 1, ">"),
    ] {
        let error = text.parse::<Deviations>().unwrap_err();
        assert_eq!((error.position, error.word.as_str()), (position, word));
    }
}

fn deviation() -> impl Strategy<Value = Deviation> {
    let task = any::<u32>();
    let at = any::<u64>();
    prop_oneof![
        any::<u32>().prop_map(|to| Deviation::Start { to }),
        (task, at, task).prop_map(|(task, at, to)| Deviation::Preempt { task, at, to }),
        (task, at, any::<u32>(), task).prop_map(|(task, at, turn, to)| Deviation::GiveWay {
            task,
            at,
            turn,
            to
        }),
        (task, task).prop_map(|(task, to)| Deviation::End { task, to }),
        (task, at, any::<u32>(), any::<String>()).prop_map(|(task, at, nth, what)| {
            Deviation::Chance {
                task,
                at,
                nth,
                what: what.into(),
            }
        }),
        (task, at, any::<u32>(), any::<u64>(), "[ -~]*").prop_map(
            |(task, at, nth, value, what)| Deviation::Pick {
                task,
                at,
                nth,
                value,
                what: what.into(),
            }
        ),
    ]
}

proptest! {
    #[test]
    fn deviations_survive_their_text(
        list in prop::collection::vec(deviation(), 0..20),
        clock: bool,
    ) {
        let deviations = Deviations { base: if clock { pageless_fault::sim::schedule::Base::Clock } else { Default::default() }, list };
        prop_assert_eq!(deviations.to_string().parse::<Deviations>().unwrap(), deviations);
    }

    #[test]
    fn no_text_makes_the_reader_of_deviations_panic(text in "[0-9@>+./?=% clok;]{0,30}") {
        if let Ok(deviations) = text.parse::<Deviations>() {
            let log = Log::default();
            Schedule::replay(&deviations).run(logging(&log, 3, 4)).unwrap();
        }
    }
}
