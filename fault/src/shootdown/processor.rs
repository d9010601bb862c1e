//! What the engine needs of a CPU. A simulated one implements it, and so would a real one under a kernel.

use super::cpu_set::CpuId;
use super::flush::Invalidation;

/// How another CPU is made to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// An interrupt: taken between two instructions, while interrupts are on.
    Interrupt,
    /// A message on the interconnect: executed by the hardware between two instructions, always.
    Fabric,
}

/// A moment of a shootdown. Each is a place where other CPUs may act in between, and a cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The initiator begins, and looks at so many CPUs.
    Setup {
        /// CPUs looked at.
        scanned: u32,
    },
    /// A request goes into the mailbox of this CPU.
    Post(CpuId),
    /// A CPU is interrupted.
    Kick {
        /// Which one.
        target: CpuId,
        /// Whether that takes a message of its own: one reaches all of a group.
        message: bool,
    },
    /// A target enters its handler.
    HandlerEntry,
    /// A target takes one request out.
    Take {
        /// Who has posted it; `None` if there were too many of them to tell.
        from: Option<CpuId>,
    },
    /// A target has acknowledged what it took.
    Acked,
    /// A target leaves its handler.
    HandlerExit,
    /// The initiator begins to wait for acknowledgements.
    Wait,
    /// The initiator has read one. Of those that are read in one wait, an early one is read while late ones are on their way.
    AckRead {
        /// Whose.
        from: CpuId,
        /// When it was there, on the clock of whoever gave it.
        there: u64,
    },
    /// The initiator leaves a record for others' ticks.
    Record,
    /// A CPU reads the records of others at its tick.
    Sweep {
        /// Records looked at.
        records: u32,
    },
    /// The initiator sends one message over the interconnect.
    FabricPost,
    /// It begins to wait for it.
    FabricSync,
}

/// The number of a moment that has none.
const NOTHING: u64 = u64::MAX;

impl Moment {
    /// In words, with a number that goes with them; `u64::MAX` if none does.
    #[must_use]
    pub fn describe(self) -> (&'static str, u64) {
        let cpu = |cpu: CpuId| u64::from(cpu.get());
        match self {
            Moment::Setup { scanned } => ("begin a shootdown", u64::from(scanned)),
            Moment::Post(target) => ("post to cpu", cpu(target)),
            Moment::Kick { target, .. } => ("interrupt cpu", cpu(target)),
            Moment::HandlerEntry => ("enter the handler", NOTHING),
            Moment::Take { .. } => ("take a request", NOTHING),
            Moment::Acked => ("invalidated", NOTHING),
            Moment::HandlerExit => ("leave the handler", NOTHING),
            Moment::Wait => ("wait for answers", NOTHING),
            Moment::AckRead { from, .. } => ("read the answer of cpu", cpu(from)),
            Moment::Record => ("leave a record", NOTHING),
            Moment::Sweep { records } => ("sweep records", u64::from(records)),
            Moment::FabricPost => ("broadcast", NOTHING),
            Moment::FabricSync => ("wait for the broadcast", NOTHING),
        }
    }
}

/// A CPU, as the engine sees it: always the one that executes the call.
pub trait Processor {
    /// Which one.
    fn id(&self) -> CpuId;

    /// Executes an invalidation on this CPU, and cancels all walks that it has begun.
    fn invalidate(&self, what: Invalidation);

    /// Makes `target` look into its mailbox, waking it if it is idle.
    fn signal(&self, target: CpuId, how: Signal);

    /// Whether interrupts are on.
    fn interrupts_on(&self) -> bool;

    /// One turn of waiting for others: takes interrupts, if they are on. `turn` counts from 0.
    fn relax(&self, turn: u32);

    /// Timer ticks taken so far.
    fn ticks(&self) -> u64;

    /// Announces `moment`.
    fn at(&self, moment: Moment);

    /// The CPU's clock, in nanoseconds: *modelled* on a simulated one.
    fn now(&self) -> u64;

    /// Waits until `then` on that clock, unless it has passed.
    fn advance_to(&self, then: u64);
}
