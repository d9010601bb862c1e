//! Hazard: wrong bytes pass for right ones, or right ones for wrong.

extern crate alloc;

mod run_support;

use std::os::unix::fs::FileExt;

use run_support::{Bench, jobs, number};

const MIB: u64 = 1 << 20;

#[test]
fn every_pattern_that_writes_reads_back_what_it_wrote_each_way() {
    for rw in [
        "write",
        "randwrite",
        "rw",
        "randrw",
        "trimwrite",
        "randtrimwrite",
        "randwrite:4",
    ] {
        for (verify, bs) in [
            ("verify=crc32c", "bs=4k"),
            ("verify=md5", "bsrange=512-16k"),
            ("verify=crc32c\nverify_interval=512", "bssplit=4k/50:12k/50"),
            ("verify=pattern\nverify_pattern=0xff%o\"abcd\"-12", "bs=8k"),
            ("verify=crc32c\nnorandommap", "bsrange=1k-6k"),
            (
                "verify=crc32c\nrandom_distribution=zipf:1.1\niodepth=7",
                "bs=2k",
            ),
        ] {
            let job = format!("[a]\nrw={rw}\nsize=1m\n{verify}\n{bs}\nloops=2\n");
            let report = Bench::new(&job).report(&["--memmap", "all", "--budget", "16KiB"]);
            for job in jobs(&report) {
                let read = number(job, &["read", "total_ios"]);
                let written = number(job, &["write", "total_ios"]);
                assert!(
                    read > 0 && written > 0,
                    "{rw} {verify} {bs}: {read} {written}"
                );
                assert_eq!(number(job, &["error"]), 0);
            }
        }
    }
}

const WRITE: &str = "[w]\nfilename=f\nrw=write\nbs=4k\nsize=1m\nverify=crc32c\n";
const CHECK: &str = "[check]\nfilename=f\nrw=read\nbs=4k\nsize=1m\nverify=crc32c\n";

fn written(check: &str) -> (Bench, std::fs::File) {
    let bench = Bench::new(WRITE);
    let image = bench.image("disk.img", MIB);
    let ran = bench.run(&["--memmap", "pfn", "--image", "disk.img"]);
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    bench.write("job.fio", check.as_bytes());
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(image)
        .expect("there");
    (bench, file)
}

#[test]
fn what_one_run_wrote_another_verifies() {
    let (bench, _) = written(CHECK);
    let report = bench.report(&["--memmap", "pfn", "--image", "disk.img"]);
    assert_eq!(number(&jobs(&report)[0], &["read", "total_ios"]), 256);
}

#[test]
fn a_changed_byte_is_reported_with_its_offset_and_fails_the_run() {
    let (bench, file) = written(CHECK);
    let at = 37 * 4096 + 1000;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("within");
    file.write_all_at(&[byte[0] ^ 1], at).expect("within");
    let ran = bench.run(&[
        "--memmap", "pfn", "--image", "disk.img", "--json", "out.json",
    ]);
    let error = ran.error(1);
    for needle in [
        "section [check], pfn way",
        "in `f` at offset 151552 (4096 bytes)",
        "expected",
        "byte at offset 152552",
    ] {
        assert!(error.contains(needle), "{needle}: {error}");
    }
    let json = std::fs::read(bench.path("out.json")).expect("written all the same");
    let report: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(number(&jobs(&report)[0], &["error"]), 84);
}

#[test]
fn a_misdirected_block_is_told_from_a_broken_one() {
    let (bench, file) = written(CHECK);
    let mut block = vec![0; 4096];
    file.read_exact_at(&mut block, 8192).expect("within");
    file.write_all_at(&block, 65_536).expect("within");
    let error = bench
        .run(&["--memmap", "pfn", "--image", "disk.img"])
        .error(1);
    let needle = "at offset 65536 (4096 bytes): the header belongs to offset 8192, expected 65536";
    assert!(error.contains(needle), "{error}");
}

#[test]
fn the_first_mismatch_ends_a_fatal_verify_and_others_are_counted() {
    let ruin = |check: &str| {
        let (bench, file) = written(check);
        file.write_all_at(&vec![0; 40 * 4096], 0).expect("within");
        bench.run(&["--memmap", "pfn", "--image", "disk.img"])
    };
    let ran = ruin(CHECK);
    assert_eq!(ran.code(), 1);
    assert!(
        ran.stderr()
            .contains("error: and 32 more blocks did not verify"),
        "{}",
        ran.stderr()
    );
    assert!(
        ran.stderr().contains("no verify header"),
        "{}",
        ran.stderr()
    );
    ruin(&format!("{CHECK}verify_fatal=1\n")).error(1);
}

#[test]
fn do_verify_0_reads_nothing_back() {
    let bench = Bench::new(&format!("{WRITE}do_verify=0\n"));
    let report = bench.report(&["--memmap", "pfn"]);
    assert_eq!(number(&jobs(&report)[0], &["read", "total_ios"]), 0);
}

#[test]
fn writers_that_share_blocks_are_noted_beforehand() {
    let job = "[a]\nfilename=f\nrw=randwrite\nbs=4k\nsize=1m\nverify=crc32c\nnumjobs=2\n";
    let ran = Bench::new(job).run(&["--memmap", "pfn"]);
    assert!(
        ran.stderr()
            .contains("note: section [a] verifies blocks that other threads change")
    );
}
