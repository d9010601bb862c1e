//! Where simulated code meets the scheduler. Without one, and without `std`, these are nothing.
#![forbid(unsafe_code)]

#[cfg(feature = "std")]
use super::schedule::{self, Event};

/// For events that are about nothing in particular.
pub(crate) const NOTHING: u64 = u64::MAX;

/// Something that others can observe is about to happen: they may act first.
#[inline]
pub(crate) fn step(what: &'static str, of: u64) {
    #[cfg(feature = "std")]
    schedule::step(Event { what, of });
    #[cfg(not(feature = "std"))]
    let _ = (what, of);
}

/// Nothing can go on here until somebody else acts.
#[inline]
pub(crate) fn wait(what: &'static str, of: u64) {
    #[cfg(feature = "std")]
    {
        if schedule::is_running() {
            schedule::wait(Event { what, of });
        } else {
            std::thread::yield_now();
        }
    }
    #[cfg(not(feature = "std"))]
    {
        let _ = (what, of);
        core::hint::spin_loop();
    }
}

/// Whether a deterministic scheduler is at work.
#[inline]
pub(crate) fn scheduled() -> bool {
    #[cfg(feature = "std")]
    let scheduled = schedule::is_running();
    #[cfg(not(feature = "std"))]
    let scheduled = false;
    scheduled
}

/// A coin of the scheduler's, thrown only while it is at work.
#[cfg(feature = "std")]
pub(crate) fn chance(what: &'static str, one_in: u32) -> bool {
    schedule::chance(what, one_in)
}

/// A coin of the scheduler's: without one there is none.
#[cfg(not(feature = "std"))]
pub(crate) fn chance(_what: &'static str, _one_in: u32) -> bool {
    false
}

/// A number of the scheduler's below `n`.
#[cfg(feature = "std")]
pub(crate) fn pick(what: &'static str, n: u64) -> u64 {
    schedule::pick(what, n)
}

/// A number of the scheduler's: without one there is none.
#[cfg(not(feature = "std"))]
pub(crate) fn pick(_what: &'static str, _n: u64) -> u64 {
    0
}

/// Puts `ns` modelled nanoseconds on the clock of the CPU at work.
#[inline]
pub(crate) fn charge(ns: u64) {
    #[cfg(feature = "std")]
    schedule::charge(ns);
    #[cfg(not(feature = "std"))]
    let _ = ns;
}

/// The clock of the CPU at work, in modelled nanoseconds.
#[inline]
pub(crate) fn now() -> u64 {
    #[cfg(feature = "std")]
    let now = schedule::now();
    #[cfg(not(feature = "std"))]
    let now = 0;
    now
}

/// Puts that clock forward to `then`.
#[inline]
pub(crate) fn advance_to(then: u64) {
    #[cfg(feature = "std")]
    schedule::advance_to(then);
    #[cfg(not(feature = "std"))]
    let _ = then;
}
