//! What time it is, where somebody wants to know.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

/// A moment, in nanoseconds since some start that only its [`Clock`] knows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Nanos(u64);

impl Nanos {
    /// The start.
    pub const ZERO: Self = Self(0);

    /// `nanos` after the start.
    #[inline]
    pub const fn new(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the start.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The moment `by` later; the end of time if that is beyond it (584 years).
    #[inline]
    pub const fn saturating_add(self, by: Duration) -> Self {
        let nanos = by.as_nanos();
        if nanos > u64::MAX as u128 {
            return Self(u64::MAX);
        }
        Self(self.0.saturating_add(nanos as u64))
    }

    /// Nanoseconds from `earlier` until now; 0 if it is not earlier.
    #[inline]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Debug for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ns", self.0)
    }
}

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ns", self.0)
    }
}

/// A source of time that never goes back. Queues, schedulers and drivers that need one are given one;
/// without it nothing is timed.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Nanos;

    /// Somebody waits for `until` and has nothing else to do. A clock that runs by itself ignores it;
    /// one that is moved by hand may move there.
    fn idle_until(&self, until: Nanos) {
        let _ = until;
    }
}

impl<C: Clock + ?Sized> Clock for alloc::sync::Arc<C> {
    #[inline]
    fn now(&self) -> Nanos {
        (**self).now()
    }

    fn idle_until(&self, until: Nanos) {
        (**self).idle_until(until);
    }
}

/// A clock that stands still until it is moved: tests and simulations are the same in every run.
///
/// It moves by itself when somebody has to wait for it ([`Clock::idle_until`]), so that nothing that
/// waits for a moment waits for ever.
///
/// ```
/// use core::time::Duration;
/// use pageless_block::{Clock, ManualClock, Nanos};
/// let clock = ManualClock::new();
/// clock.advance(Duration::from_micros(3));
/// assert_eq!(clock.now(), Nanos::new(3000));
/// clock.idle_until(Nanos::new(5000));
/// assert_eq!(clock.now(), Nanos::new(5000));
/// ```
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// At its start.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Moves it on.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        // A number and nothing else: no other memory is read on the strength of it.
        self.0.fetch_add(nanos, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Nanos {
        Nanos(self.0.load(Ordering::Relaxed))
    }

    fn idle_until(&self, until: Nanos) {
        self.0.fetch_max(until.0, Ordering::Relaxed);
    }
}

/// The host's monotonic clock, from the moment this was made.
#[cfg(feature = "std")]
#[derive(Clone, Copy, Debug)]
pub struct MonotonicClock(std::time::Instant);

#[cfg(feature = "std")]
impl MonotonicClock {
    /// Starts now.
    pub fn new() -> Self {
        Self(std::time::Instant::now())
    }
}

#[cfg(feature = "std")]
impl Default for MonotonicClock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "std")]
impl Clock for MonotonicClock {
    #[inline]
    fn now(&self) -> Nanos {
        Nanos(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}
