//! Hazard: the example of the compressed device says what is not so, or nonsense on its command line makes it panic.

mod example;

use std::fs;

use example::{example, said};
use pageless::zram::MmStat;

/// A tree of a text, a page of noise, a page of zeroes, a short file, an empty one, and a link.
fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("deep")).unwrap();
    fs::write(at("text"), "a text that gets smaller ".repeat(2000)).unwrap();
    let noise: Vec<u8> = (0_u32..1024)
        .flat_map(|n| {
            n.wrapping_mul(0x9e37_79b9)
                .rotate_left(n % 31)
                .to_le_bytes()
        })
        .collect();
    fs::write(at("deep/noise"), noise).unwrap();
    fs::write(at("deep/zeroes"), [0; 4096]).unwrap();
    fs::write(at("short"), "short").unwrap();
    fs::write(at("empty"), "").unwrap();
    std::os::unix::fs::symlink("text", at("link")).unwrap();
    dir
}

#[test]
fn files_come_back_and_the_statistics_are_theirs() {
    let dir = tree();
    let path = dir.path().to_str().unwrap();
    for algorithm in ["lzo", "lz4"] {
        for access in ["mapped", "copied", "segments"] {
            let arguments = [
                "--algorithm",
                algorithm,
                "--access",
                access,
                "--compact",
                path,
            ];
            let (code, told, complaint) = said(&example("zram", &arguments));
            assert_eq!(code, Some(0), "{complaint}");
            assert!(told.starts_with("5 files, 16 pages, all back"), "{told}");
            let stats: Vec<MmStat> = told
                .lines()
                .filter_map(|line| line.strip_prefix("mm_stat "))
                .map(|line| line.parse().unwrap())
                .collect();
            let [full, half, compacted] = stats[..] else {
                panic!("{told}");
            };
            assert_eq!(full.orig_data_size.get(), 16 * 4096);
            assert_eq!((full.same_pages, full.huge_pages), (1, 1));
            assert_eq!(half.orig_data_size.get(), 8 * 4096);
            assert!(compacted.mem_used_total <= half.mem_used_total);
        }
    }
}

#[test]
fn what_does_not_fit_is_said_to_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = 1_u64;
    let noise: Vec<u8> = (0..3 << 18)
        .flat_map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            ((state >> 32) as u32).to_le_bytes()
        })
        .collect();
    let path = dir.path().join("noise");
    fs::write(&path, noise).unwrap();
    let arguments = ["--limit", "1MiB", path.to_str().unwrap()];
    let (code, told, complaint) = said(&example("zram", &arguments));
    assert_eq!((code, told.as_str()), (Some(1), ""));
    assert!(complaint.contains("byte 1048576 of 3145728"), "{complaint}");
}

#[test]
fn nonsense_is_wrong_usage_or_a_plain_error() {
    for (arguments, status, names) in [
        (&[][..], 2, "PATH"),
        (&["--algorithm", "zip", "/"], 2, "there are lzo and lz4"),
        (&["--access", "hope", "/"], 2, "mapped, copied and segments"),
        (&["--limit", "0", "/"], 2, "--limit"),
        (&["--limit", "-1", "/"], 2, "-1"),
        (&["/nowhere/at/all"], 1, "/nowhere/at/all"),
        (&["--limit", "much", "/"], 2, "--limit"),
        (&["--limit", "4furlongs", "/"], 2, "MiB"),
        (&["--limit", "18446744073709551616", "/"], 2, "--limit"),
        (&["/dev/null"], 1, "/dev/null: neither a file"),
    ] {
        let (code, _, complaint) = said(&example("zram", arguments));
        assert_eq!(code, Some(status), "{arguments:?}: {complaint}");
        assert!(complaint.contains(names), "{arguments:?}: {complaint}");
        assert!(!complaint.contains("panicked"), "{complaint}");
        assert!(
            status == 2 || complaint.starts_with("zram: "),
            "{complaint}"
        );
    }
    let (code, told, _) = said(&example("zram", &["--help"]));
    assert_eq!(code, Some(0));
    assert!(told.contains("Exit status"), "{told}");
}

#[test]
fn a_link_that_is_named_is_followed_and_what_is_empty_is_said() {
    let dir = tree();
    let link = dir.path().join("link");
    let (code, told, complaint) = said(&example("zram", &[link.to_str().unwrap()]));
    assert_eq!(code, Some(0), "{complaint}");
    assert!(told.starts_with("1 files, 13 pages"), "{told}");

    let empty = dir.path().join("empty");
    let (code, _, complaint) = said(&example("zram", &[empty.to_str().unwrap()]));
    assert_eq!(code, Some(1));
    assert!(complaint.contains("nothing in 1 file"), "{complaint}");
}

#[test]
fn the_json_has_the_numbers_of_the_lines() {
    let dir = tree();
    let path = dir.path().to_str().unwrap();
    let (code, told, complaint) = said(&example("zram", &["--json", "--compact", path]));
    assert_eq!(code, Some(0), "{complaint}");
    let report: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(
        (&report["files"], &report["pages"]),
        (&5.into(), &16.into())
    );
    let (_, lines, _) = said(&example("zram", &["--compact", path]));
    let lines = lines
        .lines()
        .filter_map(|line| line.strip_prefix("mm_stat "));
    let stats = report["mm_stat"].as_array().unwrap();
    assert_eq!(lines.clone().count(), stats.len());
    for (line, json) in lines.zip(stats) {
        let stat: MmStat = line.parse().unwrap();
        assert_eq!(json["orig_data_size"], stat.orig_data_size.get());
        assert_eq!(json["mem_used_total"], stat.mem_used_total.get());
        assert_eq!(json["huge_pages"], stat.huge_pages);
    }
}
