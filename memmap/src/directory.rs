//! The books: which chunks exist, in which state, in which order they were allocated, and how many
//! bytes they and their page tables take. No memory is touched here and nothing waits; the whole
//! directory is behind one lock, which the lookup of a present descriptor never takes. Which chunk is in
//! which state can also be read without it, through a [`Reader`].
//!
//! ```text
//!                 begin_fill          finish_fill               claim
//!     (no slot) -------------> Filling -----------> Present ------------> Frozen
//!         ^                                          ^   ^                 |  |
//!         |                      resume_fill         |   +---- unclaim ----+  | condemn
//!         |                   (after a short fill)   +-> Filling              v
//!         +------------------------------ bury(Flushed) ------------------ Unmapped
//!                                                                             | quarantine
//!                                                                             v
//!                                                                        Quarantined
//! ```
//!
//! Chunks that are not in the directory are *absent*: it grows with the budget, not with the device.

mod grace;
mod index;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ptr;

use hashbrown::HashMap;
use pageless_fault::mutant::Mutant;
use pageless_fault::{Flushed, LEAF_TABLE_BYTES, LEAF_TABLE_SPAN, WindowRange};
use pageless_pfn::Pfn;
use rustc_hash::FxBuildHasher;

use crate::counters::Counters;
use crate::geometry::{ChunkIndex, DESCRIPTOR_BYTES, Geometry, GroupIndex, range};

use grace::Retirement;
use index::{Index, Node};
pub(crate) use index::{Reader, Seen};

/// Which filling of a chunk this is. Never repeats within a memmap, so an old one cannot be taken for
/// a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {}", self.0)
    }
}

/// Where a chunk is in its life. A chunk that is in no state is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkState {
    /// One thread is giving it memory; all others wait.
    Filling,
    /// It has memory; lookups need nobody.
    Present,
    /// Reclaim is freezing its descriptors; lookups that find one frozen wait.
    Frozen,
    /// Its translations are being taken away; lookups wait for the flush.
    Unmapped,
    /// Its flush could not be proved: it is never used again.
    Quarantined,
}

impl ChunkState {
    /// Whether somebody is at work, so that the state ends by itself.
    pub(crate) fn in_motion(self) -> bool {
        match self {
            ChunkState::Filling | ChunkState::Frozen | ChunkState::Unmapped => true,
            ChunkState::Present | ChunkState::Quarantined => false,
        }
    }
}

/// One chunk, as a listing shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkInfo {
    /// The first pfn whose descriptor it holds.
    pub first: Pfn,
    /// Its state.
    pub state: ChunkState,
    /// Which filling this is.
    pub generation: Generation,
}

impl ChunkInfo {
    pub(crate) fn new(geometry: &Geometry, chunk: ChunkIndex, seen: Seen) -> Option<Self> {
        Some(ChunkInfo {
            first: geometry.pfn(geometry.first_of(chunk))?,
            state: seen.state,
            generation: seen.generation,
        })
    }
}

/// A slot's place in the table. `NIL` is no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SlotId(u32);

const NIL: SlotId = SlotId(u32::MAX);

#[derive(Debug)]
struct Slot {
    /// Which chunk, which filling, and where it is in its life. `None` if the slot is free; not the
    /// last one, for then taking the slot again might free memory where that is forbidden.
    node: Option<Arc<Node>>,
    /// Bytes from the start that have memory; short of the chunk only after a fill that failed.
    present: u64,
    /// The descriptor, within the chunk, that reclaim last found referenced: the first to look at.
    hint: u32,
    /// Neighbours in order of allocation, while Filling, Present or Frozen. `newer` also links free slots.
    older: SlotId,
    newer: SlotId,
}

impl Slot {
    /// Its state; `None` if the slot is free.
    fn state(&self) -> Option<ChunkState> {
        Some(self.node.as_ref()?.seen()?.state)
    }

    fn node(&self) -> &Arc<Node> {
        match &self.node {
            Some(node) => node,
            None => unreachable!("a free slot"),
        }
    }
}

#[derive(Debug, Default)]
struct Group {
    /// Chunks of this group in any state: what keeps its leaf table.
    chunks: u32,
    /// The table is on its way out: no chunk of the group may be filled before the flush.
    closing: bool,
    /// The table was on its way out and its flush could not be proved: no chunk of the group is ever
    /// filled again.
    quarantined: bool,
}

/// What a fault finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// No memory: it takes this many bytes of budget to fill.
    Absent { cost: u64 },
    /// Memory up to somewhere short of the whole chunk: the fill can be resumed.
    Short { slot: SlotId, present: u64 },
    /// All of it has memory: look again.
    Present,
    /// Somebody else is at it: wait, then look again.
    Busy,
    /// Never again.
    Quarantined,
}

/// A chunk claimed for reclaim.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claimed {
    pub(crate) slot: SlotId,
    pub(crate) chunk: ChunkIndex,
    /// Bytes of it that have memory.
    pub(crate) present: u64,
}

/// Chunks whose translations are going away. What the flush debt owns.
#[derive(Debug)]
pub(crate) struct Condemned {
    slots: Vec<SlotId>,
    /// What to unmap: the chunks, or the whole span of a group that they leave empty.
    pub(crate) ranges: Vec<WindowRange>,
}

impl Condemned {
    pub(crate) fn chunks(&self) -> u64 {
        self.slots.len() as u64
    }
}

#[derive(Debug)]
pub(crate) struct Directory {
    geometry: Geometry,
    /// Whether an empty group's leaf table goes back to the system. If not, tables are counted but not
    /// held against the budget: nothing could be done about them.
    frees_leaf_tables: bool,
    slots: Vec<Slot>,
    free: SlotId,
    /// Chunks that are not absent.
    index: Index,
    /// Nodes for fills where nothing may be allocated.
    spare: Vec<Arc<Node>>,
    groups: HashMap<GroupIndex, Group, FxBuildHasher>,
    oldest: SlotId,
    newest: SlotId,
    filling: u64,
    last_generation: u64,
    pub(crate) counters: Counters,
}

impl Directory {
    /// For a budget of about `chunks` chunks; more only makes finding one slower.
    pub(crate) fn new(geometry: Geometry, frees_leaf_tables: bool, chunks: u64) -> Self {
        Directory {
            geometry,
            frees_leaf_tables: frees_leaf_tables && !Mutant::LeafTableKept.active(),
            slots: Vec::new(),
            free: NIL,
            index: Index::new(chunks.min(geometry.chunks())),
            spare: Vec::new(),
            groups: HashMap::with_hasher(FxBuildHasher),
            oldest: NIL,
            newest: NIL,
            filling: 0,
            last_generation: 0,
            counters: Counters::default(),
        }
    }

    fn slot(&self, id: SlotId) -> &Slot {
        &self.slots[id.0 as usize]
    }

    fn slot_mut(&mut self, id: SlotId) -> &mut Slot {
        &mut self.slots[id.0 as usize]
    }

    /// For looking without the lock.
    pub(crate) fn reader(&self) -> Reader {
        self.index.reader()
    }

    /// Bytes held against the budget.
    pub(crate) fn charged(&self) -> u64 {
        let counters = &self.counters;
        let tables = if self.frees_leaf_tables {
            counters.page_table_bytes
        } else {
            0
        };
        counters.used_bytes() - counters.page_table_bytes + tables
    }

    /// What one chunk of the reserve is charged with: it must fit wherever it is needed.
    pub(crate) fn reserve_cost(&self) -> u64 {
        let table = if self.frees_leaf_tables {
            LEAF_TABLE_BYTES
        } else {
            0
        };
        self.geometry.chunk.bytes() + table
    }

    /// Whether some chunk is in a state that ends by itself, so that waiting makes sense.
    pub(crate) fn in_motion(&self) -> bool {
        self.filling > 0 || self.counters.limbo_bytes > 0
    }

    pub(crate) fn admission(&self, chunk: ChunkIndex) -> Admission {
        let found = self
            .index
            .get(chunk)
            .and_then(|node| Some((node.slot(), node.seen()?.state)));
        match found {
            Some((id, state)) => {
                let present = self.slot(id).present;
                match state {
                    ChunkState::Present if present < self.geometry.chunk.bytes() => {
                        Admission::Short { slot: id, present }
                    }
                    ChunkState::Filling if Mutant::SecondFiller.active() => {
                        Admission::Short { slot: id, present }
                    }
                    ChunkState::Present => Admission::Present,
                    ChunkState::Quarantined => Admission::Quarantined,
                    ChunkState::Filling | ChunkState::Frozen | ChunkState::Unmapped => {
                        Admission::Busy
                    }
                }
            }
            None => {
                let table = match self.groups.get(&self.geometry.group_of(chunk)) {
                    Some(group) if group.quarantined => return Admission::Quarantined,
                    Some(group) if group.closing && !Mutant::FillInClosingGroup.active() => {
                        return Admission::Busy;
                    }
                    Some(_) => 0,
                    None if self.frees_leaf_tables => LEAF_TABLE_BYTES,
                    None => 0,
                };
                Admission::Absent {
                    cost: self.geometry.chunk.bytes() + table,
                }
            }
        }
    }

    /// How many chunks from `chunk` on, which is absent, to fill at once: more than one if it lies behind
    /// the youngest chunk, as in a walk, and only as far as chunks are absent, share its leaf table, and
    /// fit under `limit` bytes.
    pub(crate) fn run_length(&self, chunk: ChunkIndex, most: u64, limit: u64) -> u64 {
        let walking = self.newest != NIL
            && self.slot(self.newest).node().chunk().0.checked_add(1) == Some(chunk.0);
        if most <= 1 || !walking {
            return 1;
        }
        let room =
            limit.saturating_sub(self.charged() + LEAF_TABLE_BYTES) / self.geometry.chunk.bytes();
        let chunks = self.geometry.chunks();
        let group = self.geometry.group_of(chunk);
        let mut run = 1;
        while run < most.min(room) {
            let next = ChunkIndex(chunk.0 + run);
            if next.0 >= chunks
                || self.geometry.group_of(next) != group
                || self.index.get(next).is_some()
            {
                break;
            }
            run += 1;
        }
        run
    }

    /// Whether a fill can be begun without allocating.
    pub(crate) fn has_room(&self) -> bool {
        (self.free != NIL || self.slots.len() < self.slots.capacity())
            && !self.spare.is_empty()
            && self.groups.len() < self.groups.capacity()
    }

    /// Makes room for `fills` more, so that [`has_room`](Self::has_room) holds before each.
    pub(crate) fn make_room(&mut self, fills: usize) {
        self.slots.reserve(fills);
        self.groups.reserve(fills);
        while self.spare.len() < fills {
            self.spare.push(Node::spare());
        }
    }

    /// An absent chunk becomes Filling, in a new generation and as the youngest of all; the caller is
    /// its only filler.
    pub(crate) fn begin_fill(&mut self, chunk: ChunkIndex) -> SlotId {
        self.last_generation += 1;
        let generation = Generation(if Mutant::GenerationKept.active() {
            chunk.0
        } else {
            self.last_generation
        });
        let id = if self.free == NIL {
            SlotId(self.slots.len() as u32)
        } else {
            self.free
        };
        let mut node = self.spare.pop().unwrap_or_else(Node::spare);
        Node::prepare(&mut node, chunk, id, generation);
        let slot = Slot {
            node: Some(Arc::clone(&node)),
            present: 0,
            hint: 0,
            older: NIL,
            newer: NIL,
        };
        if self.free == NIL {
            self.slots.push(slot);
        } else {
            self.free = self.slot(id).newer;
            *self.slot_mut(id) = slot;
        }
        self.index.insert(node);
        let group = self
            .groups
            .entry(self.geometry.group_of(chunk))
            .or_insert_with(|| {
                self.counters.page_table_bytes += LEAF_TABLE_BYTES;
                Group::default()
            });
        group.chunks += 1;
        self.counters.live_bytes += self.geometry.chunk.bytes();
        self.filling += 1;
        self.link_newest(id);
        self.counters.raise_peaks();
        id
    }

    /// A chunk that was filled short becomes Filling again. It keeps its place in the order.
    pub(crate) fn resume_fill(&mut self, id: SlotId) {
        if self.slot(id).state() == Some(ChunkState::Present) {
            self.slot(id).node().set(ChunkState::Filling);
            self.filling += 1;
        }
    }

    /// A Filling chunk becomes Present with its first `present` bytes.
    pub(crate) fn finish_fill(&mut self, id: SlotId, present: u64) {
        let whole = present == self.geometry.chunk.bytes();
        let slot = self.slot_mut(id);
        if slot.state() != Some(ChunkState::Filling) {
            return; // only with a second filler, which is a mutant
        }
        slot.present = present;
        slot.node().set(ChunkState::Present);
        self.filling -= 1;
        if whole {
            self.counters.chunks_populated += 1;
        }
    }

    /// Makes a chunk the youngest although nobody allocated it: a mutant's work.
    pub(crate) fn renew(&mut self, chunk: ChunkIndex) {
        if let Some(id) = self.index.get(chunk).map(Node::slot)
            && self.slot(id).state() == Some(ChunkState::Present)
        {
            self.unlink(id);
            self.link_newest(id);
        }
    }

    /// Claims up to `most` Present chunks in order of allocation, beginning at `from` (the oldest if
    /// `None`), for the one reclaimer there is, and looks at no more than `scan`. `pinned(chunk, hint)`
    /// may cheaply rule one out. Returns where to go on; `None` at the end.
    pub(crate) fn claim(
        &mut self,
        from: Option<SlotId>,
        most: usize,
        scan: usize,
        claimed: &mut Vec<Claimed>,
        mut pinned: impl FnMut(ChunkIndex, u32) -> bool,
    ) -> Option<SlotId> {
        let mut at = from.unwrap_or(self.oldest);
        let mut examined = 0;
        while at != NIL && claimed.len() < most && examined < scan {
            examined += 1;
            let slot = self.slot(at);
            let (chunk, newer) = (slot.node().chunk(), slot.newer);
            if slot.state() == Some(ChunkState::Present) {
                let hinted = u64::from(slot.hint) * DESCRIPTOR_BYTES < slot.present;
                if hinted && pinned(chunk, slot.hint) {
                    self.counters.passed_over += 1;
                } else {
                    slot.node().set(ChunkState::Frozen);
                    claimed.push(Claimed {
                        slot: at,
                        chunk,
                        present: slot.present,
                    });
                }
            }
            at = newer;
        }
        (at != NIL).then_some(at)
    }

    /// A claimed chunk goes back to Present: descriptor `hint` of it is referenced. Its place was kept.
    pub(crate) fn unclaim(&mut self, id: SlotId, hint: u32) {
        let slot = self.slot_mut(id);
        slot.node().set(ChunkState::Present);
        slot.hint = hint;
        self.counters.passed_over += 1;
    }

    /// Claimed chunks whose descriptors are all frozen become Unmapped: out of the order, into limbo.
    pub(crate) fn condemn(&mut self, frozen: &[Claimed]) -> Condemned {
        let mut slots = Vec::with_capacity(frozen.len());
        let mut chunks = Vec::with_capacity(frozen.len());
        for claimed in frozen {
            self.unlink(claimed.slot);
            self.slot(claimed.slot).node().set(ChunkState::Unmapped);
            self.counters.live_bytes -= self.geometry.chunk.bytes();
            self.counters.limbo_bytes += self.geometry.chunk.bytes();
            slots.push(claimed.slot);
            chunks.push(claimed.chunk);
        }
        chunks.sort_unstable();
        let mut ranges: Vec<WindowRange> = Vec::with_capacity(chunks.len());
        for of_group in
            chunks.chunk_by(|a, b| self.geometry.group_of(*a) == self.geometry.group_of(*b))
        {
            let index = self.geometry.group_of(of_group[0]);
            if let Some(group) = self.groups.get_mut(&index)
                && group.chunks as usize == of_group.len()
                && self.frees_leaf_tables
            {
                group.closing = true;
                append(
                    &mut ranges,
                    range(index.0 * LEAF_TABLE_SPAN, LEAF_TABLE_SPAN),
                );
            } else {
                for chunk in of_group {
                    append(&mut ranges, self.geometry.chunk_range(*chunk));
                }
            }
        }
        let condemned = Condemned { slots, ranges };
        if removed_before_flush() {
            self.remove(&condemned.slots);
        }
        condemned
    }

    /// Chunks whose flush is proved are absent again, and their bytes free. Their nodes go when nobody
    /// reads them any more: after the flush *and* the epoch, in this order.
    pub(crate) fn bury(&mut self, flushed: Flushed<Condemned>) {
        let condemned = flushed.into_inner();
        self.counters.chunks_reclaimed += condemned.chunks();
        if !removed_before_flush() {
            self.remove(&condemned.slots);
        }
    }

    /// Chunks whose flush cannot be proved stay in limbo for good.
    pub(crate) fn quarantine(&mut self, frozen: &[Claimed]) {
        self.counters.flush_failures += 1;
        for claimed in frozen {
            self.slot(claimed.slot).node().set(ChunkState::Quarantined);
            self.counters.limbo_bytes -= self.geometry.chunk.bytes();
            self.counters.quarantined_bytes += self.geometry.chunk.bytes();
            let index = self.geometry.group_of(claimed.chunk);
            if let Some(group) = self.groups.get_mut(&index) {
                group.quarantined = group.closing;
            }
        }
    }

    fn remove(&mut self, slots: &[SlotId]) {
        let retirement = Retirement::begin();
        for &id in slots {
            let Some(node) = self.slot_mut(id).node.take() else {
                continue;
            };
            let chunk = node.chunk();
            self.index.remove(&node, &retirement);
            self.counters.limbo_bytes -= self.geometry.chunk.bytes();
            let index = self.geometry.group_of(chunk);
            if let Some(group) = self.groups.get_mut(&index) {
                group.chunks -= 1;
                if group.chunks == 0 && self.frees_leaf_tables {
                    self.groups.remove(&index);
                    self.counters.page_table_bytes -= LEAF_TABLE_BYTES;
                }
            }
            let free = self.free;
            self.slot_mut(id).newer = free;
            self.free = id;
        }
    }

    fn link_newest(&mut self, id: SlotId) {
        let older = self.newest;
        let slot = self.slot_mut(id);
        slot.older = older;
        slot.newer = NIL;
        if older == NIL {
            self.oldest = id;
        } else {
            self.slot_mut(older).newer = id;
        }
        self.newest = id;
    }

    fn unlink(&mut self, id: SlotId) {
        let (older, newer) = (self.slot(id).older, self.slot(id).newer);
        if older == NIL {
            self.oldest = newer;
        } else {
            self.slot_mut(older).newer = newer;
        }
        if newer == NIL {
            self.newest = older;
        } else {
            self.slot_mut(newer).older = older;
        }
        let slot = self.slot_mut(id);
        slot.older = NIL;
        slot.newer = NIL;
    }

    /// Chunks that are not on their way out, oldest allocation first.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = (ChunkIndex, u64, ChunkInfo)> {
        core::iter::successors((self.oldest != NIL).then_some(self.oldest), |id| {
            let newer = self.slot(*id).newer;
            (newer != NIL).then_some(newer)
        })
        .filter_map(|id| {
            let slot = self.slot(id);
            let chunk = slot.node().chunk();
            let info = ChunkInfo::new(&self.geometry, chunk, slot.node().seen()?)?;
            Some((chunk, slot.present, info))
        })
    }

    /// What the chunk is at, unless it is absent.
    pub(crate) fn look(&self, chunk: ChunkIndex) -> Option<Seen> {
        self.index.get(chunk)?.seen()
    }

    /// Checks every invariant that can be checked by looking.
    ///
    /// # Errors
    ///
    /// Says which one does not hold.
    pub(crate) fn self_check(&self) -> Result<(), &'static str> {
        let chunk = self.geometry.chunk.bytes();
        let mut linked = 0;
        let mut at = self.oldest;
        let mut older = NIL;
        while at != NIL {
            let slot = self.slot(at);
            if slot.older != older {
                return Err("order list: back link");
            }
            if !matches!(
                slot.state(),
                Some(ChunkState::Filling | ChunkState::Present | ChunkState::Frozen)
            ) {
                return Err("order list: a chunk on its way out");
            }
            if older != NIL && self.slot(older).node().generation() >= slot.node().generation() {
                return Err("order list: not in order of allocation");
            }
            linked += 1;
            if linked > self.slots.len() {
                return Err("order list: cycle");
            }
            older = at;
            at = slot.newer;
        }
        if self.newest != older {
            return Err("order list: tail");
        }
        let (mut live, mut limbo, mut quarantined, mut filling, mut listed) = (0, 0, 0, 0, 0);
        let mut nodes = 0;
        for node in self.index.iter() {
            nodes += 1;
            if !ptr::eq(node, Arc::as_ptr(self.slot(node.slot()).node())) {
                return Err("index: slot of another chunk");
            }
            if !self
                .index
                .get(node.chunk())
                .is_some_and(|found| ptr::eq(found, node))
            {
                return Err("index: a chunk that is not found, or twice");
            }
            match node.seen().map(|seen| seen.state) {
                Some(state @ (ChunkState::Filling | ChunkState::Present | ChunkState::Frozen)) => {
                    live += chunk;
                    listed += 1;
                    filling += u64::from(state == ChunkState::Filling);
                }
                Some(ChunkState::Unmapped) => limbo += chunk,
                Some(ChunkState::Quarantined) => quarantined += chunk,
                None => return Err("index: a chunk that is gone"),
            }
        }
        if nodes != self.index.len() {
            return Err("index: count of chunks");
        }
        if listed != linked {
            return Err("order list: not all live chunks");
        }
        if filling != self.filling {
            return Err("count of chunks being filled");
        }
        let counters = &self.counters;
        if (live, limbo, quarantined)
            != (
                counters.live_bytes,
                counters.limbo_bytes,
                counters.quarantined_bytes,
            )
        {
            return Err("live, limbo or quarantined bytes");
        }
        for (index, group) in &self.groups {
            let chunks = self
                .index
                .iter()
                .filter(|node| self.geometry.group_of(node.chunk()) == *index)
                .count();
            if chunks != group.chunks as usize {
                return Err("group: count of chunks");
            }
            if chunks == 0 && self.frees_leaf_tables {
                return Err("group: empty");
            }
        }
        if self.groups.len() as u64 * LEAF_TABLE_BYTES != self.counters.page_table_bytes {
            return Err("page-table bytes");
        }
        Ok(())
    }
}

/// Whether faults are let through to chunks whose flush is under way: two mutants, the second of which then finds the old frame.
fn removed_before_flush() -> bool {
    Mutant::FreedBeforeFlush.active() || Mutant::OldFrameReinstalled.active()
}

/// Adds `next`, which lies behind all of `ranges`, joining it to the last one where they touch.
fn append(ranges: &mut Vec<WindowRange>, next: WindowRange) {
    if let Some(last) = ranges.last_mut()
        && last.end() == next.start()
    {
        *last = range(last.start().get(), last.len() + next.len());
    } else {
        ranges.push(next);
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
