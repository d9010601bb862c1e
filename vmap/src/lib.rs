//! Virtually contiguous memory from scattered frames: vmalloc areas, blocks of pages that fall back to a mapping, zsmalloc.
//!
//! # Ownership
//!
//! Frames belong to whoever the frame allocator gave them to. While they are seen through a mapping they belong to the *area* that they
//! are seen in, and when that is unmapped they stay locked up, together with its addresses, until one shootdown for many areas is proved:
//! only then do addresses and frames go back to their allocators. References to descriptors go the same way.
//!
//! ```text
//!             frames::FrameAllocator                      memmap::Memmap             fault::Vspace, fault::FrameMemory
//!           buddy, zones, per-CPU lists                 descriptors, counted            translations; bytes by number
//!            |                       |                     |           |                          |
//!            v                       v                     v           v                          |
//!      zsmalloc::Zsmalloc     compound::Pages  --------> area::Vmalloc: vmap, vm_map_ram          |
//!      objects in zspages     blocks, contiguous or not       area::AreaSpace  <-----------------+
//!            |                       |                   addresses, guard pages, lazy purge
//!            +--- PairWindow --------+---------------------> taken down -> waiting -> one shootdown -> proved -> reused
//! ```
//!
//! | module | like | what it has |
//! |---|---|---|
//! | [`frames`] | mm/page_alloc.c | orders 0 to 10 (or 20), zones, watermarks, lists for each CPU; books of 1.26 bytes for each frame, no descriptors |
//! | [`area`] | mm/vmalloc.c | `vmap` of lists that mix frames with and without descriptors, small mappings, lazy unmapping with a cap |
//! | [`compound`] | the series of 2007, never merged | blocks of 2^order pages that stand together through a mapping where no contiguous block can be had |
//! | [`zsmalloc`] | mm/zsmalloc.c | objects up to a page, stored across page boundaries; read by copy, in two segments or through a pair mapping |
//!
//! All of it runs on any machine with a [`Vspace`](pageless_fault::Vspace) and a [`FrameMemory`](pageless_fault::FrameMemory): this process's own MMU
//! over memfds, and the modelled one, on which an access through a translation that should be gone is seen.
//!
//! # Context
//!
//! Who may sleep shows it ([`MaySleep`](pageless_fault::MaySleep), or a [`Gfp`](frames::Gfp) made of one). Who may not can allocate, map, unmap and
//! free as well: what needs an interrupt, or somebody else's patience, is left to the next who may sleep.
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_code)]

extern crate alloc;

pub mod area;
pub mod buffer_pool;
pub mod compound;
pub mod compress;
pub mod frames;
#[cfg(all(
    feature = "std",
    not(loom),
    target_os = "linux",
    target_arch = "x86_64"
))]
pub mod host;
mod mutant;
mod runs;
pub mod slab;
pub mod wait_table;
pub mod zcache;
pub mod zsmalloc;
