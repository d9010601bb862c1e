//! A modelled x86-64 machine, in which a stale translation is seen.

#[cfg(feature = "std")]
pub mod schedule;
