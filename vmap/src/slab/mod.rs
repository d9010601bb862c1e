//! Objects of one size from blocks of pages: a cache as SLUB is one (Linux: mm/slub.c), with slabs of any order.
//!
//! # Ownership
//!
//! A cache ([`SlabCache`]) owns slabs: blocks of pages, cut into objects. An object belongs to whoever got its address from
//! [`SlabCache::alloc`], until [`SlabCache::free`]. Of the slabs, each CPU has one to itself; the others are everybody's.
//!
//! ```text
//!   alloc ---> this CPU's slab ---none left---> a partial slab ---none---> Pages::alloc(order), virtual if need be
//!                    ^                             ^     |
//!                    | same slab                   |     | all its objects are back, and there are enough like it
//!   free(address) ---+--- another slab ------------+     v
//!        |                                            Pages
//!        +-- virt_to_head_page: which slab?
//! ```
//!
//! An address finds its slab by the head of the block that it lies in ([`Pages::virt_to_head_page`](crate::compound::Pages::virt_to_head_page)) and by nothing else, and memory is
//! reached by its address alone. So nobody here knows whether a slab is in one piece.
//!
//! # Where the books are
//!
//! A free object holds the number of the next free one of its slab: in its own bytes, or behind them if these have to keep what the
//! constructor wrote. Which objects are out is said by a bit for each, outside the slab: so a second free of the same object is refused,
//! and a link that was overwritten leads nowhere but to a number in the [statistics](SlabStatistics::damaged).
//!
//! # Locks
//!
//! ```text
//!   a CPU's slab (tried, never waited for)  >  the partial slabs
//! ```
//!
//! Neither is held while pages are had or given back. Allocation and free never sleep, unless they were given the right to for new pages.
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//! use pageless_fault::{FrameMemory, MaySleep, Vspace, Window};
//! use pageless_pfn::ByteLen;
//! use pageless_vmap::compound::Pages;
//! use pageless_vmap::frames::{Gfp, Order};
//! use pageless_vmap::slab::{SlabCache, SlabConfig};
//!
//! fn one_inode<M, S, W>(pages: Arc<Pages<M, S, W>>) -> Result<(), Box<dyn std::error::Error>>
//! where
//!     M: FrameMemory + 'static,
//!     S: Vspace + 'static,
//!     W: Window + 'static,
//! {
//!     let ctx = MaySleep::claim();
//!     let config = SlabConfig::new("inode", ByteLen::new(600), Order::try_new(3)?);
//!     let cache = SlabCache::new(Arc::clone(&pages), config)?;
//!     let inode = cache.alloc(&Gfp::kernel(&ctx))?;
//!     pages.write(inode, b"size, owner, blocks")?;
//!     cache.free(inode)?;
//!     Ok(())
//! }
//! ```
mod cache;
mod check;
mod config;
mod counters;
mod error;
mod layout;
mod marks;
mod node;
mod record;

pub use cache::SlabCache;
pub use config::{Constructor, SlabConfig};
pub use counters::SlabStatistics;
pub use error::{SlabAllocError, SlabConfigError, SlabFreeError};
