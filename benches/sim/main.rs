//! How fast the modelled machine runs, and what its clock says.
//!
//! ```text
//! cargo bench --bench sim                     everything, a few minutes
//! cargo bench --bench sim -- --quick          the same with fewer samples
//! cargo bench --bench sim -- ratios           only the table of ratios: measured
//! cargo bench --bench sim -- million          a million shootdowns of 8 CPUs, in one run
//! cargo bench --bench sim -- calibration      only the tables of the modelled clock
//! ```
//!
//! Two kinds of nanoseconds, in tables of their own. *Measured*: how much of a core the machine takes here. *Modelled*: what its
//! table of costs adds up to, the same everywhere.

#[expect(
    dead_code,
    reason = "sides of this program need no process of their own"
)]
#[path = "../ratios/mod.rs"]
mod ratios;

mod loads;
mod modelled;

use core::time::Duration;
use criterion::Criterion;
use loads::{Access, Order};
use pageless_fault::shootdown::PolicyKind;
use ratios::{Figure, Line, Pairs, Report, Target};
use std::time::Instant;
use std::{env, io};

/// One preemption in so many steps: a schedule under which CPUs are interleaved, and most steps are still undisturbed.
const OFTEN: Order = Order::Seeded(64);
/// What a hit may cost: 30 million in a second.
const HIT_AT_MOST: f64 = 1e9 / 30e6;
/// What a shootdown may cost: a million of them in 10 seconds.
const SHOOTDOWN_AT_MOST: f64 = 10_000.0;

/// Samples of one side against a limit that does not vary.
fn against_limit(samples: usize, limit: f64, mut side: impl FnMut() -> f64) -> Pairs {
    side();
    let ours: Vec<_> = (0..samples).map(|_| side()).collect();
    let limits = vec![limit; ours.len()];
    Pairs::taken(ours, limits)
}

fn hits(report: &mut Report) {
    let (pairs, accesses) = (report.scaled(60, 12), 1_000_000);
    for (what, of) in [(Access::Load, "load"), (Access::Add, "locked add")] {
        for (cpus, name) in [(1, "1 CPU"), (4, "4 CPUs interleaved")] {
            let name = format!("{of}, translation cached, {name}");
            let ours = || loads::hits(cpus, OFTEN, what, accesses);
            let limit = Line {
                name: &name,
                against: "the limit: 30 million/s",
                unit: "ns",
                figure: Figure::Cost,
                target: Target::AtMost(1.0),
            };
            report.add(&limit, &against_limit(pairs, HIT_AT_MOST, ours));
            let effect = Line {
                against: "the effect alone, on an array",
                figure: Figure::Added,
                target: Target::Informs,
                ..limit
            };
            report.add(
                &effect,
                &ratios::alternate(pairs, ours, || loads::effects(what, accesses)),
            );
            let threaded = Line {
                against: "the same CPU as a thread",
                figure: Figure::Cost,
                ..effect
            };
            report.add(
                &threaded,
                &ratios::alternate(pairs, ours, || loads::hits_of_a_thread(what, accesses)),
            );
        }
    }
    let line = Line {
        name: "load, translation cached, 4 CPUs, a switch after each",
        against: "the same with 1 preemption in 64",
        unit: "ns",
        figure: Figure::Cost,
        target: Target::Informs,
    };
    let ours = || loads::hits(4, Order::Clock, Access::Load, accesses / 20);
    let theirs = || loads::hits(4, OFTEN, Access::Load, accesses / 20);
    report.add(&line, &ratios::alternate(pairs, ours, theirs));
}

fn walks(report: &mut Report) {
    let (pairs, accesses) = (report.scaled(60, 12), 50_000);
    for (whole, name) in [
        (false, "load that walks, the lowest table cached"),
        (true, "load that walks from the root, after INVLPG"),
    ] {
        let line = Line {
            name,
            against: "a load whose translation is cached",
            unit: "ns",
            figure: Figure::Cost,
            target: Target::Informs,
        };
        let hit = || loads::hits(1, OFTEN, Access::Load, accesses);
        report.add(
            &line,
            &ratios::alternate(pairs, || loads::misses(whole, accesses), hit),
        );
    }
}

fn schedules(report: &mut Report) {
    let pairs = report.scaled(60, 12);
    for tasks in [2, 8, 64] {
        let line = Line {
            name: &format!("switch among {tasks} tasks"),
            against: "a step without one",
            unit: "ns",
            figure: Figure::Added,
            target: Target::Informs,
        };
        let ours = || loads::switches(tasks, 20_000);
        let theirs = || loads::steps(1_000_000);
        report.add(&line, &ratios::alternate(pairs, ours, theirs));
    }
}

fn shootdowns(report: &mut Report) {
    let (samples, times) = (report.scaled(40, 10), 2_000);
    for &policy in PolicyKind::ALL {
        if !policy.is_safe() || policy == PolicyKind::LocalOnly {
            continue;
        }
        let judged = policy == PolicyKind::ConcurrentIpi;
        let line = Line {
            name: &format!("shootdown of 8 CPUs, {}", policy.name()),
            against: "the limit: a million in 10 s",
            unit: "ns",
            figure: Figure::Cost,
            target: if judged {
                Target::AtMost(1.0)
            } else {
                Target::Informs
            },
        };
        let ours = || loads::shootdowns(8, policy, Order::Seeded(0), times);
        report.add(&line, &against_limit(samples, SHOOTDOWN_AT_MOST, ours));
    }
    let line = Line {
        name: "shootdown of 8 CPUs, concurrent-ipi, ordered by the clock",
        against: "the same from a seed",
        unit: "ns",
        figure: Figure::Cost,
        target: Target::Informs,
    };
    let policy = PolicyKind::ConcurrentIpi;
    let ours = || loads::shootdowns(8, policy, Order::Clock, times / 10);
    let theirs = || loads::shootdowns(8, policy, Order::Seeded(0), times / 10);
    report.add(&line, &ratios::alternate(samples, ours, theirs));
}

/// Criterion's own measurement of `side`, which answers how many ns one of `n` took.
fn bench(criterion: &mut Criterion, name: &str, side: impl Fn(u64) -> f64) {
    let mut group = criterion.benchmark_group("the modelled machine");
    group
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20)
        .bench_function(name, |bencher| {
            bencher.iter_custom(|times| Duration::from_nanos((side(times) * times as f64) as u64));
        });
    group.finish();
}

fn main() -> io::Result<()> {
    if env::args().any(|arg| arg == "calibration") {
        modelled::print();
        return Ok(());
    }
    if env::args().any(|arg| arg == "million") {
        let begun = Instant::now();
        let each = loads::shootdowns(8, PolicyKind::ConcurrentIpi, Order::Seeded(0), 1_000_000);
        println!(
            "1000000 shootdowns of 8 CPUs: {:.2} s of a core, {:.2} s on the clock (limit: 10 s)",
            each / 1e3,
            begun.elapsed().as_secs_f64()
        );
        return Ok(());
    }
    let mut criterion = Criterion::default().configure_from_args();
    for (cpus, name) in [(1, "load, cached, 1 CPU"), (4, "load, cached, 4 CPUs")] {
        bench(&mut criterion, name, |times| {
            loads::hits(cpus, OFTEN, Access::Load, times.max(u64::from(cpus)))
        });
    }
    bench(&mut criterion, "load that walks", |times| {
        loads::misses(false, times.max(loads::PAGES))
    });
    bench(&mut criterion, "shootdown of 8 CPUs", |times| {
        loads::shootdowns(8, PolicyKind::ConcurrentIpi, Order::Seeded(0), times)
    });
    criterion.final_summary();
    let Some(mut report) = Report::of("sim") else {
        return Ok(());
    };
    hits(&mut report);
    walks(&mut report);
    schedules(&mut report);
    shootdowns(&mut report);
    report.finish()?;
    modelled::print();
    Ok(())
}
