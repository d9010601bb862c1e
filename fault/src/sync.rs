//! The one place that decides which lock and which atomics are meant: loom's under `cfg(loom)`,
//! the standard library's with `std`, a spin lock without it.

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
        #[cfg(any(loom, feature = "std"))]
        let inner = self
            .0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        #[cfg(not(any(loom, feature = "std")))]
        let inner = self.0.lock();
        MutexGuard(inner)
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
