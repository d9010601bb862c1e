//! The concurrent maps a user would pick, each with a fast hasher and the descriptor as its value.
//!
//! Two forms. [`Once`] looks up once and gets and puts in the same visit: the fastest, although its
//! reference does not outlive the lookup, which is what a reference is for. [`Twice`] visits for
//! the get and again for the put, as a driver must that holds a descriptor from submission to
//! completion.

use super::peer::{Peer, Slot, Worker};
use rustc_hash::FxBuildHasher;
use std::{collections::HashMap, sync::RwLock};

/// A map from pfns to descriptors.
pub(crate) trait Map: Sync {
    /// What the tables call it.
    const NAME: &'static str;

    /// An empty map with room for `room` entries.
    fn with_room(room: usize) -> Self;

    /// Adds the descriptor of `pfn`, if it is not there.
    fn insert(&self, pfn: u64);

    /// Shows the descriptor of `pfn`, which is there.
    fn visit(&self, pfn: u64, show: impl FnOnce(&Slot));
}

/// The standard map behind a readers-writer lock.
pub(crate) struct Locked(RwLock<HashMap<u64, Slot, FxBuildHasher>>);

impl Map for Locked {
    const NAME: &'static str = "RwLock<HashMap>";

    fn with_room(room: usize) -> Self {
        let map = HashMap::with_capacity_and_hasher(room, FxBuildHasher);
        Self(RwLock::new(map))
    }

    fn insert(&self, pfn: u64) {
        self.0.write().unwrap().entry(pfn).or_default();
    }

    #[inline]
    fn visit(&self, pfn: u64, show: impl FnOnce(&Slot)) {
        show(&self.0.read().unwrap()[&pfn]);
    }
}

/// Locked shards.
pub(crate) struct Sharded(dashmap::DashMap<u64, Slot, FxBuildHasher>);

impl Map for Sharded {
    const NAME: &'static str = "dashmap";

    fn with_room(room: usize) -> Self {
        let map = dashmap::DashMap::with_capacity_and_hasher(room, FxBuildHasher);
        Self(map)
    }

    fn insert(&self, pfn: u64) {
        self.0.entry(pfn).or_default();
    }

    #[inline]
    fn visit(&self, pfn: u64, show: impl FnOnce(&Slot)) {
        show(&self.0.get(&pfn).unwrap());
    }
}

/// Lock-free reads, entries on the heap. (Grown from empty instead of given its room at once, it
/// reads many times more slowly; it is measured at its best.)
pub(crate) struct Papaya(papaya::HashMap<u64, Slot, FxBuildHasher>);

impl Map for Papaya {
    const NAME: &'static str = "papaya";

    fn with_room(room: usize) -> Self {
        let map = papaya::HashMap::with_capacity_and_hasher(room, FxBuildHasher);
        Self(map)
    }

    fn insert(&self, pfn: u64) {
        self.0.pin().get_or_insert_with(pfn, Slot::default);
    }

    #[inline]
    fn visit(&self, pfn: u64, show: impl FnOnce(&Slot)) {
        show(self.0.pin().get(&pfn).unwrap());
    }
}

/// Lock-free reads, made for lookups.
pub(crate) struct SccIndex(scc::HashIndex<u64, Slot, FxBuildHasher>);

impl Map for SccIndex {
    const NAME: &'static str = "scc::HashIndex";

    fn with_room(room: usize) -> Self {
        let map = scc::HashIndex::with_capacity_and_hasher(room, FxBuildHasher);
        Self(map)
    }

    fn insert(&self, pfn: u64) {
        // An entry that exists already is what was wanted.
        let _ = self.0.insert_sync(pfn, Slot::default());
    }

    #[inline]
    fn visit(&self, pfn: u64, show: impl FnOnce(&Slot)) {
        self.0.peek_with(&pfn, |_, slot| show(slot)).unwrap();
    }
}

/// A lock in each bucket.
pub(crate) struct SccMap(scc::HashMap<u64, Slot, FxBuildHasher>);

impl Map for SccMap {
    const NAME: &'static str = "scc::HashMap";

    fn with_room(room: usize) -> Self {
        let map = scc::HashMap::with_capacity_and_hasher(room, FxBuildHasher);
        Self(map)
    }

    fn insert(&self, pfn: u64) {
        // As above.
        let _ = self.0.insert_sync(pfn, Slot::default());
    }

    #[inline]
    fn visit(&self, pfn: u64, show: impl FnOnce(&Slot)) {
        self.0.read_sync(&pfn, |_, slot| show(slot)).unwrap();
    }
}

/// One lookup serves the get and the put.
pub(crate) struct Once<M>(M);

impl<M: Map> Peer for Once<M> {
    const NAME: &'static str = M::NAME;

    fn sparse(_: u64) -> Self {
        Self(M::with_room(0))
    }

    fn roomy(pfns: u64) -> Self {
        Self(M::with_room(pfns as usize))
    }

    fn touch(&self, pfns: impl Iterator<Item = u64>) {
        pfns.for_each(|pfn| self.0.insert(pfn));
    }

    fn worker(&self) -> impl Worker {
        |pfn| {
            self.0.visit(pfn, |slot| {
                slot.get();
                slot.put();
            });
        }
    }
}

impl<M> Once<M> {
    /// The same map, looked up for the get and for the put.
    pub(crate) fn twice(self) -> Twice<M> {
        Twice(self.0)
    }
}

/// A lookup for the get and a lookup for the put.
pub(crate) struct Twice<M>(M);

impl<M: Map> Peer for Twice<M> {
    const NAME: &'static str = M::NAME;

    fn sparse(_: u64) -> Self {
        Self(M::with_room(0))
    }

    fn touch(&self, pfns: impl Iterator<Item = u64>) {
        pfns.for_each(|pfn| self.0.insert(pfn));
    }

    fn worker(&self) -> impl Worker {
        |pfn| {
            self.0.visit(pfn, Slot::get);
            self.0.visit(pfn, Slot::put);
        }
    }
}
