//! A modelled x86-64 machine, in which a stale translation is seen.
//!
//! # Ownership
//!
//! A [`SimMachine`] owns [`Memory`]: frames, each free or an [`OwnedFrame`] in somebody's hands. Page tables are frames
//! too. A frame in a page table is owned by the entry that maps it; whoever clears the entry gets it back, locked into the shootdown that
//! the clearing began, and only a [`WalkQuiescent`](crate::shootdown::WalkQuiescent) frees it: it gets a new *tag* and
//! is filled with poison. A [`Cpu`] owns its TLB; a thread or coroutine owns the CPU while it runs on it.
//!
//! ```text
//!   Cpu 0 .. n                         shared
//!   +--------------------+             +--------------------------------------------+
//!   | TLB: page -> frame,|   walk      | page tables -> frames (tag, 512 words)     |
//!   |      tag when made |<------------|                                            |
//!   | structure cache    |             | engine: mailboxes, state words, residency  |
//!   | speculative walk   |<- interrupt-| seats: attention, parked caches            |
//!   +--------------------+             | detector: stale hits, stale walks          |
//!        | hit: effect on the frame,   +--------------------------------------------+
//!        v then: tag of the frame = tag in the TLB? else a stale hit
//! ```
//!
//! One access is one instruction: translation and effect, and no interrupt in between. The same code runs in two ways: each CPU
//! a thread ([`SimMachine::run_threads`], real races) or all CPUs in one thread, interleaved by a [`schedule`] from a seed
//! ([`SimMachine::run_scheduled`]), so that any failure can be seen again.
//!
//! What the model leaves out: caches other than translation caches (memory is coherent and, under a scheduler,
//! sequentially consistent; the loom models of [`shootdown`](crate::shootdown) look at weaker orders), 1 GiB pages, 5 levels,
//! user and execute permissions, protection keys, and any TLB inclusion between levels. Its clock is *modelled*: it tells what a
//! table of costs adds up to, never how long anything takes.

mod cost;
mod cpu;
#[cfg(feature = "std")]
mod cpus;
#[cfg(feature = "std")]
mod current;
mod detector;
mod entry;
mod hooks;
#[cfg(feature = "std")]
mod latency;
mod machine;
mod memory;
#[cfg(feature = "std")]
mod ram;
#[cfg(feature = "std")]
pub mod schedule;
mod space;
mod tlb;
mod unmapped;
#[cfg(feature = "std")]
mod vspace;
mod walk;
#[cfg(feature = "std")]
mod window;

pub use cost::Costs;
pub use cpu::{Cpu, SeatError};
#[cfg(feature = "std")]
pub use current::{Body, ScheduledBody};
pub use detector::Incident;
pub use entry::{Entry, Level, PHYSICAL_BITS};
#[cfg(feature = "std")]
pub use latency::{Latency, Scene, SceneError};
pub use machine::{BuildError, SimConfig, SimMachine, Speculation};
pub use memory::{FrameTag, Memory, OwnedFrame};
#[cfg(feature = "std")]
pub use ram::SimRam;
pub use space::MapError;
pub use tlb::{Pcid, Shape, TlbShape};
pub use unmapped::Unmapped;
#[cfg(feature = "std")]
pub use vspace::SimVspace;
pub use walk::{FaultCause, PageFault};
#[cfg(feature = "std")]
pub use window::{SimPrefilled, SimTable, SimTicket, SimWindow, SimWord};
