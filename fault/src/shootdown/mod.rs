//! Shootdown: taking a translation away from every CPU that may have cached it.

mod cpu_set;
mod mailbox;
mod presence;
mod residency;
mod ticket;
