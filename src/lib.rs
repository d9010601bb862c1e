//! Struct-page-free block I/O with a lazily faulted memmap.
//!
//! The crates underneath, by the direction of their dependencies:
//!
//! ```text
//!   pfn <- fault <- memmap <- vmap        pfn <- block
//!     ^________________^_______^____________^
//!                  pageless: job files, and running them three ways
//! ```
//!
//! A stale translation can be seen in [`fault::sim`], a modelled machine on which [`memmap`] runs unchanged; [`fault::shootdown`]
//! is the engine that keeps it free of them. Several devices share one lookup through [`memmap::Regions`].
//!
//! [`block`] never reaches [`memmap`]: I/O needs no descriptors. What needs both, a driver that
//! insists on pinning descriptors while requests are in flight ([`run`]), a disk that keeps its blocks in objects of [`vmap`] ([`zram`]), or bios into
//! memory of [`vmap`] ([`DirectMap`]), is here.

#![deny(unsafe_code)]

extern crate alloc;

mod direct_map;
pub mod job;
pub mod run;
pub mod zram;

pub use direct_map::DirectMap;
pub use pageless_block as block;
pub use pageless_fault as fault;
pub use pageless_memmap as memmap;
pub use pageless_pfn as pfn;
pub use pageless_vmap as vmap;

/// The README's example, compiled and run like all others.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
