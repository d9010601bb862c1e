//! What happened in a run, as lines that a person reads.
#![forbid(unsafe_code)]

use core::fmt;

use super::task::Event;

/// One thing that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceLine {
    /// A task did something.
    Did {
        /// Which task.
        task: u32,
        /// Its clock, modelled ns.
        clock: u64,
        /// What it did.
        event: Event,
    },
    /// A task could not go on. Looking again in vain is not told again.
    Waits {
        /// Which task.
        task: u32,
        /// Its clock, modelled ns.
        clock: u64,
        /// For what.
        event: Event,
    },
    /// A coin came up heads, or a choice was made.
    Drew {
        /// Which task.
        task: u32,
        /// Its clock, modelled ns.
        clock: u64,
        /// What was asked.
        what: &'static str,
        /// What was chosen; `None` for a coin.
        value: Option<u64>,
    },
    /// A task ended.
    Ended {
        /// Which task.
        task: u32,
        /// Its clock, modelled ns.
        clock: u64,
    },
}

impl TraceLine {
    fn task(&self) -> (u32, u64) {
        match *self {
            TraceLine::Did { task, clock, .. }
            | TraceLine::Waits { task, clock, .. }
            | TraceLine::Drew { task, clock, .. }
            | TraceLine::Ended { task, clock } => (task, clock),
        }
    }
}

/// The last lines of a run. Empty unless the run was asked to record it.
///
/// As text: a line number, the task where it changes, and what it did; with clocks (modelled ns)
/// if any task was ever charged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// Lines that came before the first of `lines` and are gone.
    pub dropped: u64,
    /// What happened, oldest first.
    pub lines: Vec<TraceLine>,
    /// The names of the tasks.
    pub names: Vec<String>,
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.names.iter().map(|name| name.chars().count()).max();
        let width = width.unwrap_or(0);
        let timed = self.lines.iter().any(|line| line.task().1 > 0);
        if self.dropped > 0 {
            writeln!(f, "      ({} earlier lines)", self.dropped)?;
        }
        let mut before = None;
        for (line, number) in self.lines.iter().zip(self.dropped + 1..) {
            let (task, clock) = line.task();
            let name = match self.names.get(task as usize) {
                Some(name) if before != Some(task) => name.as_str(),
                _ => "",
            };
            before = Some(task);
            write!(f, "{number:6}  ")?;
            if timed {
                write!(f, "{clock:8} ns  ")?;
            }
            write!(f, "{name:width$}  ")?;
            match line {
                TraceLine::Did { event, .. } => writeln!(f, "{event}")?,
                TraceLine::Waits { event, .. } => writeln!(f, "waits: {event}")?,
                TraceLine::Drew {
                    what, value: None, ..
                } => writeln!(f, "chance: {what}")?,
                TraceLine::Drew {
                    what,
                    value: Some(value),
                    ..
                } => writeln!(f, "choice: {what} = {value}")?,
                TraceLine::Ended { .. } => writeln!(f, "ends")?,
            }
        }
        Ok(())
    }
}
