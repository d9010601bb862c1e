//! The machine under a lazily faulted memmap: what translates addresses, what happens when a
//! translation is missing, and how one is taken away so that nobody can still use it.
//!
//! # Ownership
//!
//! A [`Machine`] reserves a [`Window`]: address space without memory. Whoever holds the window
//! decides which parts of it have memory: [`Window::populate`] gives zeroed frames to a range,
//! [`Window::unmap`] takes translations away and answers with a [`FlushDebt`]. The debt *owns*
//! what the caller put into it (chunks, frames, the virtual range itself) and gives it back only
//! as [`Flushed`], after the shootdown is proved complete. Forgetting a debt is a warning, and
//! what it held is never used again; using it early does not compile.
//!
//! ```text
//!            fetch_add, one instruction                       populate (zeroed)
//!   lookup ---------------------------> window word <--------------------------- fault path
//!      ^            | no translation                                                 |
//!      |            v                                                                |
//!      |     exception table: the instruction had no effect, here is why             |
//!      |            | Fetched::Fault                                                 |
//!      +------------+----------------------------------------------------------------+
//!
//!   reclaim --unmap(ranges, owned)--> FlushDebt<owned> --settle()--> Flushed<owned> --> reuse
//!                                     (no accessor)    every CPU proved past it
//! ```
//!
//! A lookup that finds no translation is not an error of the lookup: the machine's fault handler
//! resumes it behind the faulting instruction with the reason in hand, and the caller decides
//! by its context whether it may sleep and make the range present ([`MaySleep`]) or must answer
//! "would block". So the fault path proper runs in the faulting thread, on its own stack, with
//! its own locks, never inside the signal (or interrupt) that announced the fault.
//!
//! A [`Vspace`] is the other kind of address space: its holder decides which *frame* is seen at which page, and [`FrameMemory`] is how
//! frames are reached by their numbers alone. It is what virtually contiguous memory is made of. What is taken down there is locked into
//! [`Unflushed`] at once, and into the debt of one shootdown for a whole batch later.
//!
//! # Machines
//!
//! * [`host`] (feature `std`, Linux on x86-64): this process's own MMU. Real translations, real
//!   shootdowns, sent by the kernel. It cannot show that a stale translation was avoided.
//! * [`sim`]: a model of x86-64 translation, in which a stale translation is *seen*. Its CPUs are threads, or
//!   coroutines that one deterministic scheduler interleaves from a seed. Its nanoseconds are modelled. Without `std` it has memory, page
//!   tables, TLBs and CPUs; windows, threads and the scheduler need `std`.
//!
//! Cores above this crate see only the traits.
//!
//! # Whose debt it is
//!
//! On the host the kernel shoots down. A machine of our own has to do it itself: [`shootdown`] is its engine, with a
//! policy for each way that is known to work, and some that are known not to.
//!
//! ```text
//!                 Machine, Window, Word               FlushDebt, Completion
//!                 ---------------------               ---------------------
//!   host::HostMachine        sim::SimMachine <------- shootdown::Shootdown <-- PolicyKind
//!   userfaultfd, SIGBUS      tables, TLBs, CPUs       mailboxes, states, tickets
//!   process_madvise               |                            |
//!        |                        +------ Processor: ----------+
//!   the kernel's IPIs             invalidate, signal, relax, the time
//! ```
//!
//! What a finished shootdown proves is a value there as well: only
//! [`WalkQuiescent`](shootdown::WalkQuiescent) frees a frame, and a policy known by type gives no more than it guarantees
//! ([`shootdown::policy`] shows it, with what does not compile).
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_code)]

extern crate alloc;

mod access;
mod context;
mod cpus;
mod debt;
mod frames;
mod machine;
pub mod mutant;
pub mod shootdown;
#[cfg(not(loom))]
pub mod sim;
pub mod sync;
mod vspace;
mod window;

#[cfg(all(
    feature = "std",
    not(loom),
    target_os = "linux",
    target_arch = "x86_64"
))]
pub mod host;

pub use access::{FaultReason, Fetched};
pub use context::{AtomicSection, MaySleep, SpinGuard, SpinLock};
pub use cpus::Cpus;
pub use debt::{Completion, FlushDebt, Flushed};
pub use frames::{FrameMemory, NoSuchFrame};
pub use machine::{
    Machine, PopulateError, ReserveError, Table, Translations, UnmapError, Window, Word,
};
pub use vspace::{
    BatchDebt, MapError, OwnRange, Protection, StillLocked, Unflushed, Untranslated, VirtAddr,
    Vspace,
};
pub use window::{LEAF_TABLE_BYTES, LEAF_TABLE_SPAN, WindowLen, WindowOffset, WindowRange};
