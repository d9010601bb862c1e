//! Hazard: the examples of the block layer that the README shows no longer say what it promises.

mod example;

use std::fs;
use std::process::Command;

use example::{example, said};

const README: &str = include_str!("../README.md");

/// What an example says that does what it should.
fn told(name: &str, arguments: &[&str]) -> String {
    let (code, told, complaint) = said(&example(name, arguments));
    assert_eq!(code, Some(0), "{name}: {complaint}");
    told
}

#[test]
fn the_readme_shows_what_comes_out() {
    for name in ["power_cut", "async_io", "own_elevator"] {
        let told = told(name, &[]);
        assert!(README.contains(told.trim_end()), "{told}");
    }
}

#[test]
fn only_what_was_promised_is_sure_to_be_there_after_a_power_cut() {
    let mut there = 0;
    for seed in ["1", "2", "3", "4", "5", "6", "7", "8"] {
        let told = told("power_cut", &["--seed", seed]);
        let after = told.split_once("power cut").expect("a cut").1;
        let fates = |how: &str| -> Vec<&str> {
            let lines = after.lines().filter(|line| line.contains(how));
            lines.filter_map(|l| l.rsplit(": ").next()).collect()
        };
        assert_eq!(fates("then flush"), ["there"], "{told}");
        assert_eq!(fates("with FUA"), ["there"], "{told}");
        let others = fates("and no more");
        there += others.iter().filter(|fate| **fate == "there").count();
    }
    // Of two in each of eight accidents.
    assert!((1..16).contains(&there), "{there}");
}

#[test]
fn a_driver_takes_as_many_lines_as_the_readme_says() {
    let source = include_str!("../examples/own_block_device.rs");
    let driver = source.split_once("\nimpl").expect("a driver").1;
    let driver = driver.split_once("\n}\n").expect("its end").0;
    let lines = driver.lines().count() + 1;
    assert!(lines < 40, "{lines}");
    let promise = format!("{lines} lines from `impl` to its end");
    assert!(README.contains(&promise), "{promise}");
    let told = told("own_block_device", &[]);
    assert!(told.contains("read back: \"a driver in"), "{told}");
}

#[test]
fn blkparse_reads_the_trace_that_is_written() {
    // Not everybody's directories have names of one word.
    let directory = tempfile::Builder::new().prefix("today's trace ").tempdir();
    let directory = directory.expect("a directory");
    let path = directory.path().to_str().expect("readable");
    let told = told("blktrace", &[path]);
    assert!(directory.path().join("null0.blktrace.0").exists());
    let command = told.lines().last().and_then(|l| l.strip_prefix("now: "));
    let output = Command::new("sh")
        .args(["-c", command.expect("a command")])
        .output();
    let (code, parsed, complaint) = said(&output.expect("a shell"));
    // What a shell says of a program that is not there.
    if code == Some(127) {
        eprintln!("SKIPPED: cannot run blkparse (package blktrace): {complaint}");
        return;
    }
    assert_eq!(code, Some(0), "{complaint}");
    // Device, CPU, number, time, process, action and the rest: times and processes differ.
    let steps = |text: &str| -> Vec<String> {
        let step = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let known = words.first() == Some(&"250,0") && words.get(5) != Some(&"m");
            known.then(|| words[5..].join(" ").replace("[blktrace]", ""))
        };
        text.lines().filter_map(step).collect()
    };
    // What the README shows is shortened, and in this order.
    let shown = steps(README);
    assert!(shown.len() > 10, "{shown:?}");
    let mut found = steps(&parsed).into_iter();
    for step in shown {
        assert!(found.any(|f| f == step), "{step:?} is not in\n{parsed}");
    }
}

#[test]
fn what_cannot_be_done_is_an_error_that_says_what() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    fs::write(&file, "").expect("a file");
    let nowhere = directory.path().join("nowhere");
    for path in [&file, &nowhere] {
        let path = path.to_str().expect("a plain name");
        let (code, _, complaint) = said(&example("blktrace", &[path]));
        assert_eq!(code, Some(1), "{complaint}");
        assert!(complaint.starts_with("blktrace: "), "{complaint}");
        assert!(complaint.contains(path), "{complaint}");
    }
    std::os::unix::fs::symlink("/dev/full", directory.path().join("null0.blktrace.0"))
        .expect("a link");
    let path = directory.path().to_str().expect("a plain name");
    let (code, _, complaint) = said(&example("blktrace", &[path]));
    assert_eq!(code, Some(1), "{complaint}");
    assert!(complaint.contains("No space left"), "{complaint}");
}

#[test]
fn nonsense_is_wrong_usage() {
    for (name, arguments) in [
        ("blktrace", &[][..]),
        ("blktrace", &["a", "b"][..]),
        ("power_cut", &["--seed", "x"][..]),
        ("power_cut", &["now"][..]),
    ] {
        let (code, _, complaint) = said(&example(name, arguments));
        assert_eq!(code, Some(2), "{name} {arguments:?}: {complaint}");
    }
}
