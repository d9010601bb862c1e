//! Drivers.

pub(crate) mod bounce;
pub(crate) mod delay;
pub(crate) mod flakey;
pub(crate) mod linear;
mod members;
pub(crate) mod null;
pub(crate) mod partition;
#[cfg(feature = "std")]
pub(crate) mod pmem;
pub(crate) mod stripe;
mod trail;
pub(crate) mod write_cache;
