//! Address space in which any frame can be made to appear at any page: what vmalloc needs from a machine.
//!
//! ```text
//!     map(at, frames)             take_down(range, owned)            shoot_down(batch)        settle
//!   ----------------> translated -----------------------> Unflushed ------------------> debt -------> owned
//!                                  entry gone, nobody told    |        one shootdown
//!                                                             +--- shoot_down_here: by whoever alone could use it
//! ```

use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;

use pageless_pfn::{Pfn, PfnRange};

use crate::cpus::Cpus;
use crate::debt::{FlushDebt, Flushed};
use crate::machine::{Translations, UnmapError};
use crate::shootdown::CpuId;
use crate::window::{WindowLen, WindowOffset, WindowRange};

/// A virtual address. No arithmetic but what is checked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtAddr(u64);

impl VirtAddr {
    /// The address `addr`.
    #[must_use]
    pub const fn new(addr: u64) -> Self {
        VirtAddr(addr)
    }

    /// As a number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// `bytes` further on, unless that overflows.
    #[must_use]
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(sum) => Some(VirtAddr(sum)),
            None => None,
        }
    }

    /// How far behind `base` it is, in bytes, unless it lies before it.
    ///
    /// ```
    /// use pageless_fault::VirtAddr;
    /// assert_eq!(VirtAddr::new(0x5000).checked_offset_from(VirtAddr::new(0x1000)), Some(0x4000));
    /// assert_eq!(VirtAddr::new(0x1000).checked_offset_from(VirtAddr::new(0x5000)), None);
    /// ```
    #[must_use]
    pub const fn checked_offset_from(self, base: Self) -> Option<u64> {
        self.0.checked_sub(base.0)
    }
}

impl fmt::Debug for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VirtAddr({:#x})", self.0)
    }
}

impl fmt::Display for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

/// What may be done with what is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Read.
    Read,
    /// Read and write.
    ReadWrite,
}

/// A reserved range of addresses; which frame is seen at which page is its holder's to say.
///
/// The holder sees to it that two calls never work on the same page at once, and that nothing is mapped where the last
/// translation has not been shot down.
pub trait Vspace: Translations + Cpus + Send + Sync {
    /// How long it is.
    fn len(&self) -> WindowLen;

    /// Whether it has no pages: never.
    fn is_empty(&self) -> bool {
        false
    }

    /// Where it begins.
    fn base(&self) -> VirtAddr;

    /// Makes `frames` appear one behind the other from `at` on. Establishing translations needs no shootdown.
    ///
    /// # Errors
    ///
    /// See [`MapError`]; nothing has been mapped then.
    fn map(
        &self,
        at: WindowOffset,
        frames: PfnRange,
        protection: Protection,
    ) -> Result<(), MapError>;

    /// The frame that the page of `at` shows, by its page-table entry. Never faults.
    fn translate(&self, at: WindowOffset) -> Option<Pfn>;

    /// Takes the entries of `range` out of the page table and tells nobody: a CPU that has one cached goes on using it. Pages
    /// that show nothing are passed over.
    ///
    /// # Errors
    ///
    /// `range` does not lie in the space, or the space belongs to the parent process.
    fn clear(&self, range: WindowRange) -> Result<(), UnmapError>;

    /// Begins one shootdown of `ranges`, which have been cleared.
    ///
    /// # Errors
    ///
    /// See [`UnmapError`].
    fn shoot(&self, ranges: &[WindowRange]) -> Result<Self::Ticket, UnmapError>;

    /// Flushes `range`, which has been cleared, on the calling CPU and on no other. Neither sleeps nor sends anything. (On the host, where
    /// there is no such instruction, the kernel tells all CPUs.)
    ///
    /// # Errors
    ///
    /// See [`UnmapError`].
    fn flush_here(&self, range: WindowRange) -> Result<Flushed<()>, UnmapError>;

    /// Reads through the translations, from `at` on.
    ///
    /// # Errors
    ///
    /// The first page without a translation; what lies before it has been read.
    fn read(&self, at: WindowOffset, into: &mut [u8]) -> Result<(), Untranslated>;

    /// Writes through the translations, from `at` on.
    ///
    /// # Errors
    ///
    /// The first page without a translation, or that is not to be written; what lies before it has been written.
    fn write(&self, at: WindowOffset, from: &[u8]) -> Result<(), Untranslated>;

    /// Shows `len` bytes from `at` on to `look`: the mapping itself where the machine can, what reading through it yields where it
    /// cannot.
    ///
    /// # Errors
    ///
    /// A page without a translation; `look` has not been called.
    ///
    /// # Safety
    ///
    /// Nobody unmaps those pages or writes to those bytes, here or through any other mapping, while `look` runs.
    #[expect(
        unsafe_code,
        reason = "what is shown may be memory that others can write"
    )]
    unsafe fn view<R>(
        &self,
        at: WindowOffset,
        len: usize,
        look: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, Untranslated>;

    /// The address of `at`.
    ///
    /// # Panics
    ///
    /// `at` is not in the space.
    fn address(&self, at: WindowOffset) -> VirtAddr {
        assert!(at.get() <= self.len().get(), "an offset outside its space");
        match self.base().checked_add(at.get()) {
            Some(address) => address,
            None => unreachable!("a space that ends behind the last address"),
        }
    }

    /// Where in the space `address` is; `None` if it is not.
    fn offset_of(&self, address: VirtAddr) -> Option<WindowOffset> {
        let at = address.checked_offset_from(self.base())?;
        (at < self.len().get()).then_some(WindowOffset::new(at))
    }

    /// [`clear`](Self::clear), with what depends on it locked up until it is shot down.
    ///
    /// # Errors
    ///
    /// As [`clear`](Self::clear); `owned` comes back, and `range` is as it was.
    fn take_down<T>(&self, range: WindowRange, owned: T) -> Result<Unflushed<T>, (T, UnmapError)> {
        match self.clear(range) {
            Ok(()) => Ok(self.lock_up(range, owned)),
            Err(error) => Err((owned, error)),
        }
    }

    /// The second half of [`take_down`](Self::take_down), for a range that has been [cleared](Self::clear) before: piece by piece, say, and now
    /// all of it waits for one shootdown. Whoever says so of pages that still show something shoots at nothing.
    fn lock_up<T>(&self, range: WindowRange, owned: T) -> Unflushed<T> {
        Unflushed {
            range,
            space: self.base(),
            owned: ManuallyDrop::new(owned),
        }
    }

    /// One [`shoot`](Self::shoot) for a whole batch of ranges of this space.
    ///
    /// # Errors
    ///
    /// As [`shoot`](Self::shoot), and [`UnmapError::OtherSpace`] if any of it was taken down elsewhere; the batch comes back, with
    /// everything still locked up in it.
    fn shoot_down<T>(
        &self,
        batch: Vec<Unflushed<T>>,
    ) -> Result<BatchDebt<'_, Self, T>, StillLocked<Vec<Unflushed<T>>>>
    where
        Self: Sized,
    {
        let ours = self.base();
        if let Some(other) = batch.iter().find(|one| one.space != ours) {
            let theirs = other.space;
            return Err((batch, UnmapError::OtherSpace { theirs, ours }));
        }
        let ranges: Vec<_> = batch.iter().map(|one| one.range).collect();
        match self.shoot(&ranges) {
            Ok(ticket) => {
                let owned = batch.into_iter().map(Unflushed::into_owned).collect();
                Ok(FlushDebt::new(self, ticket, owned))
            }
            Err(error) => Err((batch, error)),
        }
    }

    /// [`flush_here`](Self::flush_here) of a range that nobody else can have used: its owner says so by `own`.
    ///
    /// # Errors
    ///
    /// As [`flush_here`](Self::flush_here), [`UnmapError::NotOwn`] if `own` does not cover the range or this is not the CPU
    /// that claimed it, and [`UnmapError::OtherSpace`] if either is of another space. `one` comes back with everything still locked up
    /// in it.
    fn shoot_down_here<T>(
        &self,
        own: &OwnRange,
        one: Unflushed<T>,
    ) -> Result<Flushed<T>, StillLocked<Unflushed<T>>> {
        let ours = self.base();
        if let Some(theirs) = [own.space, one.space].into_iter().find(|at| *at != ours) {
            return Err((one, UnmapError::OtherSpace { theirs, ours }));
        }
        let current = self.current();
        if !own.covers(one.range) || own.cpu != current {
            let error = UnmapError::NotOwn {
                owner: own.cpu,
                caller: current,
            };
            return Err((one, error));
        }
        match self.flush_here(one.range) {
            Ok(flushed) => Ok(flushed.map(|()| one.into_owned())),
            Err(error) => Err((one, error)),
        }
    }
}

/// What is no longer in the page table, but that CPUs may still reach: it is locked up until [`Vspace::shoot_down`].
///
/// There is no way to the owned value but a shootdown. Dropped, it leaks what it owns.
#[must_use = "what has been taken down can be used again only after a shootdown"]
pub struct Unflushed<T> {
    range: WindowRange,
    /// Where its space begins.
    space: VirtAddr,
    owned: ManuallyDrop<T>,
}

impl<T> Unflushed<T> {
    /// Where it was seen.
    #[must_use]
    pub fn range(&self) -> WindowRange {
        self.range
    }

    /// From now on it ends at `end`, if that is behind its end and the start of a page. What lies between shows nothing, and is its
    /// owner's: so that what is neighbours but for that becomes one range.
    pub fn reach(&mut self, end: WindowOffset) {
        let start = self.range.start();
        let longer = end.get().checked_sub(start.get());
        if let Some(longer) = longer.and_then(|len| WindowRange::try_new(start, len))
            && longer.len() > self.range.len()
        {
            self.range = longer;
        }
    }

    fn into_owned(self) -> T {
        ManuallyDrop::into_inner(self.owned)
    }
}

impl<T: fmt::Debug> fmt::Debug for Unflushed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unflushed")
            .field("range", &self.range)
            .field("owned", &*self.owned)
            .finish()
    }
}

/// What a whole batch waits for.
pub type BatchDebt<'s, S, T> = FlushDebt<'s, S, Vec<T>>;

/// What could not be shot down, with everything still locked up in it, and why.
pub type StillLocked<B> = (B, UnmapError);

/// A range that one CPU alone uses: no other is ever given an address in it. Neither `Send` nor `Clone`: it stays where it was claimed.
///
/// That is what makes a local flush a proof. A CPU that looked ahead may have the range's translations cached as well, but never uses
/// them.
#[derive(Debug)]
pub struct OwnRange {
    range: WindowRange,
    /// Where its space begins.
    space: VirtAddr,
    cpu: CpuId,
    _not_send: PhantomData<*const ()>,
}

impl OwnRange {
    /// Says that nobody but the calling CPU uses `range` of `space`, and nobody else claims it, while this lives. Whoever says so keeps
    /// the books.
    #[must_use]
    pub fn claim(space: &impl Vspace, range: WindowRange) -> Self {
        OwnRange {
            range,
            space: space.base(),
            cpu: space.current(),
            _not_send: PhantomData,
        }
    }

    /// The range.
    #[must_use]
    pub fn range(&self) -> WindowRange {
        self.range
    }

    fn covers(&self, range: WindowRange) -> bool {
        self.range.start() <= range.start() && range.end() <= self.range.end()
    }
}

/// Why frames could not be mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// The pages are not all in the space, or `at` is not the start of one.
    #[error("{pages} pages at {at:#x} are not pages of a space of {len}")]
    Outside {
        /// Byte offset into the space.
        at: u64,
        /// Pages asked for.
        pages: u64,
        /// How long the space is.
        len: WindowLen,
    },
    /// The machine has no such frame.
    #[error("the machine has no frame {pfn}")]
    NoSuchFrame {
        /// Which one.
        pfn: Pfn,
    },
    /// Something is mapped there.
    #[error("something is mapped at {at:#x} already")]
    Occupied {
        /// Byte offset into the space.
        at: u64,
    },
    /// No memory for page tables, or the kernel's limit of mappings is reached: unmap, purge, and try again.
    #[error(
        "no room for {pages} more mappings (errno {errno}): purge what has been unmapped, or raise vm.max_map_count"
    )]
    NoRoom {
        /// Pages asked for.
        pages: u64,
        /// The machine's answer; on the host the kernel's `errno`.
        errno: i32,
    },
    /// The space belongs to the parent process.
    #[error("the space belongs to the parent process")]
    Foreign,
}

/// An access to a page that shows no frame, or that may not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{} of {at:#x} found no translation", if *.write { "a write" } else { "a read" })]
pub struct Untranslated {
    /// Byte offset into the space.
    pub at: u64,
    /// Whether it was a write.
    pub write: bool,
}
