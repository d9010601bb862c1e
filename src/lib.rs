//! Struct-page-free block I/O with a lazily faulted memmap.

#![forbid(unsafe_code)]

extern crate alloc;

pub mod job;
