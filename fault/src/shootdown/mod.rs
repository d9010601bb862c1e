//! Shootdown: taking a translation away from every CPU that may have cached it.

mod cpu_set;
mod dekker;
#[cfg(all(test, loom))]
mod loom;
mod mailbox;
mod presence;
mod residency;
#[cfg(all(test, not(loom)))]
mod stress;
mod ticket;

pub use cpu_set::{AtomicCpuSet, CpuId, CpuSet, Iter, MAX_CPUS};
pub use mailbox::{Letter, Mailbox, Receipt, Served, Stamp};
pub use presence::{
    Awake, Bumped, CpuState, Generation, Presence, SpaceGeneration, SpaceId, Switch,
};
pub use residency::Residency;
pub use ticket::{Ticket, Tickets};
