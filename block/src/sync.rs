//! The one place that decides which lock and which atomics are meant: loom's under `cfg(loom)`, the
//! standard library's with `std`, a spin lock without it.

use core::fmt;

/// Atomics: loom's under `cfg(loom)`, the core library's otherwise.
pub(crate) mod atomic {
    #[cfg(not(loom))]
    pub(crate) use core::sync::atomic::{
        AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
    #[cfg(loom)]
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
}

/// A moment passes for a thread that waits for another.
#[inline]
pub(crate) fn relax() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(not(loom))]
    core::hint::spin_loop();
}

#[cfg(loom)]
type Inner<T> = loom::sync::Mutex<T>;
#[cfg(all(feature = "std", not(loom)))]
type Inner<T> = std::sync::Mutex<T>;
#[cfg(not(any(loom, feature = "std")))]
type Inner<T> = spin::Mutex<T>;

#[cfg(loom)]
pub(crate) type Guard<'a, T> = loom::sync::MutexGuard<'a, T>;
#[cfg(all(feature = "std", not(loom)))]
pub(crate) type Guard<'a, T> = std::sync::MutexGuard<'a, T>;
#[cfg(not(any(loom, feature = "std")))]
pub(crate) type Guard<'a, T> = spin::MutexGuard<'a, T>;

/// A lock for short sections. One whose holder panicked can still be taken: what is behind these locks
/// keeps its invariants at every step.
pub(crate) struct Lock<T>(Inner<T>);

impl<T> Lock<T> {
    /// An unlocked lock around `value`.
    pub(crate) fn new(value: T) -> Self {
        Self(Inner::new(value))
    }

    /// Waits for the lock.
    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        #[cfg(any(loom, feature = "std"))]
        return self
            .0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        #[cfg(not(any(loom, feature = "std")))]
        self.0.lock()
    }
}

impl<T: Default> Default for Lock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lock(..)")
    }
}
