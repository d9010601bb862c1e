//! Hazard: the trace of a run is not of that run: requests are missing, or nobody can read it.

extern crate alloc;

mod run_support;

use std::{fs, process::Command};

use pageless::block::{Action, TraceRecords};
use run_support::{Bench, jobs, number};

/// Two writers with a flush after every eighth write, then a reader.
const JOB: &str = "[global]\nbs=4k\nsize=256k\niodepth=4\n\
                   [w]\nrw=randwrite\nnumjobs=2\nfsync=8\n\
                   [r]\nstonewall\nrw=randread\n";

#[test]
fn each_request_of_each_way_is_in_the_trace_of_that_way() {
    let bench = Bench::new(JOB);
    let directory = bench.path("trace");
    fs::create_dir(&directory).unwrap();
    let directory = directory.to_str().unwrap();
    let report = bench.report(&["--blktrace", directory]);
    for way in ["pfn", "lazy", "eager"] {
        let mut issued = [0_u64; 2];
        for (number, issued) in issued.iter_mut().enumerate() {
            let path = format!("{directory}/{way}.blktrace.{number}");
            let bytes = fs::read(&path).unwrap();
            for record in TraceRecords::new(&bytes) {
                let record = record.unwrap_or_else(|error| panic!("{path}: {error}"));
                if record.step() == Some(Action::Issue) && record.bytes != 0 {
                    *issued += 1;
                }
            }
        }
        // 64 blocks for each writer, and for the reader, which is the first thread of its group.
        assert_eq!(issued, [128, 64], "{way}");
    }
    let asked: u64 = jobs(&report)
        .iter()
        .map(|job| number(job, &["read", "total_ios"]) + number(job, &["write", "total_ios"]))
        .sum();
    assert!(asked == 192 || asked == 3 * 192, "{asked} I/Os reported");

    match Command::new("blkparse")
        .args(["-q", "-i", "pfn"])
        .current_dir(directory)
        .output()
    {
        Err(error) => {
            eprintln!("SKIPPED: blkparse does not run ({error}), so nobody else read the trace");
        }
        Ok(read) => {
            assert!(read.status.success(), "{read:?}");
            let text = String::from_utf8_lossy(&read.stdout);
            // Flushes have no blocks.
            let blocks = |line: &&str| line.contains(" C ") && line.contains(" + 8 ");
            let completed = text.lines().filter(blocks);
            assert_eq!(completed.count(), 192);
        }
    }
}

#[test]
fn a_directory_that_is_none_is_refused_before_anything_is_done() {
    let bench = Bench::new(JOB);
    let file = bench.write("file", b"");
    for path in [
        bench.path("nowhere").to_str().unwrap(),
        file.to_str().unwrap(),
    ] {
        let error = bench.run(&["--blktrace", path]).error(2);
        assert!(
            error.contains(path) && error.contains("not a directory"),
            "{error}"
        );
    }
}
