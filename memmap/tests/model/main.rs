//! The memmap on a machine made of plain memory, where every step can be stopped and looked at: the
//! races that the host machine cannot be made to show on demand. No system calls: also run by Miri.
#![cfg(not(loom))]

extern crate alloc;

mod fill_ahead;
mod machine;
mod quarantine;
mod races;
mod short_fills;
