//! What is true of a memmap on this process's own MMU and of no other: `tests/behaviour` has the rest.
#![cfg(all(not(loom), target_os = "linux", target_arch = "x86_64"))]

mod attach;
mod device;
mod signal_handler;
