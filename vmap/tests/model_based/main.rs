//! Random calls, compared with books that are as simple as can be. The frame allocator, areas and objects are so compared beside their
//! other tests (`frames/oracle.rs`, `area/books.rs`, `zsmalloc/oracle.rs`); here are blocks of pages, which stand on all of them.
#![cfg(all(not(loom), not(miri), target_os = "linux", target_arch = "x86_64"))]

extern crate alloc;

mod compound;
#[path = "../compound/rig.rs"]
#[expect(
    dead_code,
    unused_macros,
    unused_imports,
    reason = "other tests use the rest of it"
)]
mod rig;
