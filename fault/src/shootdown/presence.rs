//! Whether a CPU runs, sleeps, switches address spaces or is gone: who can be left out of a shootdown.
//!
//! One word for each CPU, written by that CPU alone (or, while it sleeps, by whoever has the lock of its seat), so that its state and the address space it has loaded
//! are read at once:
//!
//! | bits 0-1 | state | an initiator may skip it, because |
//! |---|---|---|
//! | 0 | gone | it uses no translation, and [arrives](Presence::wake) as if it woke |
//! | 1 | running in the space of bits 32-63 | only if its window is in another space: coming back is a switch |
//! | 2 | idle, that space still loaded | it uses no translation, and looks what it missed when it [wakes](Presence::wake) |
//! | 3 | switching *to* the space of bits 32-63 | never |
//!
//! ```text
//!   gone --wake--> running --sleep--> idle --wake--> running
//!                   |   ^
//!       begin_switch|   |end_switch             running, idle --retire--> gone
//!                   v   |
//!                 switching
//! ```
//!
//! What a skipped CPU missed is told by a [`SpaceGeneration`]: every shootdown of a space bumps it, each
//! CPU remembers up to which generation it has flushed, and compares before it uses the space again.
//! The skip is right only because skipping and comparing cannot both come too early
//! ([`dekker`](super::dekker)):
//!
//! ```text
//!   initiator:  clear entries --> bump, fence --> must_interrupt?   no --> skip
//!   cpu:        word = running or switching, fence --> compare      behind --> flush everything
//! ```
//!
//! A CPU in a switch has compared, or has not; its word cannot tell which. So it is interrupted,
//! whatever the space: taking it for one that has still only its old space is CVE-2025-37964.
//! The order is in the types: comparing needs the [`Awake`] or [`Switch`] that publishing gave, asking
//! [`must_interrupt`](Presence::must_interrupt) needs the [`Bumped`] of the bump.
#![forbid(unsafe_code)]

use core::fmt;

use super::dekker::{activator_fence, initiator_fence};
use crate::mutant::Mutant;
use crate::sync::atomic::{AtomicU64, Ordering};

/// An address space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpaceId(u32);

impl SpaceId {
    /// What is mapped in every address space, whichever is loaded: a kernel's own windows. As the space
    /// that is loaded, on a machine that has no others: concerned by every shootdown.
    pub const EVERY: SpaceId = SpaceId(u32::MAX);

    /// The address space numbered `n`; `u32::MAX` is [`EVERY`](Self::EVERY).
    #[must_use]
    pub const fn new(n: u32) -> Self {
        SpaceId(n)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            SpaceId::EVERY => f.write_str("SpaceId::EVERY"),
            SpaceId(n) => write!(f, "SpaceId({n})"),
        }
    }
}

/// How many shootdowns an address space has had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Generation(u64);

impl Generation {
    /// Before the first shootdown.
    pub const ZERO: Generation = Generation(0);

    /// The count.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// The generation of one address space; any initiator bumps it, it never goes back.
#[derive(Debug, Default)]
pub struct SpaceGeneration(AtomicU64);

impl SpaceGeneration {
    /// A space that has had no shootdown.
    #[must_use]
    pub fn new() -> Self {
        SpaceGeneration(AtomicU64::new(0))
    }

    /// For an initiator that has cleared its entries, before it asks whom it must interrupt.
    pub fn bump(&self) -> Bumped {
        // Release: pairs with the Acquire in `current`: who flushes for this generation walks the
        // tables as they were left here.
        let generation = Generation(self.0.fetch_add(1, Ordering::Release) + 1);
        // Pairs with the fences in `wake` and `begin_switch`.
        initiator_fence();
        Bumped { generation }
    }

    /// The generation now. Who flushes everything *after* this has flushed up to it.
    #[must_use]
    pub fn current(&self) -> Generation {
        // Acquire: pairs with the Release in `bump`.
        Generation(self.0.load(Ordering::Acquire))
    }

    /// The current generation, if `flushed` is not up to it.
    fn behind(&self, flushed: Generation) -> Option<Generation> {
        let current = self.current();
        (flushed < current).then_some(current)
    }
}

/// A generation has been bumped, and the fence behind it has been executed.
#[derive(Debug)]
#[must_use = "a bump is followed by asking every CPU's Presence::must_interrupt"]
pub struct Bumped {
    generation: Generation,
}

impl Bumped {
    /// The generation that the bump began. Whoever has flushed up to it has flushed what was cleared before.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }
}

/// What a CPU is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CpuState {
    /// Offline, or never started.
    Gone,
    /// Executes, and uses translations of the loaded space.
    Running,
    /// Executes nothing, so uses no translation, though its TLB keeps them.
    Idle,
    /// Between two address spaces.
    Switching,
}

impl CpuState {
    const fn bits(self) -> u64 {
        match self {
            CpuState::Gone => 0,
            CpuState::Running => 1,
            CpuState::Idle => 2,
            CpuState::Switching => 3,
        }
    }

    const fn of(word: u64) -> Self {
        match word & 3 {
            0 => CpuState::Gone,
            1 => CpuState::Running,
            2 => CpuState::Idle,
            _ => CpuState::Switching,
        }
    }
}

const fn pack(state: CpuState, space: SpaceId) -> u64 {
    (space.0 as u64) << 32 | state.bits()
}

const fn unpack(word: u64) -> (CpuState, SpaceId) {
    (CpuState::of(word), SpaceId((word >> 32) as u32))
}

/// The state word of one CPU.
///
/// ```
/// use pageless_fault::shootdown::{Generation, Presence, SpaceGeneration, SpaceId};
/// let (space, generation) = (SpaceId::new(7), SpaceGeneration::new());
/// let cpu = Presence::running(space);
/// cpu.sleep();
/// assert!(!cpu.must_interrupt(space, &generation.bump())); // skipped ...
/// let awake = cpu.wake();
/// let missed = awake.behind(&generation, Generation::ZERO); // ... so it looks when it wakes
/// assert_eq!(missed, Some(generation.current()));
/// assert!(cpu.must_interrupt(space, &generation.bump()));
/// ```
#[derive(Debug)]
pub struct Presence {
    word: AtomicU64,
}

impl Presence {
    /// A CPU that runs in `space`.
    #[must_use]
    pub fn running(space: SpaceId) -> Self {
        Presence {
            word: AtomicU64::new(pack(CpuState::Running, space)),
        }
    }

    /// A CPU that is gone, with `space` loaded for when it comes.
    #[must_use]
    pub fn gone(space: SpaceId) -> Self {
        Presence {
            word: AtomicU64::new(pack(CpuState::Gone, space)),
        }
    }

    /// What the CPU is doing, and in which space (while switching: to which).
    #[must_use]
    pub fn state(&self) -> (CpuState, SpaceId) {
        // Acquire: pairs with the Release in `publish`: a CPU seen in another state, or in another
        // space, has made its last use of a translation in the one before.
        unpack(self.word.load(Ordering::Acquire))
    }

    /// Whether the CPU executes nothing: whatever it does next, it looks first what it missed.
    #[must_use]
    pub fn is_away(&self) -> bool {
        matches!(self.state().0, CpuState::Idle | CpuState::Gone)
    }

    /// On the CPU itself: the space it has loaded.
    fn own_space(&self) -> SpaceId {
        // Relaxed: nobody else writes the word.
        unpack(self.word.load(Ordering::Relaxed)).1
    }

    /// On the CPU itself. A plain store: nobody else writes the word.
    fn publish(&self, state: CpuState, space: SpaceId) {
        // Release: pairs with the Acquire in `state`.
        self.word.store(pack(state, space), Ordering::Release);
    }

    /// On the CPU itself: it stops executing, and keeps its space and its TLB.
    pub fn sleep(&self) {
        self.publish(CpuState::Idle, self.own_space());
    }

    /// On the CPU itself: it is going offline.
    pub fn retire(&self) {
        self.publish(CpuState::Gone, self.own_space());
    }

    /// On the CPU itself: it executes again, but must not use a translation before it has compared
    /// generations with what this returns.
    pub fn wake(&self) -> Awake {
        self.publish(CpuState::Running, self.own_space());
        // Pairs with the fence in `bump`.
        activator_fence();
        Awake(())
    }

    /// On the CPU itself: it begins to switch to `space`, and must not use a translation of it before it
    /// has compared generations with what this returns, and ended the switch.
    pub fn begin_switch(&self, space: SpaceId) -> Switch {
        self.publish(CpuState::Switching, space);
        // Pairs with the fence in `bump`.
        activator_fence();
        Switch { space }
    }

    /// On the CPU itself: it has compared generations, flushed if it was behind, and loaded the space.
    pub fn end_switch(&self, switch: Switch) {
        self.publish(CpuState::Running, switch.space);
    }

    /// For an initiator that wakes idle CPUs, and otherwise as [`must_interrupt`](Self::must_interrupt): whether this CPU may
    /// have entries of `space` that it would use without looking at the generation first, if it were not woken.
    #[must_use]
    pub fn has_loaded(&self, space: SpaceId, _behind: &Bumped) -> bool {
        let (state, loaded) = self.state();
        match state {
            CpuState::Gone => false,
            CpuState::Running | CpuState::Idle => space == SpaceId::EVERY || space == loaded,
            CpuState::Switching => !Mutant::SwitchingCpuSkipped.active(),
        }
    }

    /// For an initiator that has cleared its entries of `space` and bumped its generation: whether this
    /// CPU must be interrupted. Otherwise it looks at the generation before it uses `space` again.
    ///
    /// Not for freed page tables: the walks of an idle CPU's paging-structure cache may still read them.
    #[must_use]
    pub fn must_interrupt(&self, space: SpaceId, _behind: &Bumped) -> bool {
        let (state, loaded) = self.state();
        match state {
            CpuState::Gone | CpuState::Idle => false,
            CpuState::Running => [space, loaded].contains(&SpaceId::EVERY) || space == loaded,
            CpuState::Switching => !Mutant::SwitchingCpuSkipped.active(),
        }
    }
}

/// A CPU counts as running again, and the fence behind that has been executed.
#[derive(Debug)]
#[must_use = "a CPU that wakes compares generations before its first translation"]
pub struct Awake(());

impl Awake {
    /// If shootdowns passed by a CPU that has flushed `space` up to `flushed`: flush everything, then remember
    /// the generation that this returns.
    #[must_use]
    pub fn behind(&self, space: &SpaceGeneration, flushed: Generation) -> Option<Generation> {
        if Mutant::IdleSkippedUnchecked.active() {
            return None;
        }
        space.behind(flushed)
    }
}

/// A CPU counts as switching, and the fence behind that has been executed. Lost, it leaves the CPU
/// switching, which every initiator interrupts.
#[derive(Debug)]
#[must_use = "a switch ends with Presence::end_switch"]
pub struct Switch {
    space: SpaceId,
}

impl Switch {
    /// Where the CPU switches to.
    #[must_use]
    pub const fn space(&self) -> SpaceId {
        self.space
    }

    /// If shootdowns passed by a CPU that has flushed `space` up to `flushed`: flush everything, then remember
    /// the generation that this returns.
    #[must_use]
    pub fn behind(&self, space: &SpaceGeneration, flushed: Generation) -> Option<Generation> {
        space.behind(flushed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const HERE: SpaceId = SpaceId::new(1);
    const THERE: SpaceId = SpaceId::new(u32::MAX - 1);

    #[test]
    fn every_state_and_space_survives_the_word() {
        for state in [
            CpuState::Gone,
            CpuState::Running,
            CpuState::Idle,
            CpuState::Switching,
        ] {
            for space in [SpaceId::new(0), HERE, THERE] {
                assert_eq!(unpack(pack(state, space)), (state, space));
            }
        }
    }

    #[test]
    fn who_must_be_interrupted() {
        let generation = SpaceGeneration::new();
        let cpu = Presence::gone(HERE);
        let asked = |space| cpu.must_interrupt(space, &generation.bump());
        let all = || [HERE, THERE, SpaceId::EVERY].map(asked);

        assert_eq!(all(), [false, false, false], "gone");
        let _ = cpu.wake();
        assert_eq!(all(), [true, false, true], "running here");
        cpu.sleep();
        assert_eq!(all(), [false, false, false], "idle");
        let _ = cpu.wake();
        let switch = cpu.begin_switch(THERE);
        assert_eq!(all(), [true, true, true], "switching");
        cpu.end_switch(switch);
        assert_eq!(all(), [false, true, true], "running there");
        cpu.retire();
        assert_eq!(all(), [false, false, false], "gone again");
        let only = Presence::running(SpaceId::EVERY);
        assert!(only.must_interrupt(HERE, &generation.bump()), "no others");
        assert_eq!(cpu.state(), (CpuState::Gone, THERE));
    }

    #[test]
    fn who_has_the_space_loaded() {
        let generation = SpaceGeneration::new();
        let cpu = Presence::gone(HERE);
        let asked = |space| cpu.has_loaded(space, &generation.bump());
        let all = || [HERE, THERE, SpaceId::EVERY].map(asked);

        assert_eq!(all(), [false, false, false], "gone");
        let _ = cpu.wake();
        assert_eq!(all(), [true, false, true], "running here");
        cpu.sleep();
        assert_eq!(all(), [true, false, true], "asleep, and woken");
        let switch = cpu.begin_switch(THERE);
        assert_eq!(all(), [true, true, true], "switching");
        cpu.end_switch(switch);
        assert_eq!(all(), [false, true, true], "running there");
    }

    #[test]
    fn a_cpu_is_behind_exactly_until_it_has_flushed() {
        let (generation, cpu) = (SpaceGeneration::new(), Presence::running(HERE));
        assert_eq!(cpu.wake().behind(&generation, Generation::ZERO), None);
        let bumped = generation.bump().generation();
        assert_eq!(bumped.get(), 1);
        let switch = cpu.begin_switch(HERE);
        assert_eq!(switch.behind(&generation, Generation::ZERO), Some(bumped));
        assert_eq!(switch.behind(&generation, bumped), None);
        cpu.end_switch(switch);
    }
}
