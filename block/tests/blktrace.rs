//! Hazard: a trace that the tools it is written for read as something else, or not at all; a trace that
//! is not complete and does not say so.

extern crate alloc;

#[path = "blktrace/run.rs"]
mod run;
#[path = "blktrace/tools.rs"]
mod tools;

use alloc::sync::Arc;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use pageless_block::{
    Action, BioFlags, BlkError, BlkTrace, BlkTraceCreateError, DeviceNumber, Event, EventCounts,
    Nanos, Op, Probe, Rwbs, Sector, TraceReadError, TraceRecord, TraceRecords,
};
use pageless_pfn::ByteLen;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tools::{LETTERS, letter, tool};

fn device() -> DeviceNumber {
    DeviceNumber::try_new(8, 16).unwrap()
}

/// The records of one file, all of which must be readable.
fn records(directory: &Path, file: &str) -> Vec<TraceRecord> {
    let bytes = fs::read(directory.join(file)).unwrap();
    TraceRecords::new(&bytes).collect::<Result<_, _>>().unwrap()
}

#[test]
#[cfg_attr(miri, ignore = "runs programs")]
fn blkparse_counts_what_we_counted() {
    let directory = tempfile::tempdir().unwrap();
    let trace = BlkTrace::create(directory.path(), "sdb", device(), 2).unwrap();
    let probe = (trace, EventCounts::new());
    run::play(&probe, 64);
    let (trace, counts) = probe;
    trace.finish().unwrap();

    let Some((stdout, _)) = tool(directory.path(), "blkparse", &["-i", "sdb"]) else {
        return;
    };
    tools::assert_counted(&stdout, &counts);
    for (action, _) in LETTERS {
        assert_ne!(counts.get(action), 0, "{action:?} is not in the run");
    }
}

/// Runs `work` on a thread of that name.
fn named(name: &str, work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn_scoped(scope, work).unwrap().join().unwrap();
    });
}

#[test]
#[cfg_attr(miri, ignore = "runs programs")]
fn blkparse_knows_each_thread_by_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let trace = BlkTrace::create(directory.path(), "sdb", device(), 2).unwrap();
    let steps = |name, context, from, count| {
        named(name, || {
            for at in from..from + count {
                trace.event(&Event {
                    context,
                    ..run::event(Action::Queue, at, at, 512)
                });
            }
        });
    };
    steps("job0", 0, 0, 3);
    steps("job1", 1, 0, 5);
    // Longer than the kernel's names are; and a second thread in a context that had one.
    steps("a-name-of-twenty-two", 0, 10, 7);
    trace.finish().unwrap();
    let Some((stdout, _)) = tool(directory.path(), "blkparse", &["-i", "sdb", "-s"]) else {
        return;
    };
    for (name, count) in [("job0", 3), ("job1", 5), ("a-name-of-twent", 7)] {
        let of_it = stdout
            .lines()
            .filter(|line| letter(line).is_some() && line.ends_with(&format!("[{name}]")));
        assert_eq!(of_it.count(), count, "{name}\n{stdout}");
        // In the summary by process, a line of its own.
        assert!(
            stdout
                .lines()
                .any(|line| line.starts_with(&format!("{name} ("))),
            "{stdout}"
        );
    }
}

/// Each line stands for what one event must look like to whoever reads it.
#[test]
#[cfg_attr(miri, ignore = "runs programs")]
fn blkparse_prints_what_it_prints_of_the_kernels_own() {
    let request = run::tag();
    let flags = BioFlags::SYNC | BioFlags::META;
    let write = |action, flags| Event {
        op: Op::Write,
        flags,
        tag: Some(request),
        ..run::event(action, 0, 100, 4096)
    };
    let failed = |error| Event {
        error: Some(error),
        ..write(Action::Complete, flags)
    };
    let with = |action, detail| Event {
        detail,
        ..write(action, flags)
    };
    let op = |op, len| Event {
        op,
        len: ByteLen::new(len),
        ..write(Action::Issue, BioFlags::SYNC)
    };
    let table = [
        (run::event(Action::Queue, 0, 0, 512), "Q R 0 + 1 [x]"),
        (
            Event {
                flags: BioFlags::RAHEAD,
                ..run::event(Action::Queue, 0, 1, 512)
            },
            "Q RA 1 + 1 [x]",
        ),
        (write(Action::Issue, BioFlags::empty()), "D W 100 + 8 [x]"),
        (
            write(Action::Issue, flags | BioFlags::FLUSHES),
            "D FWFSM 100 + 8 [x]",
        ),
        (
            write(Action::Issue, flags | BioFlags::FUA),
            "D WFSM 100 + 8 [x]",
        ),
        (write(Action::Complete, flags), "C WSM 100 + 8 [0]"),
        // The errno is negative, and blkparse prints its 16 bits as they stand: 65536 - 5.
        (failed(BlkError::Io), "C WSM 100 + 8 [65531]"),
        (failed(BlkError::Target), "C WSM 100 + 8 [65415]"),
        (with(Action::Split, 104), "X WSM 100 / 104 [x]"),
        (with(Action::Remap, 36), "A WSM 100 + 8 <- (8,16) 36"),
        (with(Action::Unplug, 3), "U N [x] 3"),
        (with(Action::Plug, 0), "P N [x]"),
        (op(Op::Flush, 0), "D FNS [x]"),
        (op(Op::Discard, 1 << 20), "D DS 100 + 2048 [x]"),
        (op(Op::SecureErase, 4096), "D DS 100 + 8 [x]"),
        (op(Op::WriteZeroes, 4096), "D WS 100 + 8 [x]"),
        (op(Op::ZoneAppend, 4096), "D WS 100 + 8 [x]"),
        // More than a record can say.
        (op(Op::Discard, 1 << 40), "D DS 100 + 8388607 [x]"),
        (op(Op::Discard, u64::MAX), "D DS 100 + 8388607 [x]"),
    ];
    let directory = tempfile::tempdir().unwrap();
    let trace = BlkTrace::create(directory.path(), "sdb", device(), 1).unwrap();
    named("submitter", || {
        for (at, (event, _)) in table.iter().enumerate() {
            trace.event(&Event {
                time: Nanos::new(at as u64 * 1000),
                ..*event
            });
        }
    });
    trace.finish().unwrap();
    let Some((stdout, _)) = tool(directory.path(), "blkparse", &["-i", "sdb"]) else {
        return;
    };
    // Neither the process's number nor its name is known here.
    let found: Vec<String> = stdout
        .lines()
        .filter(|line| letter(line).is_some())
        .map(|line| {
            let mut words: Vec<&str> = line.split_whitespace().skip(5).collect();
            // The thread's name; an error stands in brackets as well.
            let name = words.iter_mut().find(|word| {
                word.starts_with('[') && !word.contains(|letter: char| letter.is_ascii_digit())
            });
            if let Some(name) = name {
                *name = "[x]";
            }
            words.join(" ")
        })
        .collect();
    let expected: Vec<&str> = table.iter().map(|&(_, line)| line).collect();
    assert_eq!(found, expected, "{stdout}");
    // What blkparse makes of the categories is what the kernel's tracepoints say, where there is a
    // category.
    for (event, line) in &table {
        let letters = Rwbs::new(event.op, event.flags);
        if matches!(event.op, Op::Read | Op::Write | Op::Discard)
            && !matches!(event.action, Action::Plug | Action::Unplug)
        {
            assert_eq!(line.split(' ').nth(1), Some(letters.as_str()), "{event:?}");
        }
    }
}

/// Whatever a queue may say: blkparse neither stops nor miscounts.
#[test]
#[cfg_attr(miri, ignore = "runs programs")]
fn blkparse_counts_any_events_at_all() {
    let mut runner = TestRunner::new(ProptestConfig {
        failure_persistence: None,
        cases: 12,
        ..ProptestConfig::default()
    });
    // A driver's own requests are not cut, merged or moved; blkparse has no lines for that.
    let event = any_event().prop_filter("cannot be", |event| {
        !matches!(event.op, Op::DriverIn | Op::DriverOut)
            || matches!(
                event.action,
                Action::Issue | Action::Complete | Action::Insert
            )
    });
    // Contexts 0 to 2, with two files; all within 584 years of the first, which is what 64 bits can
    // tell.
    let events = prop::collection::vec((event, 0_u16..3, 0..u64::MAX / 4), 1..300);
    let run = |events: Vec<(Event, u16, u64)>| {
        let directory = tempfile::tempdir().unwrap();
        let probe = (
            BlkTrace::create(directory.path(), "sdb", device(), 2).unwrap(),
            EventCounts::new(),
        );
        for &(event, context, time) in &events {
            probe.event(&Event {
                context,
                time: Nanos::new(time),
                ..event
            });
        }
        probe.0.finish().unwrap();
        let Some((stdout, stderr)) = tool(directory.path(), "blkparse", &["-i", "sdb"]) else {
            return Ok(());
        };
        for (action, letter_of) in LETTERS {
            let theirs = stdout
                .lines()
                .filter_map(letter)
                .filter(|found| *found == letter_of);
            prop_assert_eq!(
                theirs.count() as u64,
                probe.1.get(action),
                "{:?} {} {}",
                action,
                stdout,
                stderr
            );
        }
        Ok(())
    };
    if let Err(failure) = runner.run(&events, run) {
        panic!("{failure}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "runs programs")]
fn btt_follows_each_request_from_queue_to_completion() {
    let directory = tempfile::tempdir().unwrap();
    let probe = (
        BlkTrace::create(directory.path(), "sdb", device(), 2).unwrap(),
        EventCounts::new(),
    );
    run::play(&probe, 64);
    let (trace, counts) = probe;
    trace.finish().unwrap();
    let binary = ["-q", "-i", "sdb", "-O", "-d", "sdb.bin"];
    if tool(directory.path(), "blkparse", &binary).is_none() {
        return;
    }
    let Some((stdout, _)) = tool(directory.path(), "btt", &["-i", "sdb.bin"]) else {
        return;
    };
    let number = |row: &str, column: usize| {
        let line = stdout.lines().find(|line| line.starts_with(row));
        let line = line.unwrap_or_else(|| panic!("no {row}:\n{stdout}"));
        let word = line.split_whitespace().nth(column).unwrap();
        word.parse::<f64>().unwrap()
    };
    // Of each: shortest, mean, longest in seconds; how many.
    assert_eq!(number("Q2G", 1), 1e-6);
    assert_eq!(number("D2C", 1), 0.002);
    assert_eq!(number("D2C", 3), 0.03001);
    assert_eq!(number("Q2G", 4), counts.get(Action::GetRequest) as f64);
    assert_eq!(
        number("Q2M", 4),
        (counts.get(Action::BackMerge) + counts.get(Action::FrontMerge)) as f64
    );
    // One bio of the run fails for want of a request to sleep for: that row is there at all.
    assert_eq!(number("S2G", 4), counts.get(Action::SleepRequest) as f64);
    let plugs = format!(
        "(  8, 16) |        {}(         0)",
        counts.get(Action::Plug)
    );
    assert!(stdout.contains(&plugs), "{stdout}");
}

#[test]
#[cfg_attr(miri, ignore = "runs programs")]
fn iowatcher_draws_it() {
    let directory = tempfile::tempdir().unwrap();
    let trace = BlkTrace::create(directory.path(), "sdb", device(), 2).unwrap();
    run::play(&trace, 400);
    trace.finish().unwrap();
    let arguments = ["-t", "sdb", "-o", "picture.svg"];
    if tool(directory.path(), "iowatcher", &arguments).is_none() {
        return;
    }
    let picture = fs::read_to_string(directory.path().join("picture.svg")).unwrap();
    for part in ["Device IO", "Throughput", "Latency", "IOPs", "</svg>"] {
        assert!(picture.contains(part), "no {part} in the picture");
    }
    // It pairs what was issued with what was completed: what is left over would
    // add up. The scale ends at 1: each context has at most one request in flight.
    let depth = picture.split_once("Queue Depth").unwrap().1;
    let depth = depth.split_once("IOPs").unwrap().0;
    let labels: Vec<&str> = depth
        .lines()
        .filter_map(|line| line.split_once("text-anchor: end\">")?.1.split('<').next())
        .collect();
    assert_eq!(labels.last(), Some(&"1"), "{labels:?}");
    // Each I/O is a dot or a dash of the first graph.
    assert!(picture.matches("<rect").count() > 100, "{}", picture.len());
}

#[test]
#[cfg_attr(miri, ignore = "many files")]
fn what_is_read_is_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let log = Arc::new(Log::default());
    let probe = (
        BlkTrace::create(directory.path(), "sdb", device(), 2).unwrap(),
        Arc::clone(&log),
    );
    named("submitter", || run::play(&probe, 40));
    probe.0.finish().unwrap();
    let events = log.0.lock().unwrap();
    for cpu in 0..2 {
        let records = records(directory.path(), &format!("sdb.blktrace.{cpu}"));
        let mut sequence = 0;
        let steps: Vec<&TraceRecord> = records.iter().filter(|record| !record.is_note()).collect();
        let events = events
            .iter()
            .filter(|event| event.context == cpu && event.action != Action::Abort);
        let mut read = steps.iter();
        for event in events {
            sequence += 1;
            let record = read.next().unwrap();
            assert_eq!(record.step(), Some(event.action));
            assert_eq!(record.time, event.time.max(Nanos::new(1)));
            assert_eq!(record.source.sequence, sequence);
            assert_eq!(record.source.cpu, u32::from(cpu));
            assert_eq!(record.source.device, device());
            if !matches!(event.action, Action::Plug | Action::Unplug) {
                assert_eq!(record.sector, event.sector);
                assert_eq!(u64::from(record.bytes), event.len.get());
            }
            let errno = event.error.map_or(0, |error| error.errno());
            assert_eq!(i32::from(record.error), -errno);
        }
        assert!(read.next().is_none());
        let notes = records.iter().filter(|record| record.is_note());
        let texts: Vec<&[u8]> = notes.map(TraceRecord::payload).collect();
        assert_eq!(texts[0].len(), 8, "when the trace began");
        assert_eq!(texts[1], b"submitter\0\0\0\0\0\0\0");
        let place = 16384 + 4_000_000 * u64::from(cpu);
        assert_eq!(
            String::from_utf8_lossy(texts[2]),
            format!("abort READ {place} + 8")
        );
    }
}

/// Remembers everything.
#[derive(Default)]
struct Log(std::sync::Mutex<Vec<Event>>);

impl Probe for Log {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(*event);
    }
}

#[test]
fn time_never_goes_back_within_a_file_nor_stands_at_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let trace = BlkTrace::create(directory.path(), "sdb", device(), 1).unwrap();
    for nanos in [0, 0, 50, 30, 70, 0, 70] {
        trace.event(&Event {
            time: Nanos::new(nanos),
            ..run::event(Action::Queue, 0, 8, 512)
        });
    }
    trace.finish().unwrap();
    let times: Vec<u64> = records(directory.path(), "sdb.blktrace.0")
        .iter()
        .filter(|record| !record.is_note())
        .map(|record| record.time.get())
        .collect();
    assert_eq!(times, [1, 1, 50, 50, 70, 70, 70]);
}

#[test]
fn threads_and_contexts_in_any_combination_lose_nothing() {
    const EACH: u64 = if cfg!(miri) { 20 } else { 5_000 };
    let directory = tempfile::tempdir().unwrap();
    let trace = BlkTrace::create(directory.path(), "sdb", device(), 2).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..3_u16 {
            let trace = &trace;
            scope.spawn(move || {
                for at in 0..EACH {
                    trace.event(&Event {
                        // Context 2 is one more than there are: it shares a file with context 0.
                        context: thread,
                        ..run::event(Action::Queue, at, at, 512)
                    });
                }
            });
        }
    });
    trace.finish().unwrap();
    for (file, threads) in [("sdb.blktrace.0", 2), ("sdb.blktrace.1", 1)] {
        let records = records(directory.path(), file);
        let steps: Vec<_> = records.iter().filter(|record| !record.is_note()).collect();
        assert_eq!(steps.len() as u64, threads * EACH);
        for (record, sequence) in steps.iter().zip(1..) {
            assert_eq!(record.source.sequence, sequence);
        }
        assert!(steps.is_sorted_by_key(|record| record.time));
        assert!(
            steps
                .iter()
                .all(|record| record.source.cpu == steps[0].source.cpu)
        );
    }
}

#[test]
#[cfg_attr(miri, ignore = "needs /dev/full")]
fn a_full_disk_is_reported_and_stops_one_file_only() {
    let directory = tempfile::tempdir().unwrap();
    symlink("/dev/full", directory.path().join("sdb.blktrace.1")).unwrap();
    let trace = BlkTrace::create(directory.path(), "sdb", device(), 2).unwrap();
    let counts = EventCounts::new();
    let probe = (trace, counts);
    // Enough for several buffers of each.
    run::play(&probe, 200);
    let (trace, counts) = probe;
    let error = trace.finish().unwrap_err();
    assert_eq!(error.path, directory.path().join("sdb.blktrace.1"));
    assert_eq!(error.source.kind(), std::io::ErrorKind::StorageFull);
    let all: u64 = Action::ALL
        .into_iter()
        .map(|action| counts.get(action))
        .sum();
    let text = error.to_string();
    assert!(
        text.contains("sdb.blktrace.1") && text.contains("No space left"),
        "{text}"
    );
    // Whatever is not in the one file; each had two notes at its beginning.
    let whole = records(directory.path(), "sdb.blktrace.0").len() as u64;
    assert_eq!(error.lost + whole, all + 4);
    assert!(whole > all / 3, "{whole} of {all}");
}

/// In a child that must not write files beyond a certain length: a disk that becomes full in the
/// middle of a record, which /dev/full never does.
#[test]
#[cfg_attr(miri, ignore = "runs programs")]
fn what_a_disk_takes_before_it_is_full_is_whole_records() {
    const CHILD: &str = "TRACE_DIRECTORY";
    if let Some(directory) = std::env::var_os(CHILD) {
        let probe = (
            BlkTrace::create(Path::new(&directory), "sdb", device(), 2).unwrap(),
            EventCounts::new(),
        );
        run::play(&probe, 200);
        let error = probe.0.finish().unwrap_err();
        assert_eq!(error.source.kind(), std::io::ErrorKind::FileTooLarge);
        let all: u64 = Action::ALL
            .into_iter()
            .map(|action| probe.1.get(action))
            .sum();
        println!("in the files: {};", all + 4 - error.lost);
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let child = Command::new("sh")
        // In units of 512 bytes: more than one buffer, less than two.
        .args(["-c", "ulimit -f 200 && trap '' XFSZ && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("what_a_disk_takes_before_it_is_full_is_whole_records")
        .env(CHILD, directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&child.stderr)
    );
    let mut found = 0;
    for file in ["sdb.blktrace.0", "sdb.blktrace.1"] {
        let bytes = fs::metadata(directory.path().join(file)).unwrap().len();
        assert!((32_768..102_400).contains(&bytes), "{bytes}");
        found += records(directory.path(), file).len();
    }
    assert!(
        said.contains(&format!("in the files: {found};")),
        "{found}: {said}"
    );
}

#[test]
#[cfg_attr(miri, ignore = "needs /dev/full")]
fn a_full_disk_is_noticed_even_if_all_fits_the_buffer() {
    let directory = tempfile::tempdir().unwrap();
    symlink("/dev/full", directory.path().join("sdb.blktrace.0")).unwrap();
    let trace = BlkTrace::create(directory.path(), "sdb", device(), 1).unwrap();
    trace.event(&run::event(Action::Queue, 0, 0, 512));
    assert_eq!(trace.finish().unwrap_err().lost, 3);
}

#[test]
fn a_trace_that_is_dropped_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let trace = BlkTrace::create(directory.path(), "sdb", device(), 1).unwrap();
    trace.event(&run::event(Action::Queue, 1, 0, 512));
    drop(trace);
    assert_eq!(records(directory.path(), "sdb.blktrace.0").len(), 3);
}

#[test]
fn files_of_an_earlier_trace_do_not_become_part_of_this_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = |number: u32| directory.path().join(format!("sdb.blktrace.{number}"));
    drop(BlkTrace::create(directory.path(), "sdb", device(), 4).unwrap());
    assert!(path(3).exists());
    drop(BlkTrace::create(directory.path(), "other", device(), 4).unwrap());
    drop(BlkTrace::create(directory.path(), "sdb", device(), 2).unwrap());
    assert!(path(1).exists() && !path(2).exists() && !path(3).exists());
    assert!(directory.path().join("other.blktrace.3").exists());
}

#[test]
fn what_cannot_be_created_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let create = |name, contexts| BlkTrace::create(directory.path(), name, device(), contexts);
    assert!(matches!(
        create("sdb", 0),
        Err(BlkTraceCreateError::NoContext)
    ));
    for name in ["", "a/b", "a\0b"] {
        assert!(matches!(
            create(name, 1),
            Err(BlkTraceCreateError::Name { .. })
        ));
    }
    let nowhere = directory.path().join("nowhere");
    let error = BlkTrace::create(&nowhere, "sdb", device(), 1).unwrap_err();
    assert!(
        error.to_string().contains("nowhere/sdb.blktrace.0"),
        "{error}"
    );
}

fn any_event() -> impl Strategy<Value = Event> {
    let place = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
    let kind = (
        prop::sample::select(Action::ALL.to_vec()),
        prop::sample::select(Op::ALL.to_vec()),
        any::<u32>().prop_map(BioFlags::from_bits_truncate),
        prop::option::of(prop::sample::select(BlkError::ALL.to_vec())),
        prop::option::of(Just(run::tag())),
    );
    (place, kind).prop_map(
        |((time, sector, len, detail), (action, op, flags, error, tag))| Event {
            action,
            time: Nanos::new(time),
            tag,
            op,
            flags,
            sector: Sector::new(sector),
            len: ByteLen::new(len),
            error,
            detail,
            ..run::event(action, 0, 0, 0)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: if cfg!(miri) { 8 } else { 256 },
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_event_survives_encoding(event in any_event(), sequence: u32, cpu: u32, pid: u32) {
        let source = pageless_block::TraceSource { device: device(), pid, cpu, sequence };
        let record = TraceRecord::from_event(&event, source);
        let mut bytes = [0xa5; TraceRecord::MAX];
        let len = record.encode(&mut bytes);
        prop_assert_eq!(TraceRecord::decode(&bytes), Ok((record, len)));
        prop_assert!(bytes[len..].iter().all(|&byte| byte == 0xa5));
        // Cut anywhere, it is no record, and says how much is missing.
        for cut in 0..len {
            let Err(TraceReadError::Truncated { needed, present }) = TraceRecord::decode(&bytes[..cut])
            else {
                return Err(TestCaseError::fail("cut, and still a record"));
            };
            prop_assert!(present == cut && cut < needed && needed <= len);
        }
    }

    #[test]
    fn any_bytes_are_read_to_their_end_or_refused(
        mut bytes in prop::collection::vec(any::<u8>(), 0..400),
        begins_well: bool,
    ) {
        if begins_well && bytes.len() >= 4 {
            bytes[..4].copy_from_slice(&0x6561_7407_u32.to_le_bytes());
        }
        let mut read = 0;
        for record in TraceRecords::new(&bytes).flatten() {
            read += 48 + record.payload().len();
        }
        prop_assert!(read <= bytes.len());
    }
}

#[test]
fn what_is_no_trace_is_refused_by_name() {
    let mut bytes = [0; TraceRecord::MAX];
    let mut with = |magic: u32, payload: u16| {
        bytes[..4].copy_from_slice(&magic.to_le_bytes());
        bytes[46..48].copy_from_slice(&payload.to_le_bytes());
        TraceRecord::decode(&bytes).unwrap_err()
    };
    assert_eq!(with(0x0774_6165, 0), TraceReadError::BigEndian);
    assert_eq!(with(0x6561_7408, 0), TraceReadError::Version { found: 8 });
    assert_eq!(with(0, 0), TraceReadError::NoRecord { magic: 0 });
    assert_eq!(
        with(0x6561_7407, 129),
        TraceReadError::LongPayload { len: 129 }
    );
}
