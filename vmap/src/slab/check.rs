//! Whether the books of a cache agree with each other.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use pageless_fault::sync::atomic::Ordering;
use pageless_fault::{FrameMemory, Vspace, Window};
use pageless_pfn::Pfn;

use super::cache::{Shared, SlabCache};
use super::record::{Freelist, Slab};

impl<M, S, W> SlabCache<M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    /// Whether the books agree with each other and with what the free objects say. Takes all locks.
    ///
    /// # Errors
    ///
    /// The first contradiction.
    pub fn self_check(&self) -> Result<(), String> {
        let cache = &self.0;
        let slots: Vec<_> = cache.cpus.iter().map(|slot| slot.lock()).collect();
        let node = cache.node.lock();
        for (cpu, slot) in slots.iter().enumerate() {
            let owned = slot.as_ref().map(|own| own.slab.head);
            let said = node.slabs.values().filter(|held| held.cpu == Some(cpu));
            if !said.map(|held| held.slab.head).eq(owned) {
                return Err(format!("CPU {cpu} has {owned:?}, which others do not know"));
            }
        }
        for (&head, held) in &node.slabs {
            let slab = &held.slab;
            if cache.pages.virt_to_head_page(slab.base) != Some(head) {
                return Err(format!("slab {head}: {} is not where it begins", slab.base));
            }
            let mut free = BTreeSet::new();
            cache.walk(slab, held.free, &mut free)?;
            if let Some(own) = held.cpu.and_then(|cpu| slots[cpu].as_ref()) {
                cache.walk(slab, own.free, &mut free)?;
            }
            let lost = slab.lost.load(Ordering::Relaxed);
            let (taken, free) = (slab.taken(), free.len() as u32);
            if taken + free + lost != cache.layout.objects {
                return Err(format!(
                    "slab {head}: {taken} taken, {free} free and {lost} lost of {}",
                    cache.layout.objects
                ));
            }
            let is_partial = held.cpu.is_none() && held.free.len > 0;
            if (node.partial.get(&slab.serial) == Some(&head)) != is_partial {
                return Err(format!("slab {head}: partial, or not: {held:?}"));
            }
        }
        let gone = |head: &&Pfn| !node.slabs.contains_key(*head);
        match node.partial.values().find(gone) {
            Some(head) => Err(format!("slab {head}: partial, and gone")),
            None => Ok(()),
        }
    }
}

impl<M, S, W> Shared<M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    /// Adds the objects of a list to `seen`.
    fn walk(&self, slab: &Slab, free: Freelist, seen: &mut BTreeSet<u32>) -> Result<(), String> {
        let head = slab.head;
        let mut next = free.first;
        for _ in 0..free.len {
            let Some(index) = next.checked_sub(1).filter(|&at| at < self.layout.objects) else {
                return Err(format!("slab {head}: a link to {next}"));
            };
            if !seen.insert(index) || !slab.is_free(index) {
                return Err(format!("slab {head}: object {index} is free twice, or out"));
            }
            next = self.link(self.layout.address(slab.base, index));
        }
        match next {
            0 => Ok(()),
            more => Err(format!("slab {head}: more than {} free: {more}", free.len)),
        }
    }
}
