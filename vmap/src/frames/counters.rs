//! What happened, counted where it happens seldom enough for a shared word.

use pageless_fault::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What happened since the allocator was made.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        #[non_exhaustive]
        pub struct EventCounts {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// All Relaxed: numbers for people, that order nothing.
        #[derive(Default)]
        pub(super) struct Counters {
            $(pub(super) $name: Counter,)*
        }

        impl Counters {
            pub(super) fn read(&self) -> EventCounts {
                EventCounts { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Allocations that failed: less free than asked for.
    no_memory,
    /// Allocations that failed: enough free, but not in one piece.
    fragmented,
    /// Allocations that failed: there was a block, but it stays free for others.
    below_watermark,
    /// Allocations that failed: nothing of that order is ever there.
    order_too_large,
    /// Allocations that failed by [injection](super::Injection).
    injected,
    /// Allocations that found less free than the low watermark, or no block at once.
    slow,
    /// Allocations from another zone than the one asked for.
    zone_fallbacks,
    /// Allocations that went below the minimum watermark, as only those may that cannot sleep.
    from_reserve,
    /// Times that all lists of the CPUs were given back.
    drains,
    /// Times that [reclaimers](super::Reclaimer) were asked.
    reclaims,
    /// Frames that they said they gave back.
    reclaimed,
    /// Blocks that were offered and not taken back.
    refused,
}

#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
}
