//! Requests found by their place, by their age and by where they end.
//!
//! ```text
//!   slots    [ 0: request | 1: free | 2: request | ... ]      nothing else owns a request
//!   lanes    one for each class and direction:
//!              sorted   positions and slots, in order          a ring: both ends are near
//!              oldest <-> ... <-> youngest                     links in the slots
//!   buckets  by end, for what may grow                         links in the slots
//! ```
//!
//! Room that was needed once is kept. So nothing is allocated once the busiest moment has been.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use crate::clock::Nanos;
use crate::position::SECTOR_SIZE;

/// No slot.
const NOBODY: u32 = u32::MAX;

/// A slot with a request in it. Good until that request is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Handle(u32);

impl Handle {
    const fn index(self) -> usize {
        self.0 as usize
    }

    fn of(link: u32) -> Option<Self> {
        (link != NOBODY).then_some(Self(link))
    }
}

/// A request that was looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) handle: Handle,
    /// Where in its lane's order it was; good until something comes or goes.
    at: Option<usize>,
}

/// What a request is filed under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// In which lane it waits.
    pub(super) lane: u8,
    /// Its first byte.
    pub(super) position: u64,
    /// The first byte after it.
    pub(super) end: u64,
    /// Whether it may grow at its end, and is to be found by it.
    pub(super) mergeable: bool,
}

#[derive(Debug)]
struct Slot<R> {
    /// None in a free slot.
    item: Option<R>,
    place: Place,
    /// When it came.
    since: Nanos,
    /// Which of several at one position came first.
    order: u32,
    /// Its neighbours in the lane by age; in a free slot `younger` is the next free one.
    older: u32,
    younger: u32,
    /// Its neighbours in the bucket of its end.
    before: u32,
    after: u32,
}

/// In this order: position, then who came first. `order` wraps: of two at one position that came 4
/// billion requests apart the later may be first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    position: u64,
    order: u32,
    slot: u32,
}

#[derive(Debug)]
struct Lane {
    sorted: VecDeque<Key>,
    oldest: u32,
    youngest: u32,
}

/// Requests of `LANES` lanes.
#[derive(Debug)]
pub(super) struct Store<R, const LANES: usize> {
    slots: Vec<Slot<R>>,
    lanes: [Lane; LANES],
    /// The first slot of each bucket; a power of two of them, at least as many as slots.
    buckets: Vec<u32>,
    free: u32,
    len: usize,
    next_order: u32,
    /// A bit for each lane that has requests.
    occupied: u8,
}

impl<R, const LANES: usize> Store<R, LANES> {
    /// With room for so many before anything is allocated; more may come.
    pub(super) fn with_capacity(requests: usize) -> Self {
        Self {
            slots: Vec::with_capacity(requests),
            lanes: [const {
                Lane {
                    sorted: VecDeque::new(),
                    oldest: NOBODY,
                    youngest: NOBODY,
                }
            }; LANES]
                .map(|mut lane| {
                    lane.sorted.reserve(requests);
                    lane
                }),
            buckets: vec![NOBODY; requests.max(16).next_power_of_two()],
            free: NOBODY,
            len: 0,
            next_order: 0,
            occupied: 0,
        }
    }

    /// How many requests.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// A bit for each lane that has requests.
    #[inline]
    pub(super) const fn occupied(&self) -> u8 {
        self.occupied
    }

    /// Takes a request in as the youngest of its lane; gives it back if there are 2^32 - 1 already.
    #[inline]
    pub(super) fn insert(&mut self, item: R, place: Place, since: Nanos) -> Result<Handle, R> {
        let slot = match Handle::of(self.free) {
            Some(free) => {
                self.free = self.slots[free.index()].younger;
                free
            }
            None => match self.grow() {
                Some(slot) => slot,
                None => return Err(item),
            },
        };
        let order = self.next_order;
        self.next_order = order.wrapping_add(1);
        let lane = &mut self.lanes[usize::from(place.lane)];
        let older = core::mem::replace(&mut lane.youngest, slot.0);
        match Handle::of(older) {
            Some(older) => self.slots[older.index()].younger = slot.0,
            None => {
                lane.oldest = slot.0;
                self.occupied |= 1 << place.lane;
            }
        }
        self.slots[slot.index()] = Slot {
            item: Some(item),
            place,
            since,
            order,
            older,
            younger: NOBODY,
            before: NOBODY,
            after: NOBODY,
        };
        self.sort_in(slot);
        self.file(slot);
        self.len += 1;
        Ok(slot)
    }

    /// A slot that there was not.
    #[cold]
    fn grow(&mut self) -> Option<Handle> {
        let slot = u32::try_from(self.slots.len())
            .ok()
            .filter(|&new| new != NOBODY)?;
        self.slots.push(Slot {
            item: None,
            place: Place {
                lane: 0,
                position: 0,
                end: 0,
                mergeable: false,
            },
            since: Nanos::ZERO,
            order: 0,
            older: NOBODY,
            younger: NOBODY,
            before: NOBODY,
            after: NOBODY,
        });
        if self.slots.len() > self.buckets.len() {
            self.buckets = vec![NOBODY; self.buckets.len() * 2];
            for index in 0..slot {
                if self.slots[index as usize].item.is_some() {
                    self.file(Handle(index));
                }
            }
        }
        Some(Handle(slot))
    }

    /// Takes a request out.
    #[inline]
    pub(super) fn remove(&mut self, found: Found) -> Option<R> {
        let handle = found.handle;
        let lane = self.place(handle).lane;
        let sorted = &mut self.lanes[usize::from(lane)].sorted;
        match found.at.and_then(|at| sorted.get(at)) {
            Some(key) if key.slot == handle.0 => {
                sorted.remove(found.at.unwrap_or_default());
            }
            _ => self.sort_out(handle),
        }
        self.unfile(handle);
        let slot = &mut self.slots[handle.index()];
        let item = slot.item.take();
        let (older, younger) = (slot.older, slot.younger);
        slot.younger = core::mem::replace(&mut self.free, handle.0);
        let lane_of = &mut self.lanes[usize::from(lane)];
        match Handle::of(older) {
            Some(older) => self.slots[older.index()].younger = younger,
            None => lane_of.oldest = younger,
        }
        match Handle::of(younger) {
            Some(younger) => self.slots[younger.index()].older = older,
            None => lane_of.youngest = older,
        }
        if lane_of.oldest == NOBODY {
            self.occupied &= !(1 << lane);
        }
        self.len -= 1;
        item
    }

    /// The request that has been in its lane for longest.
    #[inline]
    pub(super) fn oldest(&self, lane: u8) -> Option<Found> {
        let handle = Handle::of(self.lanes[usize::from(lane)].oldest)?;
        Some(Found { handle, at: None })
    }

    /// The first request of a lane that begins at `position` or after.
    #[inline]
    pub(super) fn first_from(&self, lane: u8, position: u64) -> Option<Found> {
        let sorted = &self.lanes[usize::from(lane)].sorted;
        let at = sorted.partition_point(|key| key.position < position);
        let handle = Handle(sorted.get(at)?.slot);
        Some(Found {
            handle,
            at: Some(at),
        })
    }

    /// The request of a lane that begins exactly there; the first one that came, if there are several.
    pub(super) fn starting_at(&self, lane: u8, position: u64) -> Option<Handle> {
        let found = self.first_from(lane, position)?;
        (self.place(found.handle).position == position).then_some(found.handle)
    }

    /// A request of a lane that may grow and ends exactly there; the last one to have done so, if there
    /// are several.
    pub(super) fn ending_at(&self, lane: u8, end: u64) -> Option<Handle> {
        let mut next = self.buckets[self.bucket(end)];
        while let Some(handle) = Handle::of(next) {
            let slot = &self.slots[handle.index()];
            if slot.place.end == end && slot.place.lane == lane {
                return Some(handle);
            }
            next = slot.after;
        }
        None
    }

    /// What a request is filed under.
    #[inline]
    pub(super) fn place(&self, handle: Handle) -> Place {
        self.slots[handle.index()].place
    }

    /// When it came.
    #[inline]
    pub(super) fn since(&self, handle: Handle) -> Nanos {
        self.slots[handle.index()].since
    }

    /// The request. Whoever changes where it begins or ends says so with [`Store::moved`].
    pub(super) fn item_mut(&mut self, handle: Handle) -> Option<&mut R> {
        self.slots[handle.index()].item.as_mut()
    }

    /// Files a request that has grown under its new place. Its age stays.
    pub(super) fn moved(&mut self, handle: Handle, position: u64, end: u64) {
        let before = self.place(handle);
        if before.position != position {
            self.sort_out(handle);
            self.slots[handle.index()].place.position = position;
            self.sort_in(handle);
        }
        if before.end != end {
            self.unfile(handle);
            self.slots[handle.index()].place.end = end;
            self.file(handle);
        }
    }

    fn key(&self, handle: Handle) -> Key {
        let slot = &self.slots[handle.index()];
        Key {
            position: slot.place.position,
            order: slot.order,
            slot: handle.0,
        }
    }

    #[inline]
    fn sort_in(&mut self, handle: Handle) {
        let key = self.key(handle);
        let sorted = &mut self.lanes[usize::from(self.place(handle).lane)].sorted;
        // Sequential I/O comes in order.
        if sorted.back().is_none_or(|last| *last < key) {
            sorted.push_back(key);
            return;
        }
        let at = sorted.partition_point(|other| *other < key);
        sorted.insert(at, key);
    }

    #[inline]
    fn sort_out(&mut self, handle: Handle) {
        let key = self.key(handle);
        let sorted = &mut self.lanes[usize::from(self.place(handle).lane)].sorted;
        if let Ok(at) = sorted.binary_search(&key) {
            sorted.remove(at);
        }
    }

    #[inline]
    fn bucket(&self, end: u64) -> usize {
        // Fibonacci hashing: ends are multiples of a power of two, often in arithmetic progression.
        let spread = (end / SECTOR_SIZE).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (spread >> 32) as usize & (self.buckets.len() - 1)
    }

    #[inline]
    fn file(&mut self, handle: Handle) {
        let place = self.place(handle);
        if !place.mergeable {
            return;
        }
        let bucket = self.bucket(place.end);
        let after = core::mem::replace(&mut self.buckets[bucket], handle.0);
        if let Some(after) = Handle::of(after) {
            self.slots[after.index()].before = handle.0;
        }
        let slot = &mut self.slots[handle.index()];
        (slot.before, slot.after) = (NOBODY, after);
    }

    #[inline]
    fn unfile(&mut self, handle: Handle) {
        let slot = &self.slots[handle.index()];
        if !slot.place.mergeable {
            return;
        }
        let (before, after, end) = (slot.before, slot.after, slot.place.end);
        match Handle::of(before) {
            Some(before) => self.slots[before.index()].after = after,
            None => {
                let bucket = self.bucket(end);
                self.buckets[bucket] = after;
            }
        }
        if let Some(after) = Handle::of(after) {
            self.slots[after.index()].before = before;
        }
    }

    /// Whether every request is filed exactly where it should be.
    #[cfg(test)]
    pub(super) fn self_check(&self) {
        let mut seen = 0;
        for (number, lane) in self.lanes.iter().enumerate() {
            assert!(
                lane.sorted.iter().is_sorted(),
                "lane {number} is out of order"
            );
            let mut aged = Vec::new();
            let (mut next, mut older) = (lane.oldest, NOBODY);
            while let Some(handle) = Handle::of(next) {
                let slot = &self.slots[handle.index()];
                assert!(
                    slot.item.is_some(),
                    "slot {next} is free and in lane {number}"
                );
                assert_eq!((usize::from(slot.place.lane), slot.older), (number, older));
                assert!(lane.sorted.contains(&self.key(handle)));
                let mut bucket = self.buckets[self.bucket(slot.place.end)];
                let mut filed = 0;
                while let Some(found) = Handle::of(bucket) {
                    filed += usize::from(found == handle);
                    bucket = self.slots[found.index()].after;
                }
                assert_eq!(filed, usize::from(slot.place.mergeable), "slot {next}");
                aged.push(next);
                (older, next) = (next, slot.younger);
            }
            assert_eq!(older, lane.youngest);
            assert_eq!(aged.len(), lane.sorted.len());
            assert_eq!(self.occupied >> number & 1 == 1, !aged.is_empty());
            seen += aged.len();
        }
        assert_eq!(seen, self.len);
        let mut free = 0;
        let mut next = self.free;
        while let Some(handle) = Handle::of(next) {
            assert!(self.slots[handle.index()].item.is_none());
            free += 1;
            next = self.slots[handle.index()].younger;
        }
        assert_eq!(free + seen, self.slots.len(), "a slot is lost");
        assert!(self.buckets.len().is_power_of_two() && self.buckets.len() >= self.slots.len());
    }
}

#[cfg(test)]
mod tests;
