//! Compressed pages by (pool, object, index), on this process's memory and on the modelled machine's.
#![cfg(all(not(loom), target_os = "linux", target_arch = "x86_64"))]

extern crate alloc;

mod behaviour;
mod crowd;
mod eviction;
mod no_lock;
mod oracle;
#[path = "../zram/pages.rs"]
mod pages;
#[path = "../zram/rig.rs"]
mod rig;
mod stale;

use pageless::vmap::compress::{Algorithm, CompressedStore};
use pageless::vmap::zcache::{Key, ObjectId, PageIndex, PoolId, Zcache, ZcacheConfig};
use pageless::vmap::zsmalloc::PairWindows;

use crate::rig::{Frames, Rig};

/// A cache of the tests.
type Cache<'f, R> = Zcache<&'f Frames<'f, R>, Algorithm, PairWindows<&'f <R as Rig>::Space>>;

fn cache<'f, R: Rig>(
    frames: &'f Frames<'f, R>,
    algorithm: Algorithm,
    config: ZcacheConfig,
) -> Cache<'f, R> {
    let store = CompressedStore::new(frames, algorithm);
    Zcache::new(store.with_windows(frames.windows(1 << 16)), config)
}

fn key(pool: PoolId, object: u64, index: u64) -> Key {
    Key {
        pool,
        object: ObjectId::new(object),
        index: PageIndex::new(index),
    }
}
