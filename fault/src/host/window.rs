//! A window on the host: a mapping, its userfaultfd, and its place in the handler's table.
#![expect(unsafe_code, reason = "turns window offsets into addresses")]

use core::marker::PhantomData;
use core::ptr::NonNull;

use crate::context::MaySleep;
use crate::debt::Completion;
use crate::machine::{PopulateError, ReserveError, Table, Translations, UnmapError, Window};
use crate::window::{LEAF_TABLE_SPAN, WindowLen, WindowOffset, WindowRange};

use super::exception::HostWord;
use super::regions::{self, Registration};
use super::sys::{FillError, ForkCanary, Mapping, Userfault, UserfaultFeatures};

/// A reserved range of this process's addresses.
///
/// # Invariants
///
/// `mapping` is one VMA from reservation to drop: no part of it is ever mapped over or protected.
#[derive(Debug)]
pub struct HostWindow {
    // Dropped in this order: out of the handler's table first, the addresses last.
    registration: Option<Registration>,
    uffd: Option<Userfault>,
    /// What absent pages are filled from: zeroes, all one physical page.
    zeroes: Mapping,
    canary: ForkCanary,
    moves: bool,
    frees_leaf_tables: bool,
    mapping: Mapping,
}

/// A host shootdown: complete when [`Window::clear`] returns, since the kernel waits for it.
#[derive(Debug)]
pub struct HostTicket(());

/// Zeroed pages outside any window, to be moved into one.
#[derive(Debug)]
pub struct HostPrefilled(Mapping);

impl HostWindow {
    /// Reserves `len` bytes and registers them.
    pub(super) fn reserve(
        features: UserfaultFeatures,
        len: WindowLen,
        largest: u64,
    ) -> Result<Self, ReserveError> {
        let mapping = Self::map(len)?;
        // Descriptors are small, scattered, and give their memory back page by page.
        let _ = mapping.advise(libc::MADV_NOHUGEPAGE);
        let largest = largest.clamp(4096, len.get()).next_multiple_of(4096);
        let zeroes = Mapping::reserve(largest as usize, 4096, false).map_err(|errno| {
            ReserveError::Resources {
                call: "mmap",
                errno,
            }
        })?;
        let _ = zeroes.advise(libc::MADV_NOHUGEPAGE);
        let uffd = Userfault::register(features, &mapping)?;
        let mut window = Self::finish(mapping, zeroes, Some(uffd))?;
        window.moves = features.moves();
        Ok(window)
    }

    /// A window that is present from end to end before anybody uses it, on huge pages where the
    /// kernel has them: what an eager memmap is. It never faults.
    ///
    /// # Errors
    ///
    /// [`ReserveError::AddressSpace`]; [`ReserveError::Resources`] when there is not enough memory.
    pub fn reserve_populated(len: WindowLen) -> Result<Self, ReserveError> {
        // For the forked children, not for faults: there are none.
        super::signal::install()?;
        let mapping = Self::map(len)?;
        // Without transparent huge pages it is populated by small ones.
        let _ = mapping.advise(libc::MADV_HUGEPAGE);
        mapping
            .advise(libc::MADV_POPULATE_WRITE)
            .map_err(|errno| ReserveError::Resources {
                call: "MADV_POPULATE_WRITE",
                errno,
            })?;
        let zeroes =
            Mapping::reserve(4096, 4096, false).map_err(|errno| ReserveError::Resources {
                call: "mmap",
                errno,
            })?;
        Self::finish(mapping, zeroes, None)
    }

    fn map(len: WindowLen) -> Result<Mapping, ReserveError> {
        let out_of_space = ReserveError::AddressSpace { asked: len.get() };
        let bytes = usize::try_from(len.get()).map_err(|_| out_of_space)?;
        let mapping =
            Mapping::reserve(bytes, LEAF_TABLE_SPAN as usize, true).map_err(|_| out_of_space)?;
        // Terabytes of reservation do not belong into a core dump.
        let _ = mapping.advise(libc::MADV_DONTDUMP);
        mapping
            .advise(libc::MADV_WIPEONFORK)
            .map_err(|errno| ReserveError::Unsupported {
                what: "MADV_WIPEONFORK",
                errno,
            })?;
        Ok(mapping)
    }

    fn finish(
        mapping: Mapping,
        zeroes: Mapping,
        uffd: Option<Userfault>,
    ) -> Result<Self, ReserveError> {
        let canary = ForkCanary::new()?;
        let registration = regions::register(mapping.start(), mapping.end()).ok_or(
            ReserveError::TooManyWindows {
                limit: regions::LIMIT,
            },
        )?;
        Ok(HostWindow {
            registration: Some(registration),
            uffd,
            zeroes,
            canary,
            moves: false,
            frees_leaf_tables: super::sys::frees_leaf_tables(),
            mapping,
        })
    }

    /// Address space taken, in bytes.
    #[must_use]
    pub fn reserved_bytes(&self) -> u64 {
        self.mapping.len() as u64
    }

    fn address(&self, at: WindowOffset) -> u64 {
        self.mapping.start() + at.get()
    }

    fn checked(&self, range: WindowRange) -> Result<&Userfault, PopulateError> {
        let refused = |errno| PopulateError {
            start: range.start().get(),
            asked: range.len(),
            done: 0,
            errno,
        };
        if self.is_foreign() {
            return Err(refused(libc::ESRCH));
        }
        if range.end().get() > self.mapping.len() as u64 || range.len() > self.zeroes.len() as u64 {
            return Err(refused(libc::EFAULT));
        }
        self.uffd.as_ref().ok_or(refused(libc::EEXIST))
    }
}

/// Evenly spaced words of a host window.
///
/// # Invariants
///
/// `base` is where a window begins that outlives `'w` and is at least `STRIDE * count` bytes long;
/// `STRIDE` is a positive multiple of 4.
#[derive(Debug, Clone, Copy)]
pub struct HostTable<'w, const STRIDE: u64> {
    base: NonNull<u8>,
    count: u64,
    _window: PhantomData<&'w HostWindow>,
}

// SAFETY: addresses of the process, not of a thread; they only make `HostWord`s, which are `Send`.
unsafe impl<const STRIDE: u64> Send for HostTable<'_, STRIDE> {}
// SAFETY: as above, and all methods take it by value.
unsafe impl<const STRIDE: u64> Sync for HostTable<'_, STRIDE> {}

impl<'w, const STRIDE: u64> Table for HostTable<'w, STRIDE> {
    type Word = HostWord<'w>;

    #[inline]
    fn nth(self, index: u64) -> Option<HostWord<'w>> {
        if index >= self.count {
            return None;
        }
        // SAFETY: `index < count`, so by the invariant the sum stays inside the window, without overflow;
        // it is 4-byte aligned because base and STRIDE are. The word borrows the window.
        Some(unsafe { HostWord::new(self.base.add((index * STRIDE) as usize).cast()) })
    }
}

fn populate_error(range: WindowRange, error: FillError) -> PopulateError {
    PopulateError {
        start: range.start().get(),
        asked: range.len(),
        done: error.done,
        errno: error.errno,
    }
}

impl Translations for HostWindow {
    type Ticket = HostTicket;

    fn wait(&self, _ticket: &HostTicket, _ctx: &MaySleep) -> Result<Completion, UnmapError> {
        Ok(Completion::WalkQuiescent)
    }
}

impl Window for HostWindow {
    type Word<'w> = HostWord<'w>;
    type Table<'w, const STRIDE: u64> = HostTable<'w, STRIDE>;
    type Prefilled = HostPrefilled;

    #[inline]
    fn table<const STRIDE: u64>(&self, count: u64) -> Option<HostTable<'_, STRIDE>> {
        let bytes = STRIDE.checked_mul(count)?;
        if bytes > self.mapping.len() as u64 || !STRIDE.is_multiple_of(4) || STRIDE == 0 {
            return None;
        }
        Some(HostTable {
            base: self.mapping.base(),
            count,
            _window: PhantomData,
        })
    }

    #[inline]
    fn word(&self, at: WindowOffset) -> Option<HostWord<'_>> {
        let offset = at.get();
        if offset >= self.mapping.len() as u64 || !offset.is_multiple_of(4) {
            return None;
        }
        // SAFETY: `offset` is below the mapping's length, so the sum stays inside it (one allocation);
        // it is 4-byte aligned because base and offset are, and the length is a multiple of 4. The word
        // borrows the window, which keeps the mapping.
        Some(unsafe { HostWord::new(self.mapping.base().add(offset as usize).cast()) })
    }

    fn populate(&self, range: WindowRange, _ctx: &MaySleep) -> Result<(), PopulateError> {
        self.checked(range)?
            .copy(self.address(range.start()), &self.zeroes, range.len())
            .map_err(|error| populate_error(range, error))
    }

    fn prefill(&self, bytes: u64, _ctx: &MaySleep) -> Result<HostPrefilled, PopulateError> {
        let refused = |errno| PopulateError {
            start: 0,
            asked: bytes,
            done: 0,
            errno,
        };
        let pages = Mapping::reserve(bytes as usize, 4096, true).map_err(refused)?;
        let _ = pages.advise(libc::MADV_NOHUGEPAGE);
        // Pages shared with a child could not be moved. Wiped and not left out: what a child drops must
        // still be its own.
        pages.advise(libc::MADV_WIPEONFORK).map_err(refused)?;
        pages.advise(libc::MADV_POPULATE_WRITE).map_err(refused)?;
        Ok(HostPrefilled(pages))
    }

    fn populate_from(
        &self,
        range: WindowRange,
        prefilled: HostPrefilled,
    ) -> Result<(), PopulateError> {
        let uffd = self.checked(range)?;
        let at = self.address(range.start());
        if range.len() > prefilled.0.len() as u64 {
            return Err(populate_error(
                range,
                FillError {
                    done: 0,
                    errno: libc::EINVAL,
                },
            ));
        }
        let moved = if self.moves {
            uffd.take(at, &prefilled.0, range.len())
        } else {
            // The kernel allocates, but from what giving the prefilled pages back will leave it.
            uffd.copy(at, &self.zeroes, range.len())
        };
        moved.map_err(|error| populate_error(range, error))
    }

    fn clear(&self, ranges: &[WindowRange]) -> Result<HostTicket, UnmapError> {
        if self.is_foreign() {
            return Err(UnmapError::Foreign);
        }
        let refused = |errno| UnmapError::Refused {
            bytes: ranges.iter().map(|range| range.len()).sum(),
            errno,
        };
        let len = self.mapping.len() as u64;
        if ranges.iter().any(|range| range.end().get() > len) {
            return Err(refused(libc::EFAULT));
        }
        // SAFETY: window memory is only reached through words, whose contract is that the one who
        // unmaps a range has made sure that nobody refers into it; nothing else is ever kept there. The
        // ranges lie in the mapping, as just checked.
        unsafe { self.mapping.discard(ranges) }
            .map(|()| HostTicket(()))
            .map_err(refused)
    }

    fn frees_leaf_tables(&self) -> bool {
        self.frees_leaf_tables
    }

    fn is_foreign(&self) -> bool {
        self.canary.is_child()
    }

    fn relax(&self, turn: u32) {
        super::thread::relax(turn);
    }
}

impl Drop for HostWindow {
    fn drop(&mut self) {
        // Before the addresses can belong to anybody else.
        self.registration.take();
    }
}
