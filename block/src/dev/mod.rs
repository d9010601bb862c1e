//! Drivers.

pub(crate) mod null;
#[cfg(feature = "std")]
pub(crate) mod pmem;
