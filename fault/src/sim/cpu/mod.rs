//! One simulated CPU: its translation caches, its interrupts, and the one way in which it touches memory.
//!
//! A CPU belongs to the thread (or coroutine) that runs on it, and nobody else looks into its caches. While nothing runs on
//! it, its [`Core`] is parked at its seat, where an interrupt finds it: whoever sends one to an idle CPU executes the
//! handler in its place, as the CPU would have done on waking.
//!
//! One access is one instruction: interrupts are taken before it and after it, never between translation and effect. The walk of an
//! access belongs to its instruction. A speculative walk does not: it goes on across instructions and
//! interrupts, and only the CPU's own invalidations cancel it.
//!
//! ```text
//!   access ------ miss ----> walking ------> fill, windows entered
//!     | boundary                ^
//!     +--> interrupts           | the same steps, unasked
//!     +--> speculation ---------+
//!
//!   seat: free <-> running <-> asleep        switching: which root a walk begins at
//!   processor: what the shootdown engine may ask of a CPU
//! ```
#![forbid(unsafe_code)]

mod access;
mod interrupts;
mod processor;
mod seat;
mod speculation;
mod switching;
mod walking;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use core::cell::{Cell, RefCell};
use core::fmt;

use super::machine::Shared;
use super::memory::FrameTag;
use super::tlb::{Pcid, Tlb};
use super::walk::{Walk, is_canonical};
use crate::shootdown::{CpuId, Generation, SpaceId};
use crate::sim::hooks;

pub use seat::SeatError;

/// What a CPU keeps between two runs of code on it.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) tlb: Tlb,
    space: SpaceId,
    pcid: Pcid,
    root: (u64, FrameTag),
    /// Invalidations executed so far: a walk begun under an older count must not insert.
    invalidations: u64,
    /// A walk that no instruction waits for.
    speculative: Option<Walk>,
    /// Windows walked into since everything was last flushed, a bit for each.
    entered: u64,
    /// For each address space, and last for what is in all of them, up to which generation it has been flushed here.
    flushed: Box<[Generation]>,
    /// Where the last access went: what the hardware does unasked is done near it.
    last_va: u64,
    /// For what the hardware does unasked. Goes on from one run to the next, and while somebody else executes the handler.
    random: fastrand::Rng,
    /// While parked: the modelled clock. A sleeping CPU's time passes when something wakes it.
    clock: u64,
}

const _: () = assert!(super::machine::WINDOWS_MOST as u32 <= u64::BITS);

impl Core {
    pub(crate) fn new(shared: &Shared, id: CpuId) -> Self {
        let kernel = shared.space(SpaceId::new(0));
        let root = kernel.root().number();
        Core {
            tlb: Tlb::new(shared.config.tlb),
            space: SpaceId::new(0),
            pcid: kernel.pcid,
            root: (root, shared.memory.tag(root).unwrap_or(FrameTag(0))),
            invalidations: 0,
            speculative: None,
            entered: 0,
            flushed: vec![Generation::ZERO; usize::from(shared.config.user_spaces) + 2].into(),
            last_va: 0,
            random: fastrand::Rng::with_seed(shared.config.seed ^ u64::from(id.get()) << 32),
            clock: 0,
        }
    }

    /// Up to which generation `space` has been flushed here. Spaces that the machine does not have count as every space, as they do
    /// in the engine.
    fn flushed(&mut self, space: SpaceId) -> &mut Generation {
        let last = self.flushed.len() - 1;
        &mut self.flushed[(space.get() as usize).min(last)]
    }

    /// The clocks of a new run begin at 0.
    #[cfg(feature = "std")]
    pub(crate) fn restart_clock(&mut self) {
        self.clock = 0;
    }
}

/// A simulated CPU, in the hands of whoever runs on it.
pub struct Cpu {
    shared: Arc<Shared>,
    id: CpuId,
    /// Whether it holds the seat, or only stands in for a CPU that sleeps.
    seated: bool,
    /// `None` only while parked.
    core: RefCell<Option<Core>>,
    /// Sections with interrupts off that are open.
    interrupts_off: Cell<u32>,
    /// Whether the handler is running: it is not interrupted itself.
    in_handler: Cell<bool>,
    ticks: Cell<u64>,
    until_tick: Cell<u32>,
    accesses: Cell<u64>,
    /// The modelled clock of a sleeping CPU whose handler is executed by whoever rang; the task's own clock is the other CPU's.
    apart: Option<Cell<u64>>,
    /// While answers are read: the modelled moment up to which that has got.
    reading: Cell<u64>,
}

impl Cpu {
    fn around(shared: &Arc<Shared>, id: CpuId, core: Core) -> Self {
        Cpu {
            shared: Arc::clone(shared),
            id,
            seated: false,
            core: RefCell::new(Some(core)),
            interrupts_off: Cell::new(0),
            in_handler: Cell::new(false),
            ticks: Cell::new(0),
            until_tick: Cell::new(shared.config.tick_every),
            accesses: Cell::new(0),
            apart: None,
            reading: Cell::new(0),
        }
    }

    /// Puts `ns` on the modelled clock.
    #[inline]
    fn charge(&self, ns: u64) {
        match &self.apart {
            None => hooks::charge(ns),
            Some(clock) => clock.set(clock.get().saturating_add(ns)),
        }
    }

    /// Which CPU this is.
    #[must_use]
    pub fn id(&self) -> CpuId {
        self.id
    }

    #[cfg(feature = "std")]
    pub(crate) fn is_of(&self, machine: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.shared, machine)
    }

    /// Accesses made so far.
    #[must_use]
    pub fn accesses(&self) -> u64 {
        self.accesses.get()
    }

    #[inline]
    fn with_core<T>(&self, f: impl FnOnce(&mut Core) -> T) -> T {
        match self.core.borrow_mut().as_mut() {
            Some(core) => f(core),
            None => unreachable!("a parked CPU executes nothing"),
        }
    }

    /// Translations cached now.
    #[must_use]
    pub fn cached_translations(&self) -> usize {
        self.with_core(|core| core.tlb.len())
    }

    /// Paging-structure entries cached now.
    #[must_use]
    pub fn cached_structures(&self) -> usize {
        self.with_core(|core| core.tlb.structures_cached())
    }

    /// Whether a translation for `va` is cached.
    #[must_use]
    pub fn caches(&self, va: u64) -> bool {
        is_canonical(va) && self.with_core(|core| core.tlb.lookup(va, core.pcid).is_some())
    }
}

impl fmt::Debug for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cpu")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
