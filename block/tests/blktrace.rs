//! Hazard: a trace that the tools it is written for read as something else, or not at all.

#[path = "blktrace/run.rs"]
mod run;

use std::path::Path;
use std::process::Command;

use pageless_block::{Action, BlkTrace, DeviceNumber, EventCounts};

/// The letter each action has in `blkparse`'s output. A message has `m`.
const LETTERS: [(Action, &str); 15] = [
    (Action::Queue, "Q"),
    (Action::BackMerge, "M"),
    (Action::FrontMerge, "F"),
    (Action::GetRequest, "G"),
    (Action::SleepRequest, "S"),
    (Action::Requeue, "R"),
    (Action::Issue, "D"),
    (Action::Complete, "C"),
    (Action::Plug, "P"),
    (Action::Unplug, "U"),
    (Action::Insert, "I"),
    (Action::Split, "X"),
    (Action::Bounce, "B"),
    (Action::Remap, "A"),
    (Action::Abort, "m"),
];

fn device() -> DeviceNumber {
    DeviceNumber::try_new(8, 16).unwrap()
}

/// The action in a line of `blkparse`'s: device, CPU, sequence number, time, process, action, ...
fn letter(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    (words.next()? == "8,16").then(|| words.nth(4))?
}

/// Runs `program` in `directory`; `None`, and a line that says so, if there is none.
fn tool(directory: &Path, program: &str, arguments: &[&str]) -> Option<(String, String)> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            eprintln!("SKIPPED: cannot run {program} (package blktrace): {error}");
            return None;
        }
    };
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{stdout}\n{stderr}",
        output.status
    );
    Some((stdout, stderr))
}

#[test]
#[cfg_attr(miri, ignore = "runs programs")]
fn blkparse_counts_what_we_counted() {
    let directory = tempfile::tempdir().unwrap();
    let trace = BlkTrace::create(directory.path(), "sdb", device(), 2).unwrap();
    let probe = (trace, EventCounts::new());
    run::play(&probe, 64);
    let (trace, counts) = probe;
    trace.finish().unwrap();

    let Some((stdout, _)) = tool(directory.path(), "blkparse", &["-i", "sdb"]) else {
        return;
    };
    let letters = || stdout.lines().filter_map(letter);
    for (action, letter) in LETTERS {
        let theirs = letters().filter(|found| *found == letter).count();
        assert_eq!(theirs as u64, counts.get(action), "{action:?}\n{stdout}");
        assert_ne!(theirs, 0, "{action:?} is not in the run");
    }
    let known = letters().all(|found| LETTERS.iter().any(|(_, letter)| *letter == found));
    assert!(known, "{stdout}");
    assert!(
        stdout.contains("Skips: 0 forward (0 -   0.0%)"),
        "sequence numbers have gaps:\n{stdout}"
    );
}
