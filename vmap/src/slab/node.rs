//! All slabs of a cache, and which of them have something to give.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use pageless_pfn::Pfn;

use super::record::{Freelist, Slab};

/// All slabs of a cache.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// By the head of their block.
    pub(super) slabs: BTreeMap<Pfn, Held>,
    /// Those that no CPU has to itself and that have free objects, by age. The oldest goes first, so that the others become empty; and where
    /// their frames lie makes no difference.
    pub(super) partial: BTreeMap<u64, Pfn>,
}

/// A slab, and what of it is everybody's.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) slab: Arc<Slab>,
    /// Its free objects; if a CPU has it to itself, those that others have given back meanwhile.
    pub(super) free: Freelist,
    /// The CPU that has it to itself.
    pub(super) cpu: Option<usize>,
}

impl Held {
    /// Whether all objects that are of any use are in its list.
    pub(super) fn is_empty(&self, objects: u32) -> bool {
        self.cpu.is_none() && self.free.len + self.slab.damaged() == objects
    }
}

/// The slab that a CPU has to itself.
#[derive(Debug)]
pub(super) struct CpuSlab {
    pub(super) slab: Arc<Slab>,
    /// Free objects that only this CPU allocates.
    pub(super) free: Freelist,
}

impl Node {
    /// The slab with this head, which there is.
    pub(super) fn held(&mut self, head: Pfn) -> &mut Held {
        match self.slabs.get_mut(&head) {
            Some(held) => held,
            None => unreachable!("a CPU has a slab that the cache has not"),
        }
    }

    /// Gives `cpu` a slab with free objects to itself.
    pub(super) fn freeze(&mut self, cpu: usize) -> Option<CpuSlab> {
        let (_, head) = self.partial.pop_first()?;
        let held = self.held(head);
        held.cpu = Some(cpu);
        Some(CpuSlab {
            slab: Arc::clone(&held.slab),
            free: core::mem::take(&mut held.free),
        })
    }

    /// Takes out the slab with this head if it is empty.
    pub(super) fn remove_empty(&mut self, head: Pfn, objects: u32) -> Option<Pfn> {
        let held = self.slabs.get(&head)?;
        if !held.is_empty(objects) {
            return None;
        }
        self.partial.remove(&held.slab.serial);
        self.slabs.remove(&head);
        Some(head)
    }
}
