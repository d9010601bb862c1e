//! From one address space to another, and invalidations that concern this CPU alone.
#![forbid(unsafe_code)]

use super::Cpu;
use crate::shootdown::{Invalidation, Processor, SpaceId, Stretches};
use crate::sim::hooks;
use crate::sim::memory::FrameTag;
use crate::sim::walk::is_canonical;

impl Cpu {
    /// MOV to CR3: walks begin at the root of `space` from now on. Translations of its PCID are forgotten unless `keep`
    /// (bit 63); those of other PCIDs and global ones stay. The instruction alone: whoever leaves CPUs in other spaces out of a
    /// shootdown is not told, so that what the TLB keeps of `space` may be out of date. See [`switch_to`](Self::switch_to).
    pub fn load_cr3(&self, space: SpaceId, keep: bool) {
        let target = self.shared.space(space);
        let root = target.root().number();
        let tag = self.shared.memory.tag(root).unwrap_or(FrameTag(0));
        self.with_core(|core| {
            core.space = space;
            core.pcid = target.pcid;
            core.root = (root, tag);
            core.invalidations += 1;
            core.speculative = None;
            if !keep {
                core.tlb.invalidate_pcid(target.pcid);
            }
        });
    }

    /// Switches to `space` as an operating system does: says so first, then looks whether it was left out of any shootdown
    /// while it was away, and only then uses what its TLB still has of the space.
    pub fn switch_to(&self, space: SpaceId) {
        let engine = &self.shared.engine;
        let switch = engine.presence(self.id).begin_switch(space);
        hooks::step("switching to space", u64::from(space.get()));
        // Read before the flush: what is cleared after this is a later generation's.
        let now = engine.current(space);
        let flushed = self.with_core(|core| *core.flushed(space));
        let behind = engine.missed_away(&switch, flushed);
        hooks::step("looked what was missed", u64::from(behind));
        self.load_cr3(space, !behind);
        if behind {
            self.with_core(|core| *core.flushed(space) = now);
        }
        engine.presence(self.id).end_switch(switch);
        self.boundary("switched to space", u64::from(space.get()));
    }

    /// The address space in use.
    #[must_use]
    pub fn space(&self) -> SpaceId {
        self.with_core(|core| core.space)
    }

    /// INVLPG for the page around `va`, on this CPU only. Nothing if that is not a canonical address (SDM vol. 2, INVLPG).
    pub fn invalidate_page(&self, va: u64) {
        if !is_canonical(va) {
            return;
        }
        self.invalidate(Invalidation::Pages(Stretches::one(va, 1)));
    }

    /// Forgets everything, global translations included, on this CPU only.
    pub fn invalidate_all(&self) {
        self.invalidate(Invalidation::Everything);
    }
}
