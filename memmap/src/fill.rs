//! The fault path: what happens when a lookup finds no memory, or a frozen descriptor.

use pageless_fault::sync::MutexGuard;
use pageless_fault::{FaultReason, MaySleep, PopulateError, Window};

use crate::directory::{Admission, Generation};
use crate::geometry::{ChunkIndex, range};
use crate::memmap::{Attachment, Books, GetError, Memmap, TryGetError};
use crate::page::PageRef;
use crate::refcount::{self, Got};

/// The most chunks filled by one fault.
pub(crate) const FILL_AHEAD_MOST: u64 = 16;

/// How far one lookup has come.
#[derive(Debug, Default)]
struct Attempt {
    /// Turns spent waiting for others.
    turn: u32,
    /// Whether this lookup has done its share of reclaim above the watermark.
    watermark_seen: bool,
    /// The filling that the books last named present for the chunk of this lookup.
    present_seen: Option<Generation>,
}

/// What the fault path made of a fault.
enum Outcome {
    /// The filler took its own reference while the chunk was still nobody else's to reclaim: however
    /// small the budget, whoever fills gets what it came for.
    Reference,
    /// Something changed: run the instruction again.
    Again,
}

impl<W: Window> Memmap<W> {
    #[cold]
    #[inline(never)]
    pub(crate) fn get_slow<'m>(
        &'m self,
        ctx: &MaySleep,
        index: u64,
        word: W::Word<'m>,
        first: Got,
    ) -> Result<PageRef<'m, W>, GetError> {
        let chunk = self.geometry.chunk_of(index);
        if first == Got::Fault(FaultReason::NotPresent) {
            self.books.lock().directory.counters.faults += 1;
        }
        let mut got = first;
        let mut attempt = Attempt::default();
        loop {
            match got {
                Got::Reference => return Ok(PageRef::new(self, word, index)),
                Got::Overflow => {
                    return Err(GetError::Overflow {
                        pfn: self.pfn(index),
                    });
                }
                Got::Fault(FaultReason::NotMapped) => return Err(GetError::Foreign),
                Got::Frozen => self.await_reclaim(chunk, &mut attempt)?,
                Got::Fault(FaultReason::NotPresent) => {
                    match self.fault_in(ctx, index, word, &mut attempt)? {
                        Outcome::Reference => return Ok(PageRef::new(self, word, index)),
                        Outcome::Again => {}
                    }
                }
            }
            got = refcount::get(word);
        }
    }

    /// Waits while reclaim owns `chunk`.
    fn await_reclaim(&self, chunk: ChunkIndex, attempt: &mut Attempt) -> Result<(), GetError> {
        loop {
            let books = self.books.lock();
            match books.directory.admission(chunk) {
                Admission::Busy => {
                    if books.attachment != Attachment::Attached {
                        return Err(GetError::Detached);
                    }
                    self.wait(books, chunk, attempt);
                }
                Admission::Quarantined => {
                    return Err(GetError::Quarantined {
                        pfn: self.pfn(self.geometry.first_of(chunk)),
                    });
                }
                Admission::Absent { .. } | Admission::Short { .. } | Admission::Present => {
                    return Ok(());
                }
            }
        }
    }

    /// Waits for whoever is at work on `chunk`, or on the leaf table under it. Looks at the chunk's own
    /// word meanwhile: neither the books, which those who work need, nor the descriptor, which would fault.
    fn wait(&self, mut books: MutexGuard<'_, Books<W>>, chunk: ChunkIndex, attempt: &mut Attempt) {
        books.directory.counters.waits += u64::from(attempt.turn == 0);
        let busy = books.directory.look(chunk).map(|seen| seen.generation);
        drop(books);
        loop {
            // Nothing is pinned here: a turn may be long.
            self.window.relax(attempt.turn);
            attempt.turn = attempt.turn.saturating_add(1);
            // A table on its way out has no chunk to look at: one turn, then the books again.
            let Some(seen) = self.look(chunk) else {
                return;
            };
            if Some(seen.generation) != busy || !seen.state.in_motion() {
                return;
            }
        }
    }

    /// One attempt to make the chunk of descriptor `index` present.
    fn fault_in(
        &self,
        ctx: &MaySleep,
        index: u64,
        word: W::Word<'_>,
        attempt: &mut Attempt,
    ) -> Result<Outcome, GetError> {
        let chunk = self.geometry.chunk_of(index);
        let mut books = self.books.lock();
        if books.attachment != Attachment::Attached {
            return Err(GetError::Detached);
        }
        if self.window.is_foreign() {
            return Err(GetError::Foreign);
        }
        let mut slots = [None; FILL_AHEAD_MOST as usize];
        let present = match books.directory.admission(chunk) {
            Admission::Present => {
                // Filled by somebody else meanwhile, or so the books say. A second fault on the very same
                // filling means that its memory has gone behind our back.
                let generation = books.directory.look(chunk).map(|seen| seen.generation);
                if generation.is_some() && attempt.present_seen == generation {
                    return Err(GetError::Lost {
                        pfn: self.pfn(index),
                    });
                }
                attempt.present_seen = generation;
                return Ok(Outcome::Again);
            }
            Admission::Busy => {
                self.wait(books, chunk, attempt);
                return Ok(Outcome::Again);
            }
            Admission::Quarantined => {
                return Err(GetError::Quarantined {
                    pfn: self.pfn(index),
                });
            }
            Admission::Short { slot, present } => {
                books.directory.resume_fill(slot);
                slots[0] = Some(slot);
                present
            }
            Admission::Absent { cost } => {
                let after = books.directory.charged().saturating_add(cost);
                if after > self.budget.bytes() {
                    drop(books);
                    self.make_room(ctx, cost, attempt.turn)?;
                    attempt.turn = attempt.turn.saturating_add(1);
                    return Ok(Outcome::Again);
                }
                if after > self.budget.high() && !attempt.watermark_seen {
                    // Once for each lookup: above the watermark there may be nothing to be had.
                    attempt.watermark_seen = true;
                    if !books.wake_background() {
                        drop(books);
                        self.reclaim_above_watermark(ctx)?;
                        return Ok(Outcome::Again);
                    }
                }
                let limit = self.budget.high();
                let run = books.directory.run_length(chunk, self.fill_ahead, limit);
                // For these fills, and for the chunks of the reserve, which are used where nothing may be
                // allocated.
                let fills = run as usize + self.reserve_chunks;
                books.directory.make_room(fills);
                for (n, slot) in (0..run).zip(&mut slots) {
                    *slot = Some(books.directory.begin_fill(ChunkIndex(chunk.0 + n)));
                }
                0
            }
        };
        drop(books);

        let whole = self.geometry.chunk.bytes();
        let asked = slots.iter().flatten().count() as u64 * whole;
        let start = self.geometry.chunk_start(chunk) + present;
        let filled = self.window.populate(range(start, asked - present), ctx);
        let got = match filled {
            Ok(()) => refcount::get(word),
            Err(_) => Got::Frozen,
        };
        let mut books = self.books.lock();
        let mut there = match filled {
            Ok(()) => asked,
            Err(error) => present + error.done,
        };
        // A short fill is published as such: what it did bring in may already be referenced, and reclaim
        // knows how to deal with that.
        for slot in slots.into_iter().flatten() {
            books.directory.finish_fill(slot, there.min(whole));
            there = there.saturating_sub(whole);
        }
        drop(books);
        filled?;
        if self.reserve_chunks > 0 {
            // Best effort: a short reserve is no reason to fail this lookup.
            let _ = self.refill_reserve(ctx);
        }
        match got {
            Got::Reference => Ok(Outcome::Reference),
            // Neither can be on a chunk that nobody else may reclaim yet; look again.
            _ => Ok(Outcome::Again),
        }
    }

    /// Tops the reserve up to its size, as far as the budget has room.
    pub(crate) fn refill_reserve(&self, ctx: &MaySleep) -> Result<(), PopulateError> {
        let bytes = self.geometry.chunk.bytes();
        loop {
            let mut books = self.books.lock();
            let cost = books.directory.reserve_cost();
            let short = books.reserve.len() < self.reserve_chunks
                && books.attachment == Attachment::Attached
                && books.directory.charged().saturating_add(cost) <= self.budget.bytes();
            if !short {
                return Ok(());
            }
            books.directory.make_room(1 + self.reserve_chunks);
            books.directory.counters.reserve_bytes += cost;
            books.directory.counters.raise_peaks();
            drop(books);
            let filled = self.window.prefill(bytes, ctx);
            let mut books = self.books.lock();
            match filled {
                Ok(prefilled)
                    if books.reserve.len() < self.reserve_chunks
                        && books.attachment == Attachment::Attached =>
                {
                    books.reserve.push(prefilled);
                }
                // Somebody else was faster, or is detaching.
                Ok(_) => {
                    books.directory.counters.reserve_bytes -= cost;
                    return Ok(());
                }
                Err(error) => {
                    books.directory.counters.reserve_bytes -= cost;
                    return Err(error);
                }
            }
        }
    }

    /// The rest of a lookup that must not sleep.
    #[cold]
    #[inline(never)]
    pub(crate) fn try_get_slow<'m>(
        &'m self,
        index: u64,
        word: W::Word<'m>,
        got: Got,
    ) -> Result<PageRef<'m, W>, TryGetError> {
        let pfn = self.pfn(index);
        match got {
            Got::Reference => Ok(PageRef::new(self, word, index)),
            Got::Overflow => Err(TryGetError::Overflow { pfn }),
            Got::Frozen => Err(TryGetError::WouldBlock { pfn }),
            Got::Fault(FaultReason::NotMapped) => Err(TryGetError::Foreign),
            Got::Fault(FaultReason::NotPresent) => self.fault_in_from_reserve(index, word),
        }
    }

    /// Fills from the reserve: no allocation, and no waiting for a lock. Whoever holds the books may be
    /// the very code that we interrupted.
    fn fault_in_from_reserve<'m>(
        &'m self,
        index: u64,
        word: W::Word<'m>,
    ) -> Result<PageRef<'m, W>, TryGetError> {
        let pfn = self.pfn(index);
        let would_block = Err(TryGetError::WouldBlock { pfn });
        if self.reserve_chunks == 0 {
            return would_block;
        }
        let chunk = self.geometry.chunk_of(index);
        let Some(mut books) = self.books.try_lock() else {
            return would_block;
        };
        let books = &mut *books;
        if books.attachment != Attachment::Attached {
            return Err(TryGetError::Detached);
        }
        if self.window.is_foreign() {
            return Err(TryGetError::Foreign);
        }
        match books.directory.admission(chunk) {
            Admission::Absent { .. } if books.directory.has_room() => {}
            Admission::Absent { .. } => {
                books.directory.counters.reserve_misses += 1;
                return would_block;
            }
            // It came while we were on our way.
            Admission::Present => {
                return match refcount::get(word) {
                    Got::Reference => Ok(PageRef::new(self, word, index)),
                    _ => would_block,
                };
            }
            _ => return would_block,
        }
        let Some(prefilled) = books.reserve.pop() else {
            books.directory.counters.reserve_misses += 1;
            return would_block;
        };
        let bytes = self.geometry.chunk.bytes();
        books.directory.counters.reserve_bytes -= books.directory.reserve_cost();
        let slot = books.directory.begin_fill(chunk);
        let filled = self
            .window
            .populate_from(self.geometry.chunk_range(chunk), prefilled);
        let got = match filled {
            Ok(()) => refcount::get(word),
            Err(_) => Got::Frozen,
        };
        let present = match filled {
            Ok(()) => bytes,
            Err(error) => error.done,
        };
        books.directory.finish_fill(slot, present);
        match got {
            Got::Reference => {
                books.directory.counters.reserve_hits += 1;
                Ok(PageRef::new(self, word, index))
            }
            _ => would_block,
        }
    }
}

#[cfg(all(test, feature = "std", not(loom)))]
mod tests;
