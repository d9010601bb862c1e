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
//! use pageless_vmap::area::VmallocConfig;
//! // Unmapped addresses wait for a shootdown, up to 96 MiB of them on a machine of 4 CPUs.
//! assert_eq!(VmallocConfig::for_cpus(4).lazy_max.get(), 96 << 20);
//! # }
//! ```

mod check;
mod config;
mod counters;
mod descriptors;
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
pub use vmap::{Vmalloc, VmapError};
