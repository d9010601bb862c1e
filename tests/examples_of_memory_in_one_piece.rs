//! Hazard: the examples of memory in one piece that the README shows no longer say what it promises.

mod example;

use example::{example, said};

const README: &str = include_str!("../README.md");

#[test]
fn the_readme_shows_what_comes_out() {
    let (code, told, complaint) = said(&example("virtual_compound", &[]));
    assert_eq!(code, Some(0), "{complaint}");
    assert!(README.contains(told.trim_end()), "{told}");
}

#[test]
fn what_the_compressed_disk_is_given_comes_back() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    for algorithm in ["lzo", "lz4"] {
        let (code, told, complaint) = said(&example("zram", &["--algorithm", algorithm, file]));
        assert_eq!(code, Some(0), "{complaint}");
        assert!(told.starts_with("1 files, "), "{told}");
        assert!(told.contains("all back as they were"), "{told}");
    }
}

#[test]
fn a_compressed_disk_says_what_is_wrong() {
    let missing = "/there/is/no/such/file";
    let (code, _, complaint) = said(&example("zram", &[missing]));
    assert_eq!(code, Some(1), "{complaint}");
    assert!(complaint.contains(missing), "{complaint}");
    let (code, _, complaint) = said(&example("zram", &["--algorithm", "zstd", missing]));
    assert_eq!(code, Some(2), "{complaint}");
    assert!(complaint.contains("lzo and lz4"), "{complaint}");
    let (code, _, complaint) = said(&example("zram", &["--limit", "0", missing]));
    assert_eq!(code, Some(2), "{complaint}");
    // No room for all of this program.
    let large = std::env::current_exe().expect("this test's own path");
    let large = large.to_str().expect("a path that can be written");
    let (code, told, complaint) = said(&example("zram", &["--limit", "1MiB", large]));
    assert_eq!(code, Some(1), "{told}{complaint}");
    assert!(complaint.contains("no space left"), "{complaint}");
}

#[test]
fn the_example_of_blocks_explains_itself_and_takes_nothing_else() {
    let (code, told, _) = said(&example("virtual_compound", &["--help"]));
    assert_eq!(code, Some(0));
    assert!(told.contains("Usage:"), "{told}");
    let (code, _, complaint) = said(&example("virtual_compound", &["--order"]));
    assert_eq!(code, Some(2));
    assert!(complaint.contains("--order"), "{complaint}");
}
