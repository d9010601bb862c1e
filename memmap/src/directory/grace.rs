//! When the last reader of a directory object has gone: `crossbeam_epoch`'s default collector, or the
//! books' lock where there is none.
//!
//! Reading with a pin takes no lock and never waits; retiring never waits either, it only *defers*. What
//! that costs: a reader that stays pinned holds back every object retired since, here and in all other
//! users of the collector in the process, and nothing says when they go. So readers here pin for one
//! look, objects are a few words long, and nothing but their own memory waits for the epoch: bytes of
//! budget are free as soon as the flush is proved.
//!
//! An epoch counts *threads that said that they read*. A CPU with a stale translation said nothing, and a
//! thread that holds a page is not pinned: neither is covered, see `FlushDebt` and the state word.
//!
//! Never in a signal handler: the first pin of a thread allocates, and any pin may run what others
//! deferred.
//!
//! Without `std` there is no thread to remember a pin for (registering anew for each look costs an
//! allocation of 2 KiB, against the lock's few nanoseconds). Under loom the collector's atomics are not
//! loom's; under Miri it turns integers into pointers, which strict provenance forbids, so there it has to
//! be asked for (`epoch-under-miri`). In those three, readers take the lock and objects go at once.

use alloc::sync::Arc;

#[cfg(all(
    feature = "std",
    not(loom),
    any(not(miri), feature = "epoch-under-miri")
))]
mod imp {
    use super::Arc;

    /// Whatever is unlinked while this lives stays in memory as long.
    pub(in crate::directory) struct Pin {
        _guard: crossbeam_epoch::Guard,
    }

    /// Begins to read.
    pub(in crate::directory) fn pin() -> Option<Pin> {
        let _guard = crossbeam_epoch::pin();
        Some(Pin { _guard })
    }

    /// For retiring several objects in one go.
    pub(in crate::directory) struct Retirement(crossbeam_epoch::Guard);

    impl Retirement {
        pub(in crate::directory) fn begin() -> Self {
            Retirement(crossbeam_epoch::pin())
        }

        /// Lets go of `object`, which no new reader can find, after everybody who is pinned now.
        pub(in crate::directory) fn retire<T: Send + Sync + 'static>(&self, object: Arc<T>) {
            self.0.defer(move || drop(object));
        }
    }
}

#[cfg(not(all(
    feature = "std",
    not(loom),
    any(not(miri), feature = "epoch-under-miri")
)))]
mod imp {
    use super::Arc;

    /// There is none.
    pub(in crate::directory) enum Pin {}

    /// Nobody can begin to read without the lock.
    pub(in crate::directory) fn pin() -> Option<Pin> {
        None
    }

    /// For retiring several objects in one go.
    pub(in crate::directory) struct Retirement;

    impl Retirement {
        pub(in crate::directory) fn begin() -> Self {
            Retirement
        }

        /// Lets go of `object`: whoever might read it needs the lock that the caller holds.
        #[expect(clippy::unused_self, reason = "where there is an epoch, it is used")]
        pub(in crate::directory) fn retire<T: Send + Sync + 'static>(&self, object: Arc<T>) {
            drop(object);
        }
    }
}

pub(super) use imp::{Pin, Retirement, pin};
