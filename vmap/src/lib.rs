//! Virtually contiguous memory from scattered frames.
//!
//! # Ownership
//!
//! A [`PageBlock`](frames::PageBlock) is 2^order frames that belong to whoever holds it. The frame allocator hands it out and takes it
//! back, and keeps all its books outside the frames.
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_code)]

extern crate alloc;

pub mod area;
pub mod buffer_pool;
pub mod compound;
pub mod frames;
mod mutant;
pub mod slab;
pub mod wait_table;
pub mod zsmalloc;
