//! Windows onto a file that is larger than the address space: a `kmap` of large pieces.
//!
//! Window `w` of the file belongs in slot `w % slots`. Whoever finds it there counts itself in
//! with one atomic step, copies, and counts itself out. Otherwise the window is mapped, in place
//! of one that nobody uses, under a lock.
//!
//! Nobody waits without an end for a window while holding another, so that a copy from one part
//! of the file to another cannot deadlock: when every slot stays in use, the answer is an error.
#![expect(
    unsafe_code,
    reason = "a window is only replaced while nobody is counted in"
)]

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};
use std::fs::File;
use std::sync::{Mutex, PoisonError};

use pageless_pfn::ByteLen;

use super::mapping::{MapError, Mapping};
use crate::copy::Span;

/// A place for one window.
///
/// # Invariants
/// While somebody is counted in, `mapping` holds the window that `state` names and is only read.
/// It is written only by the holder of the lock, and only while `state` is `EMPTY`.
#[derive(Debug)]
struct Slot {
    /// | value | meaning |
    /// |---|---|
    /// | `EMPTY` (0) | no window yet, or the holder of the lock is replacing it |
    /// | `(window + 1) << 24 \| users` | the window is mapped, `users` are counted in |
    state: AtomicU64,
    mapping: UnsafeCell<Option<Mapping>>,
}

// SAFETY: `mapping` is written by one thread at a time, the holder of the lock, while nobody is
// counted in, and read only by those who are; `state` orders the two. A `Mapping` may be shared
// among threads and dropped by any of them.
unsafe impl Sync for Slot {}

const EMPTY: u64 = 0;
/// How often to look for a slot that nobody uses.
const PATIENCE: u32 = 10_000;
const USER_BITS: u32 = 24;
const USERS: u64 = (1 << USER_BITS) - 1;

impl Slot {
    /// Counts the caller in if `window` is mapped here.
    #[inline]
    fn enter(&self, window: u64) -> bool {
        let mut now = self.state.load(Ordering::Relaxed);
        while now >> USER_BITS == window + 1 && now & USERS < USERS - 1 {
            // Acquire: pairs with the Release in `open`, which published the mapping.
            match self.state.compare_exchange_weak(
                now,
                now + 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(seen) => now = seen,
            }
        }
        false
    }

    /// Counts the caller out.
    #[inline]
    fn leave(&self) {
        // Release: pairs with the Acquire in `close`; our copies come before the replacement.
        self.state.fetch_sub(1, Ordering::Release);
    }

    /// Takes the slot for a new window, if nobody is counted in; says what its state was. Only
    /// for the holder of the lock.
    fn close(&self) -> Option<u64> {
        let now = self.state.load(Ordering::Relaxed);
        if now & USERS != 0 {
            return None;
        }
        // Acquire: pairs with the Release in `leave`.
        self.state
            .compare_exchange(now, EMPTY, Ordering::Acquire, Ordering::Relaxed)
            .ok()
    }

    /// Opens a closed slot for `window`, with the caller counted in.
    fn open(&self, window: u64) {
        // Release: pairs with the Acquire in `enter`.
        self.state
            .store((window + 1) << USER_BITS | 1, Ordering::Release);
    }

    /// Opens a closed slot for the window that was there before, with nobody counted in.
    fn reopen(&self, before: u64) {
        // Release: pairs with the Acquire in `enter`.
        self.state.store(before, Ordering::Release);
    }
}

/// Counts its owner out of a slot, also when a copy's closure panics.
struct Inside<'a>(&'a Slot);

impl Drop for Inside<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Windows onto a file.
#[derive(Debug)]
pub(super) struct Windows {
    slots: Box<[Slot]>,
    /// log2 of a window's bytes.
    shift: u32,
    /// Bytes of the file.
    len: u64,
    /// Held while a slot is given another window.
    replacing: Mutex<()>,
}

/// No window is to be had for now.
#[derive(Debug)]
pub(super) struct NoWindow;

impl Windows {
    /// At most `count` windows of `1 << shift` bytes onto a file of `len` bytes.
    pub(super) fn new(len: u64, shift: u32, count: u16) -> Result<Self, MapError> {
        // Better to hear now that the address space does not hold them all.
        let all = 1_u64
            .checked_shl(shift)
            .and_then(|one| one.checked_mul(count.into()));
        drop(Mapping::anonymous(ByteLen::new(all.unwrap_or(u64::MAX)))?);
        let slot = |_| Slot {
            state: AtomicU64::new(EMPTY),
            mapping: UnsafeCell::new(None),
        };
        Ok(Self {
            slots: (0..count).map(slot).collect(),
            shift,
            len,
            replacing: Mutex::new(()),
        })
    }

    /// How many windows there can be at a time.
    pub(super) fn count(&self) -> usize {
        self.slots.len()
    }

    /// Calls `f` with as many of the `len` bytes from `offset` on as lie in one window. They must
    /// all lie within the file, and be at least one.
    #[inline]
    pub(super) fn with<R>(
        &self,
        file: &File,
        offset: u64,
        len: u64,
        f: impl FnOnce(Span<'_>) -> R,
    ) -> Result<R, NoWindow> {
        let window = offset >> self.shift;
        let within = offset & ((1 << self.shift) - 1);
        let len = len.min((1 << self.shift) - within);
        let home = (window % self.slots.len() as u64) as usize;
        let at = if self.slots[home].enter(window) {
            home
        } else {
            self.find_or_replace(file, window, home)?
        };
        let inside = Inside(&self.slots[at]);
        // SAFETY: we are counted in, so the mapping is there and is not written before `inside`
        // is dropped, which is after `f` has returned and the borrow has ended.
        let mapping = unsafe { &*inside.0.mapping.get() };
        let span = mapping
            .as_ref()
            .and_then(|mapping| mapping.span(within, len));
        span.map(f).ok_or(NoWindow)
    }

    /// Finds `window` in another slot than its own, or maps it; counts the caller in.
    #[cold]
    fn find_or_replace(&self, file: &File, window: u64, home: usize) -> Result<usize, NoWindow> {
        let _guard = self
            .replacing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = self.slots.len();
        // Its own slot first: somebody may have been here before us.
        let candidates = (home..count).chain(0..home);
        if let Some(at) = candidates.clone().find(|&at| self.slots[at].enter(window)) {
            return Ok(at);
        }
        // Others hop from slot to slot while we look, so one look is not enough to say that all
        // are in use. They come and go without the lock; the wait is short and has an end.
        let (at, before) = (0..PATIENCE)
            .find_map(|_| {
                core::hint::spin_loop();
                candidates
                    .clone()
                    .find_map(|at| Some((at, self.slots[at].close()?)))
            })
            .ok_or(NoWindow)?;
        let start = window << self.shift;
        let len = self.len.saturating_sub(start).min(1 << self.shift);
        match Mapping::shared(file, start, ByteLen::new(len)) {
            Ok(new) => {
                // SAFETY: we hold the lock and the slot is closed: nobody is counted in, and
                // nobody else writes.
                let old = unsafe { (*self.slots[at].mapping.get()).replace(new) };
                self.slots[at].open(window);
                drop(old);
                Ok(at)
            }
            Err(_) => {
                self.slots[at].reopen(before);
                Err(NoWindow)
            }
        }
    }
}
