//! Whole jobs: descriptors pinned through the lazily faulted memmap against an eager one.
//!
//! ```text
//! cargo bench --bench run                   everything, some minutes
//! cargo bench --bench run -- --quick        the same with fewer samples, under two
//! cargo bench --bench run -- ratios         only the table of ratios
//! ```
//!
//! Both ways run the same job on the same device and buffers, in this process, in alternation; both
//! memmaps stay attached meanwhile, so that what is compared is the steady state.

extern crate alloc;

#[path = "../mapping/mod.rs"]
#[expect(dead_code, reason = "no side of this program is on huge pages")]
mod mapping;
#[path = "../ratios/mod.rs"]
#[expect(dead_code, reason = "no row of this program is an added time")]
mod ratios;
#[path = "../raw/mod.rs"]
mod raw;
#[path = "../sides/mod.rs"]
mod sides;

mod floor;

use core::{cell::Cell, time::Duration};
use criterion::Criterion;
use pageless::job::{Bytes, IniFile, Job, Plan, PlanOptions};
use pageless::run::{
    Control, DescriptorPins, EagerPins, LazyPins, MemmapOptions, SectionReport, Stage,
    StageOptions, Way,
};
use ratios::{Figure, Line, Report, Target};
use sides::Side;
use std::io;

/// The device of every job: 1 GiB, whose descriptors take 16 MiB.
const DEVICE: u64 = 1 << 30;
/// A sixteenth of that.
const SMALL_BUDGET: u64 = 1 << 20;
/// More than the descriptors of what a job within the budget touches.
const AMPLE_BUDGET: u64 = 2 << 20;

const _: () = assert!(floor::PAGES * mapping::PAGE as u64 == DEVICE / 4096 * 64);

/// Bytes of a chunk, where nobody asks for another size.
const SMALL_CHUNK: u64 = 4096;

/// A job, and the budget it runs under.
struct Scenario {
    name: &'static str,
    job: &'static str,
    budget: u64,
}

const WITHIN: Scenario = Scenario {
    name: "4 KiB random, within the budget",
    job: "[within]\nrw=randrw\nrwmixread=70\nbs=4k\nsize=64m\nnorandommap\nio_size=8g\nnumber_ios=100000\n",
    budget: AMPLE_BUDGET,
};

const SEQUENTIAL_READ: Scenario = Scenario {
    name: "1 MiB sequential reads over 16x the budget",
    job: "[read]\nrw=read\nbs=1m\nsize=1g\n",
    budget: SMALL_BUDGET,
};

const SEQUENTIAL_WRITE: Scenario = Scenario {
    name: "1 MiB sequential writes over 16x the budget",
    job: "[write]\nrw=write\nbs=1m\nsize=1g\n",
    budget: SMALL_BUDGET,
};

const UNIFORM: Scenario = Scenario {
    name: "4 KiB uniform random over 16x the budget",
    job: "[uniform]\nrw=randrw\nrwmixread=70\nbs=4k\nsize=1g\nnorandommap\nnumber_ios=40000\n",
    budget: SMALL_BUDGET,
};

impl Scenario {
    fn plan(&self) -> Plan {
        let file = IniFile::parse("bench.fio", self.job, |_| None).unwrap();
        let options = PlanOptions {
            device: Some(Bytes::new(DEVICE)),
            ..PlanOptions::default()
        };
        Job::from_ini(&file).unwrap().plan(&options).unwrap()
    }
}

/// A device with both memmaps attached to it.
struct Both<'p> {
    stage: Stage<'p>,
    lazy: LazyPins,
    eager: EagerPins,
}

/// One run: nanoseconds for each request, how many there were, and descriptor misses.
struct Ran {
    each: f64,
    requests: f64,
    misses: f64,
    batch: f64,
}

impl<'p> Both<'p> {
    fn attach(plan: &'p Plan, budget: u64, chunk: u64) -> Self {
        let stage = Stage::prepare(plan, &StageOptions::default()).unwrap();
        assert!(stage.notes().is_empty(), "{:?}", stage.notes());
        let frames = stage.device_frames();
        let options = MemmapOptions {
            chunk: Some(Bytes::new(chunk)),
            budget: Some(Bytes::new(budget)),
        };
        let config = options.config(frames.count().get()).unwrap();
        Self {
            lazy: LazyPins::attach(frames, config).unwrap(),
            eager: EagerPins::attach(frames).unwrap(),
            stage,
        }
    }

    fn lazy(&self) -> Ran {
        self.run(Way::Lazy, &self.lazy)
    }

    fn eager(&self) -> Ran {
        self.run(Way::Eager, &self.eager)
    }

    fn run(&self, way: Way, pins: &impl DescriptorPins) -> Ran {
        let report = self
            .stage
            .run(way, pins, &Control::default(), &mut ())
            .unwrap();
        let [section] = &report.sections[..] else {
            panic!("a job of one section");
        };
        assert!(section.failures.is_empty(), "{:?}", section.failures);
        let requests = requests(section);
        let (reclaimed, shootdowns) = (section.memmap.reclaimed, section.memmap.shootdowns);
        Ran {
            each: section.elapsed.as_nanos() as f64 / requests,
            requests,
            misses: section.memmap.faults as f64,
            batch: reclaimed as f64 / shootdowns.max(1) as f64,
        }
    }
}

fn requests(section: &SectionReport) -> f64 {
    section.directions.iter().map(|of| of.ios).sum::<u64>() as f64
}

/// A line for the speed of the lazy way, as a multiple of the eager way's.
fn speed(report: &mut Report, scenario: &Scenario, chunk: u64, target: Target) {
    let plan = scenario.plan();
    let both = Both::attach(&plan, scenario.budget, chunk);
    let pairs = ratios::alternate(
        report.scaled(60, 12),
        || both.lazy().each,
        || both.eager().each,
    );
    let line = Line {
        name: &format!("{}, chunks of {} KiB", scenario.name, chunk >> 10),
        against: "the eager way",
        unit: "ns",
        figure: Figure::Speed,
        target,
    };
    report.add(&line, &pairs);
}

/// A line for what a miss adds, over the floor.
fn miss(report: &mut Report) {
    let plan = UNIFORM.plan();
    let both = Both::attach(&plan, UNIFORM.budget, SMALL_CHUNK);
    // How many chunks go in one unmapping here is what the floor has to do, too.
    let batch = both.lazy().batch.round();
    let mut floor = Side::spawn("floor");
    let lazy_first = Cell::new(false);
    let added = || {
        lazy_first.set(!lazy_first.get());
        let (lazy, eager);
        if lazy_first.get() {
            lazy = both.lazy();
            eager = both.eager();
        } else {
            eager = both.eager();
            lazy = both.lazy();
        }
        (lazy.each - eager.each) * lazy.requests / lazy.misses
    };
    let pairs = ratios::alternate(report.scaled(60, 12), added, || {
        floor.ask(&batch.to_string())[0]
    });
    let line = Line {
        name: &format!("{}: added time for each descriptor miss", UNIFORM.name),
        against: &format!("a raw fill and its share of one unmapping of {batch} chunks"),
        unit: "ns",
        figure: Figure::Cost,
        target: Target::AtMost(1.5),
    };
    report.add(&line, &pairs);
}

/// Criterion's own measurement of one job, both ways.
fn group(criterion: &mut Criterion, scenario: &Scenario) {
    let plan = scenario.plan();
    let both = Both::attach(&plan, scenario.budget, SMALL_CHUNK);
    let mut group = criterion.benchmark_group(scenario.name);
    let whole = |ran: Ran| Duration::from_nanos((ran.each * ran.requests) as u64);
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .bench_function("lazy", |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| whole(both.lazy())).sum());
        })
        .bench_function("eager", |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| whole(both.eager())).sum());
        });
    group.finish();
}

fn main() -> io::Result<()> {
    if sides::requested().is_some() {
        floor::serve();
        return Ok(());
    }
    let mut criterion = Criterion::default().configure_from_args();
    for scenario in [&WITHIN, &SEQUENTIAL_READ, &SEQUENTIAL_WRITE, &UNIFORM] {
        group(&mut criterion, scenario);
    }
    criterion.final_summary();
    let Some(mut report) = Report::of("run") else {
        return Ok(());
    };
    use Target::{AtLeast, Informs};
    speed(&mut report, &WITHIN, SMALL_CHUNK, AtLeast(0.95));
    for sequential in [&SEQUENTIAL_READ, &SEQUENTIAL_WRITE] {
        speed(&mut report, sequential, SMALL_CHUNK, AtLeast(0.85));
        speed(&mut report, sequential, 64 << 10, Informs);
    }
    speed(&mut report, &UNIFORM, SMALL_CHUNK, Informs);
    miss(&mut report);
    report.finish()
}
