//! The walk that an instruction waits for, and what walks leave behind: filled caches, windows entered.
#![forbid(unsafe_code)]

use super::Cpu;
use crate::mutant::Mutant;
use crate::shootdown::Processor;
use crate::sim::detector::Incident;
use crate::sim::entry::Level;
use crate::sim::hooks;
use crate::sim::machine::pfn;
use crate::sim::memory::FrameTag;
use crate::sim::tlb::Translation;
use crate::sim::walk::{FaultCause, Progress, Walk};

impl Cpu {
    /// The walk of an instruction: fills the TLB, and answers with the frame that `va` falls into.
    pub(super) fn walk(&self, va: u64, write: bool) -> Result<(u64, Translation), FaultCause> {
        self.enter_window(va);
        let mut walk = self.begin_walk(va).for_write(write);
        loop {
            // Between two of its memory accesses others may act. Interrupts wait for the end of the instruction; the
            // interconnect does not.
            hooks::step("walk", va);
            self.charge(self.shared.config.costs.walk);
            self.take_fabric();
            let overtaken = self.with_core(|core| core.invalidations != walk.begun);
            if overtaken && !Mutant::FillNotRevalidated.active() {
                self.enter_window(va);
                walk = self.begin_walk(va).for_write(write);
                continue;
            }
            let progress = self.walk_step(&mut walk);
            self.fill(&walk, progress);
            match progress {
                Progress::Table { .. } => {}
                Progress::Leaf {
                    level, translation, ..
                } => {
                    let offset = match level {
                        Level::Table => 0,
                        _ => va >> 12 & 511,
                    };
                    return Ok((translation.frame + offset, translation));
                }
                Progress::Fault(cause) => {
                    self.forget_faulting(va);
                    if cause == FaultCause::NotPresent && Mutant::NotPresentCached.active() {
                        self.cache_absence(va);
                    }
                    return Err(cause);
                }
            }
        }
    }

    pub(super) fn begin_walk(&self, va: u64) -> Walk {
        self.with_core(|core| {
            let (root, tag) = core.root;
            let walk = Walk::new(va, core.pcid, root, tag, core.invalidations);
            match core.tlb.structure(va, core.pcid) {
                Some(cached) => walk.below_structure(&cached),
                None => walk,
            }
        })
    }

    /// One memory access of a walk.
    pub(super) fn walk_step(&self, walk: &mut Walk) -> Progress {
        let step = walk.step(&self.shared.memory);
        if let Some(table) = step.stale_table {
            self.shared.detector.report(Incident::StaleWalk {
                cpu: self.id,
                va: walk.va,
                table: pfn(table),
                at: self.now(),
            });
        }
        step.progress
    }

    /// Caches what a walk has read.
    pub(super) fn fill(&self, walk: &Walk, read: Progress) {
        self.with_core(|core| match read {
            Progress::Table {
                level,
                table,
                tag,
                writable,
            } => {
                let at = (table, tag);
                core.tlb
                    .insert_structure(walk.va, level, walk.pcid, at, writable);
            }
            Progress::Leaf {
                level,
                global,
                translation,
            } => core
                .tlb
                .insert(walk.va, level, walk.pcid, global, translation),
            Progress::Fault(_) => {}
        });
    }

    /// A fault itself makes the CPU forget what it would use for `va` (SDM 4.10.4.1), a walk under way included: the next try
    /// begins at the root, so that a fault which memory does not justify comes once at most.
    pub(super) fn forget_faulting(&self, va: u64) {
        self.with_core(|core| {
            core.tlb.heal(va, core.pcid);
            let same_page = |walk: &mut Walk| walk.va >> 12 == va >> 12;
            let _cancelled = core.speculative.take_if(same_page);
        });
    }

    fn cache_absence(&self, va: u64) {
        self.with_core(|core| {
            let absent = Translation {
                frame: 0,
                tag: FrameTag(0),
                writable: false,
                dirty: false,
                absent: true,
            };
            core.tlb.insert(va, Level::Table, core.pcid, true, absent);
        });
    }

    /// Makes this CPU a target of shootdowns in the window around `va`, before it reads an entry there.
    pub(super) fn enter_window(&self, va: u64) {
        let Some(window) = self.shared.window_of(va) else {
            return;
        };
        // The bit is taken back by this CPU alone, so it knows.
        let known = self.with_core(|core| core.entered >> window & 1 == 1);
        if !known {
            self.shared.engine.enter(self.id, window);
            self.with_core(|core| core.entered |= 1 << window);
        }
    }

    pub(super) fn leave_windows(&self) {
        let entered = self.with_core(|core| core::mem::take(&mut core.entered));
        let mut left = entered;
        while left != 0 {
            let window = left.trailing_zeros();
            left &= left - 1;
            self.shared.engine.leave(self.id, window as usize);
        }
    }
}
