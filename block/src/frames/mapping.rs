//! Mappings of the host's address space: every `mmap` of the crate is here.
#![expect(unsafe_code, reason = "mapping memory")]

use core::num::NonZeroUsize;
use core::ptr::{self, NonNull};
use std::os::fd::AsFd;

use pageless_pfn::ByteLen;
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use thiserror::Error;

use crate::copy::Span;

/// Address space with readable and writable memory behind it.
///
/// # Invariants
/// `base..base + len` is ours from construction to drop: nothing else in the process is mapped
/// there. No Rust reference to any of it is ever made.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: NonZeroUsize,
}

// SAFETY: a mapping belongs to the process and not to a thread; it is unmapped where it is
// dropped, whichever thread that is.
unsafe impl Send for Mapping {}
// SAFETY: through a shared reference bytes are only copied, by `Span`, which makes no references
// and expects others to touch them at the same time.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Zeroed memory that takes room only where it is touched.
    pub(crate) fn anonymous(len: ByteLen) -> Result<Self, MapError> {
        let size = size_of_mapping(len)?;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // Miri knows only the plain kind.
        let flags = if cfg!(miri) {
            MapFlags::PRIVATE
        } else {
            MapFlags::PRIVATE | MapFlags::NORESERVE
        };
        // SAFETY: without MAP_FIXED the kernel picks a place where nothing is mapped.
        let base = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), size.get(), prot, flags) };
        Self::mapped(base, size)
    }

    /// `len` bytes of a file from `offset` on, shared with it. They must all lie within the file:
    /// touching memory beyond its end raises SIGBUS. `offset` is a multiple of the page size.
    pub(crate) fn shared(file: impl AsFd, offset: u64, len: ByteLen) -> Result<Self, MapError> {
        let size = size_of_mapping(len)?;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        let place = ptr::null_mut();
        // SAFETY: without MAP_FIXED the kernel picks a place where nothing is mapped.
        let base = unsafe { rustix::mm::mmap(place, size.get(), prot, flags, file, offset) };
        Self::mapped(base, size)
    }

    fn mapped(
        base: Result<*mut core::ffi::c_void, Errno>,
        len: NonZeroUsize,
    ) -> Result<Self, MapError> {
        let bytes = ByteLen::new(len.get() as u64);
        match base.map(|base| NonNull::new(base.cast::<u8>())) {
            Ok(Some(base)) => Ok(Self { base, len }),
            Ok(None) => Err(MapError::AddressSpace { bytes }),
            Err(Errno::NOMEM) => Err(MapError::AddressSpace { bytes }),
            Err(errno) => Err(MapError::Os {
                bytes,
                errno: errno.raw_os_error(),
            }),
        }
    }

    /// `len` bytes from `offset` on, or `None` unless they all lie within.
    #[inline]
    pub(crate) fn span(&self, offset: u64, len: u64) -> Option<Span<'_>> {
        let whole = self.len.get() as u64;
        if len > whole || offset > whole - len {
            return None;
        }
        // SAFETY: `offset` lies within the mapping, which is readable and writable memory and
        // stays so as long as `self` is borrowed; by the invariant there are no references to it.
        Some(unsafe {
            Span::from_raw(
                self.base.as_ptr().wrapping_add(offset as usize),
                len as usize,
            )
        })
    }

    /// Makes a part present and writable, so that touching it later does not fault.
    pub(crate) fn populate(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let whole = self.len.get() as u64;
        if len > whole || offset > whole - len {
            return Err(Errno::INVAL);
        }
        let start = self.base.as_ptr().wrapping_add(offset as usize).cast();
        // SAFETY: the range lies within the mapping; populating changes no contents.
        unsafe { rustix::mm::madvise(start, len as usize, Advice::LinuxPopulateWrite) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and its spans borrowed it, so none is left.
        let result = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len.get()) };
        debug_assert!(result.is_ok(), "munmap of our own mapping: {result:?}");
    }
}

fn size_of_mapping(len: ByteLen) -> Result<NonZeroUsize, MapError> {
    usize::try_from(len.get())
        .ok()
        .and_then(NonZeroUsize::new)
        .ok_or(MapError::AddressSpace { bytes: len })
}

/// Why memory cannot be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MapError {
    /// The process has no room for a mapping of that size: make the device smaller, lift a limit
    /// on address space (`ulimit -v`), or allow overcommitment.
    #[error(
        "no address space for a mapping of {bytes}: a limit (ulimit -v, vm.overcommit_memory=2) \
         or the processor's 47 bits stand in the way"
    )]
    AddressSpace {
        /// How many bytes.
        bytes: ByteLen,
    },
    /// The system refused for another reason.
    #[error("mapping {bytes} failed: {}", std::io::Error::from_raw_os_error(*errno))]
    Os {
        /// How many bytes.
        bytes: ByteLen,
        /// The system's error number.
        errno: i32,
    },
}
