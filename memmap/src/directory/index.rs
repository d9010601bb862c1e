//! From a chunk to its node, the object that says where the chunk is in its life.
//!
//! ```text
//!   Index (one, in the books) ---+                       Arc        Arc
//!                                +--> buckets [ . | . ] ----> Node ----> Node
//!   Reader (in the memmap) ------+                             ^
//!                                                              | Arc
//!   slot (in the books) ---------------------------------------+
//! ```
//!
//! All changes go through the one [`Index`], which is behind the books' lock. A [`Reader`] walks the same
//! chains without it. So chains are only ever changed by single stores: a new node is pushed in front,
//! a dead one is bypassed and keeps its own link, so that a reader standing on it walks on.
//!
//! # Invariants
//!
//! 1. A pointer in a chain is null or carries one strong count of an `Arc<Node>`.
//! 2. That count is given up only after the pointer has left the chain, through [`Retirement::retire`]; or by
//!    dropping the table, which nobody can be reading.
//! 3. Chains change only by `&mut Index`, and there is one `Index` to a table.
#![expect(
    unsafe_code,
    reason = "readers follow pointers that no borrow protects; an epoch does"
)]

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use super::grace::{self, Retirement};
use super::{ChunkState, Generation, SlotId};
use crate::geometry::ChunkIndex;

/// The most buckets, 256 KiB of them, whatever the budget: a sparse memmap must not pay for a full one. Beyond that, chains grow:
/// eight nodes for 1 GiB of descriptors in chunks of 4 KiB, which a fault walks in a fraction of its own time.
const BUCKETS_MOST: u64 = 1 << 15;
const BUCKETS_LEAST: u64 = 16;

/// Bits of the state in a node's word; the generation is above them.
const STATE_BITS: u32 = 3;

/// A node's state word, below the generation:
///
/// | value | meaning |
/// |---|---|
/// | 0 | gone: the chunk is absent, or in another node |
/// | 1 | Filling |
/// | 2 | Present |
/// | 3 | Frozen |
/// | 4 | Unmapped |
/// | 5 | Quarantined |
const GONE: u64 = 0;

/// One filling of a chunk, from the beginning of the fill to the end of the flush.
#[derive(Debug)]
pub(super) struct Node {
    chunk: ChunkIndex,
    slot: SlotId,
    /// Generation and state. Written under the books' lock; read by anybody.
    word: AtomicU64,
    next: AtomicPtr<Node>,
}

/// What a look without the lock has seen. By now it may be otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) state: ChunkState,
    pub(crate) generation: Generation,
}

impl Node {
    /// A node that is in no table.
    pub(super) fn spare() -> Arc<Node> {
        Arc::new(Node {
            chunk: ChunkIndex(0),
            slot: super::NIL,
            word: AtomicU64::new(GONE),
            next: AtomicPtr::new(ptr::null_mut()),
        })
    }

    /// Makes a spare node that of `chunk`, Filling. Nothing happens to one that is not spare.
    pub(super) fn prepare(
        spare: &mut Arc<Node>,
        chunk: ChunkIndex,
        slot: SlotId,
        generation: Generation,
    ) {
        if let Some(node) = Arc::get_mut(spare) {
            node.chunk = chunk;
            node.slot = slot;
            node.word = AtomicU64::new(word(ChunkState::Filling, generation));
        }
    }

    pub(super) fn chunk(&self) -> ChunkIndex {
        self.chunk
    }

    pub(super) fn slot(&self) -> SlotId {
        self.slot
    }

    pub(super) fn generation(&self) -> Generation {
        // Relaxed: does not change after the node is published.
        Generation(self.word.load(Ordering::Relaxed) >> STATE_BITS)
    }

    /// `None` once the node has left its table.
    pub(super) fn seen(&self) -> Option<Seen> {
        // Acquire pairs with the Release in `set`: who sees a state sees what led to it.
        let word = self.word.load(Ordering::Acquire);
        let state = match word & ((1 << STATE_BITS) - 1) {
            1 => ChunkState::Filling,
            2 => ChunkState::Present,
            3 => ChunkState::Frozen,
            4 => ChunkState::Unmapped,
            5 => ChunkState::Quarantined,
            _ => return None,
        };
        let generation = Generation(word >> STATE_BITS);
        Some(Seen { state, generation })
    }

    /// Moves on. Under the books' lock.
    pub(super) fn set(&self, state: ChunkState) {
        // Release pairs with the Acquire in `seen`.
        self.word
            .store(word(state, self.generation()), Ordering::Release);
    }

    fn close(&self) {
        let closed = self.generation().0 << STATE_BITS | GONE;
        // Release pairs with the Acquire in `seen`.
        self.word.store(closed, Ordering::Release);
    }
}

fn word(state: ChunkState, generation: Generation) -> u64 {
    let state = match state {
        ChunkState::Filling => 1,
        ChunkState::Present => 2,
        ChunkState::Frozen => 3,
        ChunkState::Unmapped => 4,
        ChunkState::Quarantined => 5,
    };
    generation.0 << STATE_BITS | state
}

/// The table: a power of two of chains. Its size is fixed: readers need not notice that it grows.
#[derive(Debug)]
struct Buckets(Box<[AtomicPtr<Node>]>);

impl Buckets {
    fn of(&self, chunk: ChunkIndex) -> &AtomicPtr<Node> {
        // Neighbours far apart, and the best bits on top (multiplication by 2^64 over the golden ratio).
        let hash = chunk.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        &self.0[hash as usize & (self.0.len() - 1)]
    }
}

impl Drop for Buckets {
    fn drop(&mut self) {
        for bucket in &mut self.0 {
            let mut at = core::mem::replace(bucket.get_mut(), ptr::null_mut());
            while !at.is_null() {
                // SAFETY: invariant 1: the pointer is one of `Arc::into_raw` with a count of its own. It
                // is given up here and once, since the walk goes on from the node's own link and chains
                // share no nodes. No reader is left: readers borrow an `Arc` of this table.
                let node = unsafe { Arc::from_raw(at) };
                at = node.next.load(Ordering::Relaxed);
            }
        }
    }
}

/// The writer's end, and what the books know the chunks by.
#[derive(Debug)]
pub(super) struct Index {
    buckets: Arc<Buckets>,
    len: usize,
}

/// The end that needs no lock.
#[derive(Debug)]
pub(crate) struct Reader {
    buckets: Arc<Buckets>,
}

/// There is no epoch here: look under the lock.
#[derive(Debug)]
pub(crate) struct NeedsLock;

impl Index {
    /// For about `chunks` chunks.
    pub(super) fn new(chunks: u64) -> Self {
        let buckets = chunks
            .clamp(BUCKETS_LEAST, BUCKETS_MOST)
            .next_power_of_two();
        let buckets = (0..buckets).map(|_| AtomicPtr::new(ptr::null_mut()));
        Index {
            buckets: Arc::new(Buckets(buckets.collect())),
            len: 0,
        }
    }

    pub(super) fn reader(&self) -> Reader {
        Reader {
            buckets: Arc::clone(&self.buckets),
        }
    }

    fn node(&self, at: *mut Node) -> Option<&Node> {
        // SAFETY: `at` is null or was just loaded from a chain. By invariants 2 and 3 it stays counted as
        // long as the index is borrowed, and that is as long as the result is.
        unsafe { at.as_ref() }
    }

    fn chain(&self, bucket: &AtomicPtr<Node>) -> impl Iterator<Item = &Node> {
        // Relaxed: whoever has the index wrote the chain, or took the lock after those who did.
        let first = self.node(bucket.load(Ordering::Relaxed));
        core::iter::successors(first, |node| self.node(node.next.load(Ordering::Relaxed)))
    }

    pub(super) fn get(&self, chunk: ChunkIndex) -> Option<&Node> {
        self.chain(self.buckets.of(chunk))
            .find(|node| node.chunk == chunk)
    }

    /// How many nodes there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// All nodes, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.buckets.0.iter().flat_map(|bucket| self.chain(bucket))
    }

    /// Publishes a node, of a chunk that has none. Allocates nothing.
    pub(super) fn insert(&mut self, node: Arc<Node>) {
        let bucket = self.buckets.of(node.chunk);
        node.next
            .store(bucket.load(Ordering::Relaxed), Ordering::Relaxed);
        // Release pairs with the Acquire in `Reader::look`: who finds the node finds it complete.
        bucket.store(Arc::into_raw(node).cast_mut(), Ordering::Release);
        self.len += 1;
    }

    /// Takes a node out of the table, without effect if it is not in it. Its memory goes when nobody
    /// reads it any more.
    pub(super) fn remove(&mut self, node: &Arc<Node>, retirement: &Retirement) {
        let mut link = self.buckets.of(node.chunk);
        loop {
            let at = link.load(Ordering::Relaxed);
            let Some(found) = self.node(at) else {
                return;
            };
            if ptr::eq(found, Arc::as_ptr(node)) {
                found.close();
                // Release pairs with the Acquire in `Reader::look`. The node keeps its own link, for those
                // who stand on it.
                link.store(found.next.load(Ordering::Relaxed), Ordering::Release);
                // SAFETY: invariant 1: `at` came from `Arc::into_raw` with a count of its own. It has just
                // left the only chain that it was in, so nobody gives that count up again.
                let unlinked = unsafe { Arc::from_raw(at) };
                self.len -= 1;
                retirement.retire(unlinked);
                return;
            }
            link = &found.next;
        }
    }
}

impl Reader {
    /// What can be seen of `chunk` without the lock; `None` if it is absent, or was at some time during
    /// the look.
    ///
    /// # Errors
    ///
    /// This build has no epoch.
    pub(crate) fn look(&self, chunk: ChunkIndex) -> Result<Option<Seen>, NeedsLock> {
        let pin = grace::pin().ok_or(NeedsLock)?;
        Ok(self.find(chunk, &pin).and_then(Node::seen))
    }

    /// The node of `chunk`. It stays in memory as long as the pin, whatever becomes of the chunk.
    fn find<'p>(&'p self, chunk: ChunkIndex, _pin: &'p grace::Pin) -> Option<&'p Node> {
        let mut link = self.buckets.of(chunk);
        loop {
            // Acquire pairs with the Release in `insert` and in `remove`.
            let at = link.load(Ordering::Acquire);
            // SAFETY: null, or a node that left the table after the pin began, if at all: a bucket names only
            // nodes that are in it; and a node's link names its successor until the node itself leaves,
            // which (by induction along the walk) is after the pin began. By invariant 2 the count that
            // came with the pointer is then retired, not dropped, until the pin has ended, and `'p` ends
            // before that.
            let node = unsafe { at.as_ref() }?;
            if node.chunk == chunk {
                return Some(node);
            }
            link = &node.next;
        }
    }
}

#[cfg(all(test, feature = "std", not(loom)))]
mod tests;
