//! What the hardware does unasked: walks that no instruction waits for, and interrupts that nothing masks.
#![forbid(unsafe_code)]

use super::Cpu;
use crate::mutant::Mutant;
use crate::sim::hooks;
use crate::sim::machine::Speculation;
use crate::sim::walk::{Progress, is_canonical};
use crate::sync::atomic::Ordering;

/// Instructions of the handler of a non-maskable interrupt. Long enough that others get somewhere meanwhile.
const NMI_READS: u32 = 8;

impl Cpu {
    /// What the hardware does unasked: begins a walk near the last access, or goes on with the one it has begun.
    pub(super) fn speculate(&self) {
        let config = &self.shared.config;
        let Some(mut walk) = self.with_core(|core| core.speculative.take()) else {
            if self.coin("speculate", config.speculate_one_in) {
                let page = self.number("page", 4);
                let va = (self.with_core(|core| core.last_va) & !0xfff).wrapping_add(page << 12);
                if !is_canonical(va) {
                    return;
                }
                self.enter_window(va);
                let mut walk = self.begin_walk(va);
                if config.speculation == Speculation::WithoutAccessed {
                    walk = walk.unmarked();
                }
                self.with_core(|core| core.speculative = Some(walk));
            }
            return;
        };
        if self.coin("delay the walk", 2) {
            self.with_core(|core| core.speculative = Some(walk));
            return;
        }
        let overtaken = self.with_core(|core| core.invalidations != walk.begun);
        if overtaken && !Mutant::FillNotRevalidated.active() {
            return;
        }
        // Reading the entry and filling the TLB are two events, and there is time between them.
        if let Some(read) = walk.read {
            self.fill(&walk, read);
            return;
        }
        let progress = self.walk_step(&mut walk);
        match progress {
            Progress::Table { .. } => self.fill(&walk, progress),
            Progress::Leaf { .. } => walk.read = Some(progress),
            Progress::Fault(_) => return,
        }
        self.with_core(|core| core.speculative = Some(walk));
    }

    /// A non-maskable interrupt: its handler may touch anything that is mapped, and a fault is its own affair.
    pub(super) fn perhaps_nmi(&self) {
        if !self.coin("nmi", self.shared.config.nmi_one_in) {
            return;
        }
        self.awake_for(|| {
            for _ in 0..NMI_READS {
                let _ = self.access(self.with_core(|core| core.last_va), false, |word| {
                    word.load(Ordering::Acquire)
                });
            }
        });
    }

    fn coin(&self, what: &'static str, one_in: u32) -> bool {
        if one_in == 0 {
            false
        } else if hooks::scheduled() {
            hooks::chance(what, one_in)
        } else {
            self.with_core(|core| core.random.u32(..one_in)) == 0
        }
    }

    fn number(&self, what: &'static str, below: u64) -> u64 {
        if hooks::scheduled() {
            hooks::pick(what, below)
        } else {
            self.with_core(|core| core.random.u64(..below))
        }
    }
}
