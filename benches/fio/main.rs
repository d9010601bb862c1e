//! The same job by Debian's fio and by `pageless run`, in alternation.
//!
//! ```text
//! cargo bench --bench fio                   under three minutes
//! cargo bench --bench fio -- --quick        the same with fewer and shorter runs, under one
//! ```
//!
//! Each run is a process of its own, and reports itself how many requests it did and how long each
//! took: every request's latency goes into a histogram on both sides, and both read the time-stamp counter
//! for it. All processes run on one CPU. What is judged is requests each second; beside it stands the processor
//! time of a request, which says the same where nobody else is busy.
//!
//! **Memory.** Both work on the *same file* of 1 GiB in `/dev/shm`, fio through its `mmap` engine,
//! pageless with `--image`; so both copy between the same page frames and a buffer of 4 KiB. The
//! file is written beforehand. fio maps it page by page as it goes, pageless before it starts;
//! `ramp_time` keeps that out of the figures: with a random map every page is visited in it. (A ramp
//! that is too short on a busy machine shows in fio's write latencies: a median above a
//! microsecond is page faults.)
//!
//! **Durability.** Without syncs a write is finished once its bytes are in the shared pages of the
//! file: they survive the process, and nothing else. With `fdatasync=1` fio calls `msync(MS_SYNC)` on the
//! whole mapping after each write, pageless `fdatasync` on the file, which writes back the same. A file
//! in memory has nothing to write back: what is compared is the way there.
//!
//! **Buffers.** `scramble_buffers=0`: fio would otherwise change a part of its buffer before each
//! write, and pageless does not.

#[path = "../cpus/mod.rs"]
mod cpus;
#[path = "../ratios/mod.rs"]
#[expect(
    dead_code,
    reason = "no row of this program is a cost or an added time"
)]
mod ratios;

mod engine;

use comfy_table::{ContentArrangement, Table, presets};
use core::cell::RefCell;
use engine::Ran;
use ratios::{Figure, Line, Pairs, Report, Target};
use std::{
    fs::File,
    io::{self, Write},
    path::Path,
};
use tempfile::TempDir;

/// Where files are memory.
const MEMORY: &str = "/dev/shm";
/// The file of the memory rows.
const FILE: u64 = 1 << 30;

/// Runs of either side in a row, and under `--quick`.
const FULL: usize = 7;
const BRIEF: usize = 3;

/// A job that both run.
struct Scenario {
    name: &'static str,
    engine: &'static str,
    options: &'static str,
    target: Target,
}

const SCENARIOS: [Scenario; 5] = [
    Scenario {
        name: "randread over 1 GiB in memory",
        engine: "mmap",
        options: "rw=randread\n",
        target: Target::AtLeast(1.25),
    },
    Scenario {
        name: "randwrite over 1 GiB in memory",
        engine: "mmap",
        options: "rw=randwrite\n",
        target: Target::AtLeast(1.5),
    },
    Scenario {
        name: "randwrite over 1 GiB in memory, a sync after each",
        engine: "mmap",
        options: "rw=randwrite\nfdatasync=1\n",
        target: Target::AtLeast(1.5),
    },
    Scenario {
        name: "randread, null",
        engine: "null",
        options: "rw=randread\n",
        target: Target::AtLeast(1.5),
    },
    Scenario {
        name: "randwrite, null",
        engine: "null",
        options: "rw=randwrite\n",
        target: Target::AtLeast(1.5),
    },
];

impl Scenario {
    fn in_memory(&self) -> bool {
        self.engine == "mmap"
    }

    fn job(&self, image: &Path, (ramp, runtime): (&str, &str)) -> String {
        let place = if self.in_memory() {
            format!("filename={}\nramp_time={ramp}\n", image.display())
        } else {
            String::new()
        };
        format!(
            "[job]\nioengine={}\n{place}size=1g\nbs=4k\niodepth=1\nscramble_buffers=0\n\
             time_based\nruntime={runtime}\n{}",
            self.engine, self.options
        )
    }
}

/// The latencies of both sides, a line for each run.
struct Latencies(Table);

impl Latencies {
    fn new() -> Self {
        let mut table = Table::new();
        table
            .load_preset(presets::ASCII_MARKDOWN)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header([
                "latency, ns (median of the runs)",
                "",
                "p50",
                "p99",
                "p99.9",
            ]);
        Self(table)
    }

    fn add(&mut self, name: &str, who: &str, runs: &[Ran]) {
        let median = |of: fn(&Ran) -> f64| {
            let mut values: Vec<f64> = runs.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            format!("{:.0}", values[values.len() / 2])
        };
        let cells = [median(|r| r.p50), median(|r| r.p99), median(|r| r.p999)];
        let names = [name.to_owned(), who.to_owned()];
        self.0.add_row(names.into_iter().chain(cells));
    }
}

/// Measures one row.
fn measure(
    report: &mut Report,
    latencies: &mut Latencies,
    scenario: &Scenario,
    dir: &Path,
    image: &Path,
) {
    let job = scenario.job(image, report.scaled(("2s", "700ms"), ("1s", "500ms")));
    let (ours, theirs) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let keep = |runs: &RefCell<Vec<Ran>>, ran: Ran| {
        runs.borrow_mut().push(ran);
        ran.each
    };
    let own = scenario.in_memory().then_some(image);
    let pairs: Pairs = ratios::alternate(
        report.scaled(FULL, BRIEF),
        || keep(&ours, engine::pageless(&job, dir, own)),
        || keep(&theirs, engine::fio(&job, dir)),
    );
    let line = Line {
        name: &format!("4 KiB {}", scenario.name),
        against: &format!("fio, ioengine={}", scenario.engine),
        unit: "ns",
        figure: Figure::Speed,
        target: scenario.target,
    };
    report.add(&line, &pairs);
    // Those that warmed both up come first, and are left out there too.
    let kept = |runs: &RefCell<Vec<Ran>>| {
        let runs = runs.borrow();
        let warm = runs.len() - report.scaled(FULL, BRIEF);
        runs[warm..].iter().map(|ran| ran.busy).collect()
    };
    let line = Line {
        name: "the same, by processor time",
        target: Target::Informs,
        ..line
    };
    report.add(&line, &Pairs::taken(kept(&ours), kept(&theirs)));
    latencies.add(scenario.name, "pageless", &ours.borrow());
    latencies.add("", "fio", &theirs.borrow());
}

/// Writes the file, so that all of it is in memory.
fn lay_out(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    let piece = vec![0xA5; 1 << 20];
    (0..FILE >> 20).try_for_each(|_| file.write_all(&piece))
}

/// A directory in memory with room for the file; says why there is none.
fn memory() -> Result<TempDir, String> {
    let room = rustix::fs::statvfs(MEMORY)
        .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
        .map_err(|error| format!("{MEMORY}: {error}"))?;
    if room < 2 * FILE {
        return Err(format!(
            "{MEMORY} has {room} bytes left, {} are needed",
            2 * FILE
        ));
    }
    TempDir::new_in(MEMORY).map_err(|error| format!("{MEMORY}: {error}"))
}

fn main() -> io::Result<()> {
    let Some(mut report) = Report::of("fio") else {
        return Ok(());
    };
    let Some(version) = engine::fio_version() else {
        println!("SKIPPED: fio is not installed, nothing was compared (apt install fio)");
        return Ok(());
    };
    println!("{version}, both on one CPU");
    let dir = match memory() {
        Ok(dir) => dir,
        Err(why) => {
            println!("SKIPPED: {why}");
            return Ok(());
        }
    };
    let image = dir.path().join("image");
    lay_out(&image)?;
    // Children inherit it.
    cpus::pin(0);
    let mut latencies = Latencies::new();
    for scenario in &SCENARIOS {
        measure(&mut report, &mut latencies, scenario, dir.path(), &image);
    }
    println!("\n{}", latencies.0);
    report.finish()
}
