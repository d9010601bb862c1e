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
//! | [`slab`], [`buffer_pool`], [`wait_table`] | mm/slub.c, and those whom the series of 2007 converted | users of blocks that do not ask which kind they have |
//! | [`compress`], [`zcache`] | crypto/, cleancache and frontswap | pages kept compressed in objects of zsmalloc: a store, and a cache with rules on it |
//! | [`host`] | | all of it put together in one process |
//!
//! All of it runs on any machine with a [`Vspace`](pageless_fault::Vspace) and a [`FrameMemory`](pageless_fault::FrameMemory): this process's own MMU
//! over memfds, and the modelled one, on which an access through a translation that should be gone is seen.
//!
//! # Context
//!
//! Who may sleep shows it ([`MaySleep`](pageless_fault::MaySleep), or a [`Gfp`](frames::Gfp) made of one). Who may not can allocate, map, unmap and
//! free as well: what needs an interrupt, or somebody else's patience, is left to the next who may sleep.
//!
//! # How to
//!
//! All of it in one process ([`host::HostMm`]); on another machine only the first lines differ.
//!
//! **Have frames**, in one piece or not at all:
//!
//! ```
//! # #[cfg(all(feature = "std", target_os = "linux", target_arch = "x86_64"))] {
//! use pageless_fault::{FrameMemory, MaySleep};
//! use pageless_pfn::FrameCount;
//! use pageless_vmap::frames::{Gfp, Order};
//! use pageless_vmap::host::HostMm;
//!
//! let mm = HostMm::new(FrameCount::new(4096))?;       // 16 MiB
//! let ctx = MaySleep::claim();                         // this thread may block
//! let four = mm.frames().alloc(&Gfp::kernel(&ctx).zeroed(), Order::try_new(2)?)?;
//! mm.frames().memory().write(four.pfn().phys(), b"known by number")?;
//! mm.frames().free(four);
//! # }
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! **See a list of frames in one piece**, those with descriptors and those of a device that has none:
//!
//! ```
//! # #[cfg(all(feature = "std", target_os = "linux", target_arch = "x86_64"))] {
//! use pageless_fault::{MaySleep, Protection, host::HostRam};
//! use pageless_pfn::{FrameCount, Pfn, PfnFlags, PfnRange, PfnT};
//! use pageless_vmap::frames::{Gfp, Order};
//! use pageless_vmap::host::{HostMm, HostMmConfig};
//!
//! let device = PfnRange::try_new(Pfn::try_new(1 << 30)?, FrameCount::new(8))?;
//! let device = HostRam::new(device)?;
//! let mut config = HostMmConfig::new(FrameCount::new(4096))?;
//! config.others.add_ram(&device)?;
//! let mm = HostMm::with(config)?;
//! let ctx = MaySleep::claim();
//!
//! let page = mm.pages().alloc(&Gfp::kernel(&ctx), Order::ZERO)?;
//! let described = PfnT::new(page.head(), PfnFlags::empty());       // referenced while it is mapped
//! let special = PfnT::new(Pfn::try_new((1 << 30) + 5)?, PfnFlags::DEV);
//! let area = mm.vmalloc().vmap(&ctx, &[special, described], Protection::ReadWrite)?;
//! assert_eq!(mm.vmalloc().vmalloc_to_pfn(area), Some(special.pfn()));
//! mm.vmalloc().vunmap(&ctx, area)?;                                // lazily
//! mm.vmalloc().purge(&ctx)?;                                       // now the reference is back
//! # }
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! **Have memory that is contiguous only virtually** (`vmalloc`):
//!
//! ```
//! # #[cfg(all(feature = "std", target_os = "linux", target_arch = "x86_64"))] {
//! use pageless_fault::{MaySleep, Vspace};
//! use pageless_pfn::{ByteLen, FrameCount};
//! use pageless_vmap::frames::Gfp;
//! use pageless_vmap::host::HostMm;
//!
//! let mm = HostMm::new(FrameCount::new(4096))?;
//! let ctx = MaySleep::claim();
//! let table = mm.vmalloc().vmalloc(&Gfp::kernel(&ctx), ByteLen::new(1 << 20), mm.frames())?;
//! let space = mm.vmalloc().space();
//! let at = space.offset_of(table).and_then(|start| start.checked_add(4090)).ok_or("not there")?;
//! space.write(at, b"across a boundary")?;
//! mm.vmalloc().vfree(&ctx, table)?;                   // frames come back with the next purge
//! # }
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! **Have a block of pages where no contiguous one can be had** (`VFALLBACK`):
//!
//! ```
//! # #[cfg(all(feature = "std", target_os = "linux", target_arch = "x86_64"))] {
//! use pageless_fault::MaySleep;
//! use pageless_pfn::FrameCount;
//! use pageless_vmap::frames::{Fragmentation, Gfp, Order};
//! use pageless_vmap::host::HostMm;
//!
//! let mm = HostMm::new(FrameCount::new(4096))?;
//! let ctx = MaySleep::claim();
//! let order = Order::try_new(4)?;                      // 64 KiB
//! let _taken = mm.frames().fragment(Fragmentation { order, keep_free: 500, seed: 1 })?;
//! let gfp = Gfp::kernel(&ctx).virtual_fallback();
//! let block = mm.pages().alloc(&gfp, order)?;
//! assert!(block.is_virtual());
//! let tail = block.nth(9).ok_or("a page of the block")?;
//! assert_eq!(mm.pages().compound_head(tail), Some(block.head()));
//! # }
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! **Store objects of any size up to a page** (`zs_malloc`):
//!
//! ```
//! # #[cfg(all(feature = "std", target_os = "linux", target_arch = "x86_64"))] {
//! use pageless_fault::MaySleep;
//! use pageless_pfn::FrameCount;
//! use pageless_vmap::frames::Gfp;
//! use pageless_vmap::host::HostMm;
//! use pageless_vmap::zsmalloc::Zsmalloc;
//!
//! let mm = HostMm::new(FrameCount::new(4096))?;
//! let ctx = MaySleep::claim();
//! let pool = Zsmalloc::new(mm.frames().clone());
//! let handle = pool.malloc(&Gfp::kernel(&ctx), 1500)?;
//! pool.write(&handle, b"an object")?;
//! let mut room = [0; 4096];                            // for objects that cross a boundary
//! pool.with_copy(&handle, &mut room, |bytes| assert!(bytes.starts_with(b"an object")))?;
//! pool.free(handle)?;
//! # }
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! **Keep pages compressed.** The store is here; a block device over it (`zram`) needs block I/O as well, and so is in the facade crate:
//! `pageless::zram::Zram::new(capacity, store, memory)`, with `examples/zram.rs`.
//!
//! ```
//! # #[cfg(all(feature = "std", target_os = "linux", target_arch = "x86_64"))] {
//! use pageless_fault::MaySleep;
//! use pageless_pfn::FrameCount;
//! use pageless_vmap::compress::{Access, CompressedStore, Incompressible, Lz4, PAGE};
//! use pageless_vmap::frames::Gfp;
//! use pageless_vmap::host::HostMm;
//!
//! let mm = HostMm::new(FrameCount::new(4096))?;
//! let ctx = MaySleep::claim();
//! let store = CompressedStore::new(mm.frames().clone(), Lz4);
//! let mut page = [0; PAGE];
//! page[..5].copy_from_slice(b"bytes");
//! let stored = store.put(&Gfp::kernel(&ctx), &page, Incompressible::default())?;
//! let mut again = [0xFF; PAGE];
//! store.load(&ctx, &stored, Access::default(), &mut again)?;
//! assert_eq!(again, page);
//! store.remove(stored);
//! # }
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
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
