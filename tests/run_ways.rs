//! Hazard: the ways differ in more than their descriptors, or their books are wrong.

extern crate alloc;

mod run_support;

use run_support::{Bench, jobs, number};
use serde_json::Value;

const JOB: &str = "\
[global]
filename=f
size=64m
bs=4k
[seq]
rw=write
[rand]
stonewall
rw=randrw
io_size=16m
";

fn of_way<'a>(report: &'a Value, way: &str) -> Vec<&'a Value> {
    jobs(report)
        .iter()
        .filter(|job| job["pageless"]["memmap"] == way)
        .collect()
}

#[test]
fn all_ways_issue_the_same_requests() {
    let report = Bench::new(JOB).report(&["--budget", "128KiB"]);
    let counts = |way| {
        of_way(&report, way)
            .iter()
            .map(|j| {
                (
                    number(j, &["read", "total_ios"]),
                    number(j, &["write", "io_bytes"]),
                )
            })
            .collect::<Vec<_>>()
    };
    let pfn = counts("pfn");
    assert_eq!(pfn.len(), 2);
    assert_eq!(pfn[0], (0, 64 << 20));
    assert_eq!(counts("lazy"), pfn);
    assert_eq!(counts("eager"), pfn);
}

#[test]
fn the_pfn_way_touches_no_descriptor() {
    let report = Bench::new(JOB).report(&["--memmap", "pfn"]);
    for job in jobs(&report) {
        let books = job["pageless"].as_object().expect("an object");
        for (name, value) in books {
            match name.as_str() {
                "memmap" => assert_eq!(value, "pfn"),
                // 16384 frames of 64 bytes: what it would have taken.
                "eager_memmap_bytes" => assert_eq!(value, 1 << 20),
                _ => assert_eq!(value, 0, "{name}"),
            }
        }
        assert_eq!(books.len(), 12);
    }
}

#[test]
fn the_lazy_way_stays_within_its_budget_and_its_books_balance() {
    let report = Bench::new(JOB).report(&["--memmap", "lazy", "--budget", "128KiB"]);
    let jobs = jobs(&report);
    for job in jobs {
        let books = |name| number(job, &["pageless", name]);
        assert_eq!(books("descriptor_budget_bytes"), 128 << 10);
        // The two peaks need not be of the same moment, so each is held against the budget alone.
        assert!(books("descriptor_bytes_peak") <= 128 << 10);
        assert!(books("page_table_bytes_peak") <= 128 << 10);
        // A fault that continues a walk fills up to eight chunks.
        assert!(books("descriptor_faults") > 0);
        assert!(8 * books("descriptor_faults") >= books("chunks_populated"));
        assert!(
            books("chunks_reclaimed") > 100,
            "{}",
            books("chunks_reclaimed")
        );
        assert!(books("shootdowns") > 0 && books("shootdowns") <= books("chunks_reclaimed"));
        assert_eq!(books("pinned_peak"), 1);
        assert_eq!(books("eager_memmap_bytes"), 1 << 20);
        assert!(books("attach_ns") > 0);
    }
    // 16384 frames, one after the other, in chunks of 64.
    assert_eq!(number(&jobs[0], &["pageless", "chunks_populated"]), 256);
}

#[test]
fn each_frame_of_every_request_in_flight_is_pinned() {
    let job = "[a]\nrw=write\nbs=64k\niodepth=8\nsize=8m\n";
    for way in ["lazy", "eager"] {
        let report = Bench::new(job).report(&["--memmap", way]);
        assert_eq!(
            number(&jobs(&report)[0], &["pageless", "pinned_peak"]),
            8 * 16,
            "{way}"
        );
    }
}

#[test]
fn a_budget_smaller_than_what_is_in_flight_waits_for_requests_and_then_says_so() {
    // 64 requests in flight, each with a chunk of its own, and room for three chunks.
    let job = "[a]\nrw=randwrite\nbs=4k\nnorandommap\niodepth=64\nsize=1g\nnumber_ios=2000\n";
    let report = Bench::new(job).report(&["--memmap", "lazy", "--budget", "16KiB"]);
    assert_eq!(number(&jobs(&report)[0], &["write", "total_ios"]), 2000);
    // A single request that needs more chunks than there can be is an error, not a hang.
    let job = "[a]\nrw=write\nbs=16m\nsize=64m\n";
    let ran = Bench::new(job).run(&["--memmap", "lazy", "--budget", "16KiB"]);
    assert_eq!(ran.code(), 1);
    assert!(
        ran.stderr().contains("the descriptor budget is pinned"),
        "{}",
        ran.stderr()
    );
}

#[test]
fn the_default_budget_is_a_sixteenth_between_64_chunks_and_64_mib() {
    let budget = |arguments: &[&str]| {
        let mut all = vec!["--memmap", "lazy"];
        all.extend_from_slice(arguments);
        let report = Bench::new("[a]\nrw=read\nnumber_ios=1\nsize=1m\nfilename=f\n").report(&all);
        number(&jobs(&report)[0], &["pageless", "descriptor_budget_bytes"])
    };
    assert_eq!(budget(&["--size", "2GiB"]), 2 << 20);
    assert_eq!(budget(&["--size", "64MiB"]), 64 * 4096);
    assert_eq!(budget(&["--size", "6TiB"]), 64 << 20);
    assert_eq!(budget(&["--size", "64MiB", "--chunk", "64KiB"]), 4 << 20);
}

#[test]
fn an_eager_memmap_that_does_not_fit_is_left_out_with_its_size() {
    let bench = Bench::new("[a]\nrw=randread\nnumber_ios=1000\nnorandommap\nsize=1m\n");
    let ran = bench.run(&["--size", "900TiB", "--json", "out.json"]);
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    let note = "note: the eager way was left out: the eager memmap of this device would take 14";
    assert!(ran.stderr().contains(note), "{}", ran.stderr());
    assert!(
        ran.stdout()
            .contains("An eager memmap of this device (900 TiB) takes 14")
    );
    let json = std::fs::read(bench.path("out.json")).expect("written");
    let report: Value = serde_json::from_slice(&json).expect("JSON");
    let ways: Vec<_> = jobs(&report)
        .iter()
        .map(|j| j["pageless"]["memmap"].as_str())
        .collect();
    assert_eq!(ways, [Some("pfn"), Some("lazy")]);
    let error = bench
        .run(&["--size", "900TiB", "--memmap", "eager"])
        .error(1);
    assert!(error.contains("would take 14"), "{error}");
}

#[test]
fn a_sparse_device_of_a_pebibyte_runs_without_descriptors_and_with_few() {
    let job = "[a]\nrw=randrw\nbs=4k\nnorandommap\nnumber_ios=500\nverify=crc32c\n";
    let report = Bench::new(job).report(&["--size", "1PiB", "--budget", "1MiB"]);
    assert_eq!(jobs(&report).len(), 2);
    assert_eq!(
        number(&jobs(&report)[1], &["pageless", "eager_memmap_bytes"]),
        16 << 40
    );
}
