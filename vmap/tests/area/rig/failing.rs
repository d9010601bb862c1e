//! A space whose next steps fail when they are told to.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::OnceLock;

use pageless_fault::shootdown::CpuId;
use pageless_fault::{
    Completion, Cpus, Flushed, MapError, MaySleep, Protection, Translations, UnmapError,
    Untranslated, VirtAddr, Vspace, WindowLen, WindowOffset, WindowRange,
};
use pageless_pfn::{Pfn, PfnRange};

/// One kind of step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Map,
    Clear,
    Shoot,
    Wait,
    /// Somebody asks where the space begins. Does not fail.
    Base,
    /// Somebody waits for somebody else. Does not fail.
    Relax,
}

type Hook = Box<dyn Fn(Step) + Send + Sync>;

/// Everything as `space` does it, but for what has been planned.
pub(crate) struct Failing<S> {
    space: S,
    /// For each kind: the visit that fails, from 0; then all goes on. `u64::MAX`: none.
    planned: [AtomicU64; 4],
    visits: [AtomicU64; 4],
    /// Whether the mapping that fails does so for want of room, which a purge may cure.
    no_room: AtomicBool,
    hook: OnceLock<Hook>,
}

impl<S> Failing<S> {
    pub(crate) fn new(space: S) -> Self {
        Failing {
            space,
            planned: [const { AtomicU64::new(u64::MAX) }; 4],
            visits: [const { AtomicU64::new(0) }; 4],
            no_room: AtomicBool::new(false),
            hook: OnceLock::new(),
        }
    }

    /// From now on calls `hook` before mappings, clearings, waits for shootdowns, questions for the beginning and turns of waiting.
    pub(crate) fn before_steps(&self, hook: impl Fn(Step) + Send + Sync + 'static) {
        assert!(self.hook.set(Box::new(hook)).is_ok(), "a second hook");
    }

    fn call_hook(&self, step: Step) {
        if let Some(hook) = self.hook.get() {
            hook(step);
        }
    }

    /// The `nth` visit of `step` from now on fails.
    pub(crate) fn fail(&self, step: Step, nth: u64) {
        self.visits[step as usize].store(0, Ordering::Relaxed);
        self.planned[step as usize].store(nth, Ordering::Relaxed);
    }

    /// The `nth` mapping from now on fails for want of room.
    pub(crate) fn fail_for_want_of_room(&self, nth: u64) {
        self.no_room.store(true, Ordering::Relaxed);
        self.fail(Step::Map, nth);
    }

    /// Whether what was planned has not come.
    pub(crate) fn is_pending(&self, step: Step) -> bool {
        self.visits[step as usize].load(Ordering::Relaxed)
            <= self.planned[step as usize].load(Ordering::Relaxed)
    }

    fn fails(&self, step: Step) -> bool {
        let visit = self.visits[step as usize].fetch_add(1, Ordering::Relaxed);
        visit == self.planned[step as usize].load(Ordering::Relaxed)
    }
}

const REFUSED: UnmapError = UnmapError::Refused { bytes: 0, errno: 5 };

impl<S: Vspace> Cpus for Failing<S> {
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
        self.call_hook(Step::Relax);
        self.space.relax(turn);
    }
}

impl<S: Vspace> Translations for Failing<S> {
    type Ticket = S::Ticket;

    fn wait(&self, ticket: &S::Ticket, ctx: &MaySleep) -> Result<Completion, UnmapError> {
        self.call_hook(Step::Wait);
        let reached = self.space.wait(ticket, ctx)?;
        if self.fails(Step::Wait) {
            return Ok(Completion::Invalidated);
        }
        Ok(reached)
    }
}

impl<S: Vspace> Vspace for Failing<S> {
    fn len(&self) -> WindowLen {
        self.space.len()
    }

    fn base(&self) -> VirtAddr {
        self.call_hook(Step::Base);
        self.space.base()
    }

    fn map(&self, at: WindowOffset, frames: PfnRange, how: Protection) -> Result<(), MapError> {
        self.call_hook(Step::Map);
        if self.fails(Step::Map) {
            return Err(match self.no_room.load(Ordering::Relaxed) {
                true => MapError::NoRoom {
                    pages: frames.count().get(),
                    errno: 12,
                },
                false => MapError::NoSuchFrame {
                    pfn: frames.start(),
                },
            });
        }
        self.space.map(at, frames, how)
    }

    fn translate(&self, at: WindowOffset) -> Option<Pfn> {
        self.space.translate(at)
    }

    fn clear(&self, range: WindowRange) -> Result<(), UnmapError> {
        self.call_hook(Step::Clear);
        if self.fails(Step::Clear) {
            return Err(REFUSED);
        }
        self.space.clear(range)
    }

    fn shoot(&self, ranges: &[WindowRange]) -> Result<S::Ticket, UnmapError> {
        if self.fails(Step::Shoot) {
            return Err(REFUSED);
        }
        self.space.shoot(ranges)
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

    unsafe fn view<R>(
        &self,
        at: WindowOffset,
        len: usize,
        look: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, Untranslated> {
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { self.space.view(at, len, look) }
    }
}
