//! Large buffers for I/O, kept for the next one who needs one.
//!
//! # Ownership
//!
//! A [`Buffer`] belongs to whoever got it, and is a block of pages. Dropped, it goes to the list of the CPU it is dropped on, and from
//! there to the next who asks; a list that is full gives it back to where blocks come from. What is in the lists goes back as well when
//! others are short of memory.
//!
//! ```text
//!                      list of this CPU          list of another one
//!   get(gfp) --------> [ # # # ] --- empty --->  Pages::alloc(order), virtual if need be
//!                         ^    |
//!   drop(buffer) ---------+    +--- full, or memory is short ---> Pages
//! ```
//!
//! # Two views of one buffer
//!
//! Who computes wants one piece: [`Buffer::address`]. Who does I/O wants frames: [`Buffer::segments`], stretches of frames that lie one
//! behind the other, which is one stretch if the block is in one piece and up to one for each page if not. Nobody has to ask which.
//!
//! A buffer that was used before holds what was in it, unless zeroes were asked for.
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//! use pageless_fault::{FrameMemory, MaySleep, Vspace, Window};
//! use pageless_vmap::buffer_pool::BufferPool;
//! use pageless_vmap::compound::Pages;
//! use pageless_vmap::frames::{Gfp, Order};
//!
//! fn one_mebibyte<M, S, W>(pages: Arc<Pages<M, S, W>>) -> Result<(), Box<dyn std::error::Error>>
//! where
//!     M: FrameMemory + 'static,
//!     S: Vspace + 'static,
//!     W: Window + 'static,
//! {
//!     let ctx = MaySleep::claim();
//!     let pool = BufferPool::new(pages, Order::try_new(8)?, 4);
//!     let buffer = pool.get(&Gfp::kernel(&ctx))?;
//!     buffer.write(0, b"superblock")?;
//!     let bytes: u64 = buffer.segments().map(|segment| segment.len().get()).sum();
//!     assert_eq!(bytes, 1 << 20);
//!     Ok(())
//! }
//! ```

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::mem::ManuallyDrop;

use pageless_fault::sync::Mutex;
use pageless_fault::sync::atomic::{AtomicU64, Ordering};
use pageless_fault::{FrameMemory, MaySleep, VirtAddr, Vspace, Window};
use pageless_pfn::{ByteLen, FrameCount, PAGE_SIZE, Pfn, PhysSegment};

use crate::compound::{AllocPagesError, NoSuchAddress, Page, Pages};
use crate::frames::{Gfp, Order, Reclaimer, ReclaimerGuard};

/// What a pool has done so far, and what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct BufferStatistics {
    /// Buffers that came from a list.
    pub reused: u64,
    /// Buffers that had to be made.
    pub made: u64,
    /// Buffers that went back since the list was full.
    pub spilled: u64,
    /// Buffers that went back since others were short of memory.
    pub reclaimed: u64,
    /// Buffers in the lists now.
    pub parked: u64,
}

/// A pool of buffers of one size.
pub struct BufferPool<M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    shared: Arc<Shared<M, S, W>>,
    _reclaimed: ReclaimerGuard,
}

struct Shared<M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    pages: Arc<Pages<M, S, W>>,
    order: Order,
    /// Buffers that a list holds at most; it has room for them, so it never grows.
    most: usize,
    /// The heads of blocks, each of which stands for the only reference to its block. By CPU. Who finds one locked goes without it.
    lists: Box<[Mutex<Vec<Pfn>>]>,
    /// Relaxed, all of them: numbers and nothing else.
    reused: AtomicU64,
    made: AtomicU64,
    spilled: AtomicU64,
    reclaimed: AtomicU64,
}

impl<M, S, W> BufferPool<M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    /// A pool of buffers of `order`, of which each CPU keeps `most` at most.
    pub fn new(pages: Arc<Pages<M, S, W>>, order: Order, most: u16) -> Self {
        let most = usize::from(most);
        let cpus = pages.areas().space().cpus().max(1);
        let shared = Arc::new(Shared {
            order,
            most,
            lists: (0..cpus)
                .map(|_| Mutex::new(Vec::with_capacity(most)))
                .collect(),
            reused: AtomicU64::new(0),
            made: AtomicU64::new(0),
            spilled: AtomicU64::new(0),
            reclaimed: AtomicU64::new(0),
            pages,
        });
        let weak = Arc::downgrade(&shared);
        let reclaimed = shared.pages.frames().register_reclaimer(weak);
        BufferPool {
            shared,
            _reclaimed: reclaimed,
        }
    }

    /// A buffer: one that was used before, if this CPU has one. What `gfp` says is meant for a new one, if there has to be one; it may stand
    /// together through a mapping in any case.
    ///
    /// # Errors
    ///
    /// See [`AllocPagesError`].
    #[track_caller]
    pub fn get(&self, gfp: &Gfp<'_>) -> Result<Buffer<M, S, W>, AllocPagesError> {
        let shared = &self.shared;
        let list = shared.here().try_lock();
        if let Some(head) = list.and_then(|mut list| list.pop()) {
            shared.reused.fetch_add(1, Ordering::Relaxed);
            let buffer = self.buffer(head);
            if gfp.is_zeroed() {
                buffer.clear();
            }
            return Ok(buffer);
        }
        let block = shared.pages.alloc(&gfp.virtual_fallback(), shared.order)?;
        shared.made.fetch_add(1, Ordering::Relaxed);
        Ok(self.buffer(block.into_raw()))
    }

    fn buffer(&self, head: Pfn) -> Buffer<M, S, W> {
        Buffer {
            pool: Arc::clone(&self.shared),
            head,
        }
    }

    /// Bytes of a buffer.
    pub fn buffer_len(&self) -> ByteLen {
        self.shared.len()
    }

    /// Empties the lists. Answers how many frames that was; those of buffers that stood together through a mapping wait for a shootdown.
    pub fn drain(&self, ctx: &MaySleep) -> FrameCount {
        self.shared.drain(ctx, FrameCount::new(u64::MAX)).0
    }

    /// What it has done so far, and what it has.
    pub fn statistics(&self) -> BufferStatistics {
        let shared = &self.shared;
        let parked = shared.lists.iter().map(|list| list.lock().len() as u64);
        BufferStatistics {
            reused: shared.reused.load(Ordering::Relaxed),
            made: shared.made.load(Ordering::Relaxed),
            spilled: shared.spilled.load(Ordering::Relaxed),
            reclaimed: shared.reclaimed.load(Ordering::Relaxed),
            parked: parked.sum(),
        }
    }
}

impl<M, S, W> Shared<M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    fn len(&self) -> ByteLen {
        ByteLen::new(self.order.frames().get() * PAGE_SIZE)
    }

    /// The list of this CPU.
    fn here(&self) -> &Mutex<Vec<Pfn>> {
        let cpu = usize::from(self.pages.areas().space().current().get());
        &self.lists[cpu % self.lists.len()]
    }

    /// Takes buffers out of the lists until `frames` frames are back. How many it was, and whether some of them wait for a shootdown.
    fn drain(&self, ctx: &MaySleep, frames: FrameCount) -> (FrameCount, bool) {
        let (mut got, mut waits) = (0, false);
        for list in &self.lists {
            while got < frames.get() {
                // The lock is not held while pages go back.
                let head = list.lock().pop();
                let Some(block) = head.and_then(|head| self.pages.assume(head)) else {
                    break;
                };
                got += self.order.frames().get();
                waits |= block.is_virtual();
                block.put(ctx);
            }
        }
        (FrameCount::new(got), waits)
    }
}

impl<M, S, W> Reclaimer for Shared<M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    fn reclaim(&self, ctx: &MaySleep, frames: FrameCount) -> FrameCount {
        let (got, waits) = self.drain(ctx, frames);
        let buffers = got.get() / self.order.frames().get();
        self.reclaimed.fetch_add(buffers, Ordering::Relaxed);
        // Whoever purges when memory is short may have been asked before us. Frames that cannot be had back now are none.
        if waits && self.pages.areas().purge(ctx).is_err() {
            return FrameCount::ZERO;
        }
        got
    }
}

impl<M, S, W> Drop for Shared<M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    fn drop(&mut self) {
        for list in &self.lists {
            for head in list.lock().drain(..) {
                drop(self.pages.assume(head));
            }
        }
    }
}

/// A buffer. Dropped, it goes back to its pool, which neither sleeps nor sends an interrupt.
#[must_use = "dropped, it goes back to its pool"]
pub struct Buffer<M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    pool: Arc<Shared<M, S, W>>,
    head: Pfn,
}

impl<M, S, W> Buffer<M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    /// The block, the reference to which stays the buffer's.
    fn block(&self) -> ManuallyDrop<Page<'_, M, S, W>> {
        match self.pool.pages.assume(self.head) {
            Some(block) => ManuallyDrop::new(block),
            None => unreachable!("a buffer without a block"),
        }
    }

    /// Its bytes.
    pub fn len(&self) -> ByteLen {
        self.pool.len()
    }

    /// Where it is seen in one piece.
    pub fn address(&self) -> VirtAddr {
        self.block().address()
    }

    /// Whether it stands together through a mapping: for statistics, and nothing else.
    pub fn is_virtual(&self) -> bool {
        self.block().is_virtual()
    }

    /// The same bytes as stretches of frames, in order: what a block device takes.
    pub fn segments(&self) -> impl Iterator<Item = PhysSegment> + '_ {
        self.pool.pages.compound_segments(self.head)
    }

    /// Copies out of it, from byte `at` on.
    ///
    /// # Errors
    ///
    /// That lies beyond its end.
    pub fn read(&self, at: u64, into: &mut [u8]) -> Result<(), NoSuchAddress> {
        self.block().read(at, into)
    }

    /// Copies into it, from byte `at` on.
    ///
    /// # Errors
    ///
    /// That lies beyond its end.
    pub fn write(&self, at: u64, from: &[u8]) -> Result<(), NoSuchAddress> {
        self.block().write(at, from)
    }

    fn clear(&self) {
        for at in (0..self.len().get()).step_by(PAGE_SIZE as usize) {
            if let Err(error) = self.write(at, &[0; PAGE_SIZE as usize]) {
                unreachable!("a buffer's own page: {error}");
            }
        }
    }
}

impl<M, S, W> Drop for Buffer<M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    fn drop(&mut self) {
        if let Some(mut list) = self.pool.here().try_lock()
            && list.len() < self.pool.most
        {
            list.push(self.head);
            return;
        }
        self.pool.spilled.fetch_add(1, Ordering::Relaxed);
        drop(self.pool.pages.assume(self.head));
    }
}

impl<M, S, W> fmt::Debug for Buffer<M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("block", &*self.block())
            .finish()
    }
}

impl<M, S, W> fmt::Debug for BufferPool<M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool")
            .field("order", &self.shared.order.get())
            .field("statistics", &self.statistics())
            .finish_non_exhaustive()
    }
}
