//! Hazard: an image with holes ends the run with a signal, or one way pays for the holes and the
//! others do not.

extern crate alloc;

mod run_support;

use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use run_support::{Bench, jobs, number};

/// In a mount namespace of its own: a file system of 1 MiB at `mnt`, with an image that is larger.
const ON_A_SMALL_DISK: &str = "mkdir mnt && mount -t tmpfs -o size=1m tmpfs mnt && \
                               truncate -s 8m mnt/disk.img || exit 77; exec \"$@\"";

fn on_a_small_disk(bench: &Bench, arguments: &[&str]) -> Option<run_support::Ran> {
    let inner = bench.command(arguments);
    let output = Command::new("unshare")
        .args(["-rm", "sh", "-c", ON_A_SMALL_DISK, "sh"])
        .arg(inner.get_program())
        .args(inner.get_args())
        .current_dir(bench.path("."))
        .output();
    match output {
        Ok(output)
            if !matches!(output.status.code(), Some(1) if output.stderr.starts_with(b"unshare"))
                && output.status.code() != Some(77) =>
        {
            Some(run_support::Ran::from(output))
        }
        _ => {
            // Not `eprintln!`: what a passing test prints is not shown.
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: nothing can be mounted here, a full disk was not tested"
            );
            None
        }
    }
}

#[test]
fn an_image_on_a_disk_without_room_for_its_holes_is_one_error_with_the_numbers() {
    for rw in ["write", "read"] {
        let bench = Bench::new(&format!("[a]\nrw={rw}\nsize=8m\nbs=64k\n"));
        let Some(ran) = on_a_small_disk(&bench, &["--quiet", "--image", "mnt/disk.img"]) else {
            return;
        };
        let error = ran.error(1);
        for needle in ["mnt/disk.img: no space", "8388608 bytes", "1048576 bytes"] {
            assert!(error.contains(needle), "{rw}: {error}");
        }
        assert_eq!(ran.stdout(), "", "{rw}: nothing was run");
    }
}

#[test]
fn a_few_visits_to_a_large_hole_need_no_more_room_than_they_touch() {
    let bench = Bench::new("[a]\nrw=randwrite\nsize=8m\nbs=4k\nnumber_ios=16\nverify=crc32c\n");
    let Some(ran) = on_a_small_disk(&bench, &["--json", "-", "--image", "mnt/disk.img"]) else {
        return;
    };
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    for job in jobs(&ran.json()) {
        assert_eq!(number(job, &["write", "total_ios"]), 16);
    }
}

#[test]
fn what_the_jobs_range_over_has_its_blocks_and_the_rest_stays_a_hole() {
    let bench = Bench::new("[a]\nrw=randread\nsize=8m\nbs=4k\nnumber_ios=4\n");
    let image = bench.image("disk.img", 64 << 20);
    let report = bench.report(&["--image", "disk.img"]);
    assert_eq!(jobs(&report).len(), 3);
    for job in jobs(&report) {
        assert_eq!(number(job, &["read", "total_ios"]), 4);
    }
    let blocks = std::fs::metadata(image).expect("there").blocks() * 512;
    assert!(
        (8 << 20..16 << 20).contains(&blocks),
        "{blocks} bytes of blocks"
    );
}
