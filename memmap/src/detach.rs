//! Detaching: taking every chunk away, or saying who is in the way.

use alloc::vec::Vec;
use core::fmt;

use pageless_fault::{MaySleep, UnmapError, Window};
use pageless_pfn::Pfn;

use crate::DESCRIPTOR_BYTES;
use crate::memmap::{Attachment, Memmap};
use crate::page::{Owner, owner_at};
use crate::refcount;

/// How many holders a [`DetachError::Busy`] lists.
const LISTED: usize = 16;

/// A referenced descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Which.
    pub pfn: Pfn,
    /// How many references.
    pub references: u32,
    /// Who last said that they hold it.
    pub owner: Owner,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pfn {} ({} references", self.pfn, self.references)?;
        if self.owner != Owner::default() {
            write!(f, ", owner {}", self.owner.0)?;
        }
        write!(f, ")")
    }
}

/// Why a memmap is still attached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DetachError {
    /// The deadline passed with descriptors still referenced. The memmap works on.
    #[error("{descriptors} descriptors are still referenced: {}{}", List(holders), 
            if holders.len() < *descriptors { ", ..." } else { "" })]
    Busy {
        /// How many.
        descriptors: usize,
        /// The first of them, by age of their chunks.
        holders: Vec<Holder>,
    },
    /// Somebody else is detaching it, or has.
    #[error("the memmap is detached already")]
    Detached,
    /// The machine could not prove a flush. The memmap works on, without the chunks concerned.
    #[error(transparent)]
    Unmap(#[from] UnmapError),
    /// It is detached, but an earlier flush was never proved: those bytes stay until the memmap itself
    /// goes.
    #[error("detached, but {bytes} bytes were never proved flushed and stay until the memmap goes")]
    Quarantined {
        /// Bytes of quarantined chunks.
        bytes: u64,
    },
}

/// A detach under way. Unless it ends otherwise, the memmap is attached again.
struct Detaching<'m, W: Window> {
    memmap: &'m Memmap<W>,
    end: Attachment,
}

impl<W: Window> Drop for Detaching<'_, W> {
    fn drop(&mut self) {
        self.memmap.books.lock().attachment = self.end;
    }
}

struct List<'a>(&'a [Holder]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, holder) in self.0.iter().enumerate() {
            write!(f, "{}{holder}", if n == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl<W: Window> Memmap<W> {
    /// Takes all memory away, for good: from here on lookups answer `Detached`. Waits for references
    /// to be given back until `expired()` says otherwise; the address space goes with the last owner of
    /// the memmap itself.
    ///
    /// # Errors
    ///
    /// [`DetachError::Busy`] names who still holds what, and leaves the memmap attached.
    pub fn detach(
        &self,
        ctx: &MaySleep,
        mut expired: impl FnMut() -> bool,
    ) -> Result<(), DetachError> {
        // Before a lock is asked for that may have been held at the fork.
        if self.window.is_foreign() {
            return Err(UnmapError::Foreign.into());
        }
        let reserve = {
            let mut books = self.books.lock();
            if books.attachment != Attachment::Attached {
                return Err(DetachError::Detached);
            }
            books.attachment = Attachment::Detaching;
            let reserve = core::mem::take(&mut books.reserve);
            let bytes = reserve.len() as u64 * books.directory.reserve_cost();
            books.directory.counters.reserve_bytes -= bytes;
            reserve
        };
        let mut detaching = Detaching {
            memmap: self,
            end: Attachment::Attached,
        };
        drop(reserve);
        let mut turn = 0;
        loop {
            self.reclaim(ctx, 0)?;
            let counters = self.counters();
            if counters.live_bytes == 0 && counters.limbo_bytes == 0 {
                detaching.end = Attachment::Detached;
                return match counters.quarantined_bytes {
                    0 => Ok(()),
                    bytes => Err(DetachError::Quarantined { bytes }),
                };
            }
            if expired() {
                let (descriptors, holders) = self.holders();
                return Err(DetachError::Busy {
                    descriptors,
                    holders,
                });
            }
            self.window.relax(turn);
            turn = turn.saturating_add(1);
        }
    }

    /// [`detach`](Self::detach) with a deadline this far from now.
    ///
    /// # Errors
    ///
    /// As [`detach`](Self::detach).
    #[cfg(feature = "std")]
    pub fn detach_within(
        &self,
        ctx: &MaySleep,
        patience: core::time::Duration,
    ) -> Result<(), DetachError> {
        let begun = std::time::Instant::now();
        self.detach(ctx, || begun.elapsed() >= patience)
    }

    /// All referenced descriptors, counted, and the first few by name.
    fn holders(&self) -> (usize, Vec<Holder>) {
        // Under the lock no chunk leaves, so every one listed may be read.
        let books = self.books.lock();
        let mut holders = Vec::new();
        let mut descriptors = 0;
        for (chunk, present, _) in books.directory.in_order() {
            let first = self.geometry.first_of(chunk);
            for index in first..first + present / DESCRIPTOR_BYTES {
                let Some(word) = self.window.word(self.geometry.offset(index)) else {
                    continue;
                };
                let references = refcount::references(word);
                let Some(pfn) = self.geometry.pfn(index).filter(|_| references > 0) else {
                    continue;
                };
                descriptors += 1;
                if holders.len() < LISTED {
                    holders.push(Holder {
                        pfn,
                        references,
                        owner: owner_at(&self.window, index),
                    });
                }
            }
        }
        (descriptors, holders)
    }
}
