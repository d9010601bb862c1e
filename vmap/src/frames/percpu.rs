//! Single frames that a CPU has at hand: a list for each CPU and zone, each with a lock of its own.
//!
//! A list takes a batch from its zone when it is empty and gives one back when it is full, the frames that came first. So most
//! allocations and frees of one frame touch a lock that no other CPU is after.

use alloc::collections::TryReserveError;
use alloc::collections::vec_deque::VecDeque;

use pageless_fault::sync::atomic::{AtomicUsize, Ordering};
use pageless_fault::sync::{Mutex, MutexGuard};
use pageless_pfn::Pfn;

use super::block_at::BlockAt;
use super::config::ListLengths;
use super::free_blocks::mark;
use super::order::Order;
use super::states::{State, States};
use super::zone::Zone;

const TAKEN: State = State::Taken(Order::ZERO);
const RETURNING: State = State::Returning(Order::ZERO);

/// Two cache lines to itself: its neighbours are other CPUs' lists.
#[repr(align(128))]
pub(super) struct CpuList {
    list: Mutex<Parked>,
    /// `Parked::frames.len()`, set under the lock with Relaxed and read without it with Relaxed: an estimate, as soon as it is read.
    len: AtomicUsize,
}

pub(super) struct Parked {
    /// What came last goes first: it is most likely cached.
    frames: VecDeque<Pfn>,
    lengths: ListLengths,
    pub(super) counts: ListCounts,
}

/// What a list of a CPU has seen since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ListCounts {
    /// Frames that its CPU took.
    pub taken: u64,
    /// Frames that its CPU gave back.
    pub freed: u64,
    /// Times that it was empty and took a batch from its zone.
    pub refills: u64,
    /// Times that it was full and gave a batch back.
    pub spills: u64,
    /// Frames that other CPUs took, whose list and zone had none.
    pub stolen: u64,
}

impl CpuList {
    pub(super) fn new(lengths: ListLengths) -> Result<Self, TryReserveError> {
        let mut frames = VecDeque::new();
        // One more than it keeps: a frame is put in before a batch goes out. It never grows.
        frames.try_reserve_exact(lengths.high.max(lengths.batch) + 1)?;
        Ok(CpuList {
            list: Mutex::new(Parked {
                frames,
                lengths,
                counts: ListCounts::default(),
            }),
            len: AtomicUsize::new(0),
        })
    }

    /// How many frames it holds, or held a moment ago.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// The list itself, for whoever looks at all of them.
    pub(super) fn lock(&self) -> MutexGuard<'_, Parked> {
        self.list.lock()
    }

    /// A frame; the list is filled from `zone` if it is empty. `None` if both are empty, somebody else is at the list,
    /// or there is to be none.
    pub(super) fn take(&self, zone: &Zone, states: &States) -> Option<Pfn> {
        let mut list = self.list.try_lock()?;
        if list.lengths.high == 0 {
            return None;
        }
        if list.frames.is_empty() {
            let batch = list.lengths.batch;
            let mut blocks = zone.lock();
            for _ in 0..batch {
                match blocks.take(Order::ZERO, State::Parked, states) {
                    Some(block) => list.frames.push_front(block.first),
                    None => break,
                }
            }
            drop(blocks);
            list.counts.refills += 1;
        }
        let pfn = list.frames.pop_back();
        self.len.store(list.frames.len(), Ordering::Relaxed);
        let pfn = pfn?;
        list.counts.taken += 1;
        mark(states, pfn, State::Parked, TAKEN);
        Some(pfn)
    }

    /// A frame, if the list has one: for another CPU, whose own list and zone have none.
    pub(super) fn steal(&self, states: &States) -> Option<Pfn> {
        if self.len() == 0 {
            return None;
        }
        let mut list = self.list.lock();
        let pfn = list.frames.pop_front()?;
        self.len.store(list.frames.len(), Ordering::Relaxed);
        list.counts.stolen += 1;
        mark(states, pfn, State::Parked, TAKEN);
        Some(pfn)
    }

    /// Takes back `pfn`, which is returning. False if somebody else is at the list, or there is none.
    #[must_use]
    pub(super) fn put(&self, pfn: Pfn, zone: &Zone, states: &States) -> bool {
        let Some(mut list) = self.list.try_lock() else {
            return false;
        };
        if list.lengths.high == 0 {
            return false;
        }
        mark(states, pfn, RETURNING, State::Parked);
        list.frames.push_back(pfn);
        list.counts.freed += 1;
        if list.frames.len() > list.lengths.high {
            let batch = list.lengths.batch;
            list.counts.spills += 1;
            list.give_back(batch, zone, states);
        }
        self.len.store(list.frames.len(), Ordering::Relaxed);
        true
    }

    /// Gives everything back to `zone`. Answers how many frames it was.
    pub(super) fn drain(&self, zone: &Zone, states: &States) -> usize {
        if self.len() == 0 {
            return 0;
        }
        let mut list = self.list.lock();
        let all = list.frames.len();
        list.give_back(all, zone, states);
        self.len.store(0, Ordering::Relaxed);
        all
    }
}

impl Parked {
    pub(super) fn frames(&self) -> impl Iterator<Item = Pfn> {
        self.frames.iter().copied()
    }

    /// How many frames it ever holds while nobody has its lock.
    pub(super) fn most(&self) -> usize {
        self.lengths.high.max(self.lengths.batch)
    }

    /// The oldest frames go back to `zone`.
    fn give_back(&mut self, count: usize, zone: &Zone, states: &States) {
        let mut blocks = zone.lock();
        for _ in 0..count {
            if let Some(pfn) = self.frames.pop_front() {
                blocks.put(BlockAt::frame(pfn), State::Parked, states);
            }
        }
    }
}
