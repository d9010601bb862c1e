//! Compressed pages: a block device of them, and a cache, on this process's memory and on the modelled machine's, and beside the kernel's.
#![cfg(all(not(loom), target_os = "linux", target_arch = "x86_64"))]

extern crate alloc;

mod behaviour;
mod corpus;
mod crowd;
mod disk;
mod kernel;
mod kernel_zram;
mod no_room;
mod oracle;
mod pages;
mod rig;
mod round_trip;
