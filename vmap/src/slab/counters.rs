//! What a cache has done, and what it has.

use core::fmt;

use pageless_fault::sync::atomic::{AtomicU64, Ordering};
use pageless_pfn::ByteLen;

use crate::frames::Order;

/// What a cache has, and what it has done so far. Each number is right; together they are of one moment only while nobody works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlabStatistics {
    /// What the cache is called.
    pub name: &'static str,
    /// Bytes of an object.
    pub object: ByteLen,
    /// Objects in a slab.
    pub objects_per_slab: u32,
    /// Size of a slab.
    pub order: Order,
    /// Slabs there are.
    pub slabs: u64,
    /// Of them, those that a CPU has to itself.
    pub cpu_slabs: u64,
    /// Of them, those that nobody has to himself and that have free objects.
    pub partial: u64,
    /// Objects that are out.
    pub out: u64,
    /// Objects that are of no use any more: what should lead to them was overwritten, or they were written while they were free.
    pub damaged: u64,
    /// Objects that were had so far.
    pub allocated: u64,
    /// Of them, those that came from the CPU's own slab.
    pub allocated_here: u64,
    /// Objects that were given back so far.
    pub freed: u64,
    /// Of them, those that went back to the CPU's own slab.
    pub freed_here: u64,
    /// Objects that came back written beyond their end.
    pub overruns: u64,
    /// Slabs made so far.
    pub slabs_made: u64,
    /// Slabs given back so far.
    pub slabs_freed: u64,
}

/// A line as in `/proc/slabinfo`: name, objects that are out, objects there are, bytes of one, objects and pages of a slab, slabs.
impl fmt::Display for SlabStatistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<17} {:>6} {:>6} {:>6} {:>4} {:>4} : slabdata {:>6} {:>6}",
            self.name,
            self.out,
            self.slabs * u64::from(self.objects_per_slab),
            self.object.get(),
            self.objects_per_slab,
            self.order.frames().get(),
            self.slabs - self.partial,
            self.slabs,
        )
    }
}

/// Events, counted where they happen. Relaxed: each is a number and nothing else.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) allocated: AtomicU64,
    pub(super) allocated_here: AtomicU64,
    pub(super) freed: AtomicU64,
    pub(super) freed_here: AtomicU64,
    pub(super) overruns: AtomicU64,
    pub(super) slabs_made: AtomicU64,
    pub(super) slabs_freed: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub(super) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
