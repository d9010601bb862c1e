//! Hazard: a null device that moves bytes, loses requests, or is taken silently for the real one.

mod run_support;

use run_support::{Bench, jobs, number};

const MIB: u64 = 1 << 20;

#[test]
fn a_null_device_completes_every_request_and_moves_no_bytes_whichever_way() {
    let job = "[a]\nioengine=null\nrw=randwrite\nsize=1m\nbs=4k\niodepth=4\nfdatasync=8\n";
    for way in ["pfn", "lazy", "eager"] {
        let bench = Bench::new(job);
        let image = bench.image("disk", MIB);
        let report = bench.report(&["--memmap", way, "--image", "disk"]);
        let job = &jobs(&report)[0];
        assert_eq!(number(job, &["write", "total_ios"]), 256, "{way}");
        assert_eq!(number(job, &["write", "clat_ns", "N"]), 256, "{way}");
        assert_eq!(number(job, &["sync", "total_ios"]), 32, "{way}");
        let bytes = std::fs::read(image).expect("still there");
        assert!(bytes.iter().all(|byte| *byte == 0), "{way}");
    }
}

#[test]
fn that_no_bytes_move_is_said_once_and_names_the_sections() {
    let job = "[global]\nioengine=null\nsize=1m\nrw=write\n[a]\n[b]\nioengine=mmap\n[c]\n";
    let ran = Bench::new(job).run(&["--memmap", "pfn"]);
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    let said = ran.stderr().matches("no bytes move in [a], [c]").count();
    assert_eq!(said, 1, "{}", ran.stderr());
}

#[test]
fn what_a_null_device_cannot_keep_is_not_verified() {
    let job = "[a]\nsize=1m\nrw=write\nverify=crc32c\nioengine=null\n";
    let error = Bench::new(job).run(&[]).error(2);
    assert!(error.contains("job.fio:1: section [a]"), "{error}");
    assert!(error.contains("ioengine=null"), "{error}");
}
