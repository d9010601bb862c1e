//! The page walk, one memory access at a time, so that whatever another CPU does can happen in between.
#![forbid(unsafe_code)]

use core::fmt;

use x86_64::structures::paging::PageTableFlags as Flags;

use super::entry::{Entry, Level};
use super::memory::{FrameTag, Memory};
use super::tlb::{Pcid, Structure, Translation};
use crate::sync::atomic::Ordering;

/// A fault: why an access had no effect. A page fault, as in the error code (SDM vol. 3A, 4.7), except for
/// [`NonCanonical`](FaultCause::NonCanonical).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("fault at {va:#x}: {cause}, {}", if *.write { "writing" } else { "reading" })]
pub struct PageFault {
    /// The address.
    pub va: u64,
    /// Whether it was a write.
    pub write: bool,
    /// What was wrong.
    pub cause: FaultCause,
}

/// What was wrong with a translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultCause {
    /// There is none (P = 0).
    NotPresent,
    /// It does not permit writing.
    Protection,
    /// A present entry has reserved bits set (RSVD = 1).
    Reserved,
    /// The address is none: its bits 63:47 are not all equal. No page fault at all but a general-protection exception, #GP
    /// (SDM vol. 1, 3.3.7.1): nothing is looked up.
    NonCanonical,
}

/// Whether `va` is an address: bits 63:47 all equal.
#[inline(always)]
pub(crate) const fn is_canonical(va: u64) -> bool {
    ((va << 16) as i64 >> 16) as u64 == va
}

impl fmt::Display for FaultCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FaultCause::NotPresent => "not present",
            FaultCause::Protection => "protection",
            FaultCause::Reserved => "reserved bit set",
            FaultCause::NonCanonical => "not a canonical address",
        })
    }
}

/// A walk under way.
#[derive(Debug, Clone)]
pub(crate) struct Walk {
    pub(crate) va: u64,
    pub(crate) pcid: Pcid,
    write: bool,
    /// Whether it may set accessed bits.
    marks: bool,
    /// How often the CPU had invalidated anything when this walk began.
    pub(crate) begun: u64,
    level: Level,
    table: u64,
    table_tag: FrameTag,
    writable: bool,
    /// A leaf that has been read and not yet cached. What it says may be out of date by then.
    pub(crate) read: Option<Progress>,
}

/// What one step of a walk brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The table below: a paging-structure entry that may be cached.
    Table {
        level: Level,
        table: u64,
        tag: FrameTag,
        writable: bool,
    },
    /// A translation that may be cached.
    Leaf {
        level: Level,
        global: bool,
        translation: Translation,
    },
    /// None.
    Fault(FaultCause),
}

/// A step of a walk, and whether it went through a table that had been freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) progress: Progress,
    pub(crate) stale_table: Option<u64>,
}

impl Walk {
    /// A walk that begins at the root.
    pub(crate) fn new(va: u64, pcid: Pcid, root: u64, root_tag: FrameTag, begun: u64) -> Self {
        Walk {
            va,
            pcid,
            write: false,
            marks: true,
            begun,
            level: Level::Root,
            table: root,
            table_tag: root_tag,
            writable: true,
            read: None,
        }
    }

    /// The walk of a write: it sets the dirty bit.
    pub(crate) fn for_write(mut self, write: bool) -> Self {
        self.write = write;
        self
    }

    /// A walk that leaves no accessed bits behind.
    pub(crate) fn unmarked(mut self) -> Self {
        self.marks = false;
        self
    }

    /// Begins further down.
    pub(crate) fn below_structure(mut self, cached: &Structure) -> Self {
        self.level = cached.level;
        self.table = cached.table;
        self.table_tag = cached.tag;
        self.writable = cached.writable;
        self
    }

    /// Reads one entry, and goes down if it points to a table.
    pub(crate) fn step(&mut self, memory: &Memory) -> Step {
        let (table, tag) = (self.table, self.table_tag);
        let progress = self.read(memory);
        // Looked at last, as with an access: one freed before the read is seen, one freed after it need not be.
        let stale_table = (memory.tag(table) != Some(tag)).then_some(table);
        if let Progress::Table {
            level,
            table,
            tag,
            writable,
        } = progress
        {
            self.level = level;
            self.table = table;
            self.table_tag = tag;
            self.writable = writable;
        }
        Step {
            progress,
            stale_table,
        }
    }

    fn read(&self, memory: &Memory) -> Progress {
        let Some(word) = memory.word(self.table, self.level.index(self.va)) else {
            // A bus error on a real machine; only poison points there.
            return Progress::Fault(FaultCause::Reserved);
        };
        // Acquire pairs with the Release that published the entry: what it points to is initialised.
        let mut found = word.load(Ordering::Acquire);
        loop {
            let entry = Entry::from_bits(found);
            if !entry.has(Flags::PRESENT) {
                return Progress::Fault(FaultCause::NotPresent);
            }
            if entry.is_malformed(self.level) {
                return Progress::Fault(FaultCause::Reserved);
            }
            let leaf = entry.is_leaf(self.level);
            let writable = self.writable && entry.has(Flags::WRITABLE);
            if leaf && self.write && !writable {
                return Progress::Fault(FaultCause::Protection);
            }
            let mut marked = found;
            if self.marks {
                marked |= Flags::ACCESSED.bits();
            }
            if leaf && self.write {
                marked |= Flags::DIRTY.bits();
            }
            if marked != found {
                // A locked update: if the entry has changed meanwhile, it is read again (SDM 4.8).
                if let Err(now) =
                    word.compare_exchange(found, marked, Ordering::AcqRel, Ordering::Acquire)
                {
                    found = now;
                    continue;
                }
            }
            // A large page has to fit as a whole.
            let more = if leaf && self.level == Level::Directory {
                511
            } else {
                0
            };
            let (Some(tag), Some(_)) =
                (memory.tag(entry.frame()), memory.tag(entry.frame() + more))
            else {
                return Progress::Fault(FaultCause::Reserved);
            };
            return match self.level.below() {
                Some(level) if !leaf => Progress::Table {
                    level,
                    table: entry.frame(),
                    tag,
                    writable,
                },
                _ => Progress::Leaf {
                    level: self.level,
                    global: entry.has(Flags::GLOBAL),
                    translation: Translation {
                        frame: entry.frame(),
                        tag,
                        writable,
                        dirty: marked & Flags::DIRTY.bits() != 0,
                        absent: false,
                    },
                },
            };
        }
    }
}
