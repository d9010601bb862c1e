//! Hazard: a job, a size or an image that makes no sense is run anyway, or dies without a word.

extern crate alloc;

mod run_support;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;

use run_support::Bench;

#[test]
fn every_malformed_job_file_ends_in_one_error_with_its_line() {
    for (job, needles) in [
        ("[a]\nrw=foo\n", &["job.fio:2: rw=foo", "randread"][..]),
        (
            "[a]\nsize=10q\n",
            &["job.fio:2: size=10q", "`q` is no unit"],
        ),
        ("[a]\nsize=1.5g\n", &["job.fio:2: size=1.5g", "fractions"]),
        ("[a]\nsize=-1\n", &["job.fio:2: size=-1", "not a number"]),
        ("[a]\nsize=99999999p\n", &["job.fio:2:", "64 bits"]),
        (
            "[a]\nruntime=0.3\n",
            &["job.fio:2: runtime=0.3", "silently read it as 0 s"],
        ),
        ("[a]\nbs=\n", &["job.fio:2: bs=: no value"]),
        ("[a]\nbs\n", &["job.fio:2: option `bs` needs a value"]),
        (
            "[a]\nbs=100\n",
            &["job.fio:2: bs=100: must be a multiple of the 512-byte sector"],
        ),
        (
            "[a]\nbs=0\n",
            &["job.fio:2: bs=0: must be between 512 and 1 GiB"],
        ),
        (
            "[a]\nnrfiles=2\n",
            &["job.fio:2: nrfiles=2: only 1 is supported"],
        ),
        (
            "include other.fio\n[a]\nsize=1m\n",
            &["job.fio:1: fio's `include` is not supported"],
        ),
        (
            "[a]\nsize=1m\nio_size=500\nbs=4k\n",
            &[
                "job.fio:3: section [a]: io_size= comes to 500 bytes",
                "4096",
            ],
        ),
        (
            "[a]\nsize=1k\nrw=write\nio_size=50%\nbs=1k\n",
            &["job.fio:4: section [a]: io_size= comes to 512 bytes"],
        ),
        (
            "[a]\nrwmixred=4\n",
            &[
                "job.fio:2: unknown option `rwmixred`",
                "the nearest known one is `rwmixread`",
            ],
        ),
        (
            "[a]\nfrobnicate=4\n",
            &["job.fio:2: unknown option `frobnicate`"],
        ),
        (
            "[a]\nzonemode=zbd\n",
            &["job.fio:2:", "`zonemode`", "not implemented here"],
        ),
        ("[a]\nrw = read\n", &["job.fio:2: blanks around `=`"]),
        (
            "[a]\nsize=${NO_SUCH_VARIABLE}\n",
            &["job.fio:2:", "`NO_SUCH_VARIABLE` is not set"],
        ),
        (
            "[a\nsize=1m\n",
            &["job.fio:1: `[a` is not a section header"],
        ),
        ("[]\n", &["job.fio:1: a section needs a name"]),
        (
            "size=1m\n[a]\n",
            &["job.fio:1: option `size` stands before the first section"],
        ),
        ("[global]\nsize=1m\n", &["job.fio: no job"]),
        ("", &["job.fio: no job"]),
        ("[a]\n=4\n", &["job.fio:2: `=4` has no option name"]),
        (
            "[a]\ntime_based\nsize=1m\n",
            &["job.fio:1: section [a]: time_based needs runtime="],
        ),
        (
            "[a]\nverify=pattern\nsize=1m\n",
            &["section [a]: verify=pattern needs verify_pattern="],
        ),
        (
            "[a]\nverify=sha1\n",
            &["job.fio:2: verify=sha1", "crc32c, md5, pattern"],
        ),
        (
            "[a]\nbssplit=4k/60:8k/60\n",
            &["job.fio:2:", "add up to 120"],
        ),
        (
            "[a]\nrandom_distribution=zipf:1\n",
            &["job.fio:2:", "theta above 0, not 1"],
        ),
        (
            "[a]\nrw=read\n",
            &["section [a]: it needs size=, or the device --size"],
        ),
        (
            "[a]\nsize=2k\nbs=4k\n",
            &["section [a]: its size, 2048 bytes, is smaller than its block"],
        ),
        (
            "[a]\nsize=1m\niodepth=0\n",
            &["job.fio:3: iodepth=0", "between 1 and 4096"],
        ),
    ] {
        let error = Bench::new(job).run(&["--memmap", "pfn"]).error(2);
        for needle in needles {
            assert!(error.contains(needle), "{job:?}: {error}");
        }
    }
}

#[test]
fn text_of_the_job_file_has_no_power_over_the_terminal_and_a_bounded_length() {
    let evil = "\u{1b}[31mred\u{7}\u{1b}[2J";
    let long = "9".repeat(5000);
    for (job, code) in [
        (format!("[{evil}]\nsize=1m\nrw={evil}\n"), 2),
        (format!("[{evil}]\nsize=1m\n{evil}=1\n"), 2),
        (format!("[{evil}]\n"), 2),
        (format!("[a]\nsize={long}\n"), 2),
        (format!("[a]\n{long}=1\n"), 2),
        (format!("[{evil}]\nsize=1m\nrw=write\n"), 0),
        (format!("[a]\nname={evil}{long}\nsize=1m\nrw=write\n"), 0),
    ] {
        let ran = Bench::new(&job).run(&["--memmap", "all"]);
        assert_eq!(ran.code(), code, "{}", ran.stderr());
        for text in [ran.stderr(), ran.stdout()] {
            let bare = text.chars().find(|c| c.is_control() && *c != '\n');
            assert_eq!(bare, None, "{text:?}");
            assert!(!text.contains(&long), "{text}");
        }
        let error = ran.stderr();
        assert!(
            code == 0 || (error.contains("\\u{1b}[31m") || error.contains('…')),
            "{error}"
        );
    }
}

#[test]
fn a_byte_order_mark_is_not_part_of_the_job() {
    let ran = Bench::new("\u{feff}[a]\nsize=1m\nrw=write\n").run(&["--memmap", "pfn"]);
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
}

#[test]
fn a_job_file_that_cannot_be_read_says_so() {
    let bench = Bench::new("");
    std::fs::remove_file(bench.path("job.fio")).expect("was there");
    assert!(
        bench
            .run(&[])
            .error(2)
            .contains("job.fio: cannot read the job file: No such file")
    );
    std::fs::create_dir(bench.path("job.fio")).expect("was removed");
    assert!(bench.run(&[]).error(2).contains("Is a directory"));
    std::fs::remove_dir(bench.path("job.fio")).expect("was there");
    bench.write("job.fio", b"[a]\nsize=1m\nname=\xff\xfe\n");
    assert!(
        bench
            .run(&[])
            .error(2)
            .contains("job.fio:3: the job file is not UTF-8")
    );
}

const SMALL: &str = "[a]\nrw=write\nsize=1m\nbs=64k\n";

#[test]
fn every_malformed_size_is_refused_with_its_value() {
    let bench = Bench::new(SMALL);
    for option in ["--size", "--budget", "--chunk"] {
        for value in [
            "",
            "x",
            "10q",
            "-1",
            "0",
            "1..5k",
            "99999999999999999999",
            "99999PiB",
        ] {
            let ran = bench.run(&[&format!("{option}={value}")]);
            let error = ran.stderr();
            assert_eq!(ran.code(), 2, "{option} {value}: {error}");
            assert!(error.contains(option), "{option} {value}: {error}");
        }
    }
    for (arguments, needle) in [
        (
            &["--chunk", "5000"][..],
            "a chunk of 5000 bytes: it must be a power of two",
        ),
        (&["--chunk", "4MiB"], "a chunk of 4194304 bytes"),
        (
            &["--budget", "4KiB"],
            "a budget of 4096 bytes is less than one chunk",
        ),
        (
            &["--size", "512KiB"],
            "it needs 1 MiB (1048576 bytes), and the device has 512 KiB",
        ),
        (&["--seed", "x"], "invalid value 'x' for '--seed"),
        (&["--memmap", "some"], "invalid value 'some' for '--memmap"),
        (&["--frobnicate"], "unexpected argument '--frobnicate'"),
    ] {
        let ran = bench.run(arguments);
        assert_eq!(ran.code(), 2, "{arguments:?}: {}", ran.stderr());
        assert!(
            ran.stderr().contains(needle),
            "{arguments:?}: {}",
            ran.stderr()
        );
    }
}

#[test]
fn a_device_beyond_what_there_can_be_is_refused_by_the_name_of_who_asked() {
    let error = Bench::new(SMALL)
        .run(&["--size", "2PiB", "--memmap", "pfn"])
        .error(2);
    assert!(
        error.contains("--size 2 PiB: the largest device is 1 PiB"),
        "{error}"
    );
    let large = Bench::new("[a]\nrw=randread\nnorandommap\nsize=2p\nnumber_ios=1\n");
    let error = large.run(&["--memmap", "pfn"]).error(2);
    assert!(
        error.contains("job.fio: the jobs need 2 PiB together"),
        "{error}"
    );
}

#[test]
fn every_unusable_image_is_refused_and_left_alone() {
    let bench = Bench::new(SMALL);
    let run = |image: &str| bench.run(&["--memmap", "pfn", "--image", image]);
    assert!(
        run("missing.img")
            .error(2)
            .contains("missing.img: there is no such file")
    );
    std::fs::create_dir(bench.path("dir.img")).expect("new");
    assert!(run("dir.img").error(2).contains("dir.img: is a directory"));
    bench.image("empty.img", 0);
    assert!(
        run("empty.img")
            .error(2)
            .contains("empty.img: a device of 0 bytes")
    );
    bench.image("odd.img", (1 << 20) + 100);
    assert!(
        run("odd.img")
            .error(2)
            .contains("not a multiple of the frame size")
    );
    bench.image("short.img", 1 << 19);
    let error = run("short.img").error(2);
    assert!(error.contains("it needs 1 MiB"), "{error}");
    let short = ["--memmap", "pfn", "--image", "short.img", "--size", "1MiB"];
    let error = bench.run(&short).error(2);
    assert!(error.contains("short.img: has 524288"), "{error}");
    assert!(
        run("/dev/null")
            .error(2)
            .contains("/dev/null: is not a regular file")
    );
    assert_eq!(
        std::fs::read(bench.path("short.img")).expect("there"),
        vec![0; 1 << 19]
    );
}

#[test]
fn a_read_only_image_is_refused() {
    let bench = Bench::new(SMALL);
    let image = bench.image("ro.img", 1 << 20);
    std::fs::set_permissions(&image, std::fs::Permissions::from_mode(0o444)).expect("ours");
    if std::fs::OpenOptions::new().write(true).open(&image).is_ok() {
        // Not `eprintln!`: what a passing test prints is not shown.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: this user may write to read-only files (root), nothing was tested"
        );
        return;
    }
    let error = bench
        .run(&["--memmap", "pfn", "--image", "ro.img"])
        .error(2);
    assert!(
        error.contains("ro.img: cannot be opened for writing"),
        "{error}"
    );
}

#[test]
fn a_report_that_cannot_be_written_is_refused_before_the_run() {
    let bench = Bench::new(SMALL);
    let run = |path: &str| bench.run(&["--memmap", "pfn", "--json", path]);
    for (path, needle) in [
        ("no/such/dir.json", "cannot write no/such/dir.json: No such"),
        (".", "cannot write .: Is a directory"),
    ] {
        let ran = run(path);
        let error = ran.error(2);
        assert!(error.contains(needle), "{error}");
        assert_eq!(ran.stdout(), "", "nothing was run");
    }
}

#[test]
fn a_report_never_replaces_the_job_file_or_the_image() {
    let bench = Bench::new(SMALL);
    let image = bench.image("disk.img", 1 << 20);
    std::fs::hard_link(&image, bench.path("link.img")).expect("same directory");
    std::os::unix::fs::symlink("job.fio", bench.path("link.fio")).expect("new");
    for (path, needle) in [
        ("job.fio", "--json job.fio: this is the job file"),
        ("./link.fio", "this is the job file"),
        ("disk.img", "this is the image"),
        ("link.img", "this is the image"),
    ] {
        let arguments = ["--memmap", "pfn", "--image", "disk.img", "--json", path];
        let error = bench.run(&arguments).error(2);
        assert!(error.contains(needle), "{path}: {error}");
    }
    let job = std::fs::read_to_string(bench.path("job.fio")).expect("there");
    assert_eq!(job, SMALL);
    let bytes = std::fs::read(&image).expect("there");
    assert!(bytes.len() == 1 << 20 && bytes.iter().all(|b| *b == 0));
}

#[test]
fn a_report_of_a_run_that_never_began_leaves_the_file_as_it_was() {
    let bench = Bench::new("[a]\nrw=write\nsize=1m\nbs=64k\n");
    bench.write("old.json", b"old");
    for path in ["old.json", "new.json"] {
        let run = ["--budget", "4KiB", "--json", path];
        assert_eq!(bench.run(&run).code(), 2);
    }
    assert_eq!(
        std::fs::read(bench.path("old.json")).expect("there"),
        b"old"
    );
    assert!(!bench.path("new.json").exists());
    let ran = bench.run(&["--memmap", "pfn", "--json", "old.json"]);
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    let text = std::fs::read_to_string(bench.path("old.json")).expect("there");
    assert!(text.starts_with('{') && text.ends_with("}\n"), "{text}");
}

#[test]
fn buffers_that_do_not_fit_into_memory_are_refused() {
    let job = "[a]\nrw=randread\nsize=1t\nbs=1g\niodepth=4096\nnorandommap\n";
    let error = Bench::new(job).run(&["--memmap", "pfn"]).error(1);
    assert!(
        error.contains("iodepth x bs x numjobs) take 4 TiB"),
        "{error}"
    );
}
