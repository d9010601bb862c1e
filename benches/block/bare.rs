//! The floor: `memcpy` between two mappings, one of them of the very memory that the device has.

use core::{
    ptr,
    sync::atomic::{AtomicUsize, Ordering},
};
use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd},
    path::PathBuf,
};

/// Bytes of a block.
pub(crate) const BLOCK: usize = 4096;

/// Memory that several mappings share: a memfd, present from end to end.
pub(crate) struct Memory {
    file: File,
    bytes: usize,
}

impl Memory {
    pub(crate) fn new(bytes: usize) -> io::Result<Self> {
        // SAFETY: the name is a C string; the call makes a new descriptor.
        let fd = unsafe { libc::memfd_create(c"bare".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, and owned by nobody else.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(bytes as u64)?;
        Ok(Self { file, bytes })
    }

    /// A path under which this process can open it again.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }
}

/// What else is done for each copy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Besides {
    /// Nothing.
    Nothing,
    /// [`NOTES`] stores of a word, to memory that is in the L1 cache.
    Notes,
}

/// About as many words as keeping the books of a request writes.
pub(crate) const NOTES: usize = 64;

static NOTED: [AtomicUsize; NOTES] = [const { AtomicUsize::new(0) }; NOTES];

/// A mapping whose pages are all present and writable.
///
/// # Invariants
///
/// `start` begins `bytes` bytes mapped by this value alone.
pub(crate) struct Mapped {
    start: *mut u8,
    bytes: usize,
}

impl Mapped {
    /// Maps `memory`.
    pub(crate) fn shared(memory: &Memory) -> io::Result<Self> {
        Self::new(memory.bytes, libc::MAP_SHARED, memory.file.as_raw_fd())
    }

    /// Maps memory of its own.
    pub(crate) fn private(bytes: usize) -> io::Result<Self> {
        Self::new(bytes, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
    }

    fn new(bytes: usize, flags: i32, fd: i32) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, access, flags, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapped = Self {
            start: start.cast(),
            bytes,
        };
        // SAFETY: the range is the mapping made above; populating changes no content.
        match unsafe { libc::madvise(start, bytes, libc::MADV_POPULATE_WRITE) } {
            0 => Ok(mapped),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Copies block `from` of this mapping over block `to` of `other`.
    #[inline]
    pub(crate) fn copy(&self, from: usize, other: &Self, to: usize, besides: Besides) {
        let (from, to) = (from * BLOCK, to * BLOCK);
        assert!(from < self.bytes && to < other.bytes, "no such block");
        // SAFETY: both blocks lie within their mappings, as just checked for their starts (sizes are
        // whole blocks), the mappings are different, and no references into them exist.
        unsafe {
            let (from, to) = (self.start.add(from), other.start.add(to));
            ptr::copy_nonoverlapping(from, to, BLOCK);
        }
        if besides == Besides::Notes {
            for note in &NOTED {
                note.store(from, Ordering::Relaxed);
            }
        }
    }

    /// Copies block `from` of this mapping over block `to` of `other`, blocks of `len` bytes.
    #[inline]
    pub(crate) fn copy_long(&self, from: usize, other: &Self, to: usize, len: usize) {
        assert!(
            (from + 1) * len <= self.bytes && (to + 1) * len <= other.bytes,
            "no such block"
        );
        // SAFETY: both blocks lie within their mappings, as just checked, the mappings are different, and
        // no references into them exist.
        unsafe {
            let (from, to) = (self.start.add(from * len), other.start.add(to * len));
            ptr::copy_nonoverlapping(from, to, len);
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: by the invariant the range is ours, and no address of it is handed out.
        unsafe { libc::munmap(self.start.cast(), self.bytes) };
    }
}
