//! Taking chunks away again: least recently *allocated* first, in batches, one shootdown for each.
//!
//! There is one reclaimer at a time, so that its place in the order stays valid while it works without
//! the lock. For each batch it
//!
//! 1. claims the oldest chunks that do not look referenced (Present -> Frozen, in place),
//! 2. freezes every descriptor of each; the first one found referenced thaws the chunk, which goes back
//!    to Present *in its old place*,
//! 3. condemns the frozen ones (out of the order, into limbo) and clears their translations, and with
//!    them the leaf table of every group that they leave empty,
//! 4. settles the flush debt; only [`Flushed`](pageless_fault::Flushed) chunks give their bytes back.

use alloc::vec::Vec;

use pageless_fault::mutant::Mutant;
use pageless_fault::{MaySleep, UnmapError, Window, WindowRange, Word};

use crate::directory::Claimed;
use crate::memmap::Memmap;
use crate::refcount;

/// The most chunks that go away with one shootdown.
pub const RECLAIM_BATCH: usize = 32;

/// The most chunks looked at without letting go of the books.
const SCAN_AT_ONCE: usize = 128;

/// What a reclaim run brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Chunks unmapped and flushed.
    pub chunks: u64,
    /// Shootdowns it took.
    pub shootdowns: u64,
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReclaimError {
    /// Every chunk has a referenced descriptor.
    #[error(
        "{pinned} of {budget} bytes are held by referenced descriptors and their page tables, \
         {needed} more are needed"
    )]
    Pinned {
        /// Bytes of chunks with at least one reference, and of their page tables.
        pinned: u64,
        /// Bytes needed.
        needed: u64,
        /// The budget, in bytes.
        budget: u64,
    },
    /// The machine failed.
    #[error(transparent)]
    Unmap(#[from] UnmapError),
}

/// How far a run goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Goal {
    /// Stop when no more than this is held, in bytes.
    pub(crate) down_to: u64,
    /// Look at no more chunks than this many.
    pub(crate) scan: usize,
}

/// The one reclaimer. Dropping it lets the next one in.
struct Role<'m, W: Window> {
    memmap: &'m Memmap<W>,
}

impl<W: Window> Drop for Role<'_, W> {
    fn drop(&mut self) {
        self.memmap.books.lock().reclaiming = false;
    }
}

impl<W: Window> Memmap<W> {
    /// Takes unreferenced chunks away, oldest allocation first, until no more than `down_to` bytes are
    /// held or nothing is left to take. Waits while somebody else reclaims.
    ///
    /// # Errors
    ///
    /// The machine could not prove a flush: the chunks concerned are quarantined. Or this is a forked
    /// child: nothing was done.
    pub fn reclaim(&self, ctx: &MaySleep, down_to: u64) -> Result<Reclaimed, UnmapError> {
        let goal = Goal {
            down_to,
            scan: usize::MAX,
        };
        // Before any descriptor is read: a child has none.
        if self.window.is_foreign() {
            return Err(UnmapError::Foreign);
        }
        let mut turn = 0;
        loop {
            if let Some(role) = self.become_reclaimer() {
                return role.run(ctx, goal);
            }
            self.window.relax(turn);
            turn = turn.saturating_add(1);
        }
    }

    /// Brings what is held from above the high watermark down to the low one. Returns at once if
    /// somebody else is at it.
    pub(crate) fn reclaim_above_watermark(&self, ctx: &MaySleep) -> Result<(), UnmapError> {
        let Some(role) = self.become_reclaimer() else {
            return Ok(());
        };
        self.books.lock().directory.counters.direct_reclaims += 1;
        role.run(
            ctx,
            Goal {
                down_to: self.budget.low(),
                scan: 4 * RECLAIM_BATCH,
            },
        )?;
        Ok(())
    }

    /// A run of the background reclaimer; without effect while somebody else reclaims.
    #[cfg(feature = "std")]
    pub(crate) fn background_reclaim(
        &self,
        ctx: &MaySleep,
        goal: Goal,
    ) -> Result<Reclaimed, UnmapError> {
        let Some(role) = self.become_reclaimer() else {
            return Ok(Reclaimed::default());
        };
        self.books.lock().directory.counters.background_reclaims += 1;
        role.run(ctx, goal)
    }

    /// Makes room for `needed` bytes below the budget, or waits one turn for those who may.
    pub(crate) fn make_room(
        &self,
        ctx: &MaySleep,
        needed: u64,
        turn: u32,
    ) -> Result<(), ReclaimError> {
        let Some(role) = self.become_reclaimer() else {
            self.window.relax(turn);
            return Ok(());
        };
        self.books.lock().directory.counters.direct_reclaims += 1;
        let goal = Goal {
            down_to: self
                .budget
                .low()
                .min(self.budget.bytes().saturating_sub(needed)),
            scan: usize::MAX,
        };
        let reclaimed = role.run(ctx, goal)?;
        if reclaimed.chunks > 0 {
            return Ok(());
        }
        let books = self.books.lock();
        if books.directory.charged().saturating_add(needed) <= self.budget.bytes() {
            return Ok(());
        }
        if books.directory.in_motion() {
            drop(books);
            self.window.relax(turn);
            return Ok(());
        }
        Err(ReclaimError::Pinned {
            pinned: books.directory.charged(),
            needed,
            budget: self.budget.bytes(),
        })
    }

    fn become_reclaimer(&self) -> Option<Role<'_, W>> {
        let mut books = self.books.lock();
        if core::mem::replace(&mut books.reclaiming, true) {
            return None;
        }
        Some(Role { memmap: self })
    }

    /// Freezes all descriptors of a claimed chunk; or none, and says which one is referenced.
    fn freeze_chunk(&self, claimed: &Claimed) -> Result<(), u32> {
        let first = self.geometry.first_of(claimed.chunk);
        let count = claimed.present / crate::DESCRIPTOR_BYTES;
        let word = |n: u64| match self.window.word(self.geometry.offset(first + n)) {
            Some(word) => word,
            None => unreachable!("a chunk outside its window"),
        };
        // Look first: plain reads overlap, fetch the lines, and rule most pinned chunks out.
        for n in 0..count {
            if looks_referenced(word(n)) {
                return Err(n as u32);
            }
        }
        for n in 0..count {
            if !refcount::freeze(word(n)) && !Mutant::ReclaimPinned.active() {
                if !Mutant::FreezeWithoutThaw.active() {
                    for frozen in 0..n {
                        refcount::thaw(word(frozen));
                    }
                }
                return Err(n as u32);
            }
        }
        Ok(())
    }
}

/// A hint, never a decision: the decision is the freeze.
fn looks_referenced(word: impl Word) -> bool {
    refcount::references(word) != 0 && !Mutant::ReclaimPinned.active()
}

impl<W: Window> Role<'_, W> {
    fn run(self, ctx: &MaySleep, goal: Goal) -> Result<Reclaimed, UnmapError> {
        let memmap = self.memmap;
        let chunk = memmap.geometry.chunk.bytes();
        let mut claimed: Vec<Claimed> = Vec::with_capacity(RECLAIM_BATCH);
        let mut pinned: Vec<(Claimed, u32)> = Vec::new();
        let mut total = Reclaimed::default();
        let mut resume = None;
        let mut left = goal.scan;
        // How much, decided once: whoever fills meanwhile is not this run's business.
        let mut over = memmap
            .books
            .lock()
            .directory
            .charged()
            .saturating_sub(goal.down_to);
        loop {
            claimed.clear();
            let mut books = memmap.books.lock();
            over = over.min(books.directory.charged().saturating_sub(goal.down_to));
            if over == 0 || left == 0 {
                break;
            }
            let most = usize::try_from(over.div_ceil(chunk))
                .unwrap_or(RECLAIM_BATCH)
                .min(RECLAIM_BATCH);
            // A look at each chunk may miss every cache, and faults wait for the lock meanwhile.
            let scan = left.min(SCAN_AT_ONCE);
            left -= scan;
            resume = books
                .directory
                .claim(resume, most, scan, &mut claimed, |chunk, hint| {
                    let index = memmap.geometry.first_of(chunk) + u64::from(hint);
                    memmap
                        .window
                        .word(memmap.geometry.offset(index))
                        .is_some_and(looks_referenced)
                });
            drop(books);

            claimed.retain(|claim| match memmap.freeze_chunk(claim) {
                Ok(()) => true,
                Err(hint) => {
                    pinned.push((*claim, hint));
                    false
                }
            });
            let mut books = memmap.books.lock();
            for (claim, hint) in pinned.drain(..) {
                books.directory.unclaim(claim.slot, hint);
            }
            if !claimed.is_empty() {
                let mut condemned = books.directory.condemn(&claimed);
                drop(books);
                let ranges: Vec<WindowRange> = core::mem::take(&mut condemned.ranges);
                let chunks = condemned.chunks();
                // The proof, or the error: what could not be proved flushed stays in limbo for good.
                let flushed = match memmap.window.unmap(&ranges, condemned) {
                    Ok(debt) => debt.settle(ctx).map_err(|(debt, error)| {
                        drop(debt);
                        error
                    }),
                    Err((_condemned, error)) => Err(error),
                };
                let mut books = memmap.books.lock();
                books.directory.counters.shootdowns += 1;
                match flushed {
                    Ok(flushed) => {
                        books.directory.bury(flushed);
                        over = over.saturating_sub(chunks * chunk);
                    }
                    Err(error) => {
                        books.directory.quarantine(&claimed);
                        return Err(error);
                    }
                }
                total.chunks += chunks;
                total.shootdowns += 1;
            }
            if resume.is_none() {
                break;
            }
        }
        Ok(total)
    }
}
