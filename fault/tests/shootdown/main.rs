//! Shootdowns on the simulated machine. A file for each hazard.

mod stale_hits;
mod workload;
