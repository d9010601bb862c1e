//! A machine that does nothing but keep a table: what is left of a mapping when the machine costs nothing.
#![expect(
    unsafe_code,
    reason = "a contract that must be declared, and is never used here"
)]

use core::cell::Cell;
use core::hint;
use core::sync::atomic::{AtomicU64, Ordering};
use pageless_fault::shootdown::CpuId;
use pageless_fault::{
    Completion, Cpus, Flushed, MapError, MaySleep, Protection, Translations, UnmapError,
    Untranslated, VirtAddr, Vspace, WindowLen, WindowOffset, WindowRange,
};
use pageless_pfn::{Pfn, PfnRange};

const PAGE: u64 = 4096;

thread_local! {
    static CPU: Cell<u16> = const { Cell::new(0) };
}

/// From now on the calling thread is CPU `number`.
pub(crate) fn run_as(number: u16) {
    CPU.set(number);
}

/// Address space in which nothing can be seen: an entry for each page, and shootdowns that are done when they are asked for.
pub(crate) struct Books {
    cpus: u16,
    /// The frame plus 1; 0 for none. `Relaxed`: nobody reads memory by them.
    entries: Box<[AtomicU64]>,
}

impl Books {
    /// For `cpus` CPUs, with `pages` pages.
    pub(crate) fn new(cpus: u16, pages: u64) -> Self {
        let entries = (0..pages).map(|_| AtomicU64::new(0)).collect();
        Books { cpus, entries }
    }

    fn entries(&self, range: WindowRange) -> &[AtomicU64] {
        &self.entries[(range.start().get() / PAGE) as usize..(range.end().get() / PAGE) as usize]
    }
}

impl Cpus for Books {
    fn cpus(&self) -> u16 {
        self.cpus
    }

    fn current(&self) -> CpuId {
        CpuId::new(CPU.get())
    }

    fn may_wait(&self) -> bool {
        true
    }

    fn relax(&self, _: u32) {
        hint::spin_loop();
    }
}

impl Translations for Books {
    type Ticket = ();

    fn wait(&self, (): &(), _: &MaySleep) -> Result<Completion, UnmapError> {
        Ok(Completion::WalkQuiescent)
    }
}

impl Vspace for Books {
    fn len(&self) -> WindowLen {
        WindowLen::covering(self.entries.len() as u64 * PAGE).unwrap()
    }

    fn base(&self) -> VirtAddr {
        VirtAddr::new(1 << 40)
    }

    fn map(&self, at: WindowOffset, frames: PfnRange, _: Protection) -> Result<(), MapError> {
        let first = (at.get() / PAGE) as usize;
        for (entry, frame) in self.entries[first..].iter().zip(frames.iter()) {
            entry.store(frame.get() + 1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn translate(&self, at: WindowOffset) -> Option<Pfn> {
        let entry = self.entries.get((at.get() / PAGE) as usize)?;
        Pfn::try_new(entry.load(Ordering::Relaxed).checked_sub(1)?).ok()
    }

    fn clear(&self, range: WindowRange) -> Result<(), UnmapError> {
        for entry in self.entries(range) {
            entry.store(0, Ordering::Relaxed);
        }
        Ok(())
    }

    fn shoot(&self, _: &[WindowRange]) -> Result<(), UnmapError> {
        Ok(())
    }

    fn flush_here(&self, range: WindowRange) -> Result<Flushed<()>, UnmapError> {
        Err(UnmapError::Refused {
            bytes: range.len(),
            errno: libc::ENOSYS,
        })
    }

    fn read(&self, at: WindowOffset, _: &mut [u8]) -> Result<(), Untranslated> {
        let (at, write) = (at.get(), false);
        Err(Untranslated { at, write })
    }

    fn write(&self, at: WindowOffset, _: &[u8]) -> Result<(), Untranslated> {
        let (at, write) = (at.get(), true);
        Err(Untranslated { at, write })
    }

    unsafe fn view<R>(
        &self,
        at: WindowOffset,
        _: usize,
        _: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, Untranslated> {
        let (at, write) = (at.get(), false);
        Err(Untranslated { at, write })
    }
}
