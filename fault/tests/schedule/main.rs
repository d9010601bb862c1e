//! The deterministic scheduler: what it promises to the code that runs under it and to the person who
//! reads what it found.
#![cfg(all(feature = "std", not(loom), not(miri)))]

extern crate alloc;

mod clock;
mod deadlock;
mod explore;
mod lock_and_shootdown;
mod locks;
mod programs;
mod replay;
mod shrink;
mod teardown;
