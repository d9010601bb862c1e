//! Areas of virtual addresses in which scattered frames are seen in one piece.
//!
//! # Ownership
//!
//! An [`Area`] is addresses that belong to whoever holds it; published, it belongs to whoever knows its address. It owns
//! what it was given ([`Release`]): references, frames. Neither its addresses nor what it owns are free when it is unmapped: they
//! wait, with others, for one shootdown, and come back with its proof. What cannot be proved gone stays where it is for ever
//! and is counted.
//!
//! ```text
//!   Vmalloc: vmap, vunmap, vm_map_ram ... ----> Descriptors: references on frames that have a descriptor
//!      |
//!   AreaSpace: addresses, what waits, purging
//!      |  nodes (one for each CPU): areas by address | unmapped, waiting | pools of flushed addresses
//!      |  one tree of free addresses, asked when a pool is empty
//!      v
//!   Vspace: the machine's page table and shootdowns
//! ```
//!
//! # Small mappings
//!
//! Up to 64 pages for a short time come from blocks of which each CPU has its own: no addresses are taken, nothing is allocated and
//! no reference is taken. Whoever unmaps hands over what must not be reused yet, and gets an [`Aliased`] for it; after a
//! [purge](Vmalloc::vm_unmap_aliases) he gets it back.
//!
//! # Example
//!
//! ```
//! # #[cfg(all(feature = "std", target_os = "linux", target_arch = "x86_64"))] {
//! use std::sync::Arc;
//! use pageless_fault::host::{HostFrames, HostMachine, HostRam, HostVspace};
//! use pageless_fault::{FrameMemory, MaySleep, Protection, Vspace, WindowLen};
//! use pageless_memmap::{Config, Memmap};
//! use pageless_pfn::{FrameCount, Pfn, PfnFlags, PfnRange, PfnT};
//! use pageless_vmap::area::{Vmalloc, VmallocConfig};
//!
//! let ctx = MaySleep::claim();
//! let frames = PfnRange::try_new(Pfn::try_new(0x1000)?, FrameCount::new(64))?;
//! let ram = HostRam::new(frames)?;
//! let memmap = Arc::new(Memmap::attach(&HostMachine::new()?, frames, Config::default())?);
//! let len = WindowLen::covering(64 << 20).ok_or("too long")?;
//! let space = HostVspace::reserve(HostFrames::of_ram(&ram)?, len)?;
//! let vm = Vmalloc::new(space, Arc::clone(&memmap), VmallocConfig::for_cpus(4));
//!
//! // Three frames, of which the second has a descriptor.
//! let nth = |n, flags| Some(PfnT::new(frames.nth(n)?, flags));
//! let list = [nth(40, PfnFlags::DEV), nth(7, PfnFlags::DEV | PfnFlags::MAP), nth(9, PfnFlags::DEV)];
//! let list = list.map(|frame| frame.expect("one of 64"));
//! let at = vm.vmap(&ctx, &list, Protection::ReadWrite)?;
//! assert_eq!(memmap.get(&ctx, list[1].paged()?)?.references(), 2);
//!
//! // Written in one piece, found in the frames.
//! let middle = vm.space().offset_of(at).and_then(|at| at.checked_add(4094)).ok_or("not there")?;
//! vm.space().write(middle, b"across")?;
//! let mut found = [0; 4];
//! ram.read(list[1].phys(), &mut found)?;
//! assert_eq!(&found, b"ross");
//!
//! vm.vunmap(&ctx, at)?;
//! vm.purge(&ctx)?;
//! assert_eq!(memmap.get(&ctx, list[1].paged()?)?.references(), 1);
//! # }
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```

mod backlog;
mod check;
mod config;
mod counters;
mod descriptors;
mod flushed;
mod free_tree;
mod listing;
mod node;
mod pool;
mod purge;
mod ram;
mod read;
mod release;
mod space;
mod span;
mod vmalloc;
mod vmap;

pub use config::VmallocConfig;
pub use counters::AreaCounters;
pub use descriptors::{Descriptors, KeptPage, NoDescriptors, ReferenceError};
pub use listing::{AreaInfo, AreaKind, AreaState};
pub use purge::Purged;
pub use ram::{Aliased, MapRamError, RAM_MOST, RamMapping};
pub use read::Vread;
pub use release::{Release, Unreachable};
pub use space::{AllocAreaError, Area, AreaSpace, Backlog, MapAreaError, VunmapError};
pub use vmalloc::{NotVmalloc, VmallocError};
pub use vmap::{Vmalloc, VmapError};
