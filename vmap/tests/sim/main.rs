//! Everything that maps frames, on the modelled machine: there a stale translation is seen, and every schedule can be had again. Few
//! frames and few addresses, so that both are used again at once.
#![cfg(not(loom))]

extern crate alloc;

mod broken;
mod explored;
#[path = "../area/rig/interposed.rs"]
mod interposed;
mod kept_address;
mod slots;
mod space;
mod storm;
mod worker;
mod world;
