//! zsmalloc: objects of up to a page, stored without gaps. The same behaviour on every machine.
#![cfg(all(not(loom), target_os = "linux", target_arch = "x86_64"))]

extern crate alloc;

mod buddy;
mod classes;
mod compaction;
mod no_frames;
mod objects;
mod oracle;
mod pair_mapping;
mod rig;
mod shared_window;
mod statistics;
