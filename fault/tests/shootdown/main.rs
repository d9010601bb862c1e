//! Shootdowns on the simulated machine. A file for each hazard.

extern crate alloc;

mod one_page;
mod proofs;
mod scene;
mod stale_hits;
mod workload;
