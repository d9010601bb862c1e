//! What the engine counts.
#![forbid(unsafe_code)]

use crate::sync::atomic::{AtomicU64, Ordering};

/// What the engine has done. `sent` counts one for each other CPU of each shootdown, and each of them ends
/// as exactly one of `received`, `skipped` and `deferred`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShootdownCounters {
    /// Shootdowns begun.
    pub shootdowns: u64,
    /// Other CPUs concerned, over all shootdowns.
    pub sent: u64,
    /// Of them, those that executed a request on receiving it.
    pub received: u64,
    /// Of them, those that were left out, because they could not hold the translation or flush before they can use it.
    pub skipped: u64,
    /// Of them, those that were left to flush later by themselves.
    pub deferred: u64,
    /// Interrupts sent.
    pub interrupts: u64,
    /// Messages over the interconnect.
    pub fabric: u64,
    /// Requests that found a mailbox full and became "flush everything".
    pub overflows: u64,
    /// Requests that a lazy sweep could not record, and that went by interrupt instead.
    pub fallbacks: u64,
    /// Full flushes by CPUs that woke or switched and found that they had been left out.
    pub caught_up: u64,
    /// Waits given up.
    pub given_up: u64,
}

/// The same, while CPUs count.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) shootdowns: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) skipped: AtomicU64,
    pub(super) deferred: AtomicU64,
    pub(super) interrupts: AtomicU64,
    pub(super) fabric: AtomicU64,
    pub(super) overflows: AtomicU64,
    pub(super) fallbacks: AtomicU64,
    pub(super) caught_up: AtomicU64,
    pub(super) given_up: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self) -> ShootdownCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ShootdownCounters {
            shootdowns: read(&self.shootdowns),
            sent: read(&self.sent),
            received: read(&self.received),
            skipped: read(&self.skipped),
            deferred: read(&self.deferred),
            interrupts: read(&self.interrupts),
            fabric: read(&self.fabric),
            overflows: read(&self.overflows),
            fallbacks: read(&self.fallbacks),
            caught_up: read(&self.caught_up),
            given_up: read(&self.given_up),
        }
    }
}

/// Relaxed: counters are read for reporting, when the CPUs have stopped or come to rest.
pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}
