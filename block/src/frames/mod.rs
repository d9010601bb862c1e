//! Memory that stands for frames: the host's own, a memfd, an image file.

pub(crate) mod mapping;
pub(crate) mod pmem;
pub(crate) mod ram;
mod windows;
