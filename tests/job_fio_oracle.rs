//! Hazard: a job file means something else here than to fio. Compared with fio itself, where it is
//! installed.

extern crate alloc;

mod run_support;

use alloc::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use pageless::job::{BareUnit, IniFile, Job, KbBase, job_size, job_time};
use run_support::{Bench, fio, jobs, number, shipped};
use serde_json::Value;

/// What fio makes of each value of an integer option: the last `out=` it prints for it.
fn fio_reads(option: &str, values: &[String], more: &str) -> Vec<Option<u64>> {
    let mut text = format!("[global]\nioengine=null\n{more}\n");
    for (n, value) in values.iter().enumerate() {
        text.push_str(&format!("[v{n}]\n{option}={value}\n"));
    }
    let bench = Bench::new(&text);
    let output = Command::new("fio")
        .args(["--debug=parse", "--parse-only", "job.fio"])
        .current_dir(bench.path("."))
        .output()
        .expect("fio starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let handled = format!("__handle_option={option}, ");
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.contains(&handled) {
            let result = lines.next().unwrap_or_default();
            let read = result
                .split("out=")
                .nth(1)
                .and_then(|n| n.trim().parse().ok());
            found.push(read.filter(|_| result.contains("ret=0")));
        }
    }
    assert_eq!(found.len(), values.len(), "{text}");
    found
}

fn every_size() -> Vec<String> {
    let numbers = ["1", "7", "010", "512", "4096", "0x10", "0xff"];
    let units = [
        "", "b", "B", "k", "K", "kb", "KB", "ki", "Ki", "kib", "KiB", "m", "mb", "mi", "MiB", "g",
        "gb", "gi", "GiB", "t", "tb", "ti", "TiB", "p", "pb", "pi", "PiB",
    ];
    // fio ignores a unit behind a hexadecimal number, or takes it for digits; here it is an error.
    let all = numbers
        .iter()
        .flat_map(|n| units.iter().map(move |u| format!("{n}{u}")));
    all.filter(|v| matches!(v.as_str(), "0x10" | "0xff") || !v.starts_with("0x"))
        .collect()
}

#[test]
fn sizes_are_read_as_fio_reads_them() {
    if fio().is_none() {
        return;
    }
    let sizes = every_size();
    for (base, more) in [(KbBase::Binary, ""), (KbBase::Decimal, "kb_base=1000")] {
        // io_size keeps fio from refusing the job for being too small.
        for (size, theirs) in sizes.iter().zip(fio_reads("io_size", &sizes, more)) {
            let ours = job_size(size, base).map(|b| b.get()).ok();
            assert_eq!(ours, theirs, "{size} with {base:?}");
        }
    }
}

#[test]
fn times_are_read_as_fio_reads_them() {
    if fio().is_none() {
        return;
    }
    let numbers = ["1", "30", "010"];
    let units = ["", "us", "usec", "ms", "msec", "s", "m", "h"];
    let times: Vec<String> = numbers
        .iter()
        .flat_map(|n| units.iter().map(move |u| format!("{n}{u}")))
        .collect();
    for (option, bare) in [
        ("runtime", BareUnit::Seconds),
        ("thinktime", BareUnit::Microseconds),
    ] {
        for (time, theirs) in times.iter().zip(fio_reads(option, &times, "")) {
            let ours = job_time(time, bare)
                .ok()
                .and_then(|t| u64::try_from(t.as_micros()).ok());
            assert_eq!(ours, theirs, "{option}={time}");
        }
    }
}

/// Zones for each direction are left out: fio documents them, and 3.33 refuses to read them.
#[test]
fn what_is_accepted_here_is_accepted_by_fio() {
    if fio().is_none() {
        return;
    }
    let mut text = "[global]\nioengine=psync\nsize=10m\n".to_owned();
    let lines = [
        "rw=read",
        "rw=write",
        "rw=trim",
        "rw=randread",
        "rw=randwrite",
        "rw=randtrim",
        "rw=rw",
        "rw=readwrite",
        "rw=randrw",
        "rw=trimwrite",
        "rw=randtrimwrite",
        "rw=randread:8",
        "rw=write:4k",
        "readwrite=randrw",
        "bs=4k,8k",
        "bs=4k,8k,16k",
        "bs=,8k",
        "bs=8k,",
        "blocksize=8k",
        "bsrange=4k-8k",
        "bsrange=8k-4k",
        "bsrange=4k-8k,1k-2k",
        "bsrange=,1k-2k",
        "bssplit=4k/50:8k",
        "bssplit=4k/10:64k/50:32k/40",
        "bssplit=4k/50:8k/50,1k/100",
        "bssplit=4k:8k:16k/",
        "blockalign=8k",
        "size=50%",
        "offset=10%",
        "offset=1m",
        "offset_increment=1m",
        "io_size=20m",
        "io_limit=5m",
        "filesize=20m",
        "filename=x",
        "nrfiles=1",
        "iodepth=32",
        "numjobs=4",
        "runtime=300ms",
        "runtime=1\ntime_based",
        "timeout=2s\ntime_based=1",
        "ramp_time=100ms",
        "startdelay=1",
        "startdelay=1-3",
        "number_ios=1k",
        "loops=2",
        "rwmixread=70",
        "rwmixwrite=30",
        "random_distribution=random",
        "random_distribution=zipf",
        "random_distribution=zipf:1.2",
        "random_distribution=pareto:0.2",
        "random_distribution=normal:20",
        "random_distribution=zoned:60/10:30/20:8/30:2/40",
        "random_distribution=zoned:60/10:30/20:8/30:2/",
        "random_distribution=zoned_abs:60/1m:40/2m",
        "norandommap",
        "norandommap=0",
        "randrepeat=0",
        "allrandrepeat=1",
        "randseed=42",
        "verify=crc32c",
        "verify=md5",
        "verify=pattern\nverify_pattern=0xff%o\"abcd\"-12",
        "verify=crc32c-intel",
        "verify=0",
        "verify_interval=512",
        "verify_fatal=1",
        "do_verify=0",
        "fsync=32",
        "fdatasync=8",
        "end_fsync=1",
        "rate_iops=100,200",
        "rate=1m,,500k",
        "thinktime=5ms\nthinktime_spin=2ms",
        "thinktime=10\nthinktime_blocks=4",
        "stonewall",
        "wait_for_previous",
        "new_group",
        "group_reporting",
        "percentile_list=50:99:99.9",
        "clat_percentiles=0",
        "lat_percentiles=1",
        "description=some words",
        "kb_base=1000",
        "direct=1\nthread",
        "ioengine=null",
    ];
    for (n, options) in lines.iter().enumerate() {
        text.push_str(&format!("[s{n}]\n{options}\n"));
    }
    let ini = IniFile::parse("job.fio", &text, |_| None).expect("reads");
    let job = Job::from_ini(&ini).expect("understood here");
    assert_eq!(job.sections.len(), lines.len());
    let bench = Bench::new(&text);
    let output = Command::new("fio")
        .args(["--parse-only", "job.fio"])
        .current_dir(bench.path("."))
        .output()
        .expect("fio starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && !said.contains("dropped"),
        "{said}"
    );
}

#[test]
fn the_jobs_shipped_here_are_fios_too() {
    let installed = fio().is_some();
    for file in shipped() {
        let ini = IniFile::read(&file).expect("reads");
        Job::from_ini(&ini).expect("understood");
        if installed {
            let output = Command::new("fio")
                .arg("--parse-only")
                .arg(&file)
                .output()
                .expect("fio starts");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{}: {said}", file.display());
        }
    }
}

fn issued(report: &Value) -> Vec<(u64, u64)> {
    let of = |job: &Value, direction: &str| {
        (
            number(job, &[direction, "total_ios"]),
            number(job, &[direction, "io_bytes"]),
        )
    };
    jobs(report)
        .iter()
        .flat_map(|j| ["read", "write", "trim"].map(|d| of(j, d)))
        .collect()
}

fn fio_report(bench: &Bench) -> Value {
    let output = Command::new("fio")
        .args(["--output-format=json", "job.fio"])
        .current_dir(bench.path("."))
        .output()
        .expect("fio starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("fio's JSON")
}

#[test]
fn as_many_requests_and_bytes_are_issued_as_by_fio() {
    if fio().is_none() {
        return;
    }
    for options in [
        "rw=read\nsize=1m\nbs=4k",
        "rw=write\nsize=1m\nbs=3k",
        "rw=randread\nsize=1m\nbs=4k",
        "rw=randwrite\nsize=1m\nbs=3k",
        "rw=read\nsize=1m\nbs=4k\nnumber_ios=100",
        "rw=randread\nsize=1m\nbs=4k\nnumber_ios=100",
        "rw=write\nsize=1m\nbs=4k\nio_size=256k",
        "rw=write\nsize=1m\nbs=4k\nio_size=3m",
        "rw=randwrite\nsize=1m\nbs=4k\nio_size=3m",
        "rw=randread\nsize=1m\nbs=4k\nnorandommap",
        "rw=randread\nsize=1m\nbs=4k\nrandom_distribution=zipf:1.2",
        "rw=read\nsize=1m\nbs=64k\nloops=3",
        "rw=randread\nsize=1m\nbs=4k\nloops=2",
        "rw=read\nsize=1m\noffset=256k\nbs=4k",
        "rw=read\nsize=1m\nbs=4k,8k",
        "rw=write\nsize=1m\nbs=4k,8k",
        "rw=write\nsize=1m\nbs=,8k",
        "rw=write\nsize=1m\nnumjobs=2",
        "rw=write\nsize=1m\nnumjobs=3\ngroup_reporting",
        "rw=write\nsize=1m\niodepth=16\nbs=16k",
        "rw=trim\nsize=1m\nbs=4k",
        "rw=randtrim\nsize=1m\nbs=4k",
    ] {
        let bench = Bench::new(&format!("[a]\nioengine=null\n{options}\n"));
        let ours = bench.report(&["--memmap", "pfn"]);
        assert_eq!(issued(&ours), issued(&fio_report(&bench)), "{options}");
    }
}

/// All keys below `value`, as paths; what is a list of numbers by design is left closed.
fn keys(value: &Value, path: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = format!("{path}/{key}");
                into.insert(path.clone());
                keys(value, &path, into);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| keys(value, path, into)),
        _ => {}
    }
}

#[test]
fn the_report_has_all_keys_of_fios() {
    let Some(version) = fio() else { return };
    let bench = Bench::new("[global]\nsize=1m\nbs=4k\n[a]\nioengine=null\nrw=randrw\n");
    let (mut ours, mut theirs) = (BTreeSet::new(), BTreeSet::new());
    keys(&bench.report(&["--memmap", "pfn"]), "", &mut ours);
    keys(&fio_report(&bench), "", &mut theirs);
    // What the kernel knows about the disks below a file system has no counterpart.
    let missing: Vec<_> = theirs
        .iter()
        .filter(|k| !ours.contains(*k) && !k.contains("disk_util"))
        .collect();
    assert!(missing.is_empty(), "{version} has {missing:?}");
    let more: Vec<_> = ours
        .iter()
        .filter(|k| !theirs.contains(*k) && !k.contains("/pageless") && !k.contains("/job options"))
        .collect();
    assert!(more.is_empty(), "{version} lacks {more:?}");
}

/// How many jobs fio finds in a file, if it accepts it and shows each by one name.
fn fio_sections(path: &Path) -> Option<usize> {
    if std::fs::read_to_string(path).ok()?.contains("\nname=") {
        return None;
    }
    let output = Command::new("fio")
        .arg("--showcmd")
        .arg(path)
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output
        .status
        .success()
        .then(|| text.matches(" --name=").count())
}

#[test]
fn fios_own_examples_are_run_or_refused_for_a_reason() {
    let found = [
        "/usr/share/doc/fio/examples",
        "/usr/share/doc/fio-examples/examples",
    ]
    .map(String::from)
    .into_iter()
    .chain(std::env::var("FIO_EXAMPLES"))
    .find_map(|dir| std::fs::read_dir(Path::new(&dir)).ok());
    let Some(dir) = found else {
        // Not `eprintln!`: what a passing test prints is not shown.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: fio's example jobs are not installed (apt install fio-examples, or \
             FIO_EXAMPLES=dir), nothing was compared"
        );
        return;
    };
    let (mut understood, mut refused) = (0, Vec::new());
    for entry in dir {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|e| e != "fio") {
            continue;
        }
        let job = IniFile::read(&path).and_then(|ini| Job::from_ini(&ini));
        match job {
            Ok(job) => {
                understood += 1;
                if let Some(theirs) = fio_sections(&path) {
                    assert_eq!(job.sections.len(), theirs, "{}", path.display());
                }
            }
            Err(error) => {
                assert!(error.place().line() > 0, "{error}");
                refused.push(error.to_string());
            }
        }
    }
    eprintln!(
        "{understood} understood, {} refused:\n{}",
        refused.len(),
        refused.join("\n")
    );
    assert!(
        understood >= 25,
        "only {understood} of fio's examples are understood"
    );
}
