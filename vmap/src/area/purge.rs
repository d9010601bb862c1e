//! Purging: one shootdown for everything that has been unmapped since the last one.

use alloc::vec::Vec;
use core::fmt;
use core::ptr;

use pageless_fault::shootdown::{CpuId, Flush, Invalidation, Stretch};
use pageless_fault::sync::Mutex;
use pageless_fault::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use pageless_fault::{Cpus, MaySleep, Unflushed, UnmapError, Vspace, WindowRange};
use pageless_pfn::{FrameCount, PAGE_SIZE};

use crate::area::counters::PurgeCounts;
use crate::area::listing::AreaKind;
use crate::area::node::{Doomed, Node, State, Waiting};
use crate::area::release::{Holds, Unreachable};
use crate::area::space::AreaSpace;
use crate::area::span::Span;
use crate::mutant::Mutant;

/// Records that a purge removes under one lock: those who must not wait try it only so often.
const RECORDS_AT_ONCE: u32 = 32;

/// How much of the pools goes back to the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// A quarter: sizes that nobody asks for any more disappear within a few purges.
    Quarter,
    /// Everything, so that holes join: addresses are wanted.
    Everything,
}

/// What one purge has set free.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Purged {
    /// Areas.
    pub areas: u64,
    /// Pages that CPUs had to forget: without guard pages, with those of small mappings.
    pub pages: u64,
    /// Ranges that the shootdown was asked for, neighbours joined.
    pub ranges: u64,
    /// Whether they were more pages than x86 flushes one by one.
    pub full: bool,
}

impl fmt::Display for Purged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} areas, {} pages in {} ranges{}",
            self.areas,
            self.pages,
            self.ranges,
            if self.full { ", full flush" } else { "" }
        )
    }
}

/// The state of purging.
///
/// Purges are numbered from 0. Which of them covers a small mapping is known where that waits: each CPU's blocks have the number of the
/// purge that looks at them next, under the lock under which it looks.
#[derive(Debug)]
pub(crate) struct PurgeState {
    /// Whose turn it is.
    ///
    /// | value | meaning | written by |
    /// |---|---|---|
    /// | false | nobody purges | the one who did, with Release |
    /// | true | somebody purges | whoever finds it false, with Acquire |
    taken: AtomicBool,
    /// How many purges have begun. `Relaxed`: only who has the turn uses it.
    begun: AtomicU64,
    /// How many purges have ended. Release by the purge that ended; Acquire in [`PurgeState::has_proved`].
    ended: AtomicU64,
    /// Those of them that have no proof: they failed, or are not through. A list, since after one failure there are few others.
    unproved: Mutex<Vec<u64>>,
    /// Those of them that have a proof, and are not through with releasing: the number, and the CPU that does it.
    releasing: Mutex<Vec<(u64, CpuId)>>,
    /// Pages that the purge under way has taken out of the lists, guard pages included. `Relaxed`: a figure.
    under_way: AtomicU64,
    pub(crate) counts: PurgeCounts,
}

impl Default for PurgeState {
    fn default() -> Self {
        PurgeState {
            taken: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            unproved: Mutex::new(Vec::new()),
            releasing: Mutex::new(Vec::new()),
            under_way: AtomicU64::new(0),
            counts: PurgeCounts::default(),
        }
    }
}

/// The right to purge: one at a time. Not a lock: whoever holds it waits for CPUs, which may be those that want it next.
pub(crate) struct Turn<'p>(&'p AtomicBool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Release pairs with the Acquire of whoever is next.
        self.0.store(false, Ordering::Release);
    }
}

impl PurgeState {
    /// Waits for the turn. Whoever comes second finds only what is new since.
    pub(crate) fn turn(&self, cpus: &impl Cpus) -> Turn<'_> {
        let mut turns = 0_u32;
        // Acquire pairs with the Release of the one before.
        while self
            .taken
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            cpus.relax(turns);
            turns = turns.saturating_add(1);
        }
        Turn(&self.taken)
    }

    /// Whether purge `number` has ended, with a proof.
    pub(crate) fn has_proved(&self, number: u64) -> bool {
        if Mutant::EarlierPurgeTrusted.active() {
            return self.ended.load(Ordering::Acquire) >= number;
        }
        // Acquire pairs with the Release in `end`: whoever reuses what was unmapped does so after its flush.
        self.ended.load(Ordering::Acquire) > number && !self.unproved.lock().contains(&number)
    }

    /// By whoever has the turn. Without a proof until it [ends](Self::end) with one: it may never end.
    fn begin(&self) -> u64 {
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        self.unproved.lock().push(number);
        number
    }

    fn end(&self, number: u64, proved: bool) {
        if proved {
            self.unproved.lock().retain(|other| *other != number);
        }
        // Release pairs with the Acquire in `has_proved`.
        self.ended.store(number + 1, Ordering::Release);
    }

    /// Waits until what purges before `number` have set free is released. Whoever is releasing something himself, and comes here from
    /// there, does not wait: of two such, each would wait for the other.
    fn wait_for_releases(&self, cpus: &impl Cpus, number: u64) {
        let here = cpus.current();
        let mut turns = 0_u32;
        while {
            let releasing = self.releasing.lock();
            !releasing.iter().any(|(_, cpu)| *cpu == here)
                && releasing.iter().any(|(earlier, _)| *earlier < number)
        } {
            cpus.relax(turns);
            turns = turns.saturating_add(1);
        }
    }

    /// Pages that the purge under way has taken out of the lists.
    pub(crate) fn under_way(&self) -> u64 {
        self.under_way.load(Ordering::Relaxed)
    }
}

/// What a purge has set free is being released. Others who are short of it wait for the end of this.
struct Releasing<'p> {
    purge: &'p PurgeState,
    number: u64,
}

impl<'p> Releasing<'p> {
    /// By whoever has the turn: who has it next sees it.
    fn begin(purge: &'p PurgeState, number: u64, cpu: CpuId) -> Self {
        purge.releasing.lock().push((number, cpu));
        Releasing { purge, number }
    }
}

impl Drop for Releasing<'_> {
    fn drop(&mut self) {
        self.purge
            .releasing
            .lock()
            .retain(|(number, _)| *number != self.number);
    }
}

/// What an area owned, and how many pages the area had, without guard page.
type Freed = (Holds, u64);

/// All that waits.
#[derive(Default)]
struct Gathered {
    batch: Vec<Unflushed<Doomed>>,
    /// Areas in it.
    areas: u64,
    /// The addresses of the areas that were not mapped: the guard pages.
    tails: Vec<Span>,
    /// Pages, with those.
    pages: u64,
}

impl<S: Vspace> AreaSpace<S> {
    /// One shootdown of all that has been unmapped, over its actual ranges; then addresses may be given out again, and what the
    /// areas owned is released. When it returns, that is so of everything that was unmapped before, whoever has purged it; but for
    /// what a release is doing that this is called from. Does nothing if nothing waits.
    ///
    /// Whatever a release needs, the caller must not hold.
    ///
    /// # Errors
    ///
    /// Nothing could be proved gone. What waited is quarantined: its addresses and what it owned are never used again.
    pub fn purge(&self, ctx: &MaySleep) -> Result<Purged, UnmapError> {
        let (number, purged) = self.purge_numbered(ctx, Depth::Quarter);
        self.purge.wait_for_releases(&self.space, number);
        purged
    }

    /// The same for somebody who is short of memory: how many pages' worth of areas has been released meanwhile, by this purge and by
    /// others.
    ///
    /// # Errors
    ///
    /// As [`purge`](Self::purge).
    pub fn purge_for_frames(&self, ctx: &MaySleep) -> Result<FrameCount, UnmapError> {
        let before = self.purge.counts.released.get();
        self.purge(ctx)?;
        let after = self.purge.counts.released.get();
        Ok(FrameCount::new(after - before))
    }

    /// A purge for the sake of addresses, or of the cap: what others are releasing is not waited for.
    pub(crate) fn purge_to(&self, ctx: &MaySleep, depth: Depth) -> Result<Purged, UnmapError> {
        self.purge_numbered(ctx, depth).1
    }

    fn purge_numbered(&self, ctx: &MaySleep, depth: Depth) -> (u64, Result<Purged, UnmapError>) {
        // Before the lock: what is released here may unmap and purge itself.
        self.drain(ctx);
        let mut released = Vec::new();
        let turn = self.purge.turn(&self.space);
        let number = self.purge.begin();
        let purged = self.purge_alone(ctx, depth, number, &mut released);
        let releasing = (!released.is_empty())
            .then(|| Releasing::begin(&self.purge, number, self.space.current()));
        self.purge.end(number, purged.is_ok());
        drop(turn);
        // With no lock held: what is released may well unmap something itself.
        for (holds, pages) in released {
            holds.release(&Unreachable::proved(), ctx);
            self.purge.counts.released.add(pages);
        }
        drop(releasing);
        (number, purged)
    }

    /// Purge `number`, by whoever has the turn.
    fn purge_alone(
        &self,
        ctx: &MaySleep,
        depth: Depth,
        number: u64,
        released: &mut Vec<Freed>,
    ) -> Result<Purged, UnmapError> {
        let mut spare = Vec::new();
        for node in &self.nodes {
            let mut pools = node.pools.lock();
            match depth {
                Depth::Quarter => pools.decay(&mut spare),
                Depth::Everything => pools.drain(&mut spare),
            }
        }
        let Gathered {
            mut batch,
            areas,
            tails,
            pages,
        } = self.gather(number);
        // From here on they do not count for the cap: others may go on while CPUs are told.
        self.purge.under_way.store(pages, Ordering::Relaxed);
        self.lazy_pages.remove(pages);
        let mut purged = self.measure(&mut batch);
        purged.areas = areas;
        if purged.full {
            // Pages are not counted any more; but each range costs the host a call. So neighbours are to touch.
            for tail in tails {
                if let Ok(unflushed) = self.space.take_down(tail.range(), Doomed::Guard) {
                    batch.push(unflushed);
                }
            }
            purged.ranges = self.measure(&mut batch).ranges;
        }
        let proved = if batch.is_empty() {
            Ok(())
        } else {
            self.shoot(ctx, batch, &mut spare, released, depth)
        };
        self.purge.under_way.store(0, Ordering::Relaxed);
        self.empty_ram_blocks(depth, &mut spare);
        if !spare.is_empty() {
            let mut free = self.free.lock();
            for span in spare {
                free.give(span);
            }
        }
        proved?;
        let counts = &self.purge.counts;
        if purged.ranges > 0 {
            counts.purges.add(1);
            counts.areas.add(purged.areas);
            counts.pages.add(purged.pages);
            counts.ranges.add(purged.ranges);
            counts.full.add(u64::from(purged.full));
        }
        Ok(purged)
    }

    /// All that waits, for purge `number`.
    fn gather(&self, number: u64) -> Gathered {
        let mut found = Gathered::default();
        for node in &self.nodes {
            for Waiting { unflushed, end } in core::mem::take(&mut node.areas.lock().lazy) {
                let first = unflushed.range().start().get() / PAGE_SIZE;
                let mapped_end = unflushed.range().end().get() / PAGE_SIZE;
                if mapped_end < end {
                    found.tails.push(Span::new(mapped_end, end - mapped_end));
                }
                found.areas += 1;
                found.pages += end - first;
                found.batch.push(unflushed);
            }
        }
        for run in self.ram.dirty_runs(number) {
            // Its entries are gone already; this is for the proof.
            let flushed = if Mutant::DirtyRangeCutShort.active() {
                run.span().head(1)
            } else {
                run.span()
            };
            let unflushed = self.space.lock_up(flushed.range(), Doomed::Ram(run));
            found.pages += run.span().pages();
            found.batch.push(unflushed);
        }
        found
    }

    /// What a batch amounts to, which is sorted by address meanwhile.
    fn measure(&self, batch: &mut [Unflushed<Doomed>]) -> Purged {
        batch.sort_unstable_by_key(|one| one.range().start());
        let mut purged = Purged::default();
        let mut end = None;
        for one in batch.iter() {
            let range = one.range();
            purged.pages += range.len() / PAGE_SIZE;
            purged.ranges += u64::from(end != Some(range.start()));
            end = Some(range.end());
        }
        let flush = Flush::stretches(batch.iter().map(|one| Stretch {
            first: self.space.address(one.range().start()).get(),
            pages: one.range().len() / PAGE_SIZE,
        }));
        purged.full = flush.invalidation() == Invalidation::Everything;
        purged
    }

    /// The shootdown of a batch, and what it sets free.
    fn shoot(
        &self,
        ctx: &MaySleep,
        batch: Vec<Unflushed<Doomed>>,
        spare: &mut Vec<Span>,
        released: &mut Vec<Freed>,
        depth: Depth,
    ) -> Result<(), UnmapError> {
        let ranges: Vec<_> = batch.iter().map(Unflushed::range).collect();
        // On failure the batch is dropped, and leaks: as it should.
        let settled = match self.space.shoot_down(batch) {
            Ok(debt) => debt.settle(ctx).map_err(|(_, error)| error),
            Err((_, error)) => Err(error),
        };
        let flushed = match settled {
            Ok(flushed) => flushed.into_inner(),
            Err(error) => {
                ranges.into_iter().for_each(|range| self.quarantine(range));
                return Err(error);
            }
        };
        let mut pools: Vec<Vec<Span>> = self.nodes.iter().map(|_| Vec::new()).collect();
        // They are sorted by address, so neighbours are in the same books: one lock serves a few of them.
        let mut books = None;
        for doomed in flushed {
            let (span, holds) = match doomed {
                Doomed::Area { span, holds } => (span, holds),
                Doomed::Guard => continue,
                Doomed::Ram(run) => {
                    books = None;
                    self.ram.flushed(run);
                    continue;
                }
            };
            released.push((holds, span.pages() - self.guard()));
            if Mutant::RangeReusedBeforeFlush.active() {
                // What is there now is somebody else's.
                continue;
            }
            let node = self.node_of(span.first());
            let others = |(of, left, _): &(&Node, u32, _)| !ptr::eq(*of, node) || *left == 0;
            if books.as_ref().is_some_and(others) {
                books = None;
            }
            let (_, left, areas) =
                books.get_or_insert_with(|| (node, RECORDS_AT_ONCE, node.areas.lock()));
            *left -= 1;
            match areas.records.remove(&span.first()) {
                Some(record) if depth == Depth::Quarter => {
                    pools[usize::from(record.home)].push(span);
                }
                Some(_) => spare.push(span),
                // Only where a planted fault has given them out already.
                None => {}
            }
        }
        drop(books);
        for (node, spans) in self.nodes.iter().zip(pools) {
            let mut pools = node.pools.lock();
            spare.extend(spans.into_iter().filter_map(|span| pools.give(span).err()));
        }
        Ok(())
    }

    /// Nobody can say whether some CPU still reaches `range`: it stays as it is for ever.
    fn quarantine(&self, range: WindowRange) {
        let counts = &self.purge.counts;
        let first = range.start().get() / PAGE_SIZE;
        let area = self.look(first, |record| (record.kind, record.span));
        let pages = match area {
            // The pages of a small mapping stay marked as being flushed, and are never free again.
            Some((AreaKind::RamBlock, _)) => range.len() / PAGE_SIZE,
            Some((_, span)) if span.first() == first => {
                let mut areas = self.node_of(first).areas.lock();
                if let Some(record) = areas.records.get_mut(&first) {
                    record.state = State::Quarantined;
                }
                counts.quarantined_areas.add(1);
                span.pages()
            }
            // A guard page, which is part of its area; or an area that a planted fault has let go.
            _ => 0,
        };
        counts.quarantined_pages.add(pages);
    }

    /// Blocks of small mappings in which there is none.
    fn empty_ram_blocks(&self, depth: Depth, spare: &mut Vec<Span>) {
        for span in self.ram.remove_empty(depth == Depth::Everything) {
            let mut areas = self.node_of(span.first()).areas.lock();
            areas.records.remove(&span.first());
            spare.push(span);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
