//! Blocks that are contiguous, physically or virtually: the same behaviour on every machine.
#![cfg(all(not(loom), target_os = "linux", target_arch = "x86_64"))]

extern crate alloc;

mod atomic;
mod failures;
mod fragmentation;
mod mapped_elsewhere;
mod references;
mod rig;
mod round_trips;
mod split;
mod teardown;
