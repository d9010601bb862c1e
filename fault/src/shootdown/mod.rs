//! Shootdown: taking a translation away from every CPU that may have cached it.
//!
//! # Ownership
//!
//! A translation that has been cleared is *owed* to every CPU that may hold it. [`Shootdown::begin`] makes a [`Pending`] of the debt;
//! [`Shootdown::begin_by`] one that keeps what depends on it under lock ([`Owed`]). Nothing but the end of the shootdown, every target at
//! [`WalkQuiescent`], gives that back, as a [`Flushed`](crate::Flushed); and nothing but that frees a frame. A
//! mailbox belongs to the CPU that serves it, a state word to the CPU whose state it is, a residency bit to the CPU that
//! walks; everybody else only posts and reads.
//!
//! ```text
//!   initiator                                         every target
//!   ---------                                         ------------
//!   swap the entry to zero
//!   bump the space's generation, fence
//!   choose targets: loaded | running | resident | all
//!   letter -> mailbox, ring  ---------------------->  handler: entered
//!   own flush meanwhile                               invalidate, cancel walks
//!   wait, interrupts on, serving one's own mailbox    acknowledged
//!   read the answers  <-----------------------------
//!   WalkQuiescent: the frame may be used again        asleep: compares generations on waking
//! ```
//!
//! The parts ([`Mailbox`], [`Presence`], [`Residency`], [`Tickets`]) hold one small protocol each, proved with loom. The engine
//! puts them together as a [`PolicyKind`] says; it knows a CPU only as a [`Processor`], so that it runs on simulated
//! CPUs and could run on real ones. [`policy`] lists the policies, and for each when a frame may be used again.
#![forbid(unsafe_code)]

mod counters;
mod cpu_set;
mod dekker;
mod engine;
mod flush;
#[cfg(all(test, loom))]
mod loom;
mod mailbox;
mod pending;
pub mod policy;
mod presence;
mod processor;
mod proof;
mod record;
mod residency;
#[cfg(all(test, not(loom)))]
mod stress;
mod ticket;

pub use counters::ShootdownCounters;
pub use cpu_set::{AtomicCpuSet, CpuId, CpuSet, Iter, MAX_CPUS};
pub use engine::{Layout, Place, Shootdown};
pub use flush::{Flush, Invalidation, SINGLE_PAGE_CEILING, Stretch, Stretches};
pub use mailbox::{Letter, Mailbox, Receipt, Served, Stamp};
pub use pending::{Owed, Pending, Unsettled, WaitError};
pub use policy::{Policy, PolicyKind};
pub use presence::{
    Awake, Bumped, CpuState, Generation, Presence, SpaceGeneration, SpaceId, Switch,
};
pub use processor::{Moment, Processor, Signal};
pub use proof::{Entered, Invalidated, Proof, Reached, WalkQuiescent};
pub use residency::Residency;
pub use ticket::{Ticket, Tickets};
