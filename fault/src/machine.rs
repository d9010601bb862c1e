//! What a core needs from a machine, and nothing more.

use core::sync::atomic::Ordering;

use crate::access::Fetched;
use crate::context::MaySleep;
use crate::debt::{Completion, FlushDebt};
use crate::shootdown::CpuId;
use crate::vspace::VirtAddr;
use crate::window::{WindowLen, WindowOffset, WindowRange};

/// Something that translates addresses.
pub trait Machine {
    /// What [`reserve`](Machine::reserve) gives out.
    type Window: Window;

    /// Reserves a window of `len` bytes: address space without memory. O(1) in `len`.
    /// `largest` is the largest range that will ever be populated at once.
    ///
    /// # Errors
    ///
    /// See [`ReserveError`]: each says what to do about it.
    fn reserve(&self, len: WindowLen, largest: u64) -> Result<Self::Window, ReserveError>;
}

/// Addresses whose translations can be taken away, with a proof that no CPU can still use them.
pub trait Translations {
    /// What identifies a shootdown under way.
    type Ticket;

    /// Waits for the shootdown of `ticket` and says how far it has come.
    ///
    /// # Errors
    ///
    /// See [`UnmapError`].
    fn wait(&self, ticket: &Self::Ticket, ctx: &MaySleep) -> Result<Completion, UnmapError>;
}

/// A reserved range of addresses, parts of which have memory.
///
/// Dropping a window gives the address space back; its owner sees to it that no [`Word`] of it
/// is in use (they borrow the window).
pub trait Window: Translations + Send + Sync {
    /// A word of this window.
    type Word<'w>: Word
    where
        Self: 'w;
    /// Words of this window `STRIDE` bytes apart, by value.
    type Table<'w, const STRIDE: u64>: Table<Word = Self::Word<'w>>
    where
        Self: 'w;
    /// Zeroed memory set aside for [`populate_from`](Window::populate_from).
    type Prefilled: Send;

    /// `count` words, `STRIDE` bytes apart, beginning with the first of the window. `None` unless they
    /// lie in the window and `STRIDE` is a multiple of 4.
    fn table<const STRIDE: u64>(&self, count: u64) -> Option<Self::Table<'_, STRIDE>>;

    /// The word at `at`; `None` if it does not lie in the window or is not 4-byte aligned.
    fn word(&self, at: WindowOffset) -> Option<Self::Word<'_>>;

    /// Makes `range` present and zero. The caller sees to it that it is absent and that nobody
    /// else populates or unmaps it meanwhile. Establishing translations needs no shootdown.
    ///
    /// # Errors
    ///
    /// `done` in the error says how many bytes from the start became present all the same.
    fn populate(&self, range: WindowRange, ctx: &MaySleep) -> Result<(), PopulateError>;

    /// Sets `bytes` of zeroed memory aside, so that an atomic context can use it.
    ///
    /// # Errors
    ///
    /// As [`populate`](Window::populate).
    fn prefill(&self, bytes: u64, ctx: &MaySleep) -> Result<Self::Prefilled, PopulateError>;

    /// [`populate`](Window::populate) out of memory set aside before: allocates nothing and does
    /// not wait for memory.
    ///
    /// # Errors
    ///
    /// As [`populate`](Window::populate); the memory set aside is gone either way.
    fn populate_from(
        &self,
        range: WindowRange,
        prefilled: Self::Prefilled,
    ) -> Result<(), PopulateError>;

    /// Clears the translations of all `ranges` and begins their shootdown: one for the whole batch.
    ///
    /// # Errors
    ///
    /// See [`UnmapError`]. Translations of an unknown part of the ranges may be gone.
    fn clear(&self, ranges: &[WindowRange]) -> Result<Self::Ticket, UnmapError>;

    /// [`clear`](Window::clear), with what depends on it locked into the debt.
    ///
    /// # Errors
    ///
    /// `owned` comes back, but the ranges must be treated as still mapped *and* as already gone.
    fn unmap<T>(
        &self,
        ranges: &[WindowRange],
        owned: T,
    ) -> Result<FlushDebt<'_, Self, T>, (T, UnmapError)>
    where
        Self: Sized,
    {
        match self.clear(ranges) {
            Ok(ticket) => Ok(FlushDebt::new(self, ticket, owned)),
            Err(error) => Err((owned, error)),
        }
    }

    /// Whether clearing a whole empty [`LEAF_TABLE_SPAN`](crate::LEAF_TABLE_SPAN) gives the memory
    /// of its leaf table back.
    fn frees_leaf_tables(&self) -> bool;

    /// Whether this process is not the one that reserved the window (a forked child).
    fn is_foreign(&self) -> bool;

    /// One turn of waiting for another thread; `turn` counts from 0. Serves own shootdowns.
    fn relax(&self, turn: u32);
}

/// Evenly spaced words, as a value that a loop can keep in registers. A locked instruction holds up
/// every load behind it, so a lookup that has to load the window's address first waits for the last one
/// to finish; and there is one bounds check, not two.
pub trait Table: Copy {
    /// A place for a 32-bit atomic.
    type Word: Word;

    /// The `index`-th word; `None` if there are not so many.
    fn nth(self, index: u64) -> Option<Self::Word>;
}

/// A 32-bit atomic in a window.
///
/// [`fetch_add`](Word::fetch_add) is the one access that may be made without knowing that memory is
/// there. All others are for whoever holds the range present (by a reference, or by being the one who
/// unmaps it); made without that, they are a bug and end like one.
pub trait Word: Copy {
    /// Adds `n` and returns the old value, with Acquire, in one instruction; or has no effect.
    fn fetch_add(self, n: u32) -> Fetched;

    /// Subtracts 1 with Release. Without effect in a process that does not have the window.
    fn release(self);

    /// Replaces `current` by `new`: Acquire and Release on success, Relaxed on failure.
    ///
    /// # Errors
    ///
    /// The value found, if it is not `current`.
    fn compare_exchange(self, current: u32, new: u32) -> Result<u32, u32>;

    /// Replaces whatever is there by `new`, with Release, in one step with respect to
    /// [`fetch_add`](Word::fetch_add).
    fn exchange(self, new: u32) -> u32;

    /// Reads.
    ///
    /// # Panics
    ///
    /// `order` is `Release` or `AcqRel`.
    fn load(self, order: Ordering) -> u32;

    /// Writes.
    ///
    /// # Panics
    ///
    /// `order` is `Acquire` or `AcqRel`.
    fn store(self, value: u32, order: Ordering);
}

/// Why there is no window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReserveError {
    /// The address space has no hole of that size, or a limit forbids it.
    #[error(
        "no room for a window of {asked} bytes in the address space: use a smaller device, raise \
         `ulimit -v`, or, where vm.overcommit_memory is 2, allow overcommit"
    )]
    AddressSpace {
        /// Bytes of window asked for.
        asked: u64,
    },
    /// The process may not use userfaultfd.
    #[error(
        "userfaultfd is not permitted (errno {errno}): allow the system call in the container's \
         seccomp profile, or set vm.unprivileged_userfaultfd=1, or give access to /dev/userfaultfd"
    )]
    NotPermitted {
        /// The kernel's answer.
        errno: i32,
    },
    /// The kernel lacks something the window needs.
    #[error("the kernel lacks {what} (errno {errno}): Linux 5.14 or later on x86-64 is needed")]
    Unsupported {
        /// What is missing.
        what: &'static str,
        /// The kernel's answer.
        errno: i32,
    },
    /// The kernel ran out of memory for its own books, or the process out of file descriptors.
    #[error("no resources for a window (errno {errno} from {call}): close files or free memory")]
    Resources {
        /// The call that failed.
        call: &'static str,
        /// The kernel's answer.
        errno: i32,
    },
    /// All places for windows in this process are taken.
    #[error("{limit} windows are in use: detach one first")]
    TooManyWindows {
        /// How many there may be.
        limit: usize,
    },
}

/// Why a range could not be made present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no memory at {start:#x}: {done} of {asked} bytes are present (errno {errno})")]
pub struct PopulateError {
    /// Window offset, in bytes.
    pub start: u64,
    /// Bytes asked for.
    pub asked: u64,
    /// Bytes, from `start`, that became present.
    pub done: u64,
    /// The machine's answer; on the host the kernel's `errno`.
    pub errno: i32,
}

/// Why translations could not be proved gone. What they covered must not be used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnmapError {
    /// The machine refused.
    #[error("unmapping {bytes} bytes failed (errno {errno})")]
    Refused {
        /// Bytes in the batch.
        bytes: u64,
        /// The machine's answer; on the host the kernel's `errno`.
        errno: i32,
    },
    /// The shootdown did not come far enough.
    #[error("the shootdown stopped at {grade:?}, which does not permit reuse")]
    NotQuiescent {
        /// How far it came.
        grade: Completion,
    },
    /// A local flush proves nothing here: the range was claimed by somebody else, or is not the claimed one.
    #[error("{caller} cannot flush for itself alone what {owner} claimed")]
    NotOwn {
        /// Who claimed a range.
        owner: CpuId,
        /// Who asked.
        caller: CpuId,
    },
    /// It was taken down, or claimed, in another space: a shootdown of this one proves nothing of it.
    #[error("what belongs to the space at {theirs} cannot be shot down in the one at {ours}")]
    OtherSpace {
        /// Where the other space begins.
        theirs: VirtAddr,
        /// Where this one begins.
        ours: VirtAddr,
    },
    /// The process is a forked child of the one that owns the window.
    #[error("the window belongs to the parent process")]
    Foreign,
}
