//! What a user sees while a job runs.

use core::fmt;
use core::time::Duration;
use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::way::Way;
use crate::job::shown;

/// Told about a run as it goes; `()` listens to nothing.
pub trait Observe {
    /// Sections begin, `share` of whose work is known if it is bounded.
    fn begin(&mut self, way: Way, sections: &[&str]) {
        let _ = (way, sections);
    }

    /// Some time has passed.
    fn tick(&mut self, tick: &Tick) {
        let _ = tick;
    }

    /// The sections have ended.
    fn end(&mut self) {}
}

impl Observe for () {}

/// How far the running sections have come.
#[derive(Debug, Clone, Copy)]
pub struct Tick {
    /// Of the work that is known, how much is done: 0 to 1.
    pub done: f64,
    /// Requests each second since the last tick.
    pub iops: f64,
    /// Bytes each second since the last tick.
    pub bytes_per_second: f64,
    /// Since the sections began.
    pub elapsed: Duration,
}

/// A bar on a terminal; elsewhere one line for each way and group of sections.
pub struct Bar {
    bar: Option<ProgressBar>,
    plain: bool,
    way: Option<Way>,
}

impl fmt::Debug for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bar")
            .field("plain", &self.plain)
            .finish_non_exhaustive()
    }
}

const STEPS: u64 = 1000;

impl Bar {
    /// A bar on standard error.
    #[must_use]
    pub fn stderr() -> Self {
        Self {
            bar: None,
            plain: !std::io::stderr().is_terminal(),
            way: None,
        }
    }
}

impl Observe for Bar {
    fn begin(&mut self, way: Way, sections: &[&str]) {
        self.way = Some(way);
        let names: Vec<_> = sections
            .iter()
            .map(|name| shown(name).to_string())
            .collect();
        let what = names.join(", ");
        if self.plain {
            // Nobody is told if nobody listens.
            let _ = writeln!(std::io::stderr(), "running {what} ({way})");
            return;
        }
        let bar = ProgressBar::with_draw_target(Some(STEPS), ProgressDrawTarget::stderr());
        if let Ok(style) =
            ProgressStyle::with_template("{prefix:>5} [{bar:30}] {percent:>3}% {elapsed} {msg}")
        {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(way.name());
        bar.set_message(what);
        self.bar = Some(bar);
    }

    fn tick(&mut self, tick: &Tick) {
        if let Some(bar) = &self.bar {
            bar.set_position((tick.done.clamp(0.0, 1.0) * STEPS as f64) as u64);
            let (iops, mib) = (tick.iops / 1e3, tick.bytes_per_second / f64::from(1 << 20));
            let message = bar.message();
            let name = message.split("  ").next().unwrap_or_default().to_owned();
            bar.set_message(format!("{name}  {iops:.0} k IOPS, {mib:.0} MiB/s"));
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
