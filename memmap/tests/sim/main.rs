//! The memmap on the modelled machine: what only a machine can show in which a stale translation is seen, an
//! interrupt is lost on purpose and every schedule can be had again. A file for each hazard; whatever fails here is
//! shrunk to the few deviations that matter and told as a trace.
#![cfg(not(any(loom, miri)))]

extern crate alloc;

mod deadlock;
mod page_tables;
mod quarantine;
mod reinstall;
mod storm;
mod tickless;
mod trace;
mod window_reuse;
mod world;
