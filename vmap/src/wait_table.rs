//! Who waits for which bit: a hash table of wait queues in one block of pages (Linux: kernel/sched/wait_bit.c, and the table that each
//! zone had until 4.9).
//!
//! # Ownership
//!
//! A table ([`WaitTable`]) owns its block, and the block holds the ends of every queue: 8 bytes a bucket, all zero in the beginning. Those
//! who wait stand in the queues until they are woken; what they wait for belongs to somebody else.
//!
//! ```text
//!   page, bit -----------------------------------+
//!   address, bit -- head of its block, place ----+--> WaitKey -- hash --> bucket
//!                                                                            |
//!       block, physical or virtual:  | .. | .. | first, last | .. |  <-------+
//!                                                  |      |
//!       beside it, under one lock                  v      v
//!       for many buckets:                     waiter -> waiter
//! ```
//!
//! A place in memory can have two addresses, one in the direct map and one in the mapping of its block. Who waits at one is found by who
//! wakes at the other: both name the head of the block, and the distance from where the block begins.
//!
//! # What a bucket is not
//!
//! There is no lock in it: memory that is reached by copying has no atomic operations. The locks stand beside the block, one for every so
//! many buckets, and all that is in a bucket is read and written under one of them.
//!
//! # Example
//!
//! ```
//! use std::sync::atomic::{AtomicBool, Ordering};
//! use pageless_fault::{FrameMemory, MaySleep, VirtAddr, Vspace, Window};
//! use pageless_vmap::wait_table::WaitTable;
//!
//! /// Waits until somebody has said that the I/O into a buffer is through.
//! fn finished<M, S, W>(table: &WaitTable<'_, M, S, W>, ctx: &MaySleep, buffer: VirtAddr, done: &AtomicBool)
//! where
//!     M: FrameMemory + 'static,
//!     S: Vspace + 'static,
//!     W: Window + 'static,
//! {
//!     if let Ok(key) = table.bit_waitqueue(buffer, 0) {
//!         // Pairs with a store with Release before `table.wake`.
//!         table.wait(ctx, key, || done.load(Ordering::Acquire));
//!     }
//! }
//! ```

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use pageless_fault::sync::Mutex;
use pageless_fault::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use pageless_fault::{Cpus, FrameMemory, MaySleep, VirtAddr, Vspace, Window};
use pageless_pfn::{FrameCount, PAGE_SIZE, Pfn};

use crate::compound::{AllocPagesError, NoSuchAddress, Page, Pages};
use crate::frames::{Gfp, Order};

/// Bytes of a bucket: the first and the last waiter, counted from 1; 0 if there is none.
const BUCKET: u64 = 8;
/// A lock for so many buckets, or more.
const BUCKETS_PER_LOCK: u64 = 16;
const MOST_LOCKS: u64 = 256;

/// Why there is no table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitTableError {
    /// No block has so many buckets.
    #[error("a table of {buckets} buckets")]
    Buckets {
        /// What was asked for.
        buckets: u64,
    },
    /// There is no memory for them.
    #[error("no memory for a table of {buckets} buckets")]
    Block {
        /// How many there would have been.
        buckets: u64,
        /// Why.
        #[source]
        source: AllocPagesError,
    },
}

/// What is waited for: a bit of a page, or a bit at a place in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WaitKey {
    place: Place,
    bit: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Page(Pfn),
    /// So many bytes behind the beginning of the block with this head.
    Memory(Pfn, u64),
}

impl WaitKey {
    /// Bit `bit` of what is known about `page`, wherever that is kept (`wait_on_page_bit`).
    #[must_use]
    pub const fn of_page(page: Pfn, bit: u32) -> Self {
        WaitKey {
            place: Place::Page(page),
            bit,
        }
    }

    fn hash(self) -> u64 {
        // The golden ratio, as include/linux/hash.h has it.
        const RATIO: u64 = 0x61c8_8646_80b5_83eb;
        let (page, at) = match self.place {
            Place::Page(page) => (page.get(), u64::MAX),
            Place::Memory(head, at) => (head.get(), at),
        };
        let mixed = (page.wrapping_mul(RATIO) ^ at).wrapping_mul(RATIO);
        (mixed ^ u64::from(self.bit)).wrapping_mul(RATIO)
    }
}

/// What has happened at a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct WaitStatistics {
    /// Times that somebody found what he waits for, and did not have to.
    pub at_once: u64,
    /// Times that somebody stood in a queue.
    pub queued: u64,
    /// Waiters woken.
    pub woken: u64,
}

/// A hash table of wait queues.
pub struct WaitTable<'p, M: FrameMemory + 'static, S: Vspace + 'static, W: Window + 'static> {
    pages: &'p Pages<M, S, W>,
    block: Page<'p, M, S, W>,
    /// A power of two.
    buckets: u64,
    /// As many as a power of two is, and not more than there are buckets.
    queues: Box<[Mutex<Queues>]>,
    at_once: AtomicU64,
    queued: AtomicU64,
    woken: AtomicU64,
}

/// The waiters of all buckets that share a lock.
#[derive(Debug, Default)]
struct Queues {
    places: Vec<Standing>,
    /// Places that nobody has.
    unused: Vec<u32>,
}

/// A place in a queue.
#[derive(Debug)]
struct Standing {
    /// `None` if nobody has it.
    waiter: Option<Arc<Waiter>>,
    /// Who comes next, counted from 1; 0 if nobody does.
    next: u32,
}

/// The ends of a queue, as they are in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ends {
    first: u32,
    last: u32,
}

#[derive(Debug)]
struct Waiter {
    key: WaitKey,
    /// Set with Release, by who has taken the waiter out of its queue; pairs with the Acquire in `sleep`.
    woken: AtomicBool,
    #[cfg(feature = "std")]
    thread: std::thread::Thread,
}

impl Waiter {
    fn new(key: WaitKey) -> Self {
        Waiter {
            key,
            woken: AtomicBool::new(false),
            #[cfg(feature = "std")]
            thread: std::thread::current(),
        }
    }

    fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        #[cfg(feature = "std")]
        self.thread.unpark();
    }

    /// Waits until somebody wakes it: a little while awake, then, where there are threads, asleep. A modelled CPU has to serve shootdowns
    /// meanwhile, so nobody sleeps for long at a time.
    fn sleep(&self, cpus: &impl Cpus) {
        let mut turn = 0;
        // Acquire pairs with the Release in `wake`.
        while !self.woken.load(Ordering::Acquire) {
            #[cfg(feature = "std")]
            if turn >= 64 {
                std::thread::park_timeout(core::time::Duration::from_millis(1));
                cpus.relax(0);
                continue;
            }
            cpus.relax(turn);
            turn = turn.saturating_add(1);
        }
    }
}

impl<'p, M, S, W> WaitTable<'p, M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    /// A table of `buckets` buckets or a few more, so that their number is a power of two and they fill whole pages. Its block may stand
    /// together through a mapping.
    ///
    /// # Errors
    ///
    /// See [`WaitTableError`].
    #[track_caller]
    pub fn new(
        pages: &'p Pages<M, S, W>,
        gfp: &Gfp<'_>,
        buckets: u64,
    ) -> Result<Self, WaitTableError> {
        let no_such = WaitTableError::Buckets { buckets };
        let bytes = buckets.checked_mul(BUCKET).ok_or(no_such)?;
        let frames = FrameCount::new(bytes.div_ceil(PAGE_SIZE).max(1));
        let order = Order::covering(frames).ok_or(no_such)?;
        let buckets = order.frames().get() * PAGE_SIZE / BUCKET;
        let gfp = gfp.zeroed().virtual_fallback();
        let block = pages.alloc(&gfp, order);
        let block = block.map_err(|source| WaitTableError::Block { buckets, source })?;
        let locks = (buckets / BUCKETS_PER_LOCK).clamp(1, MOST_LOCKS);
        Ok(WaitTable {
            pages,
            block,
            buckets,
            queues: (0..locks).map(|_| Mutex::new(Queues::default())).collect(),
            at_once: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            woken: AtomicU64::new(0),
        })
    }

    /// How many buckets there are.
    pub fn buckets(&self) -> u64 {
        self.buckets
    }

    /// The block that they are in.
    pub fn block(&self) -> &Page<'p, M, S, W> {
        &self.block
    }

    /// What is waited for by who waits for bit `bit` at `address` (`bit_waitqueue`). The address may be any at which that memory is seen.
    ///
    /// # Errors
    ///
    /// There is no block at that address.
    pub fn bit_waitqueue(&self, address: VirtAddr, bit: u32) -> Result<WaitKey, NoSuchAddress> {
        let page = self.pages.addr_to_page(address);
        let found = page.and_then(|page| {
            let head = self.pages.compound_head(page)?;
            Some((head, self.pages.compound_index(page)?))
        });
        let (head, index) = found.ok_or(NoSuchAddress { address })?;
        // Pages begin at multiples of their size in every mapping.
        let at = index * PAGE_SIZE + address.get() % PAGE_SIZE;
        Ok(WaitKey {
            place: Place::Memory(head, at),
            bit,
        })
    }

    /// The bucket in whose queue those stand who wait for `key`.
    pub fn bucket(&self, key: WaitKey) -> u64 {
        key.hash() >> (64 - self.buckets.trailing_zeros())
    }

    /// Waits until `is_over` says so (`wait_on_bit`). It is asked again whenever somebody wakes those who wait for `key`, and it may be asked
    /// more often.
    ///
    /// Whoever makes it true has to wake them afterwards. What he did before is visible to who then asks again.
    pub fn wait(&self, _ctx: &MaySleep, key: WaitKey, mut is_over: impl FnMut() -> bool) {
        if is_over() {
            self.at_once.fetch_add(1, Ordering::Relaxed);
            return;
        }
        loop {
            let waiter = Arc::new(Waiter::new(key));
            self.stand(&waiter);
            self.queued.fetch_add(1, Ordering::Relaxed);
            // Once more, now that whoever makes it true finds somebody to wake: either he locks the queue after us and does, or before, and
            // then we see what he had done by then.
            if is_over() {
                self.leave(&waiter);
                return;
            }
            waiter.sleep(self.pages.areas().space());
            if is_over() {
                return;
            }
        }
    }

    /// Wakes those who wait for `key`, `most` of them at most, who came first first. Answers how many it was. Never sleeps.
    ///
    /// Not for an interrupt that may hit somebody who waits or wakes on the same CPU: he may hold the lock.
    pub fn wake(&self, key: WaitKey, most: usize) -> usize {
        let mut woken = 0;
        self.take_out(key, |waiter| {
            let is_one = woken < most && waiter.key == key;
            if is_one {
                woken += 1;
                waiter.wake();
            }
            is_one
        });
        self.woken.fetch_add(woken as u64, Ordering::Relaxed);
        woken
    }

    /// How many wait for `key` now.
    pub fn waiting(&self, key: WaitKey) -> usize {
        let mut waiting = 0;
        self.take_out(key, |waiter| {
            waiting += usize::from(waiter.key == key);
            false
        });
        waiting
    }

    /// What has happened so far.
    pub fn statistics(&self) -> WaitStatistics {
        WaitStatistics {
            at_once: self.at_once.load(Ordering::Relaxed),
            queued: self.queued.load(Ordering::Relaxed),
            woken: self.woken.load(Ordering::Relaxed),
        }
    }

    fn queues_of(&self, bucket: u64) -> &Mutex<Queues> {
        &self.queues[(bucket % self.queues.len() as u64) as usize]
    }

    fn ends(&self, bucket: u64) -> Ends {
        let (mut first, mut last) = ([0; 4], [0; 4]);
        let at = bucket * BUCKET;
        let read = self.block.read(at, &mut first);
        if let Err(error) = read.and_then(|()| self.block.read(at + 4, &mut last)) {
            unreachable!("a block that is out: {error}");
        }
        Ends {
            first: u32::from_le_bytes(first),
            last: u32::from_le_bytes(last),
        }
    }

    fn set_ends(&self, bucket: u64, ends: Ends) {
        let both = u64::from(ends.last) << 32 | u64::from(ends.first);
        if let Err(error) = self.block.write(bucket * BUCKET, &both.to_le_bytes()) {
            unreachable!("a block that is out: {error}");
        }
    }

    /// Puts a waiter at the end of its queue.
    fn stand(&self, waiter: &Arc<Waiter>) {
        let bucket = self.bucket(waiter.key);
        let mut queues = self.queues_of(bucket).lock();
        let new = Standing {
            waiter: Some(Arc::clone(waiter)),
            next: 0,
        };
        let place = match queues.unused.pop() {
            Some(place) => {
                queues.places[place as usize] = new;
                place
            }
            None => {
                queues.places.push(new);
                queues.places.len() as u32 - 1
            }
        };
        let mut ends = self.ends(bucket);
        match ends.last.checked_sub(1) {
            Some(last) => queues.places[last as usize].next = place + 1,
            None => ends.first = place + 1,
        }
        ends.last = place + 1;
        self.set_ends(bucket, ends);
    }

    /// Takes a waiter out of its queue, if nobody has.
    fn leave(&self, waiter: &Arc<Waiter>) {
        self.take_out(waiter.key, |one| Arc::ptr_eq(one, waiter));
    }

    /// Goes through the queue that `key` belongs into, and takes out whom `is_out` names.
    fn take_out(&self, key: WaitKey, mut is_out: impl FnMut(&Arc<Waiter>) -> bool) {
        let bucket = self.bucket(key);
        let mut queues = self.queues_of(bucket).lock();
        let found = self.ends(bucket);
        let mut ends = Ends { first: 0, last: 0 };
        let mut here = found.first;
        while let Some(place) = here.checked_sub(1) {
            let standing = &mut queues.places[place as usize];
            let next = standing.next;
            let goes = standing.waiter.as_ref().is_none_or(&mut is_out);
            if goes {
                standing.waiter = None;
                queues.unused.push(place);
            } else {
                match ends.last.checked_sub(1) {
                    Some(last) => queues.places[last as usize].next = here,
                    None => ends.first = here,
                }
                ends.last = here;
            }
            here = next;
        }
        if let Some(last) = ends.last.checked_sub(1) {
            queues.places[last as usize].next = 0;
        }
        if ends != found {
            self.set_ends(bucket, ends);
        }
    }
}

impl<M, S, W> fmt::Debug for WaitTable<'_, M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitTable")
            .field("block", &self.block)
            .field("buckets", &self.buckets)
            .field("statistics", &self.statistics())
            .finish_non_exhaustive()
    }
}
