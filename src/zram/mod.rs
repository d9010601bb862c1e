//! A block device that keeps its pages compressed in memory.
//!
//! ```text
//!   bio -- frames --> a page on the stack --> compressed --> object of zsmalloc (vmap)
//!   (block)  Span: bytes are copied, never referred to       mapped, or copied, to be read
//! ```
//!
//! It is what the kernel's zram is (drivers/block/zram): blocks of a page; a page that is one word over and over is that word; one that does
//! not get smaller is kept as it is, in a frame of its own; what is discarded, or written with zeroes, is not kept at all. Nothing outlives
//! the device. It stands here because it needs both sides: `block` must not know what `vmap` is, nor the other way round. No frame of
//! a bio is ever asked for a descriptor.
//!
//! [`Zram`] has an example; `examples/zram.rs` puts a queue before the device, and pair windows under it.
//!
//! # The one copy
//!
//! A page that is read is decompressed straight out of the object's mapping, and copied once, to the frames of the bio. It is not decompressed into
//! those: a decoder reads back what it has written, and the program that waits for the read may write there meanwhile; nor do they need to lie in one
//! piece. A written page is copied before it is looked at, for the same reason. Pages of one word, and those stored as they are,
//! go to the frames directly.

mod cursor;
mod device;
mod stat;
mod table;

pub use device::{Zram, ZramError};
pub use stat::{IoStat, MmStat, NoMmStat};
