//! From a pfn to its descriptor and back: ours against every way a user might choose instead.
//!
//! ```text
//! cargo bench --bench memmap                   everything, about ten minutes
//! cargo bench --bench memmap -- --quick        the same with fewer samples, under two
//! cargo bench --bench memmap -- ratios         only the table of ratios
//! ```
//!
//! One operation finds a descriptor of 64 bytes, takes a reference and puts it. The pfns are random
//! and independent of each other, so what counts is throughput; every peer gets its fastest form.

#[path = "../cpus/mod.rs"]
mod cpus;
#[path = "../mapping/mod.rs"]
mod mapping;
#[expect(dead_code, reason = "no row of this program is an added time")]
#[path = "../ratios/mod.rs"]
mod ratios;
#[path = "../sides/mod.rs"]
mod sides;

mod flat;
mod maps;
mod ours;
mod peer;
mod radix;
mod resident;

use core::{
    cell::Cell,
    hint,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use criterion::{Criterion, Throughput};
use flat::{Eager, EagerHuge, EagerPrefetching, EagerUnchecked, Lazy};
use maps::{Locked, Map, Once, Papaya, SccIndex, SccMap, Sharded};
use ours::Ours;
use peer::{Peer, Stream, Worker};
use radix::{Counted, Epoch};
use ratios::{Figure, Line, Pairs, Report, Target};
use resident::Resident;
use std::{io, thread, time::Instant};

const SMALL: u64 = 1 << 20;
const LARGE: u64 = 16 << 20;

/// Operations of one sample: short enough that most samples see no other task on their core.
const SAMPLE: u32 = 1 << 14;

/// Operations of each thread when there may be several: long enough that starting and stopping
/// together does not count.
const ROUND: u32 = 1 << 17;

/// Untimed operations before each sample.
const WARM: u32 = 1 << 11;

/// `operations` times get + put over random pfns below `pfns`, a power of two.
///
/// The stream is worked on as a copy, so that it can stay in registers on every side.
#[inline(always)]
fn work(worker: &impl Worker, stream: &mut Stream, operations: u32, first: u64, pfns: u64) {
    let mut own = *stream;
    for _ in 0..operations {
        worker.get_put(first + (own.next() & (pfns - 1)));
    }
    *stream = own;
}

/// Nanoseconds for each operation of one thread over random pfns below `pfns`.
#[inline(never)]
fn sample<P: Peer>(peer: &P, stream: &mut Stream, pfns: u64) -> f64 {
    let worker = peer.worker();
    work(&worker, stream, WARM, 0, pfns);
    let start = Instant::now();
    work(&worker, stream, SAMPLE, 0, pfns);
    start.elapsed().as_nanos() as f64 / f64::from(SAMPLE)
}

/// Which chunks the threads of a run look into.
#[derive(Clone, Copy)]
enum Chunks {
    /// Each thread into its own half.
    Disjoint,
    /// All into all.
    Shared,
}

/// Nanoseconds for each operation of `threads` threads together, from the common start to the last
/// one's end.
fn together<P: Peer>(peer: &P, pfns: u64, threads: usize, chunks: Chunks, seed: u64) -> f64 {
    let ready = AtomicUsize::new(0);
    let worked = thread::scope(|scope| {
        let run = |thread: usize| {
            cpus::pin(thread);
            let (first, own) = match chunks {
                Chunks::Disjoint => (pfns / 2 * thread as u64, pfns / 2),
                Chunks::Shared => (0, pfns),
            };
            let mut stream = Stream::new(seed * 2 + thread as u64);
            let worker = peer.worker();
            work(&worker, &mut stream, 2 * WARM, first, own);
            ready.fetch_add(1, Ordering::AcqRel);
            while ready.load(Ordering::Acquire) < threads {
                hint::spin_loop();
            }
            let start = Instant::now();
            work(&worker, &mut stream, ROUND, first, own);
            (start, Instant::now())
        };
        let running: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || run(thread)))
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect::<Vec<_>>()
    });
    let start = worked.iter().map(|(start, _)| *start).min().unwrap();
    let end = worked.iter().map(|(_, end)| *end).max().unwrap();
    let operations = f64::from(ROUND) * threads as f64;
    end.duration_since(start).as_nanos() as f64 / operations
}

/// Pairs of `ours` and `theirs`, both full.
fn beside<P: Peer>(report: &Report, ours: &Ours, theirs: &P, pfns: u64) -> Pairs {
    let (mut one, mut other) = (Stream::new(1), Stream::new(2));
    ratios::alternate(
        report.scaled(300, 60),
        || sample(ours, &mut one, pfns),
        || sample(theirs, &mut other, pfns),
    )
}

/// A line for get + put against `P`, where a few per cent decide. Which physical memory a side
/// happens to get is worth as much, so both are built anew several times, each first in turn.
fn level<P: Peer>(report: &mut Report, (pfns, size): (u64, &str), target: Target) {
    let built = |round| {
        let (ours, theirs);
        if round % 2 == 0 {
            ours = Ours::full(pfns);
            theirs = P::full(pfns);
        } else {
            theirs = P::full(pfns);
            ours = Ours::full(pfns);
        }
        beside(report, &ours, &theirs, pfns)
    };
    let rounds = report.scaled(6, 2);
    let pairs = (1..rounds).fold(built(0), |pairs, round| pairs.and(built(round)));
    let line = Line {
        name: &format!("get+put, {size} pfns, random"),
        against: P::NAME,
        unit: "ns",
        figure: Figure::Cost,
        target,
    };
    report.add(&line, &pairs);
}

/// A line for get + put against a table `P`.
fn table<P: Peer>(report: &mut Report, ours: &Ours, target: Target) {
    let pairs = beside(report, ours, &P::full(LARGE), LARGE);
    let line = Line {
        name: "get+put, 16 M pfns, random",
        against: P::NAME,
        unit: "ns",
        figure: Figure::Speed,
        target,
    };
    report.add(&line, &pairs);
}

/// What one map came to.
struct Mapped {
    name: &'static str,
    once: Pairs,
    twice: Pairs,
    ceiling: Pairs,
}

/// Lines for all the maps: the fastest of them with the target, and what no descriptor that lies
/// in memory can exceed on this machine.
fn maps(report: &mut Report, ours: &Ours) {
    fn one<M: Map>(report: &Report, ours: &Ours, eager: &Eager) -> Mapped {
        let map = Once::<M>::full(LARGE);
        let (mut stream, mut other) = (Stream::new(1), Stream::new(2));
        let ceiling = ratios::alternate(
            report.scaled(300, 60),
            || sample(eager, &mut stream, LARGE),
            || sample(&map, &mut other, LARGE),
        );
        Mapped {
            name: M::NAME,
            once: beside(report, ours, &map, LARGE),
            twice: beside(report, ours, &map.twice(), LARGE),
            ceiling,
        }
    }
    let eager = Eager::full(LARGE);
    let mut measured = [
        one::<Locked>(report, ours, &eager),
        one::<Sharded>(report, ours, &eager),
        one::<Papaya>(report, ours, &eager),
        one::<SccIndex>(report, ours, &eager),
        one::<SccMap>(report, ours, &eager),
    ];
    let speed = |map: &Mapped| map.once.figure(Figure::Speed).median;
    measured.sort_by(|map, other| speed(map).total_cmp(&speed(other)));
    let mut line = |name, against: &str, target, pairs| {
        let line = Line {
            name,
            against,
            unit: "ns",
            figure: Figure::Speed,
            target,
        };
        report.add(&line, pairs);
    };
    let best = &measured[0];
    let name = "get+put, 16 M pfns, random";
    let against = format!("the best map ({}), one lookup for both", best.name);
    line(name, &against, Target::AtLeast(5.0), &best.once);
    line(
        "the same, if ours were an eager array",
        &against,
        Target::Informs,
        &best.ceiling,
    );
    for Mapped {
        name: map,
        once,
        twice,
        ..
    } in &measured
    {
        let (both, each) = (
            format!("{map}, one lookup for both"),
            format!("{map}, a lookup for each"),
        );
        line(name, &both, Target::Informs, once);
        line(name, &each, Target::Informs, twice);
    }
}

/// Lines for two threads against one, of the same peer.
fn threads<P: Peer>(report: &mut Report, (pfns, size): (u64, &str), target: Target) {
    let peer = P::full(pfns);
    for (chunks, how, target) in [
        (Chunks::Shared, "shared", Target::Informs),
        (Chunks::Disjoint, "disjoint", target),
    ] {
        let seed = Cell::new(1);
        let run = |threads| {
            seed.set(seed.get() + 1);
            // One thread alone works on everything, so that both runs use as much memory; with
            // disjoint chunks each core then needs only half the translations.
            let chunks = if threads == 1 { Chunks::Shared } else { chunks };
            together(&peer, pfns, threads, chunks, seed.get())
        };
        let pairs = ratios::alternate(report.scaled(200, 40), || run(2), || run(1));
        let line = Line {
            name: &format!("throughput of 2 threads, {size} pfns, {how} chunks"),
            against: &format!("{}: its own 1-thread run", P::NAME),
            unit: "ns",
            figure: Figure::Speed,
            target,
        };
        report.add(&line, &pairs);
    }
}

/// Lines for the resident memory of a sparse touch, each side in fresh processes.
fn sparse<P: Peer>(report: &mut Report, target: Target) {
    const MIB: f64 = 1024.0 * 1024.0;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..report.scaled(5, 3) {
        ours.push(resident::of::<Ours>(LARGE));
        theirs.push(resident::of::<P>(LARGE));
    }
    type Mib = fn(&Resident) -> f64;
    let bytes: [(&str, Mib); 2] = [
        ("resident", |it| it.pages / MIB),
        ("resident + page tables", |it| (it.pages + it.tables) / MIB),
    ];
    for (what, mib) in bytes {
        let pairs = Pairs::taken(
            ours.iter().map(mib).collect(),
            theirs.iter().map(mib).collect(),
        );
        let line = Line {
            name: &format!("{what}, 16 M pfns, 1 descriptor in 1 % of the chunks"),
            against: P::NAME,
            unit: "MiB",
            figure: Figure::Cost,
            target,
        };
        report.add(&line, &pairs);
    }
}

fn measure(report: &mut Report) {
    use Target::{AtLeast, AtMost, Informs};

    let (small, large) = ((SMALL, "1 M"), (LARGE, "16 M"));
    for size in [small, large] {
        level::<Eager>(report, size, AtMost(1.05));
        level::<Lazy>(report, size, AtMost(1.05));
        level::<EagerUnchecked>(report, size, Informs);
        level::<EagerPrefetching>(report, size, Informs);
        level::<EagerHuge>(report, size, Informs);
    }
    for size in [small, large] {
        threads::<Ours>(report, size, AtLeast(1.8));
        threads::<Eager>(report, size, Informs);
        threads::<Counted<64>>(report, size, Informs);
    }
    let ours = Ours::full(LARGE);
    maps(report, &ours);
    table::<Epoch<64>>(report, &ours, AtLeast(2.0));
    table::<Epoch<512>>(report, &ours, Informs);
    table::<Counted<64>>(report, &ours, AtLeast(1.4));
    table::<Counted<512>>(report, &ours, Informs);
    drop(ours);

    sparse::<Lazy>(report, AtMost(1.5));
    sparse::<Epoch<64>>(report, AtMost(1.0));
    sparse::<Counted<64>>(report, AtMost(1.0));
    sparse::<Epoch<512>>(report, Informs);
    sparse::<Once<Locked>>(report, Informs);
    sparse::<Once<Sharded>>(report, Informs);
    sparse::<Once<Papaya>>(report, Informs);
    sparse::<Once<SccIndex>>(report, Informs);
    sparse::<Once<SccMap>>(report, Informs);
}

/// Criterion's own measurement of one peer.
fn group<P: Peer>(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("get+put, 1 M pfns, random");
    group
        .throughput(Throughput::Elements(SAMPLE.into()))
        .warm_up_time(Duration::from_secs(1))
        .bench_function(P::NAME, |bencher| {
            let peer = P::full(SMALL);
            let worker = peer.worker();
            let mut stream = Stream::new(1);
            bencher.iter(|| work(&worker, &mut stream, SAMPLE, 0, SMALL));
        });
    group.finish();
}

/// What a child process serves, by the name it was started with.
fn serve(name: &str) {
    let served: [(&str, fn()); 10] = [
        (Ours::NAME, resident::serve::<Ours>),
        (Lazy::NAME, resident::serve::<Lazy>),
        (Epoch::<64>::NAME, resident::serve::<Epoch<64>>),
        (Epoch::<512>::NAME, resident::serve::<Epoch<512>>),
        (Counted::<64>::NAME, resident::serve::<Counted<64>>),
        (Once::<Locked>::NAME, resident::serve::<Once<Locked>>),
        (Once::<Sharded>::NAME, resident::serve::<Once<Sharded>>),
        (Once::<Papaya>::NAME, resident::serve::<Once<Papaya>>),
        (Once::<SccIndex>::NAME, resident::serve::<Once<SccIndex>>),
        (Once::<SccMap>::NAME, resident::serve::<Once<SccMap>>),
    ];
    let (_, side) = served.iter().find(|(peer, _)| *peer == name).unwrap();
    side();
}

fn main() -> io::Result<()> {
    if let Some(side) = sides::requested() {
        serve(&side);
        return Ok(());
    }
    let mut criterion = Criterion::default().configure_from_args();
    group::<Ours>(&mut criterion);
    group::<Eager>(&mut criterion);
    group::<EagerHuge>(&mut criterion);
    group::<Lazy>(&mut criterion);
    group::<Epoch<64>>(&mut criterion);
    group::<Counted<64>>(&mut criterion);
    group::<Once<Locked>>(&mut criterion);
    group::<Once<Sharded>>(&mut criterion);
    group::<Once<Papaya>>(&mut criterion);
    group::<Once<SccIndex>>(&mut criterion);
    group::<Once<SccMap>>(&mut criterion);
    criterion.final_summary();
    let Some(mut report) = Report::of("memmap") else {
        return Ok(());
    };
    measure(&mut report);
    report.finish()
}
