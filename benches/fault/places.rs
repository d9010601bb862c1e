//! Where a run touches: fresh 4 KiB chunks in scattered order, the same for every side.

use super::mapping::{HUGE, PAGE};

/// Pages that one leaf table maps.
const PER_TABLE: u64 = (HUGE / PAGE) as u64;
/// Leaf tables in a window.
const TABLES: u64 = 1 << 15;
/// Leaf tables that one table of the level above maps.
const PER_UPPER: u64 = 512;
/// Leaf tables that a warm run stays in.
const WARM_TABLES: u64 = 64;
/// Of a power of two, an odd number reaches everything.
const SCATTER: u64 = 0x9e37_79b1;

/// Bytes of a window: 64 GiB, the descriptors of 4 TiB.
pub(crate) const WINDOW: u64 = TABLES * HUGE as u64;

/// Whether the page tables for a touch exist before it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tables {
    /// They do: another page of the same 2 MiB is present.
    Warm,
    /// The leaf table does not; those above it do.
    Cold,
}

/// An endless scatter of pages through one window; `None` from [`next`](Self::next) says that it is
/// used up.
#[derive(Clone)]
pub(crate) struct Places {
    tables: Tables,
    taken: u64,
}

impl Places {
    pub(crate) fn new(tables: Tables) -> Self {
        Self { tables, taken: 0 }
    }

    /// The pages to touch before the first place is taken, so that the tables are as they must be.
    pub(crate) fn prepared(&self) -> Vec<u64> {
        match self.tables {
            Tables::Warm => (0..WARM_TABLES).map(|table| table * PER_TABLE).collect(),
            Tables::Cold => (0..TABLES / PER_UPPER)
                .map(|upper| upper * PER_UPPER * PER_TABLE)
                .collect(),
        }
    }

    /// The next page, by its number in the window.
    pub(crate) fn next(&mut self) -> Option<u64> {
        loop {
            let step = self.taken.wrapping_mul(SCATTER);
            let page = match self.tables {
                Tables::Warm if self.taken < WARM_TABLES * PER_TABLE => {
                    step % (WARM_TABLES * PER_TABLE)
                }
                Tables::Cold if self.taken < TABLES => {
                    (step % TABLES) * PER_TABLE + (self.taken % PER_TABLE)
                }
                _ => return None,
            };
            self.taken += 1;
            let prepared = match self.tables {
                Tables::Warm => page.is_multiple_of(PER_TABLE),
                Tables::Cold => (page / PER_TABLE).is_multiple_of(PER_UPPER),
            };
            if !prepared {
                return Some(page);
            }
        }
    }
}
