//! What a missing descriptor costs, and what taking many away costs: ours against the bare
//! mechanisms.
//!
//! ```text
//! cargo bench --bench fault                   everything, a few minutes
//! cargo bench --bench fault -- --quick        the same with fewer samples, under one
//! cargo bench --bench fault -- ratios         only the table of ratios
//! ```
//!
//! Every side runs in a process of its own, asked in alternation, so that each can own SIGBUS.

#[path = "../cpus/mod.rs"]
mod cpus;
#[expect(dead_code, reason = "no side of this program is on huge pages")]
#[path = "../mapping/mod.rs"]
mod mapping;
#[expect(dead_code, reason = "no row of this program is an added time")]
#[path = "../ratios/mod.rs"]
mod ratios;
#[path = "../raw/mod.rs"]
mod raw;
#[path = "../sides/mod.rs"]
mod sides;

mod ours;
mod places;
mod side;

use core::time::Duration;
use criterion::Criterion;
use ratios::{Figure, Line, Pairs, Report, Target};
use side::{
    ATTACH, RECLAIM_CONTIGUOUS, RECLAIM_OURS, RECLAIM_SINGLY, RECLAIM_VECTORED, TOUCH_ANONYMOUS,
    TOUCH_OURS, TOUCH_RAW,
};
use sides::Side;
use std::io;

/// First touches in one sample.
const TOUCHES: u64 = 32;

/// Pairs of what two sides answer to the same question.
fn between(pairs: usize, ours: &str, theirs: &str, question: &str) -> Pairs {
    let (mut ours, mut theirs) = (Side::spawn(ours), Side::spawn(theirs));
    ratios::alternate(pairs, || ours.ask(question)[0], || theirs.ask(question)[0])
}

fn touches(report: &mut Report) {
    let pairs = report.scaled(400, 120);
    for (tables, how) in [("warm", "exists"), ("cold", "does not exist")] {
        for (theirs, against, at_most) in [
            (TOUCH_RAW, "raw userfaultfd: SIGBUS + UFFDIO_COPY", 1.25),
            (TOUCH_ANONYMOUS, "the kernel's own anonymous fault", 2.5),
        ] {
            let question = format!("{tables} {TOUCHES}");
            let line = Line {
                name: &format!("first touch of a 4 KiB chunk, its page table {how}"),
                against,
                unit: "ns",
                figure: Figure::Cost,
                target: Target::AtMost(at_most),
            };
            report.add(&line, &between(pairs, TOUCH_OURS, theirs, &question));
        }
    }
}

fn reclaims(report: &mut Report) {
    let pairs = report.scaled(600, 120);
    for (theirs, against, figure, target) in [
        (
            RECLAIM_CONTIGUOUS,
            "one bare madvise of as many bytes, contiguous",
            Figure::Cost,
            Target::AtMost(2.0),
        ),
        (
            RECLAIM_SINGLY,
            "32 reclaims one by one",
            Figure::Speed,
            Target::AtLeast(5.0),
        ),
        (
            RECLAIM_VECTORED,
            "one bare process_madvise of the same scattered chunks",
            Figure::Cost,
            Target::Informs,
        ),
    ] {
        let line = Line {
            name: "reclaim of 32 scattered 4 KiB chunks, another thread running",
            against,
            unit: "ns",
            figure,
            target,
        };
        report.add(&line, &between(pairs, RECLAIM_OURS, theirs, "one"));
    }
}

/// Each attach in a fresh process; `theirs` is the limit.
fn attaches(report: &mut Report) {
    const LIMITS: [(&str, &str, f64); 2] = [
        ("time to attach 1 PiB", "ns", 1e6),
        ("resident after attaching 1 PiB", "bytes", 1048576.0),
    ];
    let answers: Vec<_> = (0..report.scaled(40, 10))
        .map(|_| Side::spawn(ATTACH).ask("once"))
        .collect();
    for (place, (name, unit, limit)) in LIMITS.into_iter().enumerate() {
        let ours: Vec<_> = answers.iter().map(|answer| answer[place]).collect();
        let limits = vec![limit; ours.len()];
        let line = Line {
            name,
            against: "the limit: 1 ms, 1 MiB",
            unit,
            figure: Figure::Cost,
            target: Target::AtMost(1.0),
        };
        report.add(&line, &Pairs::taken(ours, limits));
    }
}

/// Criterion's own measurement of one side: `asked` times what `question` answers for one.
fn group(criterion: &mut Criterion, group: &str, side: &str, question: impl Fn(u64) -> String) {
    let mut group = criterion.benchmark_group(group);
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20)
        .bench_function(side, |bencher| {
            let mut asked = Side::spawn(side);
            bencher.iter_custom(|times| {
                let answered: f64 = (0..times).map(|_| asked.ask(&question(TOUCHES))[0]).sum();
                Duration::from_nanos(answered as u64)
            });
        });
    group.finish();
}

fn main() -> io::Result<()> {
    if let Some(name) = sides::requested() {
        side::serve(&name);
        return Ok(());
    }
    let mut criterion = Criterion::default().configure_from_args();
    for side in [TOUCH_OURS, TOUCH_RAW, TOUCH_ANONYMOUS] {
        for tables in ["warm", "cold"] {
            let name = format!("first touch, {tables} page tables");
            group(&mut criterion, &name, side, |touches| {
                format!("{tables} {touches}")
            });
        }
    }
    for side in [
        RECLAIM_OURS,
        RECLAIM_SINGLY,
        RECLAIM_CONTIGUOUS,
        RECLAIM_VECTORED,
    ] {
        group(&mut criterion, "reclaim of 32 chunks", side, |_| {
            "one".to_owned()
        });
    }
    criterion.final_summary();
    let Some(mut report) = Report::of("fault") else {
        return Ok(());
    };
    touches(&mut report);
    reclaims(&mut report);
    attaches(&mut report);
    report.finish()
}
