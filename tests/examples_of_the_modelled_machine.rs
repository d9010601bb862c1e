//! Hazard: the examples that the README shows no longer say what it promises.

mod example;

use example::{example, said};

#[test]
fn a_broken_policy_is_caught_and_its_trace_can_be_had_again() {
    for policy in ["no-remote", "early-reuse", "sweep-unwaited", "sweep-timed"] {
        let output = example("stale_hit", &["--policy", policy]);
        let (code, told, _) = said(&output);
        assert_eq!(code, Some(1), "{told}");
        let hit = told
            .lines()
            .find(|line| line.starts_with("stale hit: cpu "));
        let again = told.lines().find(|line| line.starts_with("again: "));
        let replay = again.and_then(|line| line.split('\'').nth(1));
        let arguments = ["--policy", policy, "--replay", replay.expect("a replay")];
        let output = example("stale_hit", &arguments);
        let (code, told, _) = said(&output);
        assert_eq!(code, Some(1), "{told}");
        assert_eq!(told.lines().next(), hit, "{policy}");
    }
}

#[test]
fn a_safe_policy_has_nothing_to_tell() {
    let arguments = ["--policy", "resident", "--cpus", "3", "--schedules", "200"];
    let output = example("stale_hit", &arguments);
    let (code, told, _) = said(&output);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("no stale hit in 200 schedules of 3 CPUs"));
    assert!(told.contains("used again in 200 of them"), "{told}");
}

#[test]
fn nonsense_is_wrong_usage() {
    for (name, arguments) in [
        ("stale_hit", ["--policy", "hope"]),
        ("stale_hit", ["--cpus", "1"]),
        ("stale_hit", ["--seed", "-1"]),
        ("stale_hit", ["--replay", "0@2<1"]),
        ("shootdown_latency", ["--targets", "0"]),
        ("shootdown_latency", ["--pages", "65"]),
        ("shootdown_latency", ["--costs", "free"]),
        ("memmap_on_sim", ["--seed", "x"]),
    ] {
        let output = example(name, &arguments);
        let (code, _, complaint) = said(&output);
        assert_eq!(code, Some(2), "{name} {arguments:?}");
        assert!(complaint.contains(arguments[1]), "{complaint}");
    }
}

#[test]
fn modelled_nanoseconds_are_labelled_and_those_of_the_calibration() {
    let output = example("shootdown_latency", &["--targets", "3"]);
    let (code, told, _) = said(&output);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.starts_with("MODELLED nanoseconds"), "{told}");
    let row = told.lines().find(|line| line.contains("sync-ipi"));
    let row: Vec<&str> = row.unwrap_or_default().split_whitespace().collect();
    assert_eq!(row, ["sync-ipi", "764", "908"]);
}

#[test]
fn the_readme_shows_what_comes_out() {
    let readme = include_str!("../README.md");
    let output = example("shootdown_latency", &["--targets", "15"]);
    let (_, told, _) = said(&output);
    assert!(readme.contains(told.trim_end()), "{told}");

    let output = example("memmap_on_sim", &["--seed", "42"]);
    let (_, told, _) = said(&output);
    // The first line is the host's, whose kernel may differ.
    for line in told.trim_end().lines().skip(1) {
        assert!(readme.contains(line), "{line}");
    }
    for policy in ["no-remote", "concurrent-ipi"] {
        let output = example("stale_hit", &["--policy", policy]);
        let (_, told, _) = said(&output);
        assert!(readme.contains(told.trim_end()), "{told}");
    }

    let again = readme.lines().find(|line| line.starts_with("again: "));
    let replay = again.and_then(|line| line.split('\'').nth(1));
    let arguments = ["--policy", "no-remote", "--replay", replay.expect("shown")];
    let output = example("stale_hit", &arguments);
    let (code, told, _) = said(&output);
    assert_eq!(code, Some(1), "{told}");
    let hit = told.lines().next().expect("a line");
    assert!(readme.contains(hit), "{hit}");
}

#[test]
fn the_memmap_does_the_same_on_both_machines() {
    let output = example("memmap_on_sim", &[]);
    let (code, told, complaint) = said(&output);
    assert_eq!(code, Some(0), "{complaint}");
    let of = |machine: &str| {
        let line = told.lines().find_map(|line| line.strip_prefix(machine));
        line.unwrap_or_default().trim().to_owned()
    };
    assert!(of("host").starts_with("1000 chunks populated"), "{told}");
    assert!(of("sim").starts_with("1000 chunks populated"), "{told}");
    assert!(told.contains(" 0 stale hits"), "{told}");
}
