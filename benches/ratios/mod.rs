//! Side-by-side measurement: two sides in one run, in alternation, and a table at the end.
//!
//! ```text
//!   round      1     2     3     4   ...
//!   order     A B   B A   A B   B A        one figure from each adjacent pair
//!              |     |     |     |
//!              r1    r2    r3    r4  ...   median; low and high are the quartiles
//! ```
//!
//! A figure is taken from each *pair* of neighbouring samples, so that whatever slows the machine
//! for longer than one sample slows both sides of the pair. What is reported is the median of those
//! figures with their lower and upper quartile; the columns `ours` and `theirs` are the medians of
//! each side alone and need not divide into the ratio exactly. A row holds when its median meets
//! the target; where the target lies between the quartiles the table says that the run is too
//! noisy to tell.

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use std::{env, fs, io, path::PathBuf, thread};

/// Samples of two sides, taken in alternation: element `i` of both belongs to one pair.
pub(crate) struct Pairs {
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

/// Takes `pairs` samples of either side, in the order A B, B A, A B, ..., after a few that warm both
/// up and are not kept.
pub(crate) fn alternate(
    pairs: usize,
    mut ours: impl FnMut() -> f64,
    mut theirs: impl FnMut() -> f64,
) -> Pairs {
    let mut taken = Pairs {
        ours: Vec::with_capacity(pairs),
        theirs: Vec::with_capacity(pairs),
    };
    for _ in 0..pairs.div_ceil(16) {
        ours();
        theirs();
    }
    for pair in 0..pairs {
        if pair % 2 == 0 {
            taken.ours.push(ours());
            taken.theirs.push(theirs());
        } else {
            taken.theirs.push(theirs());
            taken.ours.push(ours());
        }
    }
    taken
}

impl Pairs {
    /// Pairs from values that were taken in alternation already.
    pub(crate) fn taken(ours: Vec<f64>, theirs: Vec<f64>) -> Self {
        assert_eq!(ours.len(), theirs.len(), "a sample without its neighbour");
        Self { ours, theirs }
    }

    /// These pairs and `more`.
    pub(crate) fn and(mut self, more: Self) -> Self {
        self.ours.extend(more.ours);
        self.theirs.extend(more.theirs);
        self
    }
}

/// How a pair of costs becomes one figure.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    /// `ours / theirs`: how many times their cost ours is.
    Cost,
    /// `theirs / ours`: how many times as fast ours is.
    Speed,
    /// `ours - theirs`, in the unit of the row.
    Added,
}

/// What a figure must be.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// The median may not exceed this.
    AtMost(f64),
    /// The median may not fall below this.
    AtLeast(f64),
    /// Reported, not judged: stands in the table, not in the JSON.
    Informs,
}

/// A figure with its spread.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Spread {
    /// Median and quartiles of `values`, which must not be empty.
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = share * (values.len() - 1) as f64;
            let (below, above) = (place.floor() as usize, place.ceil() as usize);
            values[below] + (values[above] - values[below]) * (place - below as f64)
        };
        Self {
            median: at(0.5),
            low: at(0.25),
            high: at(0.75),
        }
    }
}

impl Pairs {
    /// The figure of each pair, as median and quartiles.
    pub(crate) fn figure(&self, figure: Figure) -> Spread {
        let each = |(ours, theirs): (&f64, &f64)| match figure {
            Figure::Cost => ours / theirs,
            Figure::Speed => theirs / ours,
            Figure::Added => ours - theirs,
        };
        Spread::of(self.ours.iter().zip(&self.theirs).map(each).collect())
    }
}

/// One line of the table: what is measured, in which unit, and against what.
pub(crate) struct Line<'a> {
    /// What was done.
    pub(crate) name: &'a str,
    /// What the same was done with on the other side.
    pub(crate) against: &'a str,
    /// Unit of `ours` and `theirs`, for the reader.
    pub(crate) unit: &'a str,
    /// How the two costs become a figure.
    pub(crate) figure: Figure,
    /// What that figure must be.
    pub(crate) target: Target,
}

#[derive(Serialize)]
struct Judged {
    name: String,
    ours: f64,
    theirs: f64,
    ratio: f64,
    low: f64,
    high: f64,
    target: f64,
    sense: &'static str,
    holds: bool,
}

/// The table of one bench program, filled as its rows are measured.
pub(crate) struct Report {
    bench: &'static str,
    /// The machine as it was at the beginning.
    begun: String,
    quick: bool,
    judged: Vec<Judged>,
    table: Table,
}

impl Report {
    /// An empty report for the program `bench`; `None` when this run is not meant to measure: a
    /// test (Cargo says `--bench` when it is not one), a listing, a profile.
    pub(crate) fn of(bench: &'static str) -> Option<Self> {
        let has = |flag: &str| env::args().any(|arg| arg == flag);
        if !has("--bench") || has("--test") || has("--list") || has("--profile-time") {
            return None;
        }
        let mut table = Table::new();
        table
            .load_preset(presets::ASCII_MARKDOWN)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header([
                "name",
                "against",
                "ours",
                "theirs",
                "ratio (quartiles)",
                "target",
                "holds",
            ]);
        Some(Self {
            bench,
            begun: machine(),
            quick: has("--quick"),
            judged: Vec::new(),
            table,
        })
    }

    /// `brief` under `--quick`, else `full`: for counts and sizes, never for what is done.
    pub(crate) fn scaled<T>(&self, full: T, brief: T) -> T {
        if self.quick { brief } else { full }
    }

    /// Adds what `pairs` show as one line.
    pub(crate) fn add(&mut self, line: &Line<'_>, pairs: &Pairs) {
        let Spread { median, low, high } = pairs.figure(line.figure);
        let ours = Spread::of(pairs.ours.clone()).median;
        let theirs = Spread::of(pairs.theirs.clone()).median;
        let mark = match line.figure {
            Figure::Cost | Figure::Speed => "x".to_owned(),
            Figure::Added => format!(" {}", line.unit),
        };
        let (target, judgement) = match line.target {
            Target::AtMost(target) => (
                format!("at most {target}{mark}"),
                Some((target, "at_most", median <= target)),
            ),
            Target::AtLeast(target) => (
                format!("at least {target}{mark}"),
                Some((target, "at_least", median >= target)),
            ),
            Target::Informs => ("-".to_owned(), None),
        };
        let verdict = match judgement {
            None => "-".to_owned(),
            Some((target, _, holds)) => {
                let answer = if holds { "yes" } else { "NO" };
                if low <= target && target <= high {
                    format!("{answer} (target within the spread)")
                } else {
                    answer.to_owned()
                }
            }
        };
        let what = match line.figure {
            Figure::Cost => "",
            Figure::Speed => " as fast",
            Figure::Added => " more",
        };
        self.table.add_row([
            line.name.to_owned(),
            line.against.to_owned(),
            format!("{} {}", digits(ours), line.unit),
            format!("{} {}", digits(theirs), line.unit),
            format!(
                "{}{mark}{what} ({}..{})",
                digits(median),
                digits(low),
                digits(high)
            ),
            target,
            verdict,
        ]);
        if let Some((target, sense, holds)) = judgement {
            let how = match line.figure {
                Figure::Cost => format!("cost, as a multiple of: {}", line.against),
                Figure::Speed => format!("times as fast as: {}", line.against),
                Figure::Added => format!("added {}, over: {}", line.unit, line.against),
            };
            self.judged.push(Judged {
                name: format!("{} [{}] - {how}", line.name, line.unit),
                ours,
                theirs,
                ratio: median,
                low,
                high,
                target,
                sense,
                holds,
            });
        }
    }

    /// Prints the table and writes the judged lines to `target/ratios/<bench>.json`.
    ///
    /// # Errors
    ///
    /// What creating the folder or writing the file came to.
    pub(crate) fn finish(self) -> io::Result<()> {
        if self.table.is_empty() {
            // Nothing was measured; what an earlier run has written stays.
            return Ok(());
        }
        let folder = folder()?;
        let file = folder.join(format!("{}.json", self.bench));
        fs::write(&file, serde_json::to_string_pretty(&self.judged)? + "\n")?;
        println!(
            "\nratios of `{}`, measured side by side on {}",
            self.bench, self.begun
        );
        println!("\n{}", self.table);
        let met = self.judged.iter().filter(|row| row.holds).count();
        println!(
            "\n{met} of {} targets hold; written to {}\nmachine at the end: {}{}",
            self.judged.len(),
            file.display(),
            machine(),
            if self.quick {
                "\n--quick: fewer samples, so wider chance; judge on a full run"
            } else {
                ""
            }
        );
        Ok(())
    }
}

/// Where programs leave what others read: `target/ratios`, made if it is not there.
pub(crate) fn folder() -> io::Result<PathBuf> {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target"),
        PathBuf::from,
    );
    let folder = target.join("ratios");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A figure with as many digits as it can carry.
fn digits(value: f64) -> String {
    match value.abs() {
        small if small < 10.0 => format!("{value:.3}"),
        medium if medium < 1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Cores, CPU model, kernel, huge-page setting and load of this machine, in one line.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown CPU", |(_, model)| model);
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let load = read("/proc/loadavg");
    format!(
        "{cores} cores, {model}, Linux {}, THP {}, load {}",
        read("/proc/sys/kernel/osrelease").trim(),
        read("/sys/kernel/mm/transparent_hugepage/enabled").trim(),
        load.split(' ').take(3).collect::<Vec<_>>().join(" "),
    )
}
