//! A stretch of simulated memory that somebody else keeps the books of.

use alloc::vec;
use alloc::vec::Vec;

use pageless_pfn::{FrameCount, PfnRange, PhysAddr};

use super::hooks;
use super::machine::SimMachine;
use super::memory::OwnedFrame;
use crate::frames::{FrameMemory, NoSuchFrame};
use crate::shootdown::Processor;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a word of a frame.
const WORD: u64 = 8;
/// Bytes of a cache line.
const LINE: u64 = 64;

/// Frames one behind the other, reached by number. Which of them is free is not the machine's affair any more: whoever keeps the books ends
/// a frame's life by [`retire`](FrameMemory::retire). The frames stay with it for as long as the machine lives.
#[derive(Debug)]
pub struct SimRam {
    pub(super) machine: SimMachine,
    frames: PfnRange,
}

impl SimMachine {
    /// Takes `count` frames that lie one behind the other; `None` if there are not so many.
    #[must_use]
    pub fn ram(&self, count: FrameCount) -> Option<SimRam> {
        let memory = self.memory();
        let mut taken: Vec<OwnedFrame> = Vec::new();
        let mut found = false;
        let mut passed_over = Vec::new();
        while let Some(frame) = memory.alloc() {
            let follows = |last: &OwnedFrame| last.number() + 1 == frame.number();
            if !taken.last().is_none_or(follows) {
                passed_over.append(&mut taken);
            }
            taken.push(frame);
            if taken.len() as u64 == count.get() {
                found = true;
                break;
            }
        }
        if !found {
            passed_over.append(&mut taken);
        }
        // Backwards, so that the lowest number comes out first again.
        for frame in passed_over.into_iter().rev() {
            memory.free_unmapped(frame);
        }
        let frames = PfnRange::try_new(taken.first()?.pfn(), count).ok()?;
        Some(SimRam {
            machine: self.clone(),
            frames,
        })
    }

    /// Puts `ns` modelled nanoseconds on the clock of whoever runs.
    pub(super) fn charge_current(&self, ns: u64) {
        self.on_current(|cpu| cpu.advance_to(cpu.now() + ns));
    }
}

/// The words that `len` bytes at byte `at` touch: of each its number, and which of its bytes.
pub(super) fn words(at: u64, len: usize) -> impl Iterator<Item = (u64, core::ops::Range<usize>)> {
    let end = at + len as u64;
    (at / WORD..end.div_ceil(WORD)).map(move |word| {
        let from = at.max(word * WORD) - word * WORD;
        let to = end.min((word + 1) * WORD) - word * WORD;
        (word, from as usize..to as usize)
    })
}

/// Overwrites some bytes of a word and leaves its neighbours as they are, whoever writes them meanwhile.
pub(super) fn write_part(word: &AtomicU64, part: core::ops::Range<usize>, from: &[u8]) {
    let change = |old: u64| {
        let mut bytes = old.to_le_bytes();
        bytes[part.clone()].copy_from_slice(from);
        Some(u64::from_le_bytes(bytes))
    };
    // Release pairs with the Acquire of whoever reads the word.
    let _ = word.fetch_update(Ordering::Release, Ordering::Relaxed, change);
}

impl SimRam {
    fn check(&self, at: PhysAddr, len: usize) -> Result<(), NoSuchFrame> {
        let len = len as u64;
        let inside = || {
            let first = at.get().checked_sub(self.frames.start().phys().get())?;
            Some(first.checked_add(len)? <= self.frames.count().bytes()?.get())
        };
        if inside() == Some(true) {
            Ok(())
        } else {
            Err(NoSuchFrame {
                at: at.get(),
                len,
                frames: self.frames,
            })
        }
    }

    fn word(&self, number: u64) -> &AtomicU64 {
        let per_frame = 4096 / WORD;
        let (frame, index) = (number / per_frame, number % per_frame);
        match self.machine.memory().word(frame, index as usize) {
            Some(word) => word,
            None => unreachable!("a frame of the range outside the memory"),
        }
    }

    /// The bytes at `at`, all of which are there.
    fn copy_out(&self, at: PhysAddr, into: &mut [u8]) {
        let mut rest = into;
        for (word, part) in words(at.get(), rest.len()) {
            let (now, then) = rest.split_at_mut(part.len());
            // Acquire pairs with the Release of whoever wrote the word.
            let bytes = self.word(word).load(Ordering::Acquire).to_le_bytes();
            now.copy_from_slice(&bytes[part]);
            rest = then;
        }
    }

    /// What a copy costs, *modelled*.
    fn charge(&self, what: &'static str, at: PhysAddr, len: usize) {
        hooks::step(what, at.get());
        let lines = (len as u64).div_ceil(LINE);
        let cost = self.machine.config().costs.copy_line;
        self.machine.charge_current(lines * cost);
    }
}

impl FrameMemory for SimRam {
    fn frames(&self) -> PfnRange {
        self.frames
    }

    fn read(&self, at: PhysAddr, into: &mut [u8]) -> Result<(), NoSuchFrame> {
        self.check(at, into.len())?;
        self.charge("read frame", at, into.len());
        self.copy_out(at, into);
        Ok(())
    }

    fn write(&self, at: PhysAddr, from: &[u8]) -> Result<(), NoSuchFrame> {
        self.check(at, from.len())?;
        self.charge("write frame", at, from.len());
        let mut rest = from;
        for (word, part) in words(at.get(), rest.len()) {
            let (now, then) = rest.split_at(part.len());
            write_part(self.word(word), part, now);
            rest = then;
        }
        Ok(())
    }

    fn zero(&self, frames: PfnRange) -> Result<(), NoSuchFrame> {
        let at = frames.start().phys();
        let len = frames.count().get().saturating_mul(4096);
        self.check(at, len as usize)?;
        self.charge("zero frame", at, len as usize);
        for (word, _) in words(at.get(), len as usize) {
            self.word(word).store(0, Ordering::Release);
        }
        Ok(())
    }

    fn retire(&self, frames: PfnRange) {
        for frame in frames.iter().filter(|frame| self.frames.contains(*frame)) {
            hooks::step("retire frame", frame.get());
            self.machine.memory().end_life(frame.get() as u32);
        }
    }

    #[expect(unsafe_code, reason = "the trait's contract; a copy needs none of it")]
    unsafe fn view<R>(
        &self,
        at: PhysAddr,
        len: usize,
        look: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, NoSuchFrame> {
        self.check(at, len)?;
        let mut copy = vec![0; len];
        hooks::step("view frame", at.get());
        self.copy_out(at, &mut copy);
        Ok(look(&copy))
    }
}
