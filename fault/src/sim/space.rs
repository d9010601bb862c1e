//! An address space: four levels of tables in simulated frames, changed with atomic operations while CPUs
//! walk them.
#![forbid(unsafe_code)]

use x86_64::structures::paging::PageTableFlags as Flags;

use super::entry::{Entry, Level};
use super::memory::{Memory, OwnedFrame};
use super::tlb::Pcid;
use super::walk::is_canonical;
use crate::mutant::Mutant;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Why a page could not be mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// No frame is left for a page table.
    #[error("no frame is left for a page table")]
    NoFrame,
    /// Something is mapped there already.
    #[error("{va:#x} is mapped already: {entry:?}")]
    Occupied {
        /// The address.
        va: u64,
        /// What is there.
        entry: Entry,
    },
    /// No CPU can reach it.
    #[error("{va:#x} is not a canonical address")]
    NonCanonical {
        /// The address.
        va: u64,
    },
}

/// An address space.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) pcid: Pcid,
    root: OwnedFrame,
}

impl Space {
    /// An empty space; `None` if no frame is left.
    pub(crate) fn new(memory: &Memory, pcid: Pcid) -> Option<Self> {
        Some(Space {
            pcid,
            root: memory.alloc()?,
        })
    }

    pub(crate) fn root(&self) -> &OwnedFrame {
        &self.root
    }

    /// The frame of the table of `level` that serves `va`. What is no address has none.
    fn table(&self, memory: &Memory, va: u64, level: Level) -> Option<u64> {
        if !is_canonical(va) {
            return None;
        }
        let mut table = self.root.number();
        let mut at = Level::Root;
        while at > level {
            // Acquire pairs with the Release in `table_or_new`.
            let entry = Entry::from_bits(memory.word(table, at.index(va))?.load(Ordering::Acquire));
            if !entry.has(Flags::PRESENT) || entry.is_leaf(at) {
                return None;
            }
            table = entry.frame();
            at = at.below()?;
        }
        Some(table)
    }

    fn table_or_new(&self, memory: &Memory, va: u64, level: Level) -> Result<u64, MapError> {
        if !is_canonical(va) {
            return Err(MapError::NonCanonical { va });
        }
        let mut table = self.root.number();
        let mut at = Level::Root;
        while at > level {
            let word = word(memory, table, at.index(va));
            // Acquire pairs with the Release of whoever published the table.
            let mut entry = Entry::from_bits(word.load(Ordering::Acquire));
            if !entry.has(Flags::PRESENT) {
                if let Some(fresh) = memory.alloc() {
                    let new = Entry::new(fresh.number(), Flags::PRESENT | Flags::WRITABLE);
                    // Release: the zeroes of the table come before it.
                    match word.compare_exchange(0, new.bits(), Ordering::AcqRel, Ordering::Acquire)
                    {
                        Ok(_) => entry = new,
                        Err(now) => {
                            // Somebody else was faster; the frame was never visible.
                            memory.free_unmapped(fresh);
                            entry = Entry::from_bits(now);
                        }
                    }
                } else {
                    // Somebody else may have been faster, and others have taken the last frame since. Acquire as above.
                    entry = Entry::from_bits(word.load(Ordering::Acquire));
                    if !entry.has(Flags::PRESENT) {
                        return Err(MapError::NoFrame);
                    }
                }
            }
            if entry.is_leaf(at) {
                return Err(MapError::Occupied { va, entry });
            }
            table = entry.frame();
            at = match at.below() {
                Some(below) => below,
                None => break,
            };
        }
        Ok(table)
    }

    /// Makes all tables above `level` for `va`, so that mapping there needs no frame.
    pub(crate) fn prepare(&self, memory: &Memory, va: u64, level: Level) -> Result<(), MapError> {
        self.table_or_new(memory, va, level).map(drop)
    }

    /// Publishes `entry` as the leaf of `level` for `va`.
    pub(crate) fn map(
        &self,
        memory: &Memory,
        va: u64,
        level: Level,
        entry: Entry,
    ) -> Result<(), MapError> {
        let table = self.table_or_new(memory, va, level)?;
        // Release: what the frame holds comes before its translation. Pairs with the walk's Acquire.
        word(memory, table, level.index(va))
            .compare_exchange(0, entry.bits(), Ordering::AcqRel, Ordering::Acquire)
            .map(drop)
            .map_err(|now| MapError::Occupied {
                va,
                entry: Entry::from_bits(now),
            })
    }

    /// Replaces the entry of `level` for `va` in one step, and returns what was there, with all that walks had
    /// marked in it until then. Absent tables are absent entries.
    pub(crate) fn swap(
        &self,
        memory: &Memory,
        va: u64,
        level: Level,
        entry: Entry,
        between: impl FnOnce(),
    ) -> Entry {
        let Some(table) = self.table(memory, va, level) else {
            return Entry::ABSENT;
        };
        let word = word(memory, table, level.index(va));
        if Mutant::EntryStored.active() {
            let old = word.load(Ordering::Acquire);
            between();
            word.store(entry.bits(), Ordering::Release);
            return Entry::from_bits(old);
        }
        // AcqRel: Acquire for what was published under the old entry, Release for what is under the new one.
        Entry::from_bits(word.swap(entry.bits(), Ordering::AcqRel))
    }

    /// The entry of `level` for `va`.
    pub(crate) fn entry(&self, memory: &Memory, va: u64, level: Level) -> Entry {
        self.table(memory, va, level)
            .and_then(|table| memory.word(table, level.index(va)))
            // Acquire pairs with the Release of `map` and `swap`.
            .map_or(Entry::ABSENT, |word| {
                Entry::from_bits(word.load(Ordering::Acquire))
            })
    }
}

fn word(memory: &Memory, table: u64, index: usize) -> &AtomicU64 {
    match memory.word(table, index) {
        Some(word) => word,
        None => unreachable!("a page table outside the memory"),
    }
}
