//! Which CPUs can have entries of one window: the set that a targeted shootdown shoots at.
//!
//! | bit of `cpu n` | meaning | written by |
//! |---|---|---|
//! | 0 | since its last full flush, `cpu n` has read no entry of the window | [`leave`](Residency::leave), by `cpu n` |
//! | 1 | it may have | [`enter`](Residency::enter), by `cpu n` |
//!
//! ```text
//!   cpu n:      enter (bit, fence) --> walk reads entries, TLB fills ... --> full flush --> leave
//!   initiator:  swap the entry to zero --> targets (fence, read the bits) --> shoot --> reuse
//! ```
//!
//! Either the initiator sees the bit, or the walk sees the zero ([`dekker`](super::dekker)). A bit seen as 0
//! by an initiator means besides that the full flush before it has happened: `leave` releases it.
#![forbid(unsafe_code)]

use super::cpu_set::{AtomicCpuSet, CpuId, CpuSet};
use super::dekker::{activator_fence, initiator_fence};

/// The CPUs that can have entries of one window.
///
/// ```
/// use pageless_fault::shootdown::{CpuId, CpuSet, Residency};
/// let residency = Residency::new(2);
/// residency.enter(CpuId::new(1)); // before its first walk in the window
/// assert_eq!(residency.targets(), CpuSet::from_iter([CpuId::new(1)]));
/// residency.leave(CpuId::new(1)); // it has flushed everything
/// assert!(residency.targets().is_empty());
/// ```
#[derive(Debug)]
pub struct Residency {
    resident: AtomicCpuSet,
}

impl Residency {
    /// Nobody has entries yet, of CPUs 0 to `cpus - 1`.
    ///
    /// # Panics
    ///
    /// `cpus` is more than [`MAX_CPUS`](super::MAX_CPUS).
    #[must_use]
    pub fn new(cpus: u16) -> Self {
        Residency {
            resident: AtomicCpuSet::new(cpus),
        }
    }

    /// On `cpu` itself, before a walk reads an entry of the window. Whether the CPU is new.
    ///
    /// A CPU that is in already needs neither the write nor the fence: its bit has been 1 since an
    /// earlier `enter`, because nobody else clears it. An initiator whose fence came behind that
    /// enter's fence sees the bit; one whose fence came before it had cleared its entry by then, and
    /// every later walk of this CPU sees that. So a hit in this path costs one load.
    ///
    /// # Panics
    ///
    /// The machine has no such `cpu`.
    pub fn enter(&self, cpu: CpuId) -> bool {
        if self.resident.contains_own(cpu) {
            return false;
        }
        self.resident.insert(cpu);
        // Pairs with the fence in `targets`: the walk reads its entries behind it.
        activator_fence();
        true
    }

    /// On `cpu` itself, after it has flushed everything and before it walks again.
    ///
    /// # Panics
    ///
    /// The machine has no such `cpu`.
    pub fn leave(&self, cpu: CpuId) {
        // Release (in `remove`): pairs with the Acquire in `targets`. Who does not shoot at this CPU
        // may use a frame again; the flush must have happened by then.
        self.resident.remove(cpu);
    }

    /// Whether `cpu` is in the set; for looking, not for deciding whom to shoot at.
    ///
    /// # Panics
    ///
    /// The machine has no such `cpu`.
    #[must_use]
    pub fn contains(&self, cpu: CpuId) -> bool {
        self.resident.contains(cpu)
    }

    /// For an initiator that has cleared its entries: whom it must shoot at.
    #[must_use]
    pub fn targets(&self) -> CpuSet {
        // Pairs with the fence in `enter`: the entries were cleared before it.
        initiator_fence();
        self.resident.snapshot()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_is_a_target_from_its_first_walk_to_its_full_flush() {
        let residency = Residency::new(70);
        let (a, b) = (CpuId::new(0), CpuId::new(69));
        assert!(residency.enter(a));
        assert!(!residency.enter(a));
        assert!(residency.enter(b));
        assert_eq!(residency.targets(), CpuSet::from_iter([a, b]));
        residency.leave(a);
        assert!(!residency.contains(a));
        assert_eq!(residency.targets(), CpuSet::from_iter([b]));
        assert!(residency.enter(a));
    }
}
