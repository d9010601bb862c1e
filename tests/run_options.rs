//! Hazard: an option is read and then not obeyed.

extern crate alloc;

mod run_support;

use run_support::{Bench, jobs, number};

fn pfn(job: &str) -> serde_json::Value {
    Bench::new(job).report(&["--memmap", "pfn"])
}

#[test]
fn clones_are_reported_each_or_together() {
    let job =
        "[a]\nrw=write\nsize=1m\nnumjobs=3\n[b]\nrw=read\nsize=1m\nnumjobs=2\ngroup_reporting\n";
    let report = pfn(job);
    let names: Vec<_> = jobs(&report)
        .iter()
        .map(|j| j["jobname"].as_str())
        .collect();
    assert_eq!(names, [Some("a"), Some("a"), Some("a"), Some("b")]);
    assert_eq!(number(&jobs(&report)[0], &["write", "io_bytes"]), 1 << 20);
    assert_eq!(number(&jobs(&report)[3], &["read", "io_bytes"]), 2 << 20);
}

#[test]
fn stonewalls_and_new_groups_count_groups() {
    let job = "[global]\nsize=1m\n[a]\n[b]\nnew_group\n[c]\nstonewall\n[d]\n";
    let groups: Vec<_> = jobs(&pfn(job))
        .iter()
        .map(|j| number(j, &["groupid"]))
        .collect();
    assert_eq!(groups, [0, 1, 2, 2]);
}

#[test]
fn a_stonewall_waits_for_those_before_it() {
    // The second job verifies what the first writes at leisure.
    let job = "[global]\nfilename=f\nsize=1m\nbs=64k\nverify=crc32c\n\
               [w]\nrw=write\nrate_iops=100\ndo_verify=0\n[r]\nstonewall\nrw=read\n";
    assert_eq!(number(&jobs(&pfn(job))[1], &["error"]), 0);
}

#[test]
fn limits_end_a_job_where_they_say() {
    for (options, ios) in [
        ("size=1m\nbs=4k", 256),
        ("size=1m\nbs=4k\nnumber_ios=100", 100),
        ("size=1m\nbs=4k\nio_size=64k", 16),
        ("size=1m\nbs=4k\nio_size=3m", 768),
        ("size=1m\nbs=4k\nio_size=50%", 128),
        ("size=1m\nbs=4k\nloops=3", 768),
        ("size=1m\nbs=4k\nloops=3\nnumber_ios=10", 30),
        ("size=1m\nbs=3k", 341),
        ("size=1m\noffset=512k\nbs=4k", 256),
    ] {
        for rw in ["read", "randread"] {
            let report = pfn(&format!("[a]\nrw={rw}\n{options}\n"));
            assert_eq!(
                number(&jobs(&report)[0], &["read", "total_ios"]),
                ios,
                "{rw} {options}"
            );
        }
    }
}

#[test]
fn time_based_jobs_go_round_until_their_time_is_over() {
    let begun = std::time::Instant::now();
    let report =
        pfn("[a]\nrw=randread\nsize=64k\nbs=4k\ntime_based\nruntime=300ms\nramp_time=100ms\n");
    // It cannot be over before its time, however slow or fast the machine is.
    assert!(begun.elapsed().as_millis() >= 400);
    let job = &jobs(&report)[0];
    assert!(number(job, &["read", "total_ios"]) > 16);
    // What was measured begins behind the ramp and ends with the last request that began in time.
    assert!(number(job, &["read", "runtime"]) <= begun.elapsed().as_millis() as u64 - 100);
}

#[test]
fn paces_are_not_exceeded() {
    let report = pfn("[a]\nrw=randread\nsize=1m\nbs=4k\nrate_iops=1000\nnumber_ios=201\n");
    // The 201st request is due 200 ms after the first.
    assert!(number(&jobs(&report)[0], &["read", "runtime"]) >= 199);
    let report = pfn("[a]\nrw=write\nsize=1m\nbs=64k\nrate=5m\n");
    assert!(number(&jobs(&report)[0], &["write", "runtime"]) >= 187);
    let report =
        pfn("[a]\nrw=read\nsize=1m\nbs=4k\nnumber_ios=21\nthinktime=10ms\nthinktime_blocks=2\n");
    assert!(number(&jobs(&report)[0], &["read", "runtime"]) >= 99);
}

#[test]
fn flushes_come_after_so_many_writes() {
    let bench = Bench::new("[a]\nrw=write\nsize=1m\nbs=4k\nfsync=32\nend_fsync=1\n");
    bench.image("disk.img", 1 << 20);
    let report = bench.report(&["--memmap", "pfn", "--image", "disk.img"]);
    let job = &jobs(&report)[0];
    assert_eq!(number(job, &["sync", "total_ios"]), 256 / 32 + 1);
    assert_eq!(number(job, &["sync", "lat_ns", "N"]), 9);
}

#[test]
fn the_mix_and_the_lengths_are_those_asked_for() {
    let report = pfn("[a]\nrw=randrw\nrwmixread=75\nsize=16m\nbs=4k,8k\n");
    let job = &jobs(&report)[0];
    let (reads, writes) = (
        number(job, &["read", "total_ios"]),
        number(job, &["write", "total_ios"]),
    );
    assert!(
        (70..=80).contains(&(reads * 100 / (reads + writes))),
        "{reads} {writes}"
    );
    assert_eq!(number(job, &["read", "io_bytes"]), reads * 4096);
    let written = number(job, &["write", "io_bytes"]);
    assert!(written > writes * 4096 && written <= writes * 8192);
}

#[test]
fn trims_are_discards() {
    let bench = Bench::new("[a]\nrw=trim\nsize=1m\nbs=64k\n");
    let image = bench.write("disk.img", &vec![7; 2 << 20]);
    let report = bench.report(&["--memmap", "pfn", "--image", "disk.img"]);
    assert_eq!(number(&jobs(&report)[0], &["trim", "total_ios"]), 16);
    let bytes = std::fs::read(image).expect("there");
    assert!(
        bytes[..1 << 20].iter().all(|b| *b == 0),
        "the first half was trimmed"
    );
    assert!(
        bytes[1 << 20..].iter().all(|b| *b == 7),
        "the second half was not"
    );
}

#[test]
fn equal_seeds_write_equal_images_and_other_seeds_others() {
    let image = |seed: &str| {
        let bench = Bench::new("[a]\nrw=randwrite\nsize=1m\nbs=4k\nio_size=256k\nverify=crc32c\n");
        let path = bench.image("disk.img", 1 << 20);
        bench.report(&["--memmap", "pfn", "--image", "disk.img", "--seed", seed]);
        std::fs::read(path).expect("there")
    };
    let first = image("1");
    assert!(first == image("1"), "the same seed, other bytes");
    assert!(first != image("2"), "another seed, the same bytes");
}

#[test]
fn options_without_meaning_share_one_note() {
    let ran =
        Bench::new("[global]\nioengine=libaio\ndirect=1\nthread\n[a]\nsize=1m\ninvalidate=1\n")
            .run(&["--memmap", "pfn"]);
    assert_eq!(ran.code(), 0);
    let stderr = ran.stderr();
    let notes: Vec<_> = stderr.lines().filter(|l| l.starts_with("note:")).collect();
    assert_eq!(notes.len(), 1, "{stderr}");
    assert!(
        notes[0].ends_with("ioengine, direct, thread, invalidate"),
        "{}",
        notes[0]
    );
}

#[test]
fn progress_without_a_terminal_is_one_line_for_each_way_and_group() {
    let ran = Bench::new("[global]\nsize=1m\n[a]\n[b]\n[c]\nstonewall\n").run(&[]);
    let stderr = ran.stderr();
    assert_eq!(
        stderr.lines().filter(|l| l.starts_with("running ")).count(),
        6,
        "{stderr}"
    );
    assert!(stderr.contains("running a, b (lazy)"));
    let quiet = Bench::new("[a]\nsize=1m\n").run(&["--quiet"]);
    assert_eq!(quiet.stderr(), "");
}

#[test]
fn processor_time_of_the_ramp_is_not_counted() {
    let job =
        "[a]\nioengine=null\nrw=randread\nsize=1m\ntime_based\nramp_time=400ms\nruntime=200ms\n";
    let report = Bench::new(job).report(&["--memmap", "pfn"]);
    let job = &jobs(&report)[0];
    let used: f64 = ["usr_cpu", "sys_cpu"]
        .map(|key| job[key].as_f64().expect("a share"))
        .iter()
        .sum();
    // One thread; ticks of 10 ms. With the ramp it would be 300.
    assert!(used < 150.0, "{used} %");
}

#[test]
fn help_teaches_with_examples() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_pageless"))
        .args(["run", "--help"])
        .output()
        .expect("starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for needle in ["jobs/quickstart.fio", "--budget", "6TiB", "Exit status"] {
        assert!(text.contains(needle), "{needle}: {text}");
    }
}
