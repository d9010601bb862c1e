//! The memmap on this process's own MMU. One module for each hazard.
#![cfg(all(not(loom), target_os = "linux", target_arch = "x86_64"))]

mod device;
mod reclaim_order;
