//! Address space in which frames appear where one likes: the same behaviour on every machine that has it.
#![cfg(all(not(loom), target_os = "linux", target_arch = "x86_64"))]

extern crate alloc;

mod behaviour;
mod between;
mod host_frames;
mod local_flush;
mod overrun;
mod rig;
