//! Users of blocks, who must not notice whether these are contiguous physically or virtually: the same behaviour on every machine.
#![cfg(all(not(loom), target_os = "linux", target_arch = "x86_64"))]

extern crate alloc;

mod buffer_pool;
mod present;
#[expect(dead_code, reason = "other tests need more of it")]
#[path = "../compound/rig.rs"]
mod rig;
mod slab;
mod slab_atomic;
mod slab_damage;
mod slab_oracle;
mod threads;
mod wait_table;
