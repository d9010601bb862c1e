//! Plain `mmap` and `munmap`, as whoever has no library would use them: a reservation, and a mapping of one page of the same file for each
//! frame.
#![expect(unsafe_code, reason = "the system calls that ours are compared with")]

use alloc::sync::Arc;
use core::ffi::c_void;
use core::ptr;
use pageless_fault::FrameMemory;
use pageless_fault::Protection;
use pageless_fault::host::HostRam;
use pageless_pfn::PfnT;
use std::os::fd::AsRawFd;

const PAGE: usize = 4096;

/// A reservation.
pub(crate) struct Plain {
    ram: Arc<HostRam>,
    base: *mut c_void,
    pages: usize,
}

impl Plain {
    pub(crate) fn new(ram: Arc<HostRam>, pages: usize) -> Self {
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe { reserve(ptr::null_mut(), pages, 0) };
        Plain { ram, base, pages }
    }

    /// The address of page `page`.
    pub(crate) fn at(&self, page: usize) -> *mut c_void {
        assert!(page <= self.pages);
        self.base.wrapping_byte_add(page * PAGE)
    }

    /// One `mmap` for each frame, with their translations, from page `page` on.
    pub(crate) fn map(&self, page: usize, frames: &[PfnT], protection: Protection) {
        let protection = match protection {
            Protection::Read => libc::PROT_READ,
            Protection::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        };
        let flags = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_POPULATE;
        let fd = self.ram.file().as_raw_fd();
        for (n, frame) in frames.iter().enumerate() {
            let index = self.ram.frames().index_of(frame.pfn()).unwrap();
            let (at, offset) = (self.at(page + n), (index as usize * PAGE) as i64);
            // SAFETY: a page of the reservation, which nobody has a reference into.
            let mapped = unsafe { libc::mmap(at, PAGE, protection, flags, fd, offset) };
            assert_eq!(mapped, at, "a page of a file refused");
        }
    }

    /// One `munmap` of `pages` pages from page `page` on.
    pub(crate) fn unmap(&self, page: usize, pages: usize) {
        // SAFETY: pages of the reservation, which nobody has a reference into.
        let done = unsafe { libc::munmap(self.at(page), pages * PAGE) };
        assert_eq!(done, 0, "munmap refused");
    }

    /// Puts the reservation over `pages` pages again: one call, which unmaps what is there.
    pub(crate) fn reserve_again(&self, page: usize, pages: usize) {
        // SAFETY: as for `unmap`; where there is a hole it is ours by the assumption that nobody else maps anything in this process
        // meanwhile.
        unsafe { reserve(self.at(page), pages, libc::MAP_FIXED) };
    }

    /// `mprotect` to no access at all.
    pub(crate) fn forbid(&self, page: usize, pages: usize) {
        // SAFETY: as for `unmap`.
        let done = unsafe { libc::mprotect(self.at(page), pages * PAGE, libc::PROT_NONE) };
        assert_eq!(done, 0, "mprotect refused");
    }

    /// `madvise(MADV_DONTNEED)`.
    pub(crate) fn discard(&self, page: usize, pages: usize) {
        // SAFETY: as for `unmap`; the file keeps its content.
        let done = unsafe { libc::madvise(self.at(page), pages * PAGE, libc::MADV_DONTNEED) };
        assert_eq!(done, 0, "MADV_DONTNEED refused");
    }

    /// One `process_madvise(MADV_DONTNEED)` over several stretches, each of `pages` pages. `false` if the kernel cannot.
    pub(crate) fn discard_all(&self, starts: &[usize], pages: usize) -> bool {
        const PIDFD_SELF: i64 = -10000;
        let vectors: Vec<_> = starts
            .iter()
            .map(|page| libc::iovec {
                iov_base: self.at(*page),
                iov_len: pages * PAGE,
            })
            .collect();
        // SAFETY: as for `discard`; the vectors live through the call.
        let done = unsafe {
            libc::syscall(
                libc::SYS_process_madvise,
                PIDFD_SELF,
                vectors.as_ptr(),
                vectors.len(),
                libc::MADV_DONTNEED,
                0,
            )
        };
        done == (starts.len() * pages * PAGE) as i64
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // SAFETY: all of the reservation; nobody has a reference into it.
        unsafe { libc::munmap(self.base, self.pages * PAGE) };
    }
}

/// Addresses and nothing else.
///
/// # Safety
///
/// With `MAP_FIXED`, nobody uses what is there.
unsafe fn reserve(at: *mut c_void, pages: usize, fixed: i32) -> *mut c_void {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | fixed;
    // SAFETY: the caller's word, or an address of the kernel's choice.
    let base = unsafe { libc::mmap(at, pages * PAGE, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(base, libc::MAP_FAILED, "no room for {pages} pages");
    base
}

/// Reads or writes a word of each of `pages` pages from `at` on.
pub(crate) fn touch(at: *mut u64, pages: usize, protection: Protection) {
    for page in 0..pages {
        let word = at.wrapping_byte_add(page * PAGE);
        match protection {
            // SAFETY: whoever calls has just mapped those pages, and no Rust reference covers them.
            Protection::Read => drop(core::hint::black_box(unsafe { word.read_volatile() })),
            // SAFETY: the same; mapped for writing.
            Protection::ReadWrite => unsafe { word.write_volatile(page as u64) },
        }
    }
}
