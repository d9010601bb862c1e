//! Pages in objects of zsmalloc: what zcache and a compressed block device have in common.

use alloc::boxed::Box;
use core::fmt;

use pageless_fault::sync::Mutex;
use pageless_fault::sync::atomic::{AtomicU64, Ordering};
use pageless_fault::{Cpus, MaySleep};
use pageless_pfn::{ByteLen, PAGE_SIZE};

use super::counted::Counted;
use super::windows::{NoWindows, Windows};
use super::{Compressor, DecompressError, PAGE, Page, Room, fill, filled_with};
use crate::frames::Gfp;
use crate::zsmalloc::{AccessError, ChainSize, FrameSource, Handle, MallocError, Zsmalloc};

/// How a compressed page is reached when it is wanted back. What each costs is for a benchmark to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Access {
    /// Decompressed straight out of where it lies; through a pair mapping, if it crosses into another frame. Without
    /// [windows](CompressedStore::with_windows), or when they are all in use, it is copied.
    #[default]
    Mapped,
    /// Copied out first if it crosses, and decompressed from the copy: Linux's way today.
    Copied,
    /// In the one or two pieces that it is in. No decoder here takes two: they are put together first.
    Segments,
}

/// What becomes of a page that does not get smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Incompressible {
    /// It is kept as it is, in a frame of its own.
    #[default]
    StoreRaw,
    /// It is refused.
    Refuse,
}

/// A stored page. It belongs to the [`CompressedStore`] that made it, and goes back there: dropped, its memory is lost.
#[derive(Debug)]
#[must_use = "a page that nobody takes out of the store stays in it for good"]
pub enum Stored {
    /// One word over and over; no memory.
    Filled(u64),
    /// Compressed.
    Compressed {
        /// The object.
        handle: Handle,
        /// How many bytes, less than a page.
        len: u16,
    },
    /// As it is.
    Raw(Handle),
}

impl Stored {
    /// Bytes that it counts for (`compr_data_size`).
    #[must_use]
    pub fn compressed(&self) -> ByteLen {
        ByteLen::new(match self {
            Stored::Filled(_) => 0,
            Stored::Compressed { len, .. } => u64::from(*len),
            Stored::Raw(_) => PAGE_SIZE,
        })
    }
}

// A table of many is what it is for; an entry of the kernel's (`struct zram_table_entry`) is as large.
const _: () = assert!(size_of::<Option<Stored>>() == 16);

/// What is in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreStats {
    /// Pages, however they are stored.
    pub pages: u64,
    /// Bytes of them all after compression.
    pub compressed: ByteLen,
    /// Pages that are a word over and over.
    pub filled: u64,
    /// Pages that are stored as they are.
    pub raw: u64,
    /// Pages that have ever been stored as they are.
    pub raw_since: u64,
    /// Memory taken: whole frames of zspages.
    pub used: ByteLen,
    /// The most that was ever taken.
    pub used_max: ByteLen,
    /// The most that may be taken; zero for no limit.
    pub limit: ByteLen,
    /// Frames that compaction has freed.
    pub compacted: u64,
    /// How objects were reached.
    pub reads: Reads,
}

/// How objects were reached so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reads {
    /// Within a frame, where they are.
    pub in_place: u64,
    /// Across a boundary, through a pair mapping.
    pub mapped: u64,
    /// Across a boundary, by a copy.
    pub copied: u64,
}

/// Why a page is not in the store. Nothing of it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// No memory was to be had: free some, or ask in a context that may wait for some.
    #[error("no memory for {bytes} bytes: {why}")]
    NoMemory {
        /// Bytes of the object.
        bytes: usize,
        /// What was missing.
        why: MallocError,
    },
    /// The object cannot be written: the source of frames hands out what its memory does not have.
    #[error(transparent)]
    Unreachable(AccessError),
    /// The store would be over its limit: take something out first.
    #[error("the store would take {used}, over its limit of {limit}")]
    OverLimit {
        /// What it would have taken.
        used: ByteLen,
        /// The most it may.
        limit: ByteLen,
    },
    /// It does not get smaller, and the caller does not want it as it is.
    #[error("the page does not get smaller than {worth_it} bytes")]
    Incompressible {
        /// Below this many bytes compression is worth it.
        worth_it: usize,
    },
}

/// Why a stored page cannot be had. It stays in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Its memory has been spoilt: it is lost.
    #[error(transparent)]
    Spoilt(#[from] DecompressError),
    /// It is another store's, or the source of frames hands out what its memory does not have.
    #[error(transparent)]
    Unreachable(#[from] AccessError),
}

/// Compressed pages in objects of a [`Zsmalloc`] of its own.
///
/// The store keeps no books of which page is which: that is its user's, who holds a [`Stored`] for each.
///
/// ```
/// use std::sync::Arc;
/// use pageless_fault::{MaySleep, host::HostRam};
/// use pageless_pfn::{FrameCount, Pfn, PfnRange};
/// use pageless_vmap::compress::{Access, CompressedStore, Incompressible, Lz4, PAGE};
/// use pageless_vmap::frames::{FrameAllocator, FrameConfig, Gfp};
///
/// let frames = PfnRange::try_new(Pfn::try_new(0x1_0000)?, FrameCount::new(1024))?;
/// let ram = Arc::new(HostRam::new(frames)?);
/// let store = CompressedStore::new(FrameAllocator::new(ram, FrameConfig::default())?, Lz4);
///
/// let ctx = MaySleep::claim();
/// let mut page = [0; PAGE];
/// page[..4].copy_from_slice(b"page");
/// let stored = store.put(&Gfp::kernel(&ctx), &page, Incompressible::StoreRaw)?;
/// assert!(stored.compressed().get() < 100);
///
/// let mut again = [0xFF; PAGE];
/// store.load(&ctx, &stored, Access::Mapped, &mut again)?;
/// assert_eq!(again, page);
/// store.remove(stored);
/// assert!(store.used().is_zero());
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub struct CompressedStore<F: FrameSource, C: Compressor, W = NoWindows> {
    objects: Zsmalloc<Counted<F>>,
    windows: W,
    compressor: C,
    /// One for each CPU, made when it is first used.
    streams: Box<[PerCpu<C::Work>]>,
    /// From so many bytes on an object has a frame for itself: compression saves nothing.
    worth_it: usize,
    counters: Counters,
}

type PerCpu<W> = Mutex<Option<Box<Stream<W>>>>;

/// What one compression works with.
struct Stream<W> {
    work: W,
    room: Room,
}

/// Counted by whoever does it; nobody waits for anybody by these, so they are relaxed.
#[derive(Debug, Default)]
struct Counters {
    pages: AtomicU64,
    compressed: AtomicU64,
    filled: AtomicU64,
    raw: AtomicU64,
    raw_since: AtomicU64,
    used_max: AtomicU64,
    limit: AtomicU64,
    compacted: AtomicU64,
    in_place: AtomicU64,
    mapped: AtomicU64,
    copied: AtomicU64,
}

impl<F: FrameSource, C: Compressor> CompressedStore<F, C> {
    /// An empty store in frames of `source`, with Linux's size classes.
    pub fn new(source: F, compressor: C) -> Self {
        Self::with_chain(source, compressor, ChainSize::DEFAULT)
    }

    /// An empty store whose objects share at most `chain` frames at a time.
    pub fn with_chain(source: F, compressor: C, chain: ChainSize) -> Self {
        let objects = Zsmalloc::with_chain(Counted::new(source), chain);
        let cpus = objects.source().memory().cpus().max(1);
        CompressedStore {
            streams: (0..cpus).map(|_| Mutex::new(None)).collect(),
            worth_it: objects.class_table().huge_threshold(),
            objects,
            windows: NoWindows,
            compressor,
            counters: Counters::default(),
        }
    }

    /// The same, with somewhere to map what crosses a boundary.
    pub fn with_windows<W: Windows>(self, windows: W) -> CompressedStore<F, C, W> {
        CompressedStore {
            objects: self.objects,
            windows,
            compressor: self.compressor,
            streams: self.streams,
            worth_it: self.worth_it,
            counters: self.counters,
        }
    }
}

impl<F: FrameSource, C: Compressor, W: Windows> CompressedStore<F, C, W> {
    /// What makes its pages small.
    #[must_use]
    pub fn compressor(&self) -> C {
        self.compressor
    }

    /// Where its pages are.
    #[must_use]
    pub fn objects(&self) -> &Zsmalloc<Counted<F>> {
        &self.objects
    }

    /// Compressed to fewer bytes than this, a page is stored compressed (`zs_huge_class_size`).
    #[must_use]
    pub fn worth_it(&self) -> usize {
        self.worth_it
    }

    /// From now on a page is refused that would bring the memory taken above `limit`; zero for no limit. What is there stays.
    pub fn set_limit(&self, limit: ByteLen) {
        self.counters.limit.store(limit.get(), Ordering::Relaxed);
    }

    /// Memory taken: whole frames of zspages.
    #[must_use]
    pub fn used(&self) -> ByteLen {
        ByteLen::new(self.objects.source().out().get().saturating_mul(PAGE_SIZE))
    }

    /// Puts a page in.
    ///
    /// # Errors
    ///
    /// See [`PutError`].
    pub fn put(
        &self,
        gfp: &Gfp<'_>,
        page: &Page,
        incompressible: Incompressible,
    ) -> Result<Stored, PutError> {
        let stored = match filled_with(page) {
            Some(word) => Stored::Filled(word),
            None => self.put_bytes(gfp, page, incompressible)?,
        };
        self.count_in(&stored);
        Ok(stored)
    }

    fn put_bytes(
        &self,
        gfp: &Gfp<'_>,
        page: &Page,
        incompressible: Incompressible,
    ) -> Result<Stored, PutError> {
        // Others of this CPU go without the stream meanwhile, so whoever has it does not sleep.
        let at_once = gfp.no_retry();
        let stored = self.with_stream(|stream| {
            self.attempt(stream, page, incompressible, |len| {
                self.objects.malloc(&at_once, len)
            })
        });
        match stored {
            Err(PutError::NoMemory { bytes, .. }) if gfp.may_sleep().is_some() && gfp.retries() => {
                let handle = self
                    .objects
                    .malloc(gfp, bytes)
                    .map_err(|why| PutError::NoMemory { bytes, why })?;
                // The stream has been used meanwhile. The same page becomes the same bytes.
                self.with_stream(|stream| {
                    self.attempt(stream, page, incompressible, |_| Ok(handle))
                })
            }
            stored => stored,
        }
    }

    fn attempt(
        &self,
        stream: &mut Stream<C::Work>,
        page: &Page,
        incompressible: Incompressible,
        allocate: impl FnOnce(usize) -> Result<Handle, MallocError>,
    ) -> Result<Stored, PutError> {
        let len = self
            .compressor
            .compress(&mut stream.work, page, &mut stream.room)
            .filter(|len| *len < self.worth_it);
        let (bytes, len) = match (len, incompressible) {
            (Some(len), _) => (&stream.room[..len], len),
            (None, Incompressible::StoreRaw) => (&page[..], PAGE),
            (None, Incompressible::Refuse) => {
                let worth_it = self.worth_it;
                return Err(PutError::Incompressible { worth_it });
            }
        };
        let handle = allocate(len).map_err(|why| PutError::NoMemory { bytes: len, why })?;
        let written = self.within_limit().and_then(|()| {
            let written = self.objects.write(&handle, bytes);
            written.map_err(PutError::Unreachable)
        });
        if let Err(error) = written {
            self.free(handle);
            return Err(error);
        }
        Ok(match u16::try_from(len) {
            Ok(len) if usize::from(len) < PAGE => Stored::Compressed { handle, len },
            _ => Stored::Raw(handle),
        })
    }

    /// Whether the memory taken now may stay taken.
    fn within_limit(&self) -> Result<(), PutError> {
        let used = self.used().get();
        self.counters.used_max.fetch_max(used, Ordering::Relaxed);
        let limit = self.counters.limit.load(Ordering::Relaxed);
        if limit == 0 || used <= limit {
            return Ok(());
        }
        Err(PutError::OverLimit {
            used: ByteLen::new(used),
            limit: ByteLen::new(limit),
        })
    }

    /// Makes a stored page whole again. It stays in the store.
    ///
    /// # Errors
    ///
    /// See [`LoadError`]; what is in `page` then is unspecified.
    pub fn load(
        &self,
        ctx: &MaySleep,
        stored: &Stored,
        access: Access,
        page: &mut Page,
    ) -> Result<(), LoadError> {
        match stored {
            Stored::Filled(word) => {
                fill(page, *word);
                Ok(())
            }
            Stored::Compressed { handle, .. } => {
                let decompress = |bytes: &[u8]| self.compressor.decompress(bytes, page);
                Ok(self.with_bytes(ctx, handle, access, decompress)??)
            }
            Stored::Raw(handle) => {
                // Never shorter than it was written.
                let copy = |bytes: &[u8]| page.copy_from_slice(bytes);
                Ok(self.with_bytes(ctx, handle, access, copy)?)
            }
        }
    }

    /// Shows `look` the bytes of an object of the store, as they are in memory.
    ///
    /// # Errors
    ///
    /// The object is another store's, or cannot be reached; `look` has not been called.
    pub fn with_bytes<R>(
        &self,
        ctx: &MaySleep,
        handle: &Handle,
        access: Access,
        look: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, AccessError> {
        let counters = &self.counters;
        if access == Access::Segments {
            return self.objects.segments(handle, |first, second| {
                if second.is_empty() {
                    counters.in_place.fetch_add(1, Ordering::Relaxed);
                    return look(first);
                }
                counters.copied.fetch_add(1, Ordering::Relaxed);
                self.with_stream(|stream| look(join(&mut stream.room, first, second)))
            });
        }
        // With no room for a copy only what lies within a frame is shown.
        let mut look = Some(look);
        let shown = self
            .objects
            .with_copy(handle, &mut [], |bytes| look.take().map(|look| look(bytes)));
        let mut look = match (shown, look) {
            (Ok(Some(seen)), _) => {
                counters.in_place.fetch_add(1, Ordering::Relaxed);
                return Ok(seen);
            }
            (Err(AccessError::LocalTooShort { .. }), Some(look)) => look,
            (Err(error), _) => return Err(error),
            (Ok(None), _) => unreachable!("it is called once, or there is an error"),
        };
        if access == Access::Mapped {
            match self.windows.show(ctx, &self.objects, handle, look) {
                Ok(seen) => {
                    counters.mapped.fetch_add(1, Ordering::Relaxed);
                    return Ok(seen);
                }
                Err(back) => look = back,
            }
        }
        counters.copied.fetch_add(1, Ordering::Relaxed);
        self.with_stream(|stream| self.objects.with_copy(handle, &mut stream.room, look))
    }

    /// Takes a page out. One of another store is in that one for good: there it should have been taken out.
    pub fn remove(&self, stored: Stored) {
        if let Stored::Compressed { handle, .. } | Stored::Raw(handle) = &stored
            && self.objects.size_of(handle).is_err()
        {
            return;
        }
        self.count_out(&stored);
        match stored {
            Stored::Filled(_) => {}
            Stored::Compressed { handle, .. } | Stored::Raw(handle) => self.free(handle),
        }
    }

    /// Refused are objects with a mapping that can never be taken away: those stay for good.
    fn free(&self, handle: Handle) {
        drop(self.objects.free(handle));
    }

    /// Moves objects together, and says how many frames that has freed.
    pub fn compact(&self) -> u64 {
        let freed = self.objects.compact();
        self.counters.compacted.fetch_add(freed, Ordering::Relaxed);
        freed
    }

    /// What is in it now. Counted one by one: while others put pages in and take them out, the numbers are of slightly different moments.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let counters = &self.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreStats {
            pages: get(&counters.pages),
            compressed: ByteLen::new(get(&counters.compressed)),
            filled: get(&counters.filled),
            raw: get(&counters.raw),
            raw_since: get(&counters.raw_since),
            used: self.used(),
            used_max: ByteLen::new(get(&counters.used_max)),
            limit: ByteLen::new(get(&counters.limit)),
            compacted: get(&counters.compacted),
            reads: Reads {
                in_place: get(&counters.in_place),
                mapped: get(&counters.mapped),
                copied: get(&counters.copied),
            },
        }
    }

    /// The most that was ever taken is what is taken now (`mem_used_max` of zram).
    pub fn forget_used_max(&self) {
        let used = self.used().get();
        self.counters.used_max.store(used, Ordering::Relaxed);
    }

    /// Forgets what was, and the limit. What is in the store stays counted.
    pub fn reset_stats(&self) {
        self.set_limit(ByteLen::ZERO);
        self.forget_used_max();
        let counters = &self.counters;
        let raw = counters.raw.load(Ordering::Relaxed);
        counters.raw_since.store(raw, Ordering::Relaxed);
        let others = [&counters.compacted, &counters.in_place];
        for counter in others
            .into_iter()
            .chain([&counters.mapped, &counters.copied])
        {
            counter.store(0, Ordering::Relaxed);
        }
    }

    fn count_in(&self, stored: &Stored) {
        let counters = &self.counters;
        counters.pages.fetch_add(1, Ordering::Relaxed);
        let bytes = stored.compressed().get();
        counters.compressed.fetch_add(bytes, Ordering::Relaxed);
        match stored {
            Stored::Filled(_) => {
                counters.filled.fetch_add(1, Ordering::Relaxed);
            }
            Stored::Compressed { .. } => {}
            Stored::Raw(_) => {
                counters.raw.fetch_add(1, Ordering::Relaxed);
                counters.raw_since.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn count_out(&self, stored: &Stored) {
        let counters = &self.counters;
        counters.pages.fetch_sub(1, Ordering::Relaxed);
        let bytes = stored.compressed().get();
        counters.compressed.fetch_sub(bytes, Ordering::Relaxed);
        match stored {
            Stored::Filled(_) => counters.filled.fetch_sub(1, Ordering::Relaxed),
            Stored::Compressed { .. } => return,
            Stored::Raw(_) => counters.raw.fetch_sub(1, Ordering::Relaxed),
        };
    }

    /// Works with what this CPU keeps for it. Whoever finds that in use takes another CPU's, or makes his own for the time: he may not
    /// be one to wait, or may have it in use himself.
    fn with_stream<R>(&self, f: impl FnOnce(&mut Stream<C::Work>) -> R) -> R {
        let cpu = usize::from(self.objects.source().memory().current().get()) % self.streams.len();
        let (before, from) = self.streams.split_at(cpu);
        let new = || {
            Box::new(Stream {
                work: self.compressor.work(),
                room: [0; 2 * PAGE],
            })
        };
        match from.iter().chain(before).find_map(Mutex::try_lock) {
            Some(mut stream) => f(stream.get_or_insert_with(new)),
            None => f(&mut new()),
        }
    }
}

/// Two pieces of an object in one.
fn join<'r>(room: &'r mut Room, first: &[u8], second: &[u8]) -> &'r [u8] {
    // Together they are at most a page.
    let (head, rest) = room.split_at_mut(first.len());
    head.copy_from_slice(first);
    rest[..second.len()].copy_from_slice(second);
    &room[..first.len() + second.len()]
}

impl<F: FrameSource, C: Compressor, W: Windows> fmt::Debug for CompressedStore<F, C, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompressedStore")
            .field("compressor", &self.compressor)
            .field("windows", &self.windows)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
