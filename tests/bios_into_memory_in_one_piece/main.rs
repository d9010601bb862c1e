//! Bios that read into, and write from, memory that only looks as if it were in one piece: on this process's memory and on the modelled machine.
#![cfg(all(not(loom), target_os = "linux", target_arch = "x86_64"))]

extern crate alloc;

mod crowd;
mod cut;
mod others_bytes;
mod out_of_range;
mod rig;
mod there_and_back;
