//! Purging: one shootdown for everything that has been unmapped since the last one.

use alloc::vec::Vec;
use core::fmt;

use pageless_fault::shootdown::{Flush, Invalidation, Stretch};
use pageless_fault::sync::Mutex;
use pageless_fault::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use pageless_fault::{Cpus, MaySleep, Unflushed, UnmapError, Vspace, WindowRange};
use pageless_pfn::{FrameCount, PAGE_SIZE};

use crate::area::counters::PurgeCounts;
use crate::area::flushed::FlushedArea;
use crate::area::listing::AreaKind;
use crate::area::node::{Doomed, State, Waiting};
use crate::area::ram::RamRun;
use crate::area::space::AreaSpace;
use crate::area::span::{PageNumber, Span, offset};
use crate::mutant::Mutant;

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

    /// Pages that the purge under way has taken out of the lists.
    pub(crate) fn under_way(&self) -> u64 {
        self.under_way.load(Ordering::Relaxed)
    }
}

/// All that waits.
#[derive(Default)]
struct Gathered {
    areas: Vec<Waiting>,
    ram: Vec<RamRun>,
}

/// Pages of the space in a row: the first, and the one behind the last.
type Pages = (PageNumber, PageNumber);

impl Gathered {
    /// How many pages wait, guard pages included.
    fn pages(&self) -> u64 {
        let areas = self.areas.iter().map(|area| area.end - area.pages().0);
        let ram = self.ram.iter().map(|run| run.span().pages());
        areas.chain(ram).sum()
    }

    /// What has to be shot down.
    fn ranges(&self) -> Vec<Pages> {
        let areas = self.areas.iter().map(Waiting::pages);
        let ram = self
            .ram
            .iter()
            .map(|run| (run.span().first(), run.span().end()));
        areas.chain(ram).collect()
    }

    /// Shoots guard pages down as well. They never showed anything.
    fn include_guards(&mut self) {
        for area in &mut self.areas {
            area.unflushed.reach(offset(area.end));
        }
    }
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
        let purged = self.purge_to(ctx, Depth::Quarter);
        self.take_all_apart(ctx, Depth::Quarter);
        self.releases.wait(&self.space);
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

    /// A purge for the sake of addresses, or of the cap. What has been proved gone is taken apart here only if addresses are wanted.
    pub(crate) fn purge_to(&self, ctx: &MaySleep, depth: Depth) -> Result<Purged, UnmapError> {
        // Before the turn: what is released here may unmap and purge itself.
        self.drain(ctx);
        self.take_leftovers_apart(ctx, depth);
        let turn = self.purge.turn(&self.space);
        let number = self.purge.begin();
        let purged = self.purge_alone(ctx, depth, number);
        self.purge.end(number, purged.is_ok());
        drop(turn);
        if depth == Depth::Everything {
            self.take_all_apart(ctx, depth);
        }
        purged
    }

    /// Purge `number`, by whoever has the turn.
    fn purge_alone(&self, ctx: &MaySleep, depth: Depth, number: u64) -> Result<Purged, UnmapError> {
        let mut spare = Vec::new();
        for node in &self.nodes {
            let mut pools = node.pools.lock();
            match depth {
                Depth::Quarter => pools.decay(&mut spare),
                Depth::Everything => pools.drain(&mut spare),
            }
        }
        let mut gathered = self.gather(number);
        let pages = gathered.pages();
        // From here on they do not count for the cap: others may go on while CPUs are told.
        self.purge.under_way.store(pages, Ordering::Relaxed);
        self.lazy_pages.remove(pages);
        let mut purged = self.measure(gathered.ranges());
        if purged.full {
            // Pages are not counted any more; but each range costs the host a call. So neighbours are to touch.
            gathered.include_guards();
            purged.ranges = self.measure(gathered.ranges()).ranges;
        }
        purged.areas = gathered.areas.len() as u64;
        let proved = self.shoot(ctx, gathered);
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
            let waiting = core::mem::take(&mut node.areas.lock().lazy);
            if found.areas.is_empty() {
                found.areas = waiting;
            } else {
                found.areas.extend(waiting);
            }
        }
        // So that they come back in the order of their addresses: the next areas there are neighbours in the books, too.
        found.areas.sort_unstable_by_key(|area| area.pages().0);
        found.ram = self.ram.dirty_runs(number);
        found
    }

    /// What the shootdown of `ranges` amounts to.
    fn measure(&self, mut ranges: Vec<Pages>) -> Purged {
        ranges.sort_unstable();
        let mut purged = Purged::default();
        let mut end = None;
        for &(first, behind) in &ranges {
            purged.pages += behind - first;
            purged.ranges += u64::from(end != Some(first));
            end = Some(behind);
        }
        let flush = Flush::stretches(ranges.iter().map(|&(first, behind)| Stretch {
            first: self.space.address(offset(first)).get(),
            pages: behind - first,
        }));
        purged.full = flush.invalidation() == Invalidation::Everything;
        purged
    }

    /// One shootdown, and what it sets free.
    fn shoot(&self, ctx: &MaySleep, gathered: Gathered) -> Result<(), UnmapError> {
        let Gathered { areas, ram } = gathered;
        let mut batch: Vec<_> = areas.into_iter().map(|area| area.unflushed).collect();
        batch.extend(ram.into_iter().map(|run| {
            // Its entries are gone already; this is for the proof.
            let flushed = if Mutant::DirtyRangeCutShort.active() {
                run.span().head(1)
            } else {
                run.span()
            };
            self.space.lock_up(flushed.range(), Doomed::Ram(run))
        }));
        if batch.is_empty() {
            return Ok(());
        }
        let ranges: Vec<_> = batch.iter().map(Unflushed::range).collect();
        // On failure the batch is dropped, and leaks: as it should.
        let settled = match self.space.shoot_down(batch) {
            Ok(debt) => debt.settle(ctx).map_err(|(_, error)| error),
            Err((_, error)) => Err(error),
        };
        match settled {
            Ok(flushed) => {
                let each = flushed.into_inner().into_iter();
                self.hand_over(each.filter_map(|doomed| match doomed {
                    Doomed::Area { span, holds } => Some(FlushedArea { span, holds }),
                    Doomed::Ram(run) => {
                        self.ram.flushed(run);
                        None
                    }
                }));
                Ok(())
            }
            Err(error) => {
                ranges.into_iter().for_each(|range| self.quarantine(range));
                Err(error)
            }
        }
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
            // An area that a planted fault has let go.
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
