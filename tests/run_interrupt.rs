//! Hazard: Ctrl-C loses the numbers, or leaves requests in flight.

extern crate alloc;

mod run_support;

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use run_support::{Bench, jobs, number};

#[test]
fn ctrl_c_finishes_what_is_in_flight_and_prints_what_there_is() {
    let bench = Bench::new("[a]\nrw=randrw\niodepth=8\nsize=16m\nbs=4k\ntime_based\nruntime=1h\n");
    let mut child = bench
        .command(&["--memmap", "all", "--json", "out.json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.starts_with("running a") {
        line.clear();
        assert_ne!(
            stderr.read_line(&mut line).expect("readable"),
            0,
            "it ended by itself"
        );
    }
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .expect("kill")
            .success()
    );
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).expect("text");
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(130), "{rest}");
    assert!(rest.contains("interrupted"), "{rest}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("p99.9"));
    let json = std::fs::read(bench.path("out.json")).expect("written");
    let report: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(jobs(&report).len(), 1, "the other ways were not begun");
    assert_eq!(number(&jobs(&report)[0], &["error"]), 0);
}
