//! How many pages wait for a shootdown: a sum that all CPUs add to, and that each of them has to keep below a cap.
//!
//! Added to directly it would be the one word that every unmapping of every CPU writes. So each node counts for itself up to a batch, and adds
//! that to the total then. Far below the cap the total and what the batches can hold at most is answer enough; near it, the
//! sum is made.

use alloc::boxed::Box;

use pageless_fault::sync::atomic::{AtomicU64, Ordering};

/// The largest batch, in pages.
const BATCH_MOST: u64 = 512;

/// A word in cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Alone(AtomicU64);

/// Pages that wait for a shootdown. All orderings are `Relaxed`: what is counted is under locks, and whoever misses an addition looks again at
/// his next call.
#[derive(Debug)]
pub(crate) struct LazyPages {
    /// What has been added, less what was taken away: wraps while the batches hold more than it.
    total: Alone,
    /// What each node has counted and not yet added.
    nodes: Box<[Alone]>,
    /// A node adds what it has counted when it is as much as this.
    batch: u64,
}

impl LazyPages {
    /// None, to be kept below `cap` pages.
    pub(crate) fn new(nodes: u16, cap: u64) -> Self {
        let batch = (cap / (64 * u64::from(nodes))).min(BATCH_MOST);
        LazyPages {
            total: Alone(AtomicU64::new(0)),
            nodes: (0..nodes).map(|_| Alone(AtomicU64::new(0))).collect(),
            batch,
        }
    }

    /// `pages` more, unmapped by a CPU of `node`.
    pub(crate) fn add(&self, node: u16, pages: u64) {
        if let Some(Alone(mine)) = self.nodes.get(usize::from(node)).filter(|_| self.batch > 0) {
            let counted = mine.fetch_add(pages, Ordering::Relaxed) + pages;
            if counted >= self.batch {
                let counted = mine.swap(0, Ordering::Relaxed);
                self.total.0.fetch_add(counted, Ordering::Relaxed);
            }
        } else {
            self.total.0.fetch_add(pages, Ordering::Relaxed);
        }
    }

    /// `pages` that wait no longer.
    pub(crate) fn remove(&self, pages: u64) {
        self.total.0.fetch_sub(pages, Ordering::Relaxed);
    }

    /// How many there are. Exact while nobody adds any.
    pub(crate) fn sum(&self) -> u64 {
        let total = self.total.0.load(Ordering::Relaxed);
        let sum = self.nodes.iter().fold(total, |sum, node| {
            sum.wrapping_add(node.0.load(Ordering::Relaxed))
        });
        // Somebody may be moving his batch to the total: counted twice it is too much, and not at all too little.
        if (sum as i64) < 0 { 0 } else { sum }
    }

    /// How many there are, if that is more than `cap`.
    pub(crate) fn over(&self, cap: u64) -> Option<u64> {
        let total = self.total.0.load(Ordering::Relaxed) as i64;
        // A batch, and what comes on top of the addition that completes it.
        let in_batches = self.nodes.len() as u64 * self.batch;
        if total.saturating_add(in_batches as i64) <= cap as i64 {
            return None;
        }
        Some(self.sum()).filter(|sum| *sum > cap)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::LazyPages;

    proptest! {
        /// Whatever is added by whom and removed, the sum is right, and no batch hides that it is over the cap.
        #[test]
        fn it_is_over_the_cap_exactly_when_it_is(
            cap in 0..3000_u64,
            nodes in 1..5_u16,
            steps in prop::collection::vec((0..5_u16, 1..300_u64, any::<bool>()), 1..80),
        ) {
            let lazy = LazyPages::new(nodes, cap);
            let mut sum = 0;
            for (node, pages, more) in steps {
                if more {
                    lazy.add(node % nodes, pages);
                    sum += pages;
                } else {
                    let pages = pages.min(sum);
                    lazy.remove(pages);
                    sum -= pages;
                }
                prop_assert_eq!(lazy.sum(), sum);
                prop_assert_eq!(lazy.over(cap), (sum > cap).then_some(sum));
            }
        }
    }
}
