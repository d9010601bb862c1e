//! Hazard: an example panics when its standard output takes no more.

mod example;

use std::fs::File;

use example::{example, example_into, said};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");

/// Those that have options, and one way to run each that is over soon.
const EXAMPLES: [(&str, &[&str], i32); 6] = [
    ("virtual_compound", &[], 0),
    ("zram", &[FILE], 0),
    ("shootdown_latency", &["--targets", "1"], 0),
    ("memmap_on_sim", &[], 0),
    ("power_cut", &[], 0),
    ("stale_hit", &["--policy", "no-remote"], 1),
];

#[test]
fn a_full_disk_is_an_error_and_no_panic() {
    for (name, arguments, _) in EXAMPLES {
        let full = File::options().write(true).open("/dev/full");
        let full = full.expect("a device of Linux");
        let (code, _, complaint) = said(&example_into(full.into(), name, arguments));
        assert_eq!(code, Some(1), "{complaint}");
        let expected = format!("{name}: standard output: No space left");
        assert!(complaint.starts_with(&expected), "{complaint}");
    }
}

#[test]
fn a_reader_that_goes_away_has_heard_enough() {
    for (name, arguments, status) in EXAMPLES {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = example_into(writer.into(), name, arguments);
        let (code, _, complaint) = said(&output);
        assert_eq!((code, complaint.as_str()), (Some(status), ""), "{name}");
    }
}

#[test]
fn with_a_reader_they_say_something() {
    for (name, arguments, status) in EXAMPLES {
        let (code, told, complaint) = said(&example(name, arguments));
        assert_eq!(code, Some(status), "{name}: {complaint}");
        assert!(told.ends_with('\n'), "{name}: {told}");
    }
}
