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
/// if any task was ever charged. The same action again and again, on one thing or on evenly spaced
/// ones, takes one line.
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
        let mut at = 0;
        while let Some(line) = self.lines.get(at) {
            let number = self.dropped + 1 + at as u64;
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
            let alike = alike(&self.lines[at..]);
            at += alike.len();
            match line {
                TraceLine::Did { event, .. } => match alike {
                    [_, .., TraceLine::Did { event: last, .. }] if last.of != event.of => {
                        writeln!(f, "{event} to {:#x}, {} times", last.of, alike.len())?;
                    }
                    [_, _, ..] => writeln!(f, "{event}, {} times", alike.len())?,
                    _ => writeln!(f, "{event}")?,
                },
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

/// How many of `lines`, from the first on, one line can tell: three or more of the same action by the same task, on evenly
/// spaced things; otherwise one.
fn alike(lines: &[TraceLine]) -> &[TraceLine] {
    let did = |line: &TraceLine| match *line {
        TraceLine::Did { task, event, .. } => Some((task, event.what, event.of)),
        _ => None,
    };
    let (first, rest) = lines.split_at(lines.len().min(1));
    let (Some(one), Some(two)) = (first.first().and_then(did), rest.first().and_then(did)) else {
        return first;
    };
    let apart = two.2.wrapping_sub(one.2);
    let mut count = 1;
    let mut expected = one;
    for line in rest {
        expected.2 = expected.2.wrapping_add(apart);
        if did(line) != Some(expected) {
            break;
        }
        count += 1;
    }
    if count < 3 { first } else { &lines[..count] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_again_and_again_takes_one_line() {
        let did = |what, of| TraceLine::Did {
            task: 0,
            clock: 0,
            event: Event { what, of },
        };
        let mut lines: Vec<TraceLine> = (0..8).map(|n| did("read", n * 64)).collect();
        lines.extend([did("write", 1), did("write", 2), did("walk", 7)]);
        lines.extend([did("walk", 7), did("walk", 7)]);
        lines.push(TraceLine::Ended { task: 0, clock: 0 });
        let trace = Trace {
            dropped: 0,
            lines,
            names: vec![String::from("cpu 0")],
        };
        assert_eq!(
            trace.to_string(),
            concat!(
                "     1  cpu 0  read 0x0 to 0x1c0, 8 times\n",
                "     9         write 0x1\n",
                "    10         write 0x2\n",
                "    11         walk 0x7, 3 times\n",
                "    14         ends\n",
            )
        );
    }
}
