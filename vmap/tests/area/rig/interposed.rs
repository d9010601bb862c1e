//! An address space with somebody in between, who may do something else first, or instead.

use core::ops::Deref;

use pageless_fault::shootdown::CpuId;
use pageless_fault::{
    Completion, Cpus, Flushed, MapError, MaySleep, Protection, Translations, UnmapError,
    Untranslated, VirtAddr, Vspace, WindowLen, WindowOffset, WindowRange,
};
use pageless_pfn::{Pfn, PfnRange};

/// Who stands before the space `S`. What is not said here goes through.
pub(crate) trait Between<S: Vspace>: Send + Sync {
    /// Somebody is about to wait for somebody else.
    fn before_relax(&self) {}

    /// Somebody is about to ask where the space begins.
    fn before_base(&self) {}

    fn map(
        &self,
        space: &S,
        at: WindowOffset,
        frames: PfnRange,
        protection: Protection,
    ) -> Result<(), MapError> {
        space.map(at, frames, protection)
    }

    fn clear(&self, space: &S, range: WindowRange) -> Result<(), UnmapError> {
        space.clear(range)
    }

    fn shoot(&self, space: &S, ranges: &[WindowRange]) -> Result<S::Ticket, UnmapError> {
        space.shoot(ranges)
    }

    fn wait(
        &self,
        space: &S,
        ticket: &S::Ticket,
        ctx: &MaySleep,
    ) -> Result<Completion, UnmapError> {
        space.wait(ticket, ctx)
    }
}

/// `S` with `B` before it, which can be told what to do through this.
#[derive(Debug)]
pub(crate) struct Interposed<S, B> {
    pub(crate) space: S,
    pub(crate) between: B,
}

impl<S, B> Deref for Interposed<S, B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.between
    }
}

impl<S: Vspace, B: Between<S>> Cpus for Interposed<S, B> {
    fn cpus(&self) -> u16 {
        self.space.cpus()
    }

    fn current(&self) -> CpuId {
        self.space.current()
    }

    fn may_wait(&self) -> bool {
        self.space.may_wait()
    }

    fn relax(&self, turn: u32) {
        self.between.before_relax();
        self.space.relax(turn);
    }
}

impl<S: Vspace, B: Between<S>> Translations for Interposed<S, B> {
    type Ticket = S::Ticket;

    fn wait(&self, ticket: &S::Ticket, ctx: &MaySleep) -> Result<Completion, UnmapError> {
        self.between.wait(&self.space, ticket, ctx)
    }
}

impl<S: Vspace, B: Between<S>> Vspace for Interposed<S, B> {
    fn len(&self) -> WindowLen {
        self.space.len()
    }

    fn base(&self) -> VirtAddr {
        self.between.before_base();
        self.space.base()
    }

    fn map(
        &self,
        at: WindowOffset,
        frames: PfnRange,
        protection: Protection,
    ) -> Result<(), MapError> {
        self.between.map(&self.space, at, frames, protection)
    }

    fn translate(&self, at: WindowOffset) -> Option<Pfn> {
        self.space.translate(at)
    }

    fn clear(&self, range: WindowRange) -> Result<(), UnmapError> {
        self.between.clear(&self.space, range)
    }

    fn shoot(&self, ranges: &[WindowRange]) -> Result<S::Ticket, UnmapError> {
        self.between.shoot(&self.space, ranges)
    }

    fn flush_here(&self, range: WindowRange) -> Result<Flushed<()>, UnmapError> {
        self.space.flush_here(range)
    }

    fn read(&self, at: WindowOffset, into: &mut [u8]) -> Result<(), Untranslated> {
        self.space.read(at, into)
    }

    fn write(&self, at: WindowOffset, from: &[u8]) -> Result<(), Untranslated> {
        self.space.write(at, from)
    }

    #[expect(unsafe_code, reason = "passes its own contract on")]
    unsafe fn view<R>(
        &self,
        at: WindowOffset,
        len: usize,
        look: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, Untranslated> {
        // SAFETY: the caller's word.
        unsafe { self.space.view(at, len, look) }
    }
}
