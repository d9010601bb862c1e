//! A space whose next steps fail when they are told to.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::OnceLock;

use pageless_fault::{
    Completion, MapError, MaySleep, Protection, UnmapError, Vspace, WindowOffset, WindowRange,
};
use pageless_pfn::PfnRange;

use super::interposed::{Between, Interposed};

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

/// Everything as `S` does it, but for what has been planned.
pub(crate) type Failing<S> = Interposed<S, Plan>;

/// What is to go wrong.
pub(crate) struct Plan {
    /// For each kind: the visit that fails, from 0; then all goes on. `u64::MAX`: none.
    planned: [AtomicU64; 4],
    visits: [AtomicU64; 4],
    /// Whether the mapping that fails does so for want of room, which a purge may cure.
    no_room: AtomicBool,
    hook: OnceLock<Hook>,
}

impl<S> Failing<S> {
    pub(crate) fn new(space: S) -> Self {
        let between = Plan {
            planned: [const { AtomicU64::new(u64::MAX) }; 4],
            visits: [const { AtomicU64::new(0) }; 4],
            no_room: AtomicBool::new(false),
            hook: OnceLock::new(),
        };
        Failing { space, between }
    }
}

impl Plan {
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

impl<S: Vspace> Between<S> for Plan {
    fn before_relax(&self) {
        self.call_hook(Step::Relax);
    }

    fn before_base(&self) {
        self.call_hook(Step::Base);
    }

    fn map(
        &self,
        space: &S,
        at: WindowOffset,
        frames: PfnRange,
        protection: Protection,
    ) -> Result<(), MapError> {
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
        space.map(at, frames, protection)
    }

    fn clear(&self, space: &S, range: WindowRange) -> Result<(), UnmapError> {
        self.call_hook(Step::Clear);
        if self.fails(Step::Clear) {
            return Err(REFUSED);
        }
        space.clear(range)
    }

    fn shoot(&self, space: &S, ranges: &[WindowRange]) -> Result<S::Ticket, UnmapError> {
        if self.fails(Step::Shoot) {
            return Err(REFUSED);
        }
        space.shoot(ranges)
    }

    fn wait(
        &self,
        space: &S,
        ticket: &S::Ticket,
        ctx: &MaySleep,
    ) -> Result<Completion, UnmapError> {
        self.call_hook(Step::Wait);
        let reached = space.wait(ticket, ctx)?;
        if self.fails(Step::Wait) {
            return Ok(Completion::Invalidated);
        }
        Ok(reached)
    }
}
