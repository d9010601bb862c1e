//! Which sectors of a device are bad.
//!
//! The table of Linux's block/badblocks.c: 512 entries of at most 512 sectors, each acknowledged or
//! not. It is kept as runs of neighbouring bad sectors, merged wherever they can be, so that what
//! is bad does not depend on the order in which it became so; how many entries it would take
//! follows from the runs.
//!
//! | a sector that is | set | set, acknowledged | acknowledge all | clear |
//! |---|---|---|---|---|
//! | good | bad | bad, acknowledged | good | good |
//! | bad | bad | bad, acknowledged | bad, acknowledged | good |
//! | bad, acknowledged | stays | stays | stays | good |
//!
//! Unlike in Linux, what does not fit changes nothing: there, the part that fits may be set.

use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use thiserror::Error;

use crate::position::Sector;

/// Entries of a table (`MAX_BADBLOCKS`: a page of them).
pub const MAX_BAD_ENTRIES: usize = 512;
/// Sectors of an entry (`BB_MAX_LEN`).
pub const MAX_BAD_LEN: u64 = 512;
/// Sectors an entry can name: 54 bits of them.
const SECTORS: u64 = 1 << 54;

/// Sectors from one to before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SectorRange {
    start: Sector,
    /// At least 1, and the end fits in 64 bits.
    len: u64,
}

impl SectorRange {
    /// `len` sectors from `start` on; `None` if there are none or if they have no end.
    pub const fn try_new(start: Sector, len: u64) -> Option<Self> {
        match start.get().checked_add(len) {
            Some(_) if len > 0 => Some(Self { start, len }),
            _ => None,
        }
    }

    /// The first.
    pub const fn start(self) -> Sector {
        self.start
    }

    /// How many.
    pub const fn len(self) -> u64 {
        self.len
    }

    /// Never: a range has at least one sector.
    pub const fn is_empty(self) -> bool {
        false
    }

    /// The one after the last.
    pub const fn end(self) -> Sector {
        Sector::new(self.start.get() + self.len)
    }
}

impl fmt::Display for SectorRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.start.get(), self.start.get() + (self.len - 1));
        write!(f, "sectors {first} to {last}")
    }
}

/// Neighbouring bad sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRange {
    /// Which.
    pub range: SectorRange,
    /// Whether somebody has taken note of them.
    pub acknowledged: bool,
}

/// The bad sectors of a device.
///
/// ```
/// use pageless_block::{BadBlocks, Sector, SectorRange};
/// let mut bad = BadBlocks::new();
/// bad.apply("+100-107".parse()?)?;
/// bad.apply("-102-103".parse()?)?;
/// let all = SectorRange::try_new(Sector::new(0), 1 << 20).unwrap();
/// let first = bad.first_bad(all).unwrap();
/// assert_eq!((first.range.start().get(), first.range.len()), (100, 2));
/// assert_eq!(bad.entries(), 2);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct BadBlocks {
    /// In order, apart from each other, and where two touch their acknowledgements differ.
    runs: Vec<Run>,
    /// Entries that the runs take.
    entries: usize,
}

/// Bad sectors from `start` to before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    start: u64,
    end: u64,
    acknowledged: bool,
}

impl Run {
    const fn entries(&self) -> u64 {
        (self.end - self.start).div_ceil(MAX_BAD_LEN)
    }
}

impl BadBlocks {
    /// None are bad.
    pub const fn new() -> Self {
        Self {
            runs: Vec::new(),
            entries: 0,
        }
    }

    /// Whether none are bad.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// How many entries of the table are in use, of [`MAX_BAD_ENTRIES`].
    pub const fn entries(&self) -> usize {
        self.entries
    }

    /// Makes sectors bad. Sectors that are acknowledged stay so.
    ///
    /// # Errors
    /// [`BadBlocksError`]; nothing has changed then.
    pub fn set(&mut self, range: SectorRange, acknowledged: bool) -> Result<(), BadBlocksError> {
        self.replace(range, |was| match was {
            Some(already) => Some(already || acknowledged),
            None => Some(acknowledged),
        })
    }

    /// Makes sectors good. That can take an entry more, where it leaves a hole.
    ///
    /// # Errors
    /// [`BadBlocksError`]; nothing has changed then.
    pub fn clear(&mut self, range: SectorRange) -> Result<(), BadBlocksError> {
        self.replace(range, |_| None)
    }

    /// Takes note of all bad sectors. That never takes more entries.
    pub fn acknowledge_all(&mut self) {
        let mut merged: Vec<Run> = Vec::with_capacity(self.runs.len());
        for run in self.runs.drain(..) {
            push(&mut merged, run.start, run.end, true);
        }
        self.entries = count(&merged);
        self.runs = merged;
    }

    /// The first bad sectors of `range`, with all their neighbours of the same kind: they may
    /// begin before `range` and end after it.
    pub fn first_bad(&self, range: SectorRange) -> Option<BadRange> {
        let (start, end) = (range.start().get(), range.end().get());
        let at = self.runs.partition_point(|run| run.end <= start);
        let run = self.runs.get(at).filter(|run| run.start < end)?;
        bad_range(run)
    }

    /// Whether all bad sectors of `range` are acknowledged; `None` if none is bad.
    pub fn acknowledged(&self, range: SectorRange) -> Option<bool> {
        let (start, end) = (range.start().get(), range.end().get());
        let at = self.runs.partition_point(|run| run.end <= start);
        self.runs[at..]
            .iter()
            .take_while(|run| run.start < end)
            .map(|run| run.acknowledged)
            .reduce(|all, this| all && this)
    }

    /// All bad sectors, in order.
    pub fn iter(&self) -> impl Iterator<Item = BadRange> + '_ {
        self.runs.iter().filter_map(bad_range)
    }

    /// The table's entries as Linux keeps them: from bit 9 on the sector, in bits 0 to 8 the length
    /// less one, and in bit 63 whether it is acknowledged.
    pub fn packed(&self) -> impl Iterator<Item = u64> + '_ {
        self.runs.iter().flat_map(|run| {
            (0..run.entries()).map(move |n| {
                let start = run.start + n * MAX_BAD_LEN;
                let len = (run.end - start).min(MAX_BAD_LEN);
                start << 9 | (len - 1) | u64::from(run.acknowledged) << 63
            })
        })
    }

    /// Does what null_blk's `badblocks` attribute was told.
    ///
    /// # Errors
    /// [`BadBlocksError`]; nothing has changed then.
    pub fn apply(&mut self, edit: BadBlocksEdit) -> Result<(), BadBlocksError> {
        match edit {
            BadBlocksEdit::Set(range) => self.set(range, true),
            BadBlocksEdit::Clear(range) => self.clear(range),
        }
    }

    /// Checks the table against itself.
    ///
    /// # Errors
    /// Names what does not hold.
    pub fn self_check(&self) -> Result<(), &'static str> {
        if self.runs.iter().any(|run| run.start >= run.end) {
            return Err("a run of no sectors");
        }
        for pair in self.runs.windows(2) {
            if pair[0].end > pair[1].start {
                return Err("two runs overlap or are out of order");
            }
            if pair[0].end == pair[1].start && pair[0].acknowledged == pair[1].acknowledged {
                return Err("two runs that are one");
            }
        }
        if self.entries != count(&self.runs) {
            return Err("entries are miscounted");
        }
        if self.entries > MAX_BAD_ENTRIES {
            return Err("more entries than a table has");
        }
        Ok(())
    }

    /// Gives every sector of `range` the state that `becomes` makes of its old one.
    fn replace(
        &mut self,
        range: SectorRange,
        becomes: impl Fn(Option<bool>) -> Option<bool>,
    ) -> Result<(), BadBlocksError> {
        let (start, end) = (range.start().get(), range.end().get());
        if end > SECTORS {
            return Err(BadBlocksError::PastTable { range });
        }
        // One run more on either side, which the new ones may touch.
        let from = self.runs.partition_point(|run| run.end < start);
        let to = self.runs.partition_point(|run| run.start <= end);
        let old = &self.runs[from..to];
        // At most one more run than there are on either side and between.
        let mut new = Vec::with_capacity(2 * old.len() + 1);
        let mut at = start;
        for run in old {
            if run.start < start {
                push(&mut new, run.start, run.end.min(start), run.acknowledged);
            }
            let (inner, outer) = (run.start.max(start), run.end.min(end));
            if inner < outer {
                if let Some(acknowledged) = becomes(None) {
                    push(&mut new, at, inner, acknowledged);
                }
                if let Some(acknowledged) = becomes(Some(run.acknowledged)) {
                    push(&mut new, inner, outer, acknowledged);
                }
                at = outer;
            }
            if run.end > end {
                if let Some(acknowledged) = becomes(None) {
                    push(&mut new, at, end, acknowledged);
                }
                at = end;
                push(&mut new, run.start.max(end), run.end, run.acknowledged);
            }
        }
        if let Some(acknowledged) = becomes(None) {
            push(&mut new, at, end, acknowledged);
        }
        // Entries are counted in 64 bits: a range may be long enough for more than fit otherwise.
        let others = self.entries as u64 - old.iter().map(Run::entries).sum::<u64>();
        let entries = others + new.iter().map(Run::entries).sum::<u64>();
        if entries > MAX_BAD_ENTRIES as u64 {
            return Err(BadBlocksError::Full { range, entries });
        }
        self.runs.splice(from..to, new);
        self.entries = entries as usize;
        Ok(())
    }
}

/// Adds a run after all others, to the last one if it can be.
fn push(runs: &mut Vec<Run>, start: u64, end: u64, acknowledged: bool) {
    if start >= end {
        return;
    }
    match runs.last_mut() {
        Some(last) if last.end == start && last.acknowledged == acknowledged => last.end = end,
        _ => runs.push(Run {
            start,
            end,
            acknowledged,
        }),
    }
}

fn count(runs: &[Run]) -> usize {
    runs.iter().map(|run| run.entries() as usize).sum()
}

fn bad_range(run: &Run) -> Option<BadRange> {
    let range = SectorRange::try_new(Sector::new(run.start), run.end - run.start)?;
    Some(BadRange {
        range,
        acknowledged: run.acknowledged,
    })
}

/// Why the table stays as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadBlocksError {
    /// It would take more entries than there are.
    #[error("{range}: the table would take {entries} entries of {MAX_BAD_ENTRIES}")]
    Full {
        /// The sectors asked for.
        range: SectorRange,
        /// How many entries it would take.
        entries: u64,
    },
    /// The last of the sectors has no place in an entry.
    #[error("{range}: entries name sectors below 2^54")]
    PastTable {
        /// The sectors asked for.
        range: SectorRange,
    },
}

/// What null_blk's `badblocks` attribute can be told: `+100-107` makes sectors 100 to 107 bad, and
/// `-100-107` good again. Numbers are decimal, or hexadecimal after `0x`.
///
/// ```
/// use pageless_block::BadBlocksEdit;
/// assert_eq!("+0x10-0x1f".parse::<BadBlocksEdit>(), "+16-31".parse());
/// let error = "+7-3".parse::<BadBlocksEdit>().unwrap_err();
/// assert_eq!(error.to_string(), "sector 7 is after sector 3");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadBlocksEdit {
    /// Makes sectors bad, acknowledged.
    Set(SectorRange),
    /// Makes sectors good.
    Clear(SectorRange),
}

impl FromStr for BadBlocksEdit {
    type Err = BadBlocksEditError;

    fn from_str(text: &str) -> Result<Self, BadBlocksEditError> {
        let text = text.trim();
        let (edit, numbers): (fn(SectorRange) -> Self, &str) =
            if let Some(numbers) = text.strip_prefix('+') {
                (Self::Set, numbers)
            } else if let Some(numbers) = text.strip_prefix('-') {
                (Self::Clear, numbers)
            } else {
                return Err(BadBlocksEditError::Sign);
            };
        let Some((first, last)) = numbers.split_once('-') else {
            return Err(BadBlocksEditError::NoEnd);
        };
        let first = sector(first).ok_or(BadBlocksEditError::Number { at: 1 })?;
        let at = text.len() - last.len();
        let last = sector(last).ok_or(BadBlocksEditError::Number { at })?;
        let Some(more) = last.checked_sub(first) else {
            return Err(BadBlocksEditError::Backwards { first, last });
        };
        more.checked_add(1)
            .and_then(|len| SectorRange::try_new(Sector::new(first), len))
            .map(edit)
            .ok_or(BadBlocksEditError::Number { at })
    }
}

fn sector(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // `from_str_radix` would take a sign.
    if !digits.starts_with(|digit: char| digit.is_digit(radix)) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

/// Why a text is no [`BadBlocksEdit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadBlocksEditError {
    /// It says neither set nor clear.
    #[error("must begin with + (bad) or - (good), as in +100-107")]
    Sign,
    /// There is only one number.
    #[error("the last sector is missing, as in +100-107")]
    NoEnd,
    /// Something is no number of 64 bits, or a range that has no end.
    #[error("no sector number at byte {at}")]
    Number {
        /// Which byte of the text, without blanks around it, counted from 0.
        at: usize,
    },
    /// The last sector comes before the first one.
    #[error("sector {first} is after sector {last}")]
    Backwards {
        /// The first number.
        first: u64,
        /// The second number.
        last: u64,
    },
}
