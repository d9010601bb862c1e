//! What a run did otherwise than the default schedule, as a list and as text.
#![forbid(unsafe_code)]

use alloc::borrow::Cow;
use core::fmt;
use core::str::FromStr;

/// One decision that was not the default one. Tasks are numbered from 0 in the order of the
/// program; `at` is a task's own step number, counted from 1, or 0 before its first.
///
/// The text form is given with each: digits stand for the numbers, in the order of the fields.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Deviation {
    /// `>1`: the run begins with this task instead of the first.
    Start {
        /// Which runs.
        to: u32,
    },
    /// `0@2>1`: another task runs before the action of step `at`.
    Preempt {
        /// Which is preempted.
        task: u32,
        /// Before which of its steps.
        at: u64,
        /// Which runs instead.
        to: u32,
    },
    /// `0@2+1>2`: a task that waits gives way to another one than the next in order.
    GiveWay {
        /// Which waits.
        task: u32,
        /// After which of its steps.
        at: u64,
        /// Its how many-th wait after that step, from 1.
        turn: u32,
        /// Which runs.
        to: u32,
    },
    /// `0.>2`: when a task ends, another one than the next in order runs.
    End {
        /// Which ends.
        task: u32,
        /// Which runs.
        to: u32,
    },
    /// `0@2/1?late-walk`: a coin came up heads.
    Chance {
        /// Whose.
        task: u32,
        /// After which of its steps.
        at: u64,
        /// Its how many-th coin or choice after that step, from 1.
        nth: u32,
        /// What was asked.
        what: Cow<'static, str>,
    },
    /// `0@2/1=17?frame`: a choice was not 0.
    Pick {
        /// Whose.
        task: u32,
        /// After which of its steps.
        at: u64,
        /// Its how many-th coin or choice after that step, from 1.
        nth: u32,
        /// What was chosen.
        value: u64,
        /// What was asked.
        what: Cow<'static, str>,
    },
}

/// The schedule that deviations deviate from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Base {
    /// The current task until it waits or ends, then the next one in order.
    #[default]
    InOrder,
    /// Always the task with the lowest clock. Its text form is the word `clock` before the list.
    Clock,
}

/// All deviations of a run, in the order in which they happened: the run itself, in short.
///
/// As text they are words with spaces between them, to be pasted into a test.
///
/// ```
/// use pageless_fault::sim::schedule::Deviations;
/// let text = "0@2>1 1@5/1?late-walk 1.>0";
/// let deviations: Deviations = text.parse().unwrap();
/// assert_eq!(deviations.list.len(), 3);
/// assert_eq!(deviations.to_string(), text);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Deviations {
    /// What they deviate from.
    pub base: Base,
    /// In the order in which they happened.
    pub list: Vec<Deviation>,
}

impl Deviations {
    /// How many of them made another task run.
    #[must_use]
    pub fn switches(&self) -> usize {
        let drawn = |d: &&Deviation| matches!(d, Deviation::Chance { .. } | Deviation::Pick { .. });
        self.list.len() - self.list.iter().filter(drawn).count()
    }
}

/// What stands for characters that separate words, or that the escape itself needs.
struct Word<'a>(&'a str);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c == '%' || c.is_whitespace() || c.is_control() {
                write!(f, "%{:x};", u32::from(c))?;
            } else {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

impl Word<'_> {
    fn parse(mut text: &str) -> Option<String> {
        let mut out = String::new();
        while let Some((before, rest)) = text.split_once('%') {
            let (code, after) = rest.split_once(';')?;
            out.push_str(before);
            out.push(char::from_u32(u32::from_str_radix(code, 16).ok()?)?);
            text = after;
        }
        out.push_str(text);
        Some(out)
    }
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Deviation::Start { to } => write!(f, ">{to}"),
            Deviation::Preempt { task, at, to } => write!(f, "{task}@{at}>{to}"),
            Deviation::GiveWay { task, at, turn, to } => write!(f, "{task}@{at}+{turn}>{to}"),
            Deviation::End { task, to } => write!(f, "{task}.>{to}"),
            Deviation::Chance {
                task,
                at,
                nth,
                what,
            } => write!(f, "{task}@{at}/{nth}?{}", Word(what)),
            Deviation::Pick {
                task,
                at,
                nth,
                value,
                what,
            } => write!(f, "{task}@{at}/{nth}={value}?{}", Word(what)),
        }
    }
}

impl fmt::Display for Deviations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gap = "";
        if self.base == Base::Clock {
            f.write_str("clock")?;
            gap = " ";
        }
        for deviation in &self.list {
            write!(f, "{gap}{deviation}")?;
            gap = " ";
        }
        Ok(())
    }
}

/// A word that is not a deviation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("word {position} (`{word}`) is not a deviation such as `0@2>1`")]
pub struct ParseDeviationsError {
    /// Which word, from 1.
    pub position: usize,
    /// The word itself.
    pub word: String,
}

impl FromStr for Deviations {
    type Err = ParseDeviationsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut out = Deviations::default();
        for (index, word) in text.split_whitespace().enumerate() {
            if index == 0 && word == "clock" {
                out.base = Base::Clock;
                continue;
            }
            out.list.push(parse(word).ok_or(ParseDeviationsError {
                position: index + 1,
                word: word.to_owned(),
            })?);
        }
        Ok(out)
    }
}

fn parse(word: &str) -> Option<Deviation> {
    // What was asked may contain any of the signs, so it is cut off first.
    let (numbers, what) = match word.split_once('?') {
        Some((numbers, what)) => (numbers, Some(Cow::Owned(Word::parse(what)?))),
        None => (word, None),
    };
    if let Some(what) = what {
        let (task, rest) = numbers.split_once('@')?;
        let (at, rest) = rest.split_once('/')?;
        let (task, at) = (number(task)?, number(at)?);
        return Some(match rest.split_once('=') {
            None => Deviation::Chance {
                task,
                at,
                nth: number(rest)?,
                what,
            },
            Some((nth, value)) => Deviation::Pick {
                task,
                at,
                nth: number(nth)?,
                value: number(value)?,
                what,
            },
        });
    }
    let (site, to) = numbers.split_once('>')?;
    let to = number(to)?;
    if site.is_empty() {
        return Some(Deviation::Start { to });
    }
    if let Some(task) = site.strip_suffix('.') {
        let task = number(task)?;
        return Some(Deviation::End { task, to });
    }
    let (task, at) = site.split_once('@')?;
    let task = number(task)?;
    Some(match at.split_once('+') {
        None => Deviation::Preempt {
            task,
            at: number(at)?,
            to,
        },
        Some((at, turn)) => Deviation::GiveWay {
            task,
            at: number(at)?,
            turn: number(turn)?,
            to,
        },
    })
}

/// Digits only: `parse` alone would take a sign as well.
fn number<N: FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|b| b.is_ascii_digit()).then_some(())?;
    text.parse().ok()
}
