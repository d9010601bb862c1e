//! The policies: who is asked to flush, how the request travels, and what is waited for.
//!
//! | policy | asks | by | waits for | proves |
//! |---|---|---|---|---|
//! | [`SyncIpi`] | CPUs that have the space loaded, idle ones woken | interrupt, after its own flush | executed | walk-quiescent |
//! | [`ConcurrentIpi`] | the same | interrupt, own flush meanwhile | executed | walk-quiescent |
//! | [`EarlyAck`] | the same | interrupt | entered | entered only |
//! | [`Coalescing`] | every CPU | interrupt, one full flush for all who asked | ticket | walk-quiescent |
//! | [`IdleSkip`] | CPUs that run | interrupt; idle ones flush on wake | executed | walk-quiescent |
//! | [`KernelRange`] | every CPU, idle and gone ones woken | interrupt | executed | walk-quiescent |
//! | [`Resident`] | CPUs that can have entries | interrupt | executed | walk-quiescent |
//! | [`LazyPurge`] | nobody, until a purge | one flush of everything for all purged | the purge | walk-quiescent |
//! | [`Sweep`] | CPUs that run | a record that each reads at its tick | every bit cleared | walk-quiescent |
//! | [`AtRealloc`] | nobody, until reuse | one full flush for all that was parked before | ticket | walk-quiescent |
//! | [`Broadcast`] | every CPU | the interconnect, without interrupts | the sync instruction | walk-quiescent |
//! | [`LocalOnly`] | itself | | own flush, if nobody else can have entries | walk-quiescent |
//!
//! Broken on purpose, to show that the detector sees it ([`PolicyKind::is_safe`] is `false`):
//!
//! | policy | what is wrong |
//! |---|---|
//! | [`NoRemote`] | flushes itself and says that everybody has |
//! | [`EarlyReuse`] | takes `entered` for the end |
//! | [`SweepUnwaited`] | LATR's artefact as configured by default: reuse at once, while records are still unread |
//! | [`SweepTimed`] | reuse after two of one's own ticks, whether or not others have ticked |
//!
//! # Freeing by type
//!
//! A policy that is known by type yields its own proof ([`Policy::Proof`]), and what was unmapped under it is locked into the
//! shootdown ([`Owed`](super::Owed)) until that is over:
//!
//! ```
//! use pageless_fault::shootdown::{CpuId, SpaceId, policy::ConcurrentIpi};
//! use pageless_fault::sim::{SimConfig, SimMachine};
//!
//! let machine = SimMachine::new(SimConfig::default())?;
//! let (cpu, space) = (machine.cpu(CpuId::new(0))?, SpaceId::new(0));
//! machine.map(space, 0x1000, machine.alloc().unwrap(), true)?;
//! cpu.store(0x1000, 1)?;
//!
//! let owed = machine.unmap_by::<ConcurrentIpi>(&cpu, space, 0x1000).unwrap();
//! let flushed = machine.engine().settle(&cpu, owed).map_err(|(_, error)| error)?;
//! machine.memory().free(flushed);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! [`EarlyAck`] lets its initiator go on earlier, but what it proves then, [`Entered`], frees nothing:
//!
//! ```compile_fail,E0308
//! # use pageless_fault::shootdown::{CpuId, SpaceId, policy::EarlyAck};
//! # use pageless_fault::sim::{SimConfig, SimMachine};
//! # let machine = SimMachine::new(SimConfig::default())?;
//! # let (cpu, space) = (machine.cpu(CpuId::new(0))?, SpaceId::new(0));
//! # machine.map(space, 0x1000, machine.alloc().unwrap(), true)?;
//! # cpu.store(0x1000, 1)?;
//! let owed = machine.unmap_by::<EarlyAck>(&cpu, space, 0x1000).unwrap();
//! let entered = machine.engine().prove(&cpu, &owed)?;
//! machine.memory().free(entered); // expected `Flushed<_>`, found `Entered`
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! It frees when it has been settled, that is, asked once more whether the flushes have been executed as well:
//!
//! ```
//! # use pageless_fault::shootdown::{CpuId, SpaceId, policy::EarlyAck};
//! # use pageless_fault::sim::{SimConfig, SimMachine};
//! # let machine = SimMachine::new(SimConfig::default())?;
//! # let (cpu, space) = (machine.cpu(CpuId::new(0))?, SpaceId::new(0));
//! # machine.map(space, 0x1000, machine.alloc().unwrap(), true)?;
//! # cpu.store(0x1000, 1)?;
//! let owed = machine.unmap_by::<EarlyAck>(&cpu, space, 0x1000).unwrap();
//! let entered = machine.engine().prove(&cpu, &owed)?; // go on with something else
//! let flushed = machine.engine().settle(&cpu, owed).map_err(|(_, error)| error)?;
//! machine.memory().free(flushed);
//! # drop(entered);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! Nor can a proof be made by hand:
//!
//! ```compile_fail,E0451
//! use pageless_fault::shootdown::WalkQuiescent;
//! let proof = WalkQuiescent { _made_here: core::marker::PhantomData };
//! ```

use super::proof::{Entered, Proof, WalkQuiescent};

mod sealed {
    pub trait Sealed {}
}

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Targets {
    /// Every CPU there is; idle ones are woken.
    All,
    /// Those that have the space loaded or are switching, idle ones included, which are woken. Others flush when they switch to it.
    Loaded,
    /// Those that run; idle ones flush when they wake.
    Running,
    /// Those that can have entries of the window since they last flushed everything.
    Resident,
    /// Nobody else.
    Nobody,
}

/// How the request gets there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// A letter in a mailbox, and an interrupt.
    Interrupt,
    /// A ticket, and an interrupt: one full flush serves all tickets given out before it.
    Ticket,
    /// A record that each CPU reads at its next tick.
    Record,
    /// The interconnect.
    Broadcast,
    /// Not now.
    Deferred,
    /// Not at all.
    Nothing,
}

/// What must have happened before a shootdown is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// Everybody asked has executed it.
    Executed,
    /// Broken: everybody asked has entered its handler.
    Entered,
    /// Broken: nothing at all.
    Issued,
    /// Broken: two ticks of the CPU that asks.
    TwoTicks,
    /// Only while the initiator is the only CPU that can have entries.
    Alone,
}

/// A policy, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) targets: Targets,
    pub(crate) delivery: Delivery,
    pub(crate) until: Until,
    /// Whether the initiator flushes itself before it asks others.
    pub(crate) local_first: bool,
}

/// A policy as a type: its proof can say no more than the policy guarantees.
pub trait Policy: sealed::Sealed {
    /// What a finished shootdown proves.
    type Proof: Proof;
    /// The same policy as a value.
    const KIND: PolicyKind;
}

macro_rules! policies {
    ($($(#[$doc:meta])* $name:ident $text:literal $proof:ident $safe:literal = $targets:ident, $delivery:ident, $until:ident, $first:literal;)*) => {
        /// A policy as a value, for choosing one at run time.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum PolicyKind {
            $($(#[$doc])* $name,)*
        }

        impl PolicyKind {
            /// All of them.
            pub const ALL: &'static [PolicyKind] = &[$(PolicyKind::$name,)*];

            /// The name that a command line takes.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(PolicyKind::$name => $text,)* }
            }

            /// Whether what it calls finished is finished. Frames freed under a policy that is not safe are met
            /// again by other CPUs: for testing the detector, and for nothing else.
            #[must_use]
            pub const fn is_safe(self) -> bool {
                match self { $(PolicyKind::$name => $safe,)* }
            }

            pub(crate) const fn plan(self) -> Plan {
                match self {
                    $(PolicyKind::$name => Plan {
                        targets: Targets::$targets,
                        delivery: Delivery::$delivery,
                        until: Until::$until,
                        local_first: $first,
                    },)*
                }
            }
        }

        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub struct $name;

            impl sealed::Sealed for $name {}

            impl Policy for $name {
                type Proof = $proof;
                const KIND: PolicyKind = PolicyKind::$name;
            }
        )*
    };
}

policies! {
    /// Linux before 2021: flush oneself, interrupt every other CPU that has the space loaded, wait until each has flushed; the rest compare
    /// generations when they come back to it. A frame may be used again when the last one has acknowledged.
    SyncIpi "sync-ipi" WalkQuiescent true = Loaded, Interrupt, Executed, true;
    /// Linux since then (4ce94eabac16): the own flush overlaps the others'. A frame may be used again when
    /// the last one has acknowledged.
    ConcurrentIpi "concurrent-ipi" WalkQuiescent true = Loaded, Interrupt, Executed, false;
    /// The initiator goes on when every target has *entered* its handler. A frame may **not** be used again then: the shootdown is
    /// asked once more, later, whether it has been executed.
    EarlyAck "early-ack" Entered true = Loaded, Interrupt, Executed, false;
    /// Initiators take tickets, targets flush everything and so serve all tickets taken before. A frame may be used again when
    /// every CPU has served its ticket.
    Coalescing "coalescing" WalkQuiescent true = All, Ticket, Executed, false;
    /// Idle CPUs are not interrupted: they compare generations when they wake, before their first access. A frame may be
    /// used again when the running ones have acknowledged.
    IdleSkip "idle-skip" WalkQuiescent true = Running, Interrupt, Executed, false;
    /// `flush_tlb_kernel_range`: every CPU is interrupted, whatever it does. A frame may be used again when the last one has
    /// acknowledged; so may a page-table page, if the flush said so.
    KernelRange "kernel-range" WalkQuiescent true = All, Interrupt, Executed, false;
    /// Only those CPUs are interrupted that have walked into the window since they last flushed everything. A frame may be used
    /// again when they have acknowledged.
    Resident "resident" WalkQuiescent true = Resident, Interrupt, Executed, false;
    /// vmalloc's: translations are cleared now and flushed later, all at once. Nothing may be used again before the purge,
    /// neither frame nor virtual range. (Linux gives the *frames* back at once, and trusts their users.)
    LazyPurge "lazy-purge" WalkQuiescent true = All, Deferred, Executed, false;
    /// LATR's, waited for: the initiator leaves a record, every CPU reads all records at its tick, flushes and clears its bit. A frame
    /// may be used again when no bit is left; time proves nothing.
    Sweep "sweep" WalkQuiescent true = Running, Record, Executed, false;
    /// LUF's: a frame is parked with the ticket of its unmapping, and whoever wants to use it again has everything flushed first,
    /// unless somebody has done so since.
    AtRealloc "at-realloc" WalkQuiescent true = All, Deferred, Executed, false;
    /// INVLPGB and TLBSYNC, TLBI and DSB: the interconnect carries the invalidation to every CPU, which executes it between two
    /// instructions, interrupts off or not. A frame may be used again when the sync has returned.
    Broadcast "broadcast" WalkQuiescent true = All, Broadcast, Executed, false;
    /// A window that only one CPU touches needs no other CPU's flush. A frame may be used again if the residency set
    /// says so; if it does not, the shootdown never finishes.
    LocalOnly "local-only" WalkQuiescent true = Nobody, Nothing, Alone, true;
    /// **Broken**: flushes itself only.
    NoRemote "no-remote" WalkQuiescent false = Nobody, Nothing, Issued, true;
    /// **Broken**: an early acknowledgement is taken for the end.
    EarlyReuse "early-reuse" WalkQuiescent false = Loaded, Interrupt, Entered, false;
    /// **Broken**: LATR's artefact with `LAZY_MEM_FREE` off, its default: reuse at once.
    SweepUnwaited "sweep-unwaited" WalkQuiescent false = Running, Record, Issued, false;
    /// **Broken**: reuse after two own ticks. A CPU without ticks never sweeps.
    SweepTimed "sweep-timed" WalkQuiescent false = Running, Record, TwoTicks, false;
}
