//! Address space whose shootdowns can be broken on purpose.

use pageless_fault::shootdown::CpuId;
use pageless_fault::sim::SimVspace;
use pageless_fault::{
    Completion, Cpus, Flushed, MapError, MaySleep, Protection, Translations, UnmapError,
    Untranslated, VirtAddr, Vspace, WindowLen, WindowOffset, WindowRange,
};
use pageless_pfn::{Pfn, PfnRange};

type Ticket = <SimVspace as Translations>::Ticket;

/// What is wrong with a shootdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Nobody is told: frames and addresses are used again before any flush.
    NobodyTold,
    /// Whoever purges flushes for itself alone, although others use the addresses as well.
    OnlyHere,
    /// One range of the batch is flushed, the others are not.
    FirstRangeOnly,
    /// Of each range all pages but the last are flushed.
    LastPageMissed,
}

/// The space of a [`SimVspace`].
#[derive(Debug)]
pub(crate) struct Space {
    inner: SimVspace,
    fault: Fault,
}

impl Space {
    pub(crate) fn new(inner: SimVspace, fault: Fault) -> Self {
        Space { inner, fault }
    }
}

impl Cpus for Space {
    fn cpus(&self) -> u16 {
        self.inner.cpus()
    }
    fn current(&self) -> CpuId {
        self.inner.current()
    }
    fn may_wait(&self) -> bool {
        self.inner.may_wait()
    }
    fn relax(&self, turn: u32) {
        self.inner.relax(turn);
    }
}

impl Translations for Space {
    type Ticket = Ticket;

    fn wait(&self, ticket: &Ticket, ctx: &MaySleep) -> Result<Completion, UnmapError> {
        self.inner.wait(ticket, ctx)
    }
}

impl Vspace for Space {
    fn len(&self) -> WindowLen {
        self.inner.len()
    }
    fn base(&self) -> VirtAddr {
        self.inner.base()
    }
    fn map(
        &self,
        at: WindowOffset,
        frames: PfnRange,
        protection: Protection,
    ) -> Result<(), MapError> {
        self.inner.map(at, frames, protection)
    }
    fn translate(&self, at: WindowOffset) -> Option<Pfn> {
        self.inner.translate(at)
    }
    fn clear(&self, range: WindowRange) -> Result<(), UnmapError> {
        self.inner.clear(range)
    }
    fn shoot(&self, ranges: &[WindowRange]) -> Result<Ticket, UnmapError> {
        match self.fault {
            Fault::None => self.inner.shoot(ranges),
            Fault::NobodyTold => self.inner.shoot(&[]),
            Fault::OnlyHere => {
                for range in ranges {
                    self.inner.flush_here(*range)?;
                }
                self.inner.shoot(&[])
            }
            Fault::FirstRangeOnly => self.inner.shoot(&ranges[..1]),
            Fault::LastPageMissed => {
                let shorter = |range: &WindowRange| {
                    let len = range.len().checked_sub(4096).filter(|len| *len > 0)?;
                    WindowRange::try_new(range.start(), len)
                };
                let shorter: Vec<_> = ranges.iter().filter_map(shorter).collect();
                self.inner.shoot(&shorter)
            }
        }
    }
    fn flush_here(&self, range: WindowRange) -> Result<Flushed<()>, UnmapError> {
        self.inner.flush_here(range)
    }
    fn read(&self, at: WindowOffset, into: &mut [u8]) -> Result<(), Untranslated> {
        self.inner.read(at, into)
    }
    fn write(&self, at: WindowOffset, from: &[u8]) -> Result<(), Untranslated> {
        self.inner.write(at, from)
    }
    #[expect(unsafe_code, reason = "passes its own contract on")]
    unsafe fn view<T>(
        &self,
        at: WindowOffset,
        len: usize,
        look: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, Untranslated> {
        // SAFETY: the caller's word.
        unsafe { self.inner.view(at, len, look) }
    }
}
