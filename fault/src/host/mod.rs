//! The host machine: this process's own MMU.
//!
//! A window is one private anonymous mapping, reserved without memory and registered with a
//! userfaultfd that answers a missing page with SIGBUS in the thread that touched it. The signal
//! handler does three things and no more: it asks `regions` whether the address lies in one of
//! our windows, asks `exception` whether the instruction is one that may fault, and resumes it at
//! its fix-up with the reason in `rax`. Everything else, and every fault that is not ours, goes to
//! whoever owned the signal before (`signal`).
//!
//! Filling is `UFFDIO_COPY` of zeroes (not `UFFDIO_ZEROPAGE`, whose shared page would fault a
//! second time at the first write). Unmapping is one `process_madvise(MADV_DONTNEED_LOCKED)` over all
//! ranges of a batch: the kernel clears the entries, sends its shootdown, waits for every CPU and
//! frees the frames before it returns, so a host ticket is born
//! [`WalkQuiescent`](crate::Completion::WalkQuiescent).
//!
//! A [`HostVspace`] is different: a reservation over which stretches of files are mapped, one mapping of the kernel's for each stretch of
//! frames (65 530 at most in a process, `vm.max_map_count`). It needs no userfaultfd. Its guard pages are the reservation itself.
//!
//! # Limits
//!
//! * Threads must not block SIGBUS: the kernel kills a process that faults with it blocked.
//! * Whoever replaces the SIGBUS handler after the first window was reserved must call the old one.
//! * A forked child cannot use its parent's windows: in a child made by the C library's `fork` every
//!   access answers [`FaultReason::NotMapped`](crate::FaultReason::NotMapped); in one made by a raw
//!   `clone` it sees private zeroes. The parent is untouched either way.
//! * Leaf page tables are given back by Linux 6.14 and later only
//!   ([`Window::frees_leaf_tables`](crate::Window::frees_leaf_tables)).

mod exception;
mod frames;
mod regions;
mod signal;
mod sys;
mod thread;
mod vspace;
mod window;

pub use exception::HostWord;
pub use frames::{BackingError, HostFrames, HostRam};
pub use vspace::{HostVspace, HostVspaceTicket};
pub use window::{HostPrefilled, HostTable, HostTicket, HostWindow};

use crate::machine::{Machine, ReserveError};
use crate::window::WindowLen;

/// This process's MMU.
///
/// ```
/// use pageless_fault::host::HostMachine;
/// use pageless_fault::{
///     FaultReason, Machine, MaySleep, Window, WindowLen, WindowOffset, WindowRange, Word,
/// };
///
/// let ctx = MaySleep::claim();
/// let window = HostMachine::new()?.reserve(WindowLen::covering(1 << 40).unwrap(), 4096)?;
/// let word = window.word(WindowOffset::new(1 << 39)).unwrap();
/// assert_eq!(word.fetch_add(1).get(), Err(FaultReason::NotPresent));
///
/// let page = WindowRange::try_new(WindowOffset::new(1 << 39), 4096).unwrap();
/// window.populate(page, &ctx)?;
/// assert_eq!(word.fetch_add(1).get(), Ok(0));
///
/// let debt = window.unmap(&[page], "what depends on it").map_err(|(_, error)| error)?;
/// assert_eq!(debt.settle(&ctx).map_err(|(_, error)| error)?.into_inner(), "what depends on it");
/// assert_eq!(word.fetch_add(1).get(), Err(FaultReason::NotPresent));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct HostMachine {
    userfaults: sys::UserfaultFeatures,
}

impl HostMachine {
    /// Asks the kernel what it can do, and takes over SIGBUS and SIGSEGV (once for each process).
    ///
    /// # Errors
    ///
    /// [`ReserveError::NotPermitted`], [`ReserveError::Unsupported`] or [`ReserveError::Resources`].
    pub fn new() -> Result<Self, ReserveError> {
        let userfaults = sys::UserfaultFeatures::probe()?;
        signal::install()?;
        Ok(HostMachine { userfaults })
    }
}

impl Machine for HostMachine {
    type Window = HostWindow;

    fn reserve(&self, len: WindowLen, largest: u64) -> Result<HostWindow, ReserveError> {
        HostWindow::reserve(self.userfaults, len, largest)
    }
}
