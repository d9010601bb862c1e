//! Context as values: who may sleep, and who holds a spin lock and may not.
//!
//! A lookup that may fault may sleep: it may have to wait for memory, for another thread's fill
//! or for a shootdown. So it asks for a [`MaySleep`], a value that stands for "this thread may
//! block here". Taking a [`SpinLock`] borrows that value mutably for as long as the lock is held:
//! the sleeping lookup cannot be named in between.
//!
//! ```
//! use pageless_fault::{MaySleep, SpinLock};
//! fn sleeps(_: &MaySleep) {}
//!
//! let mut ctx = MaySleep::claim();
//! let lock = SpinLock::new(1);
//! {
//!     let mut held = lock.lock(&mut ctx);
//!     *held += 1;
//! }
//! sleeps(&ctx); // after the guard is gone
//! ```
//!
//! ```compile_fail,E0502
//! use pageless_fault::{MaySleep, SpinLock};
//! fn sleeps(_: &MaySleep) {}
//!
//! let mut ctx = MaySleep::claim();
//! let lock = SpinLock::new(1);
//! {
//!     let mut held = lock.lock(&mut ctx);
//!     sleeps(&ctx); // a sleeping call under a spin lock
//!     *held += 1;
//! }
//! ```

use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

/// The right to block, in the thread that claimed it. Neither `Send` nor `Clone`.
#[derive(Debug)]
pub struct MaySleep {
    _not_send: PhantomData<*const ()>,
}

impl MaySleep {
    /// Says that the calling thread may block from here on: at the top of a thread, of `main`,
    /// of a task. Code below it should be handed `&MaySleep` instead of claiming its own.
    ///
    /// # Panics
    ///
    /// With `std`, when the calling thread holds a [`SpinLock`]: the claim would be false.
    #[must_use]
    pub fn claim() -> Self {
        #[cfg(feature = "std")]
        assert_eq!(
            depth::get(),
            0,
            "MaySleep::claim() in a thread that holds {} spin lock(s)",
            depth::get()
        );
        MaySleep {
            _not_send: PhantomData,
        }
    }

    /// The same where it may not be so: in a drop, which nobody hands anything. `None`, with `std`, if the calling thread holds a
    /// [`SpinLock`] or is unwinding.
    ///
    /// ```
    /// use pageless_fault::{MaySleep, SpinLock};
    /// let mut ctx = MaySleep::try_claim().ok_or("not here")?;
    /// let lock = SpinLock::new(1);
    /// let _held = lock.lock(&mut ctx);
    /// assert!(MaySleep::try_claim().is_none());
    /// # Ok::<(), &str>(())
    /// ```
    #[must_use]
    pub fn try_claim() -> Option<Self> {
        #[cfg(feature = "std")]
        if depth::get() > 0 || std::thread::panicking() {
            return None;
        }
        Some(MaySleep {
            _not_send: PhantomData,
        })
    }
}

/// Proof that the current code must not block, for as long as it lives.
#[derive(Debug)]
pub struct AtomicSection<'ctx> {
    _ctx: PhantomData<&'ctx mut MaySleep>,
}

impl<'ctx> AtomicSection<'ctx> {
    /// Gives up the right to sleep while the section lives.
    #[must_use]
    pub fn enter(_ctx: &'ctx mut MaySleep) -> Self {
        #[cfg(feature = "std")]
        depth::enter();
        AtomicSection { _ctx: PhantomData }
    }
}

impl Drop for AtomicSection<'_> {
    fn drop(&mut self) {
        #[cfg(feature = "std")]
        depth::leave();
    }
}

/// A lock whose holder may not sleep: waiting for it spins.
pub struct SpinLock<T> {
    inner: spin::Mutex<T>,
}

impl<T> SpinLock<T> {
    /// An unlocked lock around `value`.
    #[must_use]
    pub const fn new(value: T) -> Self {
        SpinLock {
            inner: spin::Mutex::new(value),
        }
    }

    /// Spins until the lock is free, and takes the right to sleep for as long as it is held. Between
    /// two turns it does what this thread does [while it waits](crate::sync#waiting).
    pub fn lock<'a>(&'a self, ctx: &'a mut MaySleep) -> SpinGuard<'a, T> {
        // Nobody may sleep from the first turn on: the section is older than the lock.
        let section = AtomicSection::enter(ctx);
        SpinGuard {
            inner: self.inner.try_lock().unwrap_or_else(|| self.spin()),
            section,
        }
    }

    /// Somebody else holds the lock.
    #[cold]
    fn spin(&self) -> spin::MutexGuard<'_, T> {
        let mut turn = 0_u32;
        loop {
            relax(turn);
            if let Some(inner) = self.inner.try_lock() {
                return inner;
            }
            turn = turn.saturating_add(1);
        }
    }
}

/// One turn of spinning.
fn relax(turn: u32) {
    #[cfg(all(feature = "std", not(loom)))]
    if crate::sync::wait_turn(turn) {
        return;
    }
    let _ = turn;
    core::hint::spin_loop();
}

impl<T: fmt::Debug> fmt::Debug for SpinLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpinLock")
            .field("inner", &self.inner)
            .finish()
    }
}

/// A held [`SpinLock`].
pub struct SpinGuard<'a, T> {
    inner: spin::MutexGuard<'a, T>,
    section: AtomicSection<'a>,
}

impl<'a, T> SpinGuard<'a, T> {
    /// The atomic section that the lock opened.
    #[must_use]
    pub fn section(&self) -> &AtomicSection<'a> {
        &self.section
    }
}

impl<T> Deref for SpinGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for SpinGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T: fmt::Debug> fmt::Debug for SpinGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SpinGuard").field(&**self).finish()
    }
}

/// Says how many spin locks this thread holds, and answers what it was: where several tasks share a
/// thread, each has a count of its own.
#[cfg(all(feature = "std", not(loom)))]
pub(crate) fn exchange_held(held: u32) -> u32 {
    depth::exchange(held)
}

/// How many spin locks this thread holds.
#[cfg(feature = "std")]
mod depth {
    use core::cell::Cell;

    std::thread_local! {
        static DEPTH: Cell<u32> = const { Cell::new(0) };
    }

    #[cfg(not(loom))]
    pub(super) fn exchange(held: u32) -> u32 {
        DEPTH.replace(held)
    }

    pub(super) fn get() -> u32 {
        DEPTH.get()
    }

    pub(super) fn enter() {
        DEPTH.set(DEPTH.get() + 1);
    }

    pub(super) fn leave() {
        DEPTH.set(DEPTH.get() - 1);
    }
}
