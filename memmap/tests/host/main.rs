//! The memmap on this process's own MMU. One module for each hazard.
#![cfg(all(not(loom), target_os = "linux", target_arch = "x86_64"))]

extern crate alloc;

mod budget;
mod detach;
mod device;
mod fault_storm;
mod reclaim_order;
mod references_under_reclaim;
mod try_get;
mod two_memmaps;
