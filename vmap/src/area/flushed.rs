//! Areas that are proved gone, on their way back: the addresses to a pool, what they own to whoever it belongs to.
//!
//! A purge proves, and hands each node what is in its books. The CPUs of the node take a few areas apart with each call that may sleep: so
//! nobody pays for all of them at once, and what one CPU has made another one need not touch. Whoever asks for a purge by name takes all of
//! them apart, and so does whoever needs addresses.

use alloc::vec::Vec;

use pageless_fault::shootdown::CpuId;
use pageless_fault::sync::Mutex;
use pageless_fault::sync::atomic::Ordering;
use pageless_fault::{Cpus, MaySleep, Vspace};

use crate::area::node::Node;
use crate::area::purge::Depth;
use crate::area::release::{Holds, Unreachable};
use crate::area::space::AreaSpace;
use crate::area::span::Span;
use crate::frames::Context;
use crate::mutant::Mutant;

/// How many a call takes apart by the way. One area comes back for each that is unmapped, so this keeps up.
const BY_THE_WAY: usize = 16;
/// How many are taken out of the books under one lock: those who must not wait try it only so often.
const AT_ONCE: usize = 32;

/// An area that no CPU can reach any more.
#[derive(Debug)]
pub(crate) struct FlushedArea {
    /// Its addresses, guard included.
    pub(crate) span: Span,
    /// What it owns.
    pub(crate) holds: Holds,
}

/// Who is releasing what areas owned: it is in no list any more, and not yet back.
#[derive(Debug)]
pub(crate) struct Releases(Mutex<List>);

#[derive(Debug, Default)]
struct List {
    next: u64,
    /// In the order of their beginning: the number, and who does it.
    at_work: Vec<(u64, Whoever)>,
}

/// Whoever is running. The CPU is not enough on the host, where threads share its number, and the thread is not on the modelled machine, where
/// one may be all CPUs in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Whoever {
    cpu: CpuId,
    #[cfg(feature = "std")]
    thread: std::thread::ThreadId,
}

impl Whoever {
    fn now(cpus: &impl Cpus) -> Self {
        Whoever {
            cpu: cpus.current(),
            #[cfg(feature = "std")]
            thread: std::thread::current().id(),
        }
    }
}

impl Releases {
    /// Nobody.
    pub(crate) fn none() -> Self {
        Releases(Mutex::new(List::default()))
    }

    /// From now on the caller releases something. Under the lock of the list that it was taken from: whoever finds it gone there finds it here.
    fn begin(&self, cpus: &impl Cpus) -> Releasing<'_> {
        let caller = Whoever::now(cpus);
        let mut list = self.0.lock();
        let number = list.next;
        list.next += 1;
        list.at_work.push((number, caller));
        Releasing {
            releases: self,
            number,
        }
    }

    /// Whether the caller is in the middle of it.
    fn is_at_work(&self, cpus: &impl Cpus) -> bool {
        let caller = Whoever::now(cpus);
        let list = self.0.lock();
        list.at_work.iter().any(|(_, busy)| *busy == caller)
    }

    /// Waits for the end of all that have begun. Whoever is releasing something himself, and comes here from there, does not: of two such,
    /// each would wait for the other.
    pub(crate) fn wait(&self, cpus: &impl Cpus) {
        let caller = Whoever::now(cpus);
        let end = self.0.lock().next;
        let mut turns = 0_u32;
        loop {
            let list = self.0.lock();
            let earlier = list.at_work.first().is_some_and(|(first, _)| *first < end);
            if !earlier || list.at_work.iter().any(|(_, busy)| *busy == caller) {
                return;
            }
            drop(list);
            cpus.relax(turns);
            turns = turns.saturating_add(1);
        }
    }
}

/// Somebody releases something, until this is dropped.
struct Releasing<'r> {
    releases: &'r Releases,
    number: u64,
}

impl Drop for Releasing<'_> {
    fn drop(&mut self) {
        let mut list = self.releases.0.lock();
        list.at_work.retain(|(number, _)| *number != self.number);
    }
}

impl<S: Vspace> AreaSpace<S> {
    /// Hands areas that have been shot down to the nodes whose books they are in.
    pub(crate) fn hand_over(&self, flushed: impl Iterator<Item = FlushedArea>) {
        let mut homes: Vec<Vec<FlushedArea>> = self.nodes.iter().map(|_| Vec::new()).collect();
        for area in flushed {
            homes[self.node_index(area.span.first())].push(area);
        }
        for (node, mut flushed) in self.nodes.iter().zip(homes) {
            if !flushed.is_empty() {
                let mut areas = node.areas.lock();
                areas.flushed.append(&mut flushed);
                node.flushed
                    .store(areas.flushed.len() as u64, Ordering::Relaxed);
            }
        }
    }

    /// Takes a few areas of the caller's node apart, if there are any.
    pub(crate) fn take_some_apart(&self, ctx: &MaySleep) {
        let node = &self.nodes[usize::from(self.here())];
        // From a release it would end here again, and again.
        if node.flushed.load(Ordering::Relaxed) > 0 && !self.releases.is_at_work(&self.space) {
            self.take_apart(ctx, node, BY_THE_WAY, Depth::Quarter);
        }
    }

    /// Takes apart what earlier purges have left to nodes whose CPUs have not come by since.
    pub(crate) fn take_leftovers_apart(&self, ctx: &MaySleep, depth: Depth) {
        if !self.releases.is_at_work(&self.space) {
            self.take_all_apart(ctx, depth);
        }
    }

    /// Takes all areas apart that have been flushed.
    pub(crate) fn take_all_apart(&self, ctx: &MaySleep, depth: Depth) {
        for node in &self.nodes {
            // Until its list has been seen empty, under the lock: what the hint says may be of before, and who has taken the last of them is
            // known to `releases` only when he gives the lock back.
            while self.take_apart(ctx, node, AT_ONCE, depth) {}
        }
    }

    /// Takes up to `most` areas of `node` apart: addresses first, and then, with no lock held, what they owned. False if there are none.
    fn take_apart(&self, ctx: &MaySleep, node: &Node, most: usize, depth: Depth) -> bool {
        let mut spans = Vec::new();
        let (taken, releasing) = {
            let mut areas = node.areas.lock();
            let rest = areas.flushed.len().saturating_sub(most);
            let taken = areas.flushed.split_off(rest);
            node.flushed.store(rest as u64, Ordering::Relaxed);
            if taken.is_empty() {
                return false;
            }
            // A planted fault has given the addresses out already: what is there now is somebody else's.
            if !Mutant::RangeReusedBeforeFlush.active() {
                for FlushedArea { span, .. } in &taken {
                    if let Some(record) = areas.records.remove(&span.first()) {
                        spans.push((record.home, *span));
                    }
                }
            }
            (taken, self.releases.begin(&self.space))
        };
        match depth {
            Depth::Quarter => {
                for (home, span) in spans {
                    self.give(Context::MaySleep(ctx), home, span);
                }
            }
            Depth::Everything => {
                let mut free = self.free.lock();
                for (_, span) in spans {
                    free.give(span);
                }
            }
        }
        for FlushedArea { span, holds } in taken {
            holds.release(&Unreachable::proved(), ctx);
            let pages = span.pages() - self.guard();
            self.purge.counts.released.add(pages);
        }
        drop(releasing);
        true
    }
}
