//! Who holds frames that it could give back.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;

use pageless_fault::MaySleep;
use pageless_fault::sync::Mutex;
use pageless_pfn::FrameCount;

/// Somebody who keeps frames that nobody needs, and gives them back when others are short: a list of areas that wait to be purged.
pub trait Reclaimer: Send + Sync {
    /// Frees about `frames` frames, more or less as it likes, and answers how many it was.
    ///
    /// The caller is in the middle of an allocation and holds no lock of the allocator. Several threads may be here at once. What is
    /// allocated here must not [retry](super::Gfp::retries): that would end here again.
    fn reclaim(&self, ctx: &MaySleep, frames: FrameCount) -> FrameCount;
}

/// Those who have registered.
pub(super) struct Reclaimers {
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    next: u64,
    /// By ascending number.
    entries: Vec<(u64, Weak<dyn Reclaimer>)>,
}

impl Reclaimers {
    pub(super) fn new() -> Self {
        Reclaimers {
            list: Mutex::new(List::default()),
        }
    }

    pub(super) fn add(self: &Arc<Self>, reclaimer: Weak<dyn Reclaimer>) -> ReclaimerGuard {
        let mut list = self.list.lock();
        let number = list.next;
        list.next += 1;
        list.entries.push((number, reclaimer));
        ReclaimerGuard {
            reclaimers: Arc::clone(self),
            number,
        }
    }

    /// Asks one after the other until `frames` have come back. The lock is not held while somebody works.
    pub(super) fn reclaim(&self, ctx: &MaySleep, frames: FrameCount) -> FrameCount {
        let mut from = 0;
        let mut got = 0_u64;
        while got < frames.get() {
            let Some((number, reclaimer)) = self.next(from) else {
                break;
            };
            from = number + 1;
            if let Some(reclaimer) = reclaimer.upgrade() {
                let wanted = FrameCount::new(frames.get() - got);
                got = got.saturating_add(reclaimer.reclaim(ctx, wanted).get());
            }
        }
        FrameCount::new(got)
    }

    /// The first whose number is at least `from`.
    fn next(&self, from: u64) -> Option<(u64, Weak<dyn Reclaimer>)> {
        let list = self.list.lock();
        let at = list.entries.partition_point(|&(number, _)| number < from);
        let (number, reclaimer) = list.entries.get(at)?;
        Some((*number, Weak::clone(reclaimer)))
    }
}

/// As long as it lives, a [`Reclaimer`] is asked. A call that has begun may outlive it.
#[must_use = "a reclaimer whose guard has been dropped is not asked any more"]
pub struct ReclaimerGuard {
    reclaimers: Arc<Reclaimers>,
    number: u64,
}

impl Drop for ReclaimerGuard {
    fn drop(&mut self) {
        let gone = {
            let mut list = self.reclaimers.list.lock();
            let at = list
                .entries
                .binary_search_by_key(&self.number, |&(number, _)| number);
            at.ok().map(|at| list.entries.remove(at))
        };
        // Dropped only now: it may be the last reference to whatever it is.
        drop(gone);
    }
}

impl fmt::Debug for ReclaimerGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReclaimerGuard")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}
