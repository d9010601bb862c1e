//! Clean pages that may be wanted again, and pages on their way to a swap device: compressed, in memory.
//!
//! ```text
//!   put_page(key, page) --> compressed outside any lock --> shard of the object: key -> Stored, age
//!   get_page(key)       --> ephemeral: taken out, then decompressed      persistent: decompressed where it is, and stays;
//!                           either way outside any lock
//!   flush_page, flush_object, flush_pool: gone
//!   shrink(to)          --> the oldest ephemeral pages go first, wherever they are
//! ```
//!
//! The rules are those of the kernel's cleancache and frontswap (Documentation/mm/cleancache.rst and frontswap.rst, until 6.4), whose
//! second home zcache was:
//!
//! * A page of an **ephemeral** pool may be gone at any time; whoever gets it takes it out. A page of a **persistent** pool stays until it is
//!   flushed; a put may be refused.
//! * A put replaces what the key had. Also a put that fails takes the old page out: it would be stale.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use pageless_fault::MaySleep;
use pageless_fault::sync::Mutex;
use pageless_fault::sync::atomic::{AtomicU64, Ordering};
use pageless_pfn::ByteLen;

use crate::compress::{
    Access, CompressedStore, Compressor, Incompressible, LoadError, NoWindows, Page, PutError,
    StoreStats, Stored, Windows,
};
use crate::frames::Gfp;
use crate::zsmalloc::FrameSource;

/// Shards of the index. Pages of one object are in one of them.
const SHARDS: usize = 16;
/// Pages that a shrinker takes out before it looks at what that has freed.
const SHRINK_BATCH: usize = 64;

/// Which pool: a file system, or a swap device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(u32);

/// Which object of a pool: a file, say by its inode number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(u64);

impl ObjectId {
    /// The object `number`.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        ObjectId(number)
    }
}

/// Which page of an object, counted in pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageIndex(u64);

impl PageIndex {
    /// The page `number`.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        PageIndex(number)
    }
}

/// What a page is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Whose it is.
    pub pool: PoolId,
    /// Of which object.
    pub object: ObjectId,
    /// Which one.
    pub index: PageIndex,
}

/// What may happen to the pages of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PoolKind {
    /// They may go at any time, oldest first, and go when they are got (cleancache).
    Ephemeral,
    /// They stay until they are flushed (frontswap).
    Persistent,
}

/// How a [`Zcache`] is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZcacheConfig {
    /// The memory that its pages may take. Above it ephemeral pages go; without any, puts are refused.
    pub budget: ByteLen,
    /// What becomes of a page that does not get smaller.
    pub incompressible: Incompressible,
    /// How pages are reached.
    pub access: Access,
}

impl Default for ZcacheConfig {
    /// No bound, no incompressible pages (they would take as much memory here as where they came from), and no copies.
    fn default() -> Self {
        ZcacheConfig {
            budget: ByteLen::new(u64::MAX),
            incompressible: Incompressible::Refuse,
            access: Access::Mapped,
        }
    }
}

/// What a [`Zcache`] has done so far, and what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ZcacheStats {
    /// Pages put in.
    pub puts: u64,
    /// Pages refused.
    pub failed_puts: u64,
    /// Pages got.
    pub gets: u64,
    /// Pages asked for that were not there.
    pub misses: u64,
    /// Pages flushed.
    pub flushed: u64,
    /// Ephemeral pages that went for want of room.
    pub evicted: u64,
    /// What is in it.
    pub store: StoreStats,
}

/// Why a page could not be put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ZcachePutError {
    /// There is no such pool any more.
    #[error("there is no pool {}", .pool.0)]
    NoPool {
        /// The pool of the key.
        pool: PoolId,
    },
    /// The store has no room for it, or does not want it.
    #[error(transparent)]
    Store(#[from] PutError),
}

/// Compressed pages by (pool, object, index).
///
/// ```
/// use std::sync::Arc;
/// use pageless_fault::{MaySleep, host::HostRam};
/// use pageless_pfn::{FrameCount, Pfn, PfnRange};
/// use pageless_vmap::compress::{CompressedStore, Lzo, PAGE};
/// use pageless_vmap::frames::{FrameAllocator, FrameConfig, Gfp};
/// use pageless_vmap::zcache::{Key, ObjectId, PageIndex, PoolKind, Zcache, ZcacheConfig};
///
/// let frames = PfnRange::try_new(Pfn::try_new(0x1_0000)?, FrameCount::new(1024))?;
/// let frames = FrameAllocator::new(Arc::new(HostRam::new(frames)?), FrameConfig::default())?;
/// let cache = Zcache::new(CompressedStore::new(frames, Lzo), ZcacheConfig::default());
/// let pool = cache.create_pool(PoolKind::Ephemeral).ok_or("no more pools")?;
///
/// let ctx = MaySleep::claim();
/// let key = Key { pool, object: ObjectId::new(2), index: PageIndex::new(0) };
/// cache.put_page(&Gfp::kernel(&ctx), key, &[7; PAGE])?;
/// let mut page = [0; PAGE];
/// assert!(cache.get_page(&ctx, key, &mut page)?);
/// assert_eq!(page, [7; PAGE]);
/// // It was taken out.
/// assert!(!cache.get_page(&ctx, key, &mut page)?);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub struct Zcache<F: FrameSource, C: Compressor, W = NoWindows> {
    store: CompressedStore<F, C, W>,
    config: ZcacheConfig,
    /// By number. A destroyed pool leaves its place empty: numbers are not used again.
    pools: Mutex<Vec<Option<PoolKind>>>,
    shards: Box<[Mutex<Shard>]>,
    /// The age of the next page.
    clock: AtomicU64,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Shard {
    pages: BTreeMap<Key, Entry>,
    /// The ephemeral ones, oldest first.
    by_age: BTreeMap<u64, Key>,
}

#[derive(Debug)]
struct Entry {
    /// The last one who has it takes it out of the store: the index, or whoever reads a page that has been flushed meanwhile.
    stored: Arc<Stored>,
    kind: PoolKind,
    age: u64,
}

/// Counted by whoever does it; nobody waits for anybody by these, so they are relaxed.
#[derive(Debug, Default)]
struct Counters {
    puts: AtomicU64,
    failed_puts: AtomicU64,
    gets: AtomicU64,
    misses: AtomicU64,
    flushed: AtomicU64,
    evicted: AtomicU64,
}

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl Shard {
    fn insert(&mut self, key: Key, entry: Entry) -> Option<Entry> {
        let before = self.remove(&key);
        if entry.kind == PoolKind::Ephemeral {
            self.by_age.insert(entry.age, key);
        }
        self.pages.insert(key, entry);
        before
    }

    fn remove(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.pages.remove(key)?;
        self.by_age.remove(&entry.age);
        Some(entry)
    }

    /// Keys from `first` to `last`, both included.
    fn remove_range(&mut self, first: Key, last: Key) -> Vec<Entry> {
        let keys: Vec<Key> = self
            .pages
            .range(first..=last)
            .map(|(key, _)| *key)
            .collect();
        keys.iter().filter_map(|key| self.remove(key)).collect()
    }
}

impl<F: FrameSource, C: Compressor, W: Windows> Zcache<F, C, W> {
    /// An empty cache, whose pages are in `store`.
    pub fn new(store: CompressedStore<F, C, W>, config: ZcacheConfig) -> Self {
        Zcache {
            store,
            config,
            pools: Mutex::new(Vec::new()),
            shards: (0..SHARDS).map(|_| Mutex::new(Shard::default())).collect(),
            clock: AtomicU64::new(0),
            counters: Counters::default(),
        }
    }

    /// Where its pages are.
    #[must_use]
    pub fn store(&self) -> &CompressedStore<F, C, W> {
        &self.store
    }

    /// A pool of its own; `None` when there have been 2^32 of them.
    pub fn create_pool(&self, kind: PoolKind) -> Option<PoolId> {
        let mut pools = self.pools.lock();
        let id = PoolId(u32::try_from(pools.len()).ok()?);
        pools.push(Some(kind));
        Some(id)
    }

    fn kind(&self, pool: PoolId) -> Option<PoolKind> {
        *self.pools.lock().get(pool.0 as usize)?
    }

    fn shard(&self, pool: PoolId, object: ObjectId) -> &Mutex<Shard> {
        // Multiplicative hashing: neighbouring inodes go to different shards.
        let mixed = (object.0 ^ u64::from(pool.0) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.shards[(mixed >> 32) as usize % self.shards.len()]
    }

    /// Puts a page in, in place of what the key had.
    ///
    /// # Errors
    ///
    /// See [`ZcachePutError`]; what the key had is gone all the same.
    pub fn put_page(&self, gfp: &Gfp<'_>, key: Key, page: &Page) -> Result<(), ZcachePutError> {
        let put = self.try_put(gfp, key, page);
        match put {
            Ok(()) => count(&self.counters.puts, 1),
            Err(_) => {
                count(&self.counters.failed_puts, 1);
                self.take(&key);
            }
        }
        put
    }

    fn try_put(&self, gfp: &Gfp<'_>, key: Key, page: &Page) -> Result<(), ZcachePutError> {
        let no_pool = ZcachePutError::NoPool { pool: key.pool };
        let kind = self.kind(key.pool).ok_or(no_pool)?;
        let stored = match self.store.put(gfp, page, self.config.incompressible) {
            // An older page may make room.
            Err(PutError::NoMemory { .. }) if self.evict(SHRINK_BATCH) != 0 => {
                self.store.put(gfp, page, self.config.incompressible)?
            }
            put => put?,
        };
        let age = self.clock.fetch_add(1, Ordering::Relaxed);
        let entry = Entry {
            stored: Arc::new(stored),
            kind,
            age,
        };
        let mut shard = self.shard(key.pool, key.object).lock();
        // A pool is marked as gone before its pages are taken out, shard by shard: either this sees the mark, or they see this page.
        if self.kind(key.pool).is_none() {
            drop(shard);
            self.let_go(entry.stored);
            return Err(no_pool);
        }
        let before = shard.insert(key, entry);
        drop(shard);
        if let Some(before) = before {
            self.let_go(before.stored);
        }
        self.within_budget(key)
    }

    /// Brings the memory taken back within the budget. The page just put is the last to go.
    fn within_budget(&self, key: Key) -> Result<(), ZcachePutError> {
        let (used, limit) = (self.store.used(), self.config.budget);
        if used <= limit || self.shrink(limit) <= limit {
            return Ok(());
        }
        // Only persistent pages are left.
        self.take(&key);
        Err(PutError::OverLimit { used, limit }.into())
    }

    /// Fills `page` with what was put under the key, and says whether there was anything. From an ephemeral pool that takes the
    /// page out.
    ///
    /// # Errors
    ///
    /// See [`LoadError`]; it has been taken out, and what is in `page` is unspecified.
    pub fn get_page(&self, ctx: &MaySleep, key: Key, page: &mut Page) -> Result<bool, LoadError> {
        let mut shard = self.shard(key.pool, key.object).lock();
        let loaded = match shard.pages.get(&key) {
            None => {
                count(&self.counters.misses, 1);
                return Ok(false);
            }
            // It stays, and is read without the lock: that may take a shootdown, for which nobody is to wait who must not.
            Some(entry) if entry.kind == PoolKind::Persistent => {
                let stored = Arc::clone(&entry.stored);
                drop(shard);
                let loaded = self.store.load(ctx, &stored, self.config.access, page);
                if loaded.is_err() {
                    self.take_if(&key, |entry| Arc::ptr_eq(&entry.stored, &stored));
                }
                self.let_go(stored);
                loaded
            }
            Some(_) => {
                let entry = shard.remove(&key);
                drop(shard);
                entry.map_or(Ok(()), |entry| {
                    let loaded = self
                        .store
                        .load(ctx, &entry.stored, self.config.access, page);
                    self.let_go(entry.stored);
                    loaded
                })
            }
        };
        count(&self.counters.gets, 1);
        loaded.map(|()| true)
    }

    fn take(&self, key: &Key) -> bool {
        self.take_if(key, |_| true)
    }

    fn take_if(&self, key: &Key, is_it: impl FnOnce(&Entry) -> bool) -> bool {
        let mut shard = self.shard(key.pool, key.object).lock();
        let entry = match shard.pages.get(key) {
            Some(entry) if is_it(entry) => shard.remove(key),
            _ => None,
        };
        drop(shard);
        let there = entry.is_some();
        if let Some(entry) = entry {
            self.let_go(entry.stored);
        }
        there
    }

    /// Whoever has it last takes it out of the store.
    fn let_go(&self, stored: Arc<Stored>) {
        if let Some(stored) = Arc::into_inner(stored) {
            self.store.remove(stored);
        }
    }

    fn remove_all(&self, entries: Vec<Entry>) -> u64 {
        let pages = entries.len() as u64;
        for entry in entries {
            self.let_go(entry.stored);
        }
        pages
    }

    /// Takes a page out, and says whether it was there.
    pub fn flush_page(&self, key: Key) -> bool {
        let there = self.take(&key);
        count(&self.counters.flushed, u64::from(there));
        there
    }

    /// Takes all pages of an object out, and says how many there were.
    pub fn flush_object(&self, pool: PoolId, object: ObjectId) -> u64 {
        let key = |index| Key {
            pool,
            object,
            index,
        };
        let (first, last) = (key(PageIndex(0)), key(PageIndex(u64::MAX)));
        let mut shard = self.shard(pool, object).lock();
        let entries = shard.remove_range(first, last);
        drop(shard);
        let pages = self.remove_all(entries);
        count(&self.counters.flushed, pages);
        pages
    }

    /// Takes all pages of a pool out, and the pool itself, and says how many pages there were.
    pub fn destroy_pool(&self, pool: PoolId) -> u64 {
        if let Some(kind) = self.pools.lock().get_mut(pool.0 as usize) {
            *kind = None;
        }
        let key = |object, index| Key {
            pool,
            object: ObjectId(object),
            index: PageIndex(index),
        };
        let mut pages = 0;
        for shard in &self.shards {
            let entries = shard
                .lock()
                .remove_range(key(0, 0), key(u64::MAX, u64::MAX));
            pages += self.remove_all(entries);
        }
        count(&self.counters.flushed, pages);
        pages
    }

    /// Takes out ephemeral pages, oldest first, until the memory taken is at most `to` or none is left, and answers what is taken then.
    pub fn shrink(&self, to: ByteLen) -> ByteLen {
        // What is free in zspages costs nobody a page.
        if self.store.used() > to {
            self.store.compact();
        }
        while self.store.used() > to && self.evict(SHRINK_BATCH) != 0 {
            if self.store.used() > to {
                self.store.compact();
            }
        }
        self.store.used()
    }

    /// Takes out the oldest ephemeral pages, at most `most`, and says how many there were.
    fn evict(&self, most: usize) -> u64 {
        let mut evicted = 0;
        for _ in 0..most {
            let oldest = self
                .shards
                .iter()
                .filter_map(|shard| Some((*shard.lock().by_age.first_key_value()?.0, shard)))
                .min_by_key(|(age, _)| *age);
            let Some((age, shard)) = oldest else { break };
            let mut shard = shard.lock();
            // Somebody may have got it in between.
            let entry = shard
                .by_age
                .remove(&age)
                .and_then(|key| shard.pages.remove(&key));
            drop(shard);
            if let Some(entry) = entry {
                self.let_go(entry.stored);
                evicted += 1;
            }
        }
        count(&self.counters.evicted, evicted);
        evicted
    }

    /// What it has done so far, and what is in it.
    #[must_use]
    pub fn stats(&self) -> ZcacheStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ZcacheStats {
            puts: get(&self.counters.puts),
            failed_puts: get(&self.counters.failed_puts),
            gets: get(&self.counters.gets),
            misses: get(&self.counters.misses),
            flushed: get(&self.counters.flushed),
            evicted: get(&self.counters.evicted),
            store: self.store.stats(),
        }
    }
}

impl<F: FrameSource, C: Compressor, W: Windows> fmt::Debug for Zcache<F, C, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zcache")
            .field("store", &self.store)
            .field("config", &self.config)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
