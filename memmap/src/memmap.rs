//! The memmap: attaching it, looking a descriptor up, giving it back.

use alloc::vec::Vec;
use core::fmt;

use pageless_fault::mutant::Mutant;
use pageless_fault::sync::Mutex;
use pageless_fault::{
    LEAF_TABLE_BYTES, LEAF_TABLE_SPAN, Machine, MaySleep, PopulateError, ReserveError, Table,
    UnmapError, Window,
};
use pageless_pfn::{PagedPfn, Pfn, PfnRange};

use crate::budget::{Budget, BudgetError};
use crate::counters::Counters;
use crate::directory::{ChunkInfo, Directory, Reader, Seen};
use crate::fill::FILL_AHEAD_MOST;
use crate::geometry::{ChunkIndex, ChunkSize, DESCRIPTOR_BYTES, Geometry};
use crate::page::{MemmapId, PageRef, Pinned};
use crate::reclaim::ReclaimError;
use crate::refcount::{self, Got, MAX_REFERENCES};

/// How a memmap is attached.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// The unit of population and reclaim.
    pub chunk: ChunkSize,
    /// How much memory descriptors may take.
    pub budget: Budget,
    /// Chunks filled beforehand for [`Memmap::try_get`]. They count against the budget.
    pub reserve_chunks: usize,
    /// How many chunks a fault fills when it continues a walk, that is, when it lies right behind the
    /// chunk that was allocated last: 1 to 16. Above 1 a walk takes fewer faults, and holds chunks that
    /// nobody has asked for yet.
    pub fill_ahead: u64,
}

impl Default for Config {
    /// Chunks of 4 KiB, 64 MiB of budget, no reserve, nothing filled ahead.
    fn default() -> Self {
        let chunk = ChunkSize::default();
        Config {
            chunk,
            budget: Budget::new(64 << 20, chunk).unwrap_or(Budget::unlimited()),
            reserve_chunks: 0,
            fill_ahead: 1,
        }
    }
}

/// Why a memmap could not be attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// There is nothing to describe.
    #[error("the range has no frames")]
    EmptyRange,
    /// The descriptors of so many frames do not fit any address space.
    #[error("the descriptors of {frames} frames overflow the address space")]
    TooManyFrames {
        /// Frames in the range.
        frames: u64,
    },
    /// The budget cannot work.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// The reserve leaves no budget for anything else.
    #[error("a reserve of {reserve} bytes leaves nothing of the budget of {budget} bytes")]
    Reserve {
        /// Bytes of reserve asked for.
        reserve: u64,
        /// The whole budget, in bytes.
        budget: u64,
    },
    /// The machine has no window.
    #[error(transparent)]
    Window(#[from] ReserveError),
    /// The machine has no memory for the reserve.
    #[error(transparent)]
    NoMemory(#[from] PopulateError),
}

/// Why a lookup that may sleep has no reference to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GetError {
    /// The memmap does not cover this pfn.
    #[error("pfn {pfn} is not covered: the memmap describes {count} frames from {first}")]
    NotCovered {
        /// The pfn asked for.
        pfn: Pfn,
        /// The first pfn covered.
        first: Pfn,
        /// How many are.
        count: u64,
    },
    /// The whole budget is referenced: give something back first.
    #[error(
        "the descriptor budget is pinned: {pinned} of {budget} bytes are held by referenced \
         descriptors and their page tables, {needed} more are needed"
    )]
    BudgetPinned {
        /// Bytes of chunks with at least one reference, and of their page tables.
        pinned: u64,
        /// Bytes needed to go on.
        needed: u64,
        /// The budget, in bytes.
        budget: u64,
    },
    /// The machine has no memory.
    #[error(transparent)]
    NoMemory(#[from] PopulateError),
    /// The descriptor has as many references as it can have.
    #[error("pfn {pfn} has {MAX_REFERENCES} references already")]
    Overflow {
        /// The pfn asked for.
        pfn: Pfn,
    },
    /// The memmap is being detached, or has been.
    #[error("the memmap is detached")]
    Detached,
    /// This is a forked child of the process that attached the memmap.
    #[error("the memmap belongs to the parent process")]
    Foreign,
    /// An earlier flush of this descriptor's chunk could not be proved.
    #[error("the chunk of pfn {pfn} is quarantined: its flush was never proved")]
    Quarantined {
        /// The pfn asked for.
        pfn: Pfn,
    },
    /// The books say that the descriptor has memory, the machine says that it has none: somebody else
    /// took it away.
    #[error("the descriptor of pfn {pfn} has lost its memory: something else unmapped the window")]
    Lost {
        /// The pfn asked for.
        pfn: Pfn,
    },
    /// Making room failed in the machine.
    #[error(transparent)]
    Unmap(#[from] UnmapError),
}

/// Why a lookup that must not sleep has no reference to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TryGetError {
    /// It would have to wait or to fill: ask again where sleeping is allowed.
    #[error("the descriptor of pfn {pfn} is not in memory: ask again where sleeping is allowed")]
    WouldBlock {
        /// The pfn asked for.
        pfn: Pfn,
    },
    /// The memmap does not cover this pfn.
    #[error("pfn {pfn} is not covered: the memmap describes {count} frames from {first}")]
    NotCovered {
        /// The pfn asked for.
        pfn: Pfn,
        /// The first pfn covered.
        first: Pfn,
        /// How many are.
        count: u64,
    },
    /// The descriptor has as many references as it can have.
    #[error("pfn {pfn} has {MAX_REFERENCES} references already")]
    Overflow {
        /// The pfn asked for.
        pfn: Pfn,
    },
    /// The memmap is being detached, or has been.
    #[error("the memmap is detached")]
    Detached,
    /// This is a forked child of the process that attached the memmap.
    #[error("the memmap belongs to the parent process")]
    Foreign,
}

/// Whether new chunks may be filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attachment {
    /// They may.
    Attached,
    /// Somebody is detaching: they may not, unless that fails.
    Detaching,
    /// Never again.
    Detached,
}

/// Everything behind the one lock.
pub(crate) struct Books<W: Window> {
    pub(crate) directory: Directory,
    pub(crate) attachment: Attachment,
    /// Whether somebody is reclaiming: there is one reclaimer at a time.
    pub(crate) reclaiming: bool,
    pub(crate) reserve: Vec<W::Prefilled>,
    #[cfg(feature = "std")]
    pub(crate) background: Option<std::thread::Thread>,
}

impl<W: Window> Books<W> {
    /// Wakes the background reclaimer; `false` if there is none.
    pub(crate) fn wake_background(&self) -> bool {
        #[cfg(feature = "std")]
        if let Some(thread) = &self.background {
            thread.unpark();
            return true;
        }
        false
    }
}

/// A memmap over one range of pfns.
///
/// Shared by reference; every method may be called from any thread. See the crate's documentation for
/// the protocol.
pub struct Memmap<W: Window> {
    pub(crate) window: W,
    pub(crate) geometry: Geometry,
    pub(crate) budget: Budget,
    pub(crate) reserve_chunks: usize,
    pub(crate) fill_ahead: u64,
    pub(crate) id: MemmapId,
    reader: Reader,
    pub(crate) books: Mutex<Books<W>>,
}

impl<W: Window> Memmap<W> {
    /// Attaches a memmap to `pfns`. Takes address space only: O(1) in the size of the range, apart
    /// from the reserve that `config` asks for.
    ///
    /// # Errors
    ///
    /// See [`AttachError`].
    pub fn attach<M>(machine: &M, pfns: PfnRange, config: Config) -> Result<Self, AttachError>
    where
        M: Machine<Window = W>,
    {
        if pfns.is_empty() {
            return Err(AttachError::EmptyRange);
        }
        let geometry = Geometry::new(pfns, config.chunk).ok_or(AttachError::TooManyFrames {
            frames: pfns.count().get(),
        })?;
        // The budget may have been made for another chunk size.
        Budget::new(config.budget.bytes(), config.chunk)?;
        let each = config.chunk.bytes() + LEAF_TABLE_BYTES;
        let reserve = (config.reserve_chunks as u64).saturating_mul(each);
        // Also a bound on what is allocated for it: the budget may be unlimited.
        if reserve > 0 && reserve.saturating_add(each) > config.budget.bytes().min(1 << 40) {
            return Err(AttachError::Reserve {
                reserve,
                budget: config.budget.bytes(),
            });
        }
        let fill_ahead = config.fill_ahead.clamp(1, FILL_AHEAD_MOST);
        // A run of chunks shares one leaf table.
        let largest = (fill_ahead * config.chunk.bytes()).min(LEAF_TABLE_SPAN);
        let window = machine.reserve(geometry.window, largest)?;
        let chunks = config.budget.bytes() / config.chunk.bytes();
        let directory = Directory::new(geometry, window.frees_leaf_tables(), chunks);
        let memmap = Memmap {
            window,
            geometry,
            budget: config.budget,
            reserve_chunks: config.reserve_chunks,
            fill_ahead,
            id: MemmapId::next(),
            reader: directory.reader(),
            books: Mutex::new(Books {
                directory,
                attachment: Attachment::Attached,
                reclaiming: false,
                reserve: Vec::with_capacity(config.reserve_chunks),
                #[cfg(feature = "std")]
                background: None,
            }),
        };
        if config.reserve_chunks > 0 {
            memmap.refill_reserve(&MaySleep::claim())?;
        }
        Ok(memmap)
    }

    /// The memmap's lookup, as a value to keep in a loop.
    #[inline]
    #[must_use]
    pub fn lookup(&self) -> Lookup<'_, W> {
        let pfns = self.geometry.pfns;
        let Some(table) = self.window.table::<DESCRIPTOR_BYTES>(pfns.count().get()) else {
            unreachable!("descriptors outside their window")
        };
        Lookup {
            memmap: self,
            first: pfns.start().get(),
            table,
        }
    }

    /// Takes a reference to the descriptor of `pfn`, making it present if need be. A present
    /// descriptor costs one locked instruction, no lock and no epoch. Many lookups in a row are
    /// cheaper through [`lookup`](Self::lookup).
    ///
    /// # Errors
    ///
    /// See [`GetError`].
    #[inline]
    pub fn get(&self, ctx: &MaySleep, pfn: PagedPfn) -> Result<PageRef<'_, W>, GetError> {
        self.lookup().get(ctx, pfn)
    }

    /// Takes a reference if the descriptor is in memory now. Neither sleeps, nor fills, nor allocates:
    /// callable under a spin lock, with interrupts off and in a signal handler. Draws on the reserve,
    /// if there is one; that may change `errno`.
    ///
    /// On the host an absent descriptor is still noticed by a SIGBUS, so a signal handler that looks
    /// descriptors up must not have it blocked.
    ///
    /// # Errors
    ///
    /// See [`TryGetError`].
    #[inline]
    pub fn try_get(&self, pfn: PagedPfn) -> Result<PageRef<'_, W>, TryGetError> {
        self.lookup().try_get(pfn)
    }

    /// [`try_get`](Self::try_get) for a descriptor that is known to be covered.
    pub(crate) fn try_get_index(&self, index: u64) -> Result<PageRef<'_, W>, TryGetError> {
        let Some(word) = self.window.word(self.geometry.offset(index)) else {
            unreachable!("a descriptor outside its window")
        };
        match refcount::get(word) {
            Got::Reference => Ok(PageRef::new(self, word, index)),
            other => self.try_get_slow(index, word, other),
        }
    }

    /// Gives back a reference that [`PageRef::into_pinned`] kept.
    ///
    /// # Panics
    ///
    /// The reference was taken from another memmap.
    #[inline]
    pub fn unpin(&self, pinned: Pinned) {
        assert_eq!(
            pinned.memmap, self.id,
            "a page pinned through another memmap"
        );
        drop(self.assume_reference(pinned.index));
    }

    /// Takes a reference up again whose [`Pinned`] its holder has forgotten, because its own books say that it holds one for `pfn`: an
    /// allocator, say, that pins the descriptors of what it has handed out. `None` if the memmap does not cover `pfn`.
    ///
    /// Dropped, it gives that reference back; to keep it, forget it again. Whoever holds none and says so takes away somebody else's; and
    /// if the descriptor is not even there, the page reference leads nowhere: on the host, using it ends the process (SIGBUS).
    #[inline]
    #[must_use = "dropped, it gives the reference back"]
    pub fn assume_pinned(&self, pfn: Pfn) -> Option<PageRef<'_, W>> {
        let index = self.geometry.pfns.index_of(pfn)?;
        Some(self.assume_reference(index))
    }

    /// A reference that the caller holds already, as a value.
    #[inline]
    pub(crate) fn assume_reference(&self, index: u64) -> PageRef<'_, W> {
        match self.window.word(self.geometry.offset(index)) {
            Some(word) => PageRef::new(self, word, index),
            None => unreachable!("a descriptor outside its window"),
        }
    }

    #[cold]
    fn get_not_covered(&self, pfn: Pfn) -> GetError {
        GetError::NotCovered {
            pfn,
            first: self.geometry.pfns.start(),
            count: self.geometry.pfns.count().get(),
        }
    }

    #[cold]
    fn try_get_not_covered(&self, pfn: Pfn) -> TryGetError {
        TryGetError::NotCovered {
            pfn,
            first: self.geometry.pfns.start(),
            count: self.geometry.pfns.count().get(),
        }
    }

    /// The pfn of a descriptor that is known to be covered.
    pub(crate) fn pfn(&self, index: u64) -> Pfn {
        match self.geometry.pfn(index) {
            Some(pfn) => pfn,
            None => unreachable!("a descriptor outside the memmap"),
        }
    }

    /// The pfns described.
    #[must_use]
    pub fn pfns(&self) -> PfnRange {
        self.geometry.pfns
    }

    /// The unit of population and reclaim.
    #[must_use]
    pub fn chunk_size(&self) -> ChunkSize {
        self.geometry.chunk
    }

    /// The budget.
    #[must_use]
    pub fn budget(&self) -> Budget {
        self.budget
    }

    /// Whether leaf page tables go back to the system with their last chunk. Where they do not, they
    /// are counted but not held against the budget.
    #[must_use]
    pub fn frees_leaf_tables(&self) -> bool {
        self.window.frees_leaf_tables()
    }

    /// What has happened, and what is held now.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.books.lock().directory.counters
    }

    /// Begins new peaks at what is held now.
    pub fn reset_peaks(&self) {
        let mut books = self.books.lock();
        let counters = &mut books.directory.counters;
        counters.descriptor_bytes_peak = 0;
        counters.page_table_bytes_peak = 0;
        counters.used_bytes_peak = 0;
        counters.raise_peaks();
    }

    /// The chunk that holds the descriptor of `pfn`, unless it is absent or not covered. By the time of
    /// the answer it may be otherwise. Not for signal handlers.
    #[must_use]
    pub fn chunk(&self, pfn: Pfn) -> Option<ChunkInfo> {
        let index = self.geometry.pfns.index_of(pfn)?;
        let chunk = self.geometry.chunk_of(index);
        ChunkInfo::new(&self.geometry, chunk, self.look(chunk)?)
    }

    /// What the books say of a chunk, without their lock where there is an epoch instead. Not in a
    /// signal handler.
    pub(crate) fn look(&self, chunk: ChunkIndex) -> Option<Seen> {
        match self.reader.look(chunk) {
            Ok(seen) => seen,
            Err(_) => self.books.lock().directory.look(chunk),
        }
    }

    /// The chunks that have memory, in the order in which reclaim will consider them.
    #[must_use]
    pub fn chunks(&self) -> Vec<ChunkInfo> {
        let books = self.books.lock();
        books
            .directory
            .in_order()
            .map(|(_, _, info)| info)
            .collect()
    }

    /// Checks the books against themselves.
    ///
    /// # Errors
    ///
    /// Names the invariant that does not hold.
    pub fn self_check(&self) -> Result<(), &'static str> {
        self.books.lock().directory.self_check()
    }
}

/// What a lookup needs, by value: where the descriptors are, and whom to ask when one is not there.
pub struct Lookup<'m, W: Window> {
    memmap: &'m Memmap<W>,
    /// The first pfn covered.
    first: u64,
    /// The state words, one for each pfn covered.
    table: W::Table<'m, DESCRIPTOR_BYTES>,
}

impl<'m, W: Window> Lookup<'m, W> {
    /// [`Memmap::get`].
    ///
    /// # Errors
    ///
    /// See [`GetError`].
    #[inline]
    pub fn get(&self, ctx: &MaySleep, pfn: PagedPfn) -> Result<PageRef<'m, W>, GetError> {
        let Some((index, word)) = self.locate(pfn.pfn()) else {
            return Err(self.memmap.get_not_covered(pfn.pfn()));
        };
        if Mutant::LruInsteadOfLra.active() {
            let chunk = self.memmap.geometry.chunk_of(index);
            self.memmap.books.lock().directory.renew(chunk);
        }
        match refcount::get(word) {
            Got::Reference => Ok(PageRef::new(self.memmap, word, index)),
            other => self.memmap.get_slow(ctx, index, word, other),
        }
    }

    /// [`Memmap::try_get`].
    ///
    /// # Errors
    ///
    /// See [`TryGetError`].
    #[inline]
    pub fn try_get(&self, pfn: PagedPfn) -> Result<PageRef<'m, W>, TryGetError> {
        let Some((index, word)) = self.locate(pfn.pfn()) else {
            return Err(self.memmap.try_get_not_covered(pfn.pfn()));
        };
        match refcount::get(word) {
            Got::Reference => Ok(PageRef::new(self.memmap, word, index)),
            other => self.memmap.try_get_slow(index, word, other),
        }
    }

    #[inline]
    fn locate(&self, pfn: Pfn) -> Option<(u64, W::Word<'m>)> {
        // One comparison for both ends, inside the table: a pfn before the first one wraps to an index
        // beyond any count.
        let index = pfn.get().wrapping_sub(self.first);
        Some((index, self.table.nth(index)?))
    }
}

impl<W: Window> Clone for Lookup<'_, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<W: Window> Copy for Lookup<'_, W> {}

impl<W: Window> fmt::Debug for Lookup<'_, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lookup").field(self.memmap).finish()
    }
}

impl<W: Window> fmt::Debug for Memmap<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memmap")
            .field("pfns", &self.geometry.pfns)
            .field("chunk", &self.geometry.chunk)
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}

impl From<ReclaimError> for GetError {
    fn from(error: ReclaimError) -> Self {
        match error {
            ReclaimError::Pinned {
                pinned,
                needed,
                budget,
            } => GetError::BudgetPinned {
                pinned,
                needed,
                budget,
            },
            ReclaimError::Unmap(error) => GetError::Unmap(error),
        }
    }
}
