//! The one place that decides which lock and which atomics are meant: loom's under `cfg(loom)`,
//! the standard library's with `std`, a spin lock without it.
//!
//! # Waiting
//!
//! Whoever waits for a lock may be the one that its holder waits for: a CPU that spins must serve its
//! own shootdowns meanwhile, and a task that shares its thread with the holder must let it run. So
//! what a thread does while it waits for a lock of this crate is the thread's to say:
//! [`set_waiting`], with `std`.

use core::fmt;
use core::ops::{Deref, DerefMut};

#[cfg(loom)]
use loom::sync as imp;
#[cfg(all(feature = "std", not(loom)))]
use std::sync as imp;

#[cfg(any(loom, feature = "std"))]
type Inner<T> = imp::Mutex<T>;
#[cfg(any(loom, feature = "std"))]
type InnerGuard<'a, T> = imp::MutexGuard<'a, T>;

#[cfg(not(any(loom, feature = "std")))]
type Inner<T> = spin::Mutex<T>;
#[cfg(not(any(loom, feature = "std")))]
type InnerGuard<'a, T> = spin::MutexGuard<'a, T>;

/// Atomics and fences: loom's under `cfg(loom)`, the core library's otherwise.
pub mod atomic {
    #[cfg(not(loom))]
    pub use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
    #[cfg(loom)]
    pub use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
}

/// A lock for short sections that never sleep and never panic half-way.
///
/// ```
/// use pageless_fault::sync::Mutex;
/// let m = Mutex::new(1);
/// *m.lock() += 1;
/// assert_eq!(*m.try_lock().unwrap(), 2);
/// ```
pub struct Mutex<T>(Inner<T>);

impl<T> Mutex<T> {
    /// An unlocked lock around `value`.
    pub fn new(value: T) -> Self {
        Mutex(Inner::new(value))
    }

    /// Waits for the lock. A holder that panicked leaves no trace: sections keep their
    /// invariants at every step.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        #[cfg(all(feature = "std", not(loom)))]
        match self.try_lock() {
            Some(guard) => guard,
            None => self.lock_contended(),
        }
        #[cfg(loom)]
        return self.block();
        #[cfg(not(any(loom, feature = "std")))]
        MutexGuard(self.0.lock())
    }

    /// Somebody else holds the lock.
    #[cfg(all(feature = "std", not(loom)))]
    #[cold]
    fn lock_contended(&self) -> MutexGuard<'_, T> {
        let mut turn = 0;
        while wait_turn(turn) {
            if let Some(guard) = self.try_lock() {
                return guard;
            }
            turn = turn.saturating_add(1);
        }
        self.block()
    }

    /// Sleeps until the lock is free.
    #[cfg(any(loom, feature = "std"))]
    fn block(&self) -> MutexGuard<'_, T> {
        MutexGuard(
            self.0
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner()),
        )
    }

    /// The lock, if nobody holds it. Never waits: callable in any context.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        #[cfg(any(loom, feature = "std"))]
        let inner = match self.0.try_lock() {
            Ok(inner) => inner,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => return None,
        };
        #[cfg(not(any(loom, feature = "std")))]
        let inner = self.0.try_lock()?;
        Some(MutexGuard(inner))
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").finish_non_exhaustive()
    }
}

/// A held [`Mutex`].
pub struct MutexGuard<'a, T>(InnerGuard<'a, T>);

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MutexGuard").field(&**self).finish()
    }
}

#[cfg(all(feature = "std", not(loom)))]
mod waiting {
    use core::cell::Cell;

    std::thread_local! {
        static WAITING: Cell<Option<fn(u32)>> = const { Cell::new(None) };
    }

    /// Says what this thread does while somebody else holds a lock that it wants, and answers what it
    /// did so far. The argument counts the turns of one wait, from 0; after each the lock is tried
    /// again. `None`: it sleeps for a [`Mutex`](super::Mutex) and spins for a
    /// [`SpinLock`](crate::SpinLock).
    ///
    /// ```
    /// use pageless_fault::sync::set_waiting;
    /// let before = set_waiting(Some(|_turn| std::thread::yield_now()));
    /// // ... locks ...
    /// set_waiting(before);
    /// ```
    pub fn set_waiting(turn: Option<fn(u32)>) -> Option<fn(u32)> {
        WAITING.replace(turn)
    }

    /// One turn of waiting, as this thread does it. False if it has nothing to do meanwhile.
    pub(crate) fn wait_turn(turn: u32) -> bool {
        match WAITING.get() {
            Some(wait) => {
                wait(turn);
                true
            }
            None => false,
        }
    }
}

#[cfg(all(feature = "std", not(loom)))]
pub use waiting::set_waiting;
#[cfg(all(feature = "std", not(loom)))]
pub(crate) use waiting::wait_turn;
