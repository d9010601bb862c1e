//! Hazard: a reader without the lock walks into a node that is gone, or past one that is there.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use pageless_pfn::{FrameCount, Pfn, PfnRange};

use super::super::grace::{self, Retirement};
use super::super::tests::Instant;
use super::{ChunkState, Generation, Index, Node, Seen, SlotId};
use crate::geometry::ChunkIndex;
use crate::memmap::{Config, Memmap};

fn insert(index: &mut Index, chunk: u64, generation: u64) -> Arc<Node> {
    let mut node = Node::spare();
    Node::prepare(
        &mut node,
        ChunkIndex(chunk),
        SlotId(0),
        Generation(generation),
    );
    index.insert(Arc::clone(&node));
    node
}

/// Whether readers do without the lock in this build.
fn has_epoch() -> bool {
    grace::pin().is_some()
}

#[test]
fn a_reader_keeps_a_node_whose_chunk_has_been_reclaimed() {
    let mut index = Index::new(16);
    let node = insert(&mut index, 7, 3);
    let alive = Arc::downgrade(&node);
    let reader = index.reader();
    let Some(pin) = grace::pin() else {
        return;
    };
    let held = reader.find(ChunkIndex(7), &pin).unwrap();
    let filling = Seen {
        state: ChunkState::Filling,
        generation: Generation(3),
    };
    assert_eq!(held.seen(), Some(filling));

    // The whole life of the chunk, and the beginning of the next.
    for state in [
        ChunkState::Present,
        ChunkState::Frozen,
        ChunkState::Unmapped,
    ] {
        node.set(state);
        assert_eq!(held.seen().unwrap().state, state);
    }
    index.remove(&node, &Retirement::begin());
    drop(node);
    let next = insert(&mut index, 7, 4);
    // Another thread does its best to free it.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..if cfg!(miri) { 8 } else { 1000 } {
                drop(grace::pin());
                Retirement::begin().retire(Node::spare());
            }
        });
    });

    assert_eq!(alive.strong_count(), 1, "freed under a reader");
    assert_eq!(held.seen(), None, "not known to be gone");
    assert_eq!(held.generation(), Generation(3));
    assert_eq!(
        reader.look(ChunkIndex(7)).unwrap(),
        Some(Seen {
            generation: Generation(4),
            ..filling
        })
    );
    drop(pin);
    drop(next);
    // And it does go, some time after its last reader. Others may be pinned now and then.
    while alive.strong_count() > 0 {
        Retirement::begin().retire(Node::spare());
        drop(grace::pin());
        std::thread::yield_now();
    }
}

#[test]
fn a_reader_on_a_node_that_leaves_walks_on() {
    // Three in one chain, the last one first in.
    let mut index = Index::new(16);
    let bucket = core::ptr::from_ref(index.buckets.of(ChunkIndex(0)));
    let chain: Vec<u64> = (0..1000)
        .filter(|n| core::ptr::eq(bucket, index.buckets.of(ChunkIndex(*n))))
        .take(3)
        .collect();
    let nodes: Vec<_> = chain
        .iter()
        .rev()
        .map(|chunk| insert(&mut index, *chunk, 1))
        .collect();
    let reader = index.reader();
    let Some(pin) = grace::pin() else {
        return;
    };
    let first = reader.find(ChunkIndex(chain[0]), &pin).unwrap();
    // From the front: each keeps naming the next one, which is still in memory.
    index.remove(&nodes[2], &Retirement::begin());
    index.remove(&nodes[1], &Retirement::begin());
    drop(nodes);
    let second = core::ptr::NonNull::new(first.next.load(Ordering::Acquire)).unwrap();
    // SAFETY: it was in the chain when the pin began.
    let second = unsafe { second.as_ref() };
    assert_eq!((second.chunk.0, second.seen()), (chain[1], None));
    assert!(reader.find(ChunkIndex(chain[2]), &pin).is_some());
    assert!(reader.find(ChunkIndex(chain[0]), &pin).is_none());
    assert_eq!(index.len(), 1);
}

#[test]
fn a_chunk_that_stays_is_found_whatever_comes_and_goes_beside_it() {
    const STAY: u64 = 8;
    let mut index = Index::new(16);
    let rounds: u64 = if cfg!(miri) { 20 } else { 20_000 };
    for chunk in 0..STAY {
        insert(&mut index, chunk, 1).set(ChunkState::Present);
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..if has_epoch() { 2 } else { 0 } {
            let (reader, done) = (index.reader(), &done);
            scope.spawn(move || {
                let mut last = 0;
                while !done.load(Ordering::Relaxed) {
                    for chunk in 0..STAY {
                        let seen = reader.look(ChunkIndex(chunk)).unwrap();
                        assert_eq!(seen.unwrap().state, ChunkState::Present);
                    }
                    if let Some(seen) = reader.look(ChunkIndex(STAY)).unwrap() {
                        assert!(seen.generation.0 >= last, "an old node was found again");
                        last = seen.generation.0;
                    }
                }
            });
        }
        // Sixteen buckets, so these share chains with those that stay.
        for round in 1..=rounds {
            let nodes: Vec<_> = (STAY..STAY + 24)
                .map(|chunk| insert(&mut index, chunk, round))
                .collect();
            for node in &nodes {
                index.remove(node, &Retirement::begin());
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(index.iter().count(), STAY as usize);
}

#[test]
fn a_table_that_goes_takes_its_nodes_along() {
    let mut index = Index::new(16);
    let alive: Vec<_> = (0..100)
        .map(|chunk| Arc::downgrade(&insert(&mut index, chunk, 1)))
        .collect();
    let reader = index.reader();
    drop(index);
    assert!(alive.iter().all(|node| node.strong_count() == 1));
    drop(reader);
    assert!(alive.iter().all(|node| node.strong_count() == 0));
}

#[test]
fn a_chunk_can_be_looked_at_while_somebody_has_the_books() {
    if !has_epoch() {
        return;
    }
    let pfns = PfnRange::try_new(Pfn::try_new(0).unwrap(), FrameCount::new(1 << 20)).unwrap();
    let memmap = Memmap::attach(&Instant, pfns, Config::default()).unwrap();
    let mut books = memmap.books.lock();
    let slot = books.directory.begin_fill(ChunkIndex(3));
    let state = || {
        memmap
            .chunk(Pfn::try_new(200).unwrap())
            .map(|info| info.state)
    };
    let elsewhere = || std::thread::scope(|scope| scope.spawn(state).join().unwrap());
    assert_eq!(elsewhere(), Some(ChunkState::Filling));
    books.directory.finish_fill(slot, 4096);
    assert_eq!(elsewhere(), Some(ChunkState::Present));
}
