//! Hazard: the first command of the README does not do what it promises.

extern crate alloc;

mod run_support;

use run_support::{Bench, jobs, number};

#[test]
fn the_quickstart_has_its_three_sections_three_ways_and_misses_where_it_should() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("jobs/quickstart.fio")).expect("shipped");
    // The same job with fewer requests: this is no measurement.
    let mut fewer = text.clone();
    for (many, few) in [
        ("number_ios=500000", "number_ios=60000"),
        ("number_ios=100000", "number_ios=30000"),
        ("size=256m", "size=64m"),
    ] {
        assert!(fewer.contains(many), "{many} is gone from the job");
        fewer = fewer.replace(many, few);
    }
    let report = Bench::new(&fewer).report(&[]);
    let all: Vec<_> = jobs(&report)
        .iter()
        .map(|j| {
            (
                j["jobname"].as_str().unwrap_or(""),
                j["pageless"]["memmap"].as_str().unwrap_or(""),
            )
        })
        .collect();
    let ways = ["pfn", "lazy", "eager"];
    let expected: Vec<_> = ways
        .iter()
        .flat_map(|w| ["seq", "hot", "uniform"].map(|s| (s, *w)))
        .collect();
    assert_eq!(all, expected);
    for job in jobs(&report) {
        assert_eq!(number(job, &["error"]), 0);
    }
    let lazy = &jobs(&report)[3..6];
    let books = |n: usize, name: &str| number(&lazy[n], &["pageless", name]);
    assert_eq!(
        books(0, "eager_memmap_bytes"),
        16 * books(0, "descriptor_budget_bytes")
    );
    let verified = number(&lazy[0], &["read", "io_bytes"]);
    assert_eq!(verified, number(&lazy[0], &["write", "io_bytes"]));
    // The hot range has 256 chunks, each faulted in once.
    assert!(
        books(1, "descriptor_faults") <= 2 * 256,
        "{}",
        books(1, "descriptor_faults")
    );
    let requests =
        number(&lazy[2], &["read", "total_ios"]) + number(&lazy[2], &["write", "total_ios"]);
    assert!(
        books(2, "descriptor_faults") * 2 > requests,
        "uniform hardly misses"
    );
    assert!(books(2, "chunks_reclaimed") > 5_000);
    assert!(books(2, "shootdowns") > 100);
}
