//! Allocations that fail because they are told to.

use fastrand::Rng;
use pageless_fault::sync::Mutex;
use pageless_fault::sync::atomic::{AtomicBool, Ordering};

use super::order::Order;

/// Which allocations fail although there is memory (Linux: `fail_page_alloc`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injection {
    /// The one that comes after so many others: 0 is the next one. Those behind it do not fail.
    Nth(u64),
    /// All of this order and above.
    FromOrder(Order),
    /// So many of a thousand, as the seed has it.
    PerMille {
        /// 1000 is all of them.
        chance: u16,
        /// Where the numbers come from.
        seed: u64,
    },
}

/// What has come of an [`Injection`] so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Injected {
    /// Allocations that were asked about, since it was set.
    pub visits: u64,
    /// Those that failed.
    pub failures: u64,
}

/// The injection that is set.
pub(super) struct Injector {
    /// Whether one is: what every allocation looks at. Relaxed: it orders nothing, the lock does.
    set: AtomicBool,
    active: Mutex<Option<Active>>,
}

struct Active {
    what: Injection,
    rng: Rng,
    injected: Injected,
}

impl Injector {
    pub(super) fn new() -> Self {
        Injector {
            set: AtomicBool::new(false),
            active: Mutex::new(None),
        }
    }

    /// Answers what has come of the one before.
    pub(super) fn set(&self, what: Option<Injection>) -> Injected {
        let seed = match what {
            Some(Injection::PerMille { seed, .. }) => seed,
            _ => 0,
        };
        let new = what.map(|what| Active {
            what,
            rng: Rng::with_seed(seed),
            injected: Injected::default(),
        });
        let mut active = self.active.lock();
        self.set.store(new.is_some(), Ordering::Relaxed);
        let old = core::mem::replace(&mut *active, new);
        old.map_or_else(Injected::default, |old| old.injected)
    }

    /// What has come of the one that is set.
    pub(super) fn injected(&self) -> Injected {
        self.active
            .lock()
            .as_ref()
            .map_or_else(Injected::default, |active| active.injected)
    }

    /// Whether this allocation is to fail.
    #[inline]
    pub(super) fn strikes(&self, order: Order) -> bool {
        self.set.load(Ordering::Relaxed) && self.asks(order)
    }

    #[cold]
    fn asks(&self, order: Order) -> bool {
        let mut active = self.active.lock();
        let Some(active) = active.as_mut() else {
            return false;
        };
        let visit = active.injected.visits;
        active.injected.visits += 1;
        let strikes = match active.what {
            Injection::Nth(nth) => visit == nth,
            Injection::FromOrder(from) => order >= from,
            Injection::PerMille { chance, .. } => active.rng.u16(..1000) < chance,
        };
        if strikes {
            active.injected.failures += 1;
        }
        strikes
    }
}
