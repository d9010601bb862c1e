//! How a run fails, told so that a person can do something about it.
#![forbid(unsafe_code)]

use core::fmt;

use super::deviation::{Base, Deviations};
use super::run::Schedule;
use super::task::Event;
use super::trace::Trace;

/// A task that waits, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The task's name.
    pub task: String,
    /// What it waits for.
    pub on: Event,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// A task, or the check after the last one, panicked.
    Panic {
        /// The task's name; `None` for the check.
        task: Option<String>,
        /// What it said.
        message: String,
        /// File, line and column, where known.
        place: Option<String>,
    },
    /// Every task that has not ended waits for another one of them.
    Deadlock {
        /// All of them.
        waiting: Vec<Waiting>,
    },
    /// The run did not end within its limit: some tasks keep each other busy, or the limit is too low.
    TooManySteps {
        /// The limit.
        most: u64,
    },
}

impl FailureKind {
    /// Whether `self` and `other` are the same mistake, as far as that can be seen: messages may
    /// contain numbers of their run, places do not.
    #[must_use]
    pub fn is_like(&self, other: &FailureKind) -> bool {
        match (self, other) {
            (FailureKind::Panic { place: a, .. }, FailureKind::Panic { place: b, .. }) => a == b,
            (FailureKind::Deadlock { .. }, FailureKind::Deadlock { .. })
            | (FailureKind::TooManySteps { .. }, FailureKind::TooManySteps { .. }) => true,
            _ => false,
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FailureKind::Panic {
                task,
                message,
                place,
            } => {
                match task {
                    Some(task) => write!(f, "{task} panicked")?,
                    None => f.write_str("the check at the end panicked")?,
                }
                if let Some(place) = place {
                    write!(f, " at {place}")?;
                }
                write!(f, ": {message}")
            }
            FailureKind::Deadlock { waiting } => {
                f.write_str("deadlock: ")?;
                for (i, Waiting { task, on }) in waiting.iter().enumerate() {
                    let gap = if i == 0 { "" } else { ", " };
                    write!(f, "{gap}{task} waits for {on}")?;
                }
                Ok(())
            }
            FailureKind::TooManySteps { most } => write!(f, "no end after {most} steps"),
        }
    }
}

/// A run that failed, and all that is needed to have it again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Failure {
    /// What went wrong.
    pub kind: FailureKind,
    /// The seed, unless the run was a replay.
    pub seed: Option<u64>,
    /// With a seed: one preemption in this many steps.
    pub preempt_one_in: u32,
    /// The limit that the run had.
    pub steps_at_most: u64,
    /// Steps and waits of all tasks until then.
    pub steps: u64,
    /// What the run did otherwise than the default.
    pub deviations: Deviations,
    /// Whether these are all. If not, the seed has them.
    pub recorded: bool,
    /// The end of the trace; empty unless it was recorded.
    pub trace: Trace,
}

/// Deviations above which their list is not for reading.
const LISTED: usize = 48;

impl Failure {
    /// The schedule that failed: from its seed, if it had one.
    pub(super) fn schedule(&self) -> Schedule {
        match (self.seed, self.deviations.base) {
            (Some(seed), Base::InOrder) => {
                Schedule::random(seed).preempt_one_in(self.preempt_one_in)
            }
            (Some(seed), Base::Clock) => Schedule::by_clock(seed),
            (None, _) => Schedule::replay(&self.deviations),
        }
        .steps_at_most(self.steps_at_most)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.kind)?;
        let count = self.deviations.list.len();
        match (self.seed, self.deviations.base) {
            (Some(seed), Base::InOrder) => writeln!(
                f,
                "  run again: Schedule::random({seed}).preempt_one_in({})",
                self.preempt_one_in
            )?,
            (Some(seed), Base::Clock) => writeln!(f, "  run again: Schedule::by_clock({seed})")?,
            (None, _) => {}
        }
        if !self.recorded {
            writeln!(
                f,
                "  deviations were not recorded; shrink(..) finds those that matter"
            )?;
        } else if count <= LISTED {
            writeln!(
                f,
                "  replay:    Schedule::replay(&{:?}.parse().unwrap())",
                self.deviations.to_string()
            )?;
        } else {
            writeln!(
                f,
                "  {count} deviations; shrink(..) finds the few that matter"
            )?;
        }
        if self.trace.lines.is_empty() {
            write!(
                f,
                "  after {} steps; record_trace(true) tells them",
                self.steps
            )
        } else {
            write!(f, "  the last of {} steps:\n{}", self.steps, self.trace)
        }
    }
}
