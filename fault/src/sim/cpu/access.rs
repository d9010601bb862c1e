//! One access, one instruction: boundary, translation, effect, comparison.
#![forbid(unsafe_code)]

use super::Cpu;
use crate::shootdown::Processor;
use crate::sim::detector::Incident;
use crate::sim::hooks;
use crate::sim::machine::{Speculation, pfn};
use crate::sim::memory::FrameTag;
use crate::sim::tlb::Translation;
use crate::sim::walk::{FaultCause, PageFault, is_canonical};
use crate::sync::atomic::{AtomicU64, Ordering};

/// Accesses. Addresses are those of the CPU's current address space; an access that faults has had no effect.
impl Cpu {
    /// Reads 8 bytes.
    ///
    /// # Errors
    ///
    /// The page fault.
    pub fn load(&self, va: u64) -> Result<u64, PageFault> {
        self.access(va, false, |word| word.load(Ordering::Acquire))
    }

    /// Writes 8 bytes.
    ///
    /// # Errors
    ///
    /// The page fault.
    pub fn store(&self, va: u64, value: u64) -> Result<(), PageFault> {
        self.access(va, true, |word| word.store(value, Ordering::Release))
    }

    /// Reads 4 bytes.
    ///
    /// # Errors
    ///
    /// The page fault.
    pub fn load_u32(&self, va: u64) -> Result<u32, PageFault> {
        self.access(va, false, |word| {
            (word.load(Ordering::Acquire) >> shift(va)) as u32
        })
    }

    /// Replaces 4 bytes by what `change` makes of them, or leaves them if it says `None`: a locked instruction. Returns what
    /// was there.
    ///
    /// # Errors
    ///
    /// The page fault.
    #[inline]
    pub fn update_u32(
        &self,
        va: u64,
        mut change: impl FnMut(u32) -> Option<u32>,
    ) -> Result<u32, PageFault> {
        let shift = shift(va);
        self.access(va, true, |word| {
            let mut found = word.load(Ordering::Relaxed);
            loop {
                let old = (found >> shift) as u32;
                let Some(new) = change(old) else { return old };
                let others = found & !(0xffff_ffff << shift);
                // A locked instruction orders everything, in both directions.
                match word.compare_exchange(
                    found,
                    others | u64::from(new) << shift,
                    Ordering::SeqCst,
                    Ordering::SeqCst,
                ) {
                    Ok(_) => return old,
                    Err(now) => found = now,
                }
            }
        })
    }
}

/// Which half of an 8-byte word the 4 bytes at `va` are.
const fn shift(va: u64) -> u32 {
    if va & 4 == 0 { 0 } else { 32 }
}

impl Cpu {
    /// One instruction that touches no memory.
    pub fn pause(&self) {
        self.charge(self.shared.config.costs.hit);
        self.boundary("pause", 0);
    }

    /// The end of one instruction and the beginning of the next: others may act, interrupts are taken.
    #[inline(always)]
    pub(super) fn boundary(&self, what: &'static str, of: u64) {
        hooks::step(what, of);
        self.take_signals();
        if self.shared.config.speculation != Speculation::Off {
            self.speculate();
        }
        let left = self.until_tick.get();
        if left == 1 {
            self.tick();
        } else if left > 1 {
            self.until_tick.set(left - 1);
        }
    }

    /// Translates and has the effect, as one instruction.
    #[inline(always)]
    pub(super) fn access<T>(
        &self,
        va: u64,
        write: bool,
        effect: impl FnOnce(&AtomicU64) -> T,
    ) -> Result<T, PageFault> {
        self.access_costing(self.shared.config.costs.hit, va, write, effect)
    }

    /// [`access`](Self::access) that costs `cost` nanoseconds, *modelled*, when the translation is cached.
    #[inline(always)]
    pub(in crate::sim) fn access_costing<T>(
        &self,
        cost: u64,
        va: u64,
        write: bool,
        effect: impl FnOnce(&AtomicU64) -> T,
    ) -> Result<T, PageFault> {
        self.boundary(if write { "write" } else { "read" }, va);
        self.accesses.set(self.accesses.get() + 1);
        self.charge(cost);
        let cached = self.with_core(|core| {
            core.last_va = va;
            core.tlb.lookup(va, core.pcid)
        });
        match cached {
            Some((translation, frame))
                if (!write || translation.writable && translation.dirty)
                    && !translation.absent
                    && is_canonical(va) =>
            {
                Ok(self.effect(va, frame, translation, effect))
            }
            _ => self.access_slow(va, write, cached.map(|(found, _)| found), effect),
        }
    }

    #[inline(always)]
    fn effect<T>(
        &self,
        va: u64,
        frame: u64,
        translation: Translation,
        effect: impl FnOnce(&AtomicU64) -> T,
    ) -> T {
        let Some(word) = self.shared.memory.word(frame, (va >> 3 & 511) as usize) else {
            unreachable!("a translation to a frame outside the memory")
        };
        let result = effect(word);
        // Looked at last: nobody can free the frame of a translation in use without this CPU's acknowledgement, which it gives
        // between instructions.
        if self.shared.memory.tag(translation.frame) != Some(translation.tag) {
            self.stale_hit(va, translation.frame, translation.tag);
        }
        result
    }

    #[cold]
    fn stale_hit(&self, va: u64, frame: u64, made: FrameTag) {
        let Some(now) = self.shared.memory.tag(frame) else {
            return;
        };
        self.shared.detector.report(Incident::StaleHit {
            cpu: self.id,
            va,
            pfn: pfn(frame),
            made,
            now,
            at: self.now(),
        });
    }

    #[cold]
    #[inline(never)]
    fn access_slow<T>(
        &self,
        va: u64,
        write: bool,
        cached: Option<Translation>,
        effect: impl FnOnce(&AtomicU64) -> T,
    ) -> Result<T, PageFault> {
        if !is_canonical(va) {
            let cause = FaultCause::NonCanonical;
            return Err(PageFault { va, write, cause });
        }
        if let Some(translation) = cached {
            let cause = if translation.absent {
                Some(FaultCause::NotPresent)
            } else {
                (write && !translation.writable).then_some(FaultCause::Protection)
            };
            if let Some(cause) = cause {
                if !translation.absent {
                    self.forget_faulting(va);
                }
                return Err(PageFault { va, write, cause });
            }
        }
        let (frame, translation) =
            self.walk(va, write)
                .map_err(|cause| PageFault { va, write, cause })?;
        Ok(self.effect(va, frame, translation, effect))
    }
}
