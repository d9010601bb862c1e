//! Memory that stands for frames: the heap's, the host's own, a memfd, an image file.

pub(crate) mod heap;
#[cfg(feature = "std")]
pub(crate) mod mapping;
#[cfg(feature = "std")]
pub(crate) mod pmem;
#[cfg(feature = "std")]
pub(crate) mod ram;
pub(crate) mod sparse;
#[cfg(feature = "std")]
mod windows;
