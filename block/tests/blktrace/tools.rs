//! Debian's tools for traces.

use std::path::Path;
use std::process::Command;

use pageless_block::{Action, EventCounts};

/// The letter each action has in `blkparse`'s output. A message has `m`.
pub(crate) const LETTERS: [(Action, &str); 15] = [
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

/// The action in a line of `blkparse`'s: device, CPU, sequence number, time, process, action, ...
pub(crate) fn letter(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    // The summary has words in these places, but no pair of numbers at its beginning.
    let (major, minor) = words.next()?.split_once(',')?;
    let is_number = |part: &str| part.parse::<u32>().is_ok();
    if !is_number(major) || !is_number(minor) {
        return None;
    }
    words.nth(4)
}

/// `blkparse` must have a line for each event that was counted, and no other.
pub(crate) fn assert_counted(stdout: &str, counts: &EventCounts) {
    let letters = || stdout.lines().filter_map(letter);
    for (action, letter) in LETTERS {
        let theirs = letters().filter(|found| *found == letter).count();
        assert_eq!(theirs as u64, counts.get(action), "{action:?}\n{stdout}");
    }
    let known = letters().all(|found| LETTERS.iter().any(|(_, letter)| *letter == found));
    assert!(known, "{stdout}");
    assert!(
        stdout.contains("Skips: 0 forward (0 -   0.0%)"),
        "sequence numbers have gaps:\n{stdout}"
    );
}

/// Runs `program` in `directory`; `None`, and a line that says so, if there is none.
pub(crate) fn tool(
    directory: &Path,
    program: &str,
    arguments: &[&str],
) -> Option<(String, String)> {
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
