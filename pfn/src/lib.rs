//! Typed page frame numbers: the vocabulary of pageless I/O.
//!
//! A frame of memory is named by its number and by nothing else: no descriptor, no pointer, no
//! lookup. Every question a block layer asks about its buffers (how long, adjacent or not, where
//! to split, is it ordinary memory) is answered by arithmetic on the types in this crate.
//!
//! # Who owns what
//!
//! Nothing here owns memory. All types are plain `Copy` values; whoever hands out a frame number
//! (a device, the physical map) also says how long the frame behind it lives.
//!
//! ```text
//!   PhysMap<N>  says which frames exist ----------------------+
//!      |  Region { PfnRange, RegionKind }                      |
//!      v                                                      v
//!     Pfn --- + PfnFlags ---> PfnT --- + offset, len ---> PhysSegment
//!      ^                       |                             ^
//!      |                       | paged()                     | SgWalk, table by table
//!      |                       v                             |
//!      +------------------- PagedPfn                      SgEntry (SG_CHAIN, SG_LAST)
//!                 the only ticket to a descriptor
//! ```
//!
//! # The 64 bits of a [`PfnT`]
//!
//! | bits | name | meaning |
//! |---|---|---|
//! | 63 | [`PfnFlags::SG_CHAIN`] | the pfn locates the next scatter-gather table |
//! | 62 | [`PfnFlags::SG_LAST`] | the last entry of a scatter-gather list |
//! | 61 | [`PfnFlags::DEV`] | device memory, not covered by the system's memmap |
//! | 60 | [`PfnFlags::MAP`] | a driver has set up a dynamic memmap for it |
//! | 59 | [`PfnFlags::SPECIAL`] | may be executed in place, but never pinned |
//! | 58..52 | | reserved; kept as they come |
//! | 51..0 | | the frame number |
//!
//! The layout is that of Linux's `pfn_t` on 4 KiB pages.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "x86_64")]
mod convert;
mod frame;
mod phys;
mod physmap;
mod segment;
mod sg;
mod tagged;

#[cfg(feature = "x86_64")]
pub use convert::BeyondX86;
pub use frame::{
    FrameCount, PAGE_SHIFT, PAGE_SIZE, Pfn, PfnIter, PfnOutOfRange, PfnRange, RangeOutOfRange,
};
pub use phys::{ByteLen, FrameOffset, OffsetOutOfRange, PhysAddr};
pub use physmap::{PhysMap, PhysMapInsertError, Region, RegionKind};
pub use segment::{FramePieces, PhysSegment, SegmentError};
pub use sg::{SgEntry, SgError, SgLimits, SgShape, SgWalk};
pub use tagged::{NoPage, PagedPfn, PfnFlags, PfnT};
