//! The system calls of the host machine, each behind a type that owns what it makes.
#![expect(unsafe_code, reason = "raw system calls")]

use core::arch::asm;
use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::machine::ReserveError;
use crate::mutant::Mutant;
use crate::vspace::Protection;
use crate::window::WindowRange;

use super::exception::copy;
use super::regions;

/// Ranges in one vector: on the stack, so well below the kernel's limit of 1024.
const AT_ONCE: usize = 64;

/// The calling thread's last error.
pub(super) fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// A private anonymous mapping. Unmapped on drop.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is a range of addresses of the whole process, not of one thread.
unsafe impl Send for Mapping {}
// SAFETY: its methods only hand out addresses and give advice to the kernel.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes (a multiple of the page size) at a multiple of `align`, without memory.
    ///
    /// # Errors
    ///
    /// The kernel's `errno`.
    pub(super) fn reserve(len: usize, align: usize, writable: bool) -> Result<Self, i32> {
        let asked = len.checked_add(align - 4096).ok_or(libc::ENOMEM)?;
        let protection = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice aliases nothing.
        let raw = unsafe { libc::mmap(core::ptr::null_mut(), asked, protection, flags, -1, 0) };
        let Some(raw) = NonNull::new(raw.cast::<u8>()).filter(|_| raw != libc::MAP_FAILED) else {
            return Err(errno());
        };
        let head = raw.as_ptr().align_offset(align);
        let tail = asked - head - len;
        // SAFETY: `head + len + tail` is what was just mapped; the two ends given back are page-aligned
        // parts of it that nobody knows of yet.
        let base = unsafe {
            if head > 0 {
                libc::munmap(raw.as_ptr().cast(), head);
            }
            let base = raw.add(head);
            if tail > 0 {
                libc::munmap(base.add(len).as_ptr().cast(), tail);
            }
            base
        };
        Ok(Mapping { base, len })
    }

    /// Addresses and nothing else: every access faults, until something is mapped over them.
    ///
    /// # Errors
    ///
    /// The kernel's `errno`.
    pub(super) fn reserve_empty(len: usize, align: usize) -> Result<Self, i32> {
        let mapping = Self::reserve(len, align, false)?;
        // SAFETY: all of a mapping that nobody knows of yet.
        unsafe { mapping.reserve_again(0, len) }?;
        Ok(mapping)
    }

    /// A page that shows nothing and that the kernel never counts together with a neighbour: unmapped, it makes room for another mapping.
    ///
    /// # Errors
    ///
    /// The kernel's `errno`.
    pub(super) fn apart() -> Result<Self, i32> {
        // Shared, even if with nobody: that makes it a file of its own.
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let any = core::ptr::null_mut();
        // SAFETY: a new anonymous mapping at an address of the kernel's choice aliases nothing.
        let base = unsafe { libc::mmap(any, 4096, libc::PROT_NONE, flags, -1, 0) };
        match NonNull::new(base.cast::<u8>()).filter(|_| base != libc::MAP_FAILED) {
            Some(base) => Ok(Mapping { base, len: 4096 }),
            None => Err(errno()),
        }
    }

    /// Takes away what is mapped over `len` bytes at `at`; every CPU is flushed when this returns.
    ///
    /// # Errors
    ///
    /// The kernel's `errno`.
    ///
    /// # Safety
    ///
    /// The range lies in the mapping, which is [reserved empty](Self::reserve_empty), and nobody uses its addresses.
    pub(super) unsafe fn reserve_again(&self, at: usize, len: usize) -> Result<(), i32> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        let start = self.base.as_ptr().wrapping_add(at).cast::<c_void>();
        // SAFETY: replaces a part of this mapping that, by the caller's word, nobody uses.
        if unsafe { libc::mmap(start, len, libc::PROT_NONE, flags, -1, 0) } == libc::MAP_FAILED {
            return Err(errno());
        }
        Ok(())
    }

    /// Maps `len` bytes of `file`, from its byte `offset` on, over the mapping at `at`, with their translations.
    ///
    /// # Errors
    ///
    /// The kernel's `errno`.
    ///
    /// # Safety
    ///
    /// As [`reserve_again`](Self::reserve_again).
    pub(super) unsafe fn map_over(
        &self,
        at: usize,
        len: usize,
        file: BorrowedFd<'_>,
        offset: u64,
        protection: Protection,
    ) -> Result<(), i32> {
        let flags = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_POPULATE;
        let protection = match protection {
            Protection::Read => libc::PROT_READ,
            Protection::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        };
        let start = self.base.as_ptr().wrapping_add(at).cast::<c_void>();
        let offset = i64::try_from(offset).map_err(|_| libc::EOVERFLOW)?;
        // SAFETY: replaces a part of this mapping that, by the caller's word, nobody uses.
        let mapped = unsafe { libc::mmap(start, len, protection, flags, file.as_raw_fd(), offset) };
        if mapped == libc::MAP_FAILED {
            return Err(errno());
        }
        Ok(())
    }

    /// The `len` bytes at `at`.
    ///
    /// # Safety
    ///
    /// They lie in the mapping, can be read, and are not written to while they are borrowed.
    pub(super) unsafe fn bytes(&self, at: usize, len: usize) -> &[u8] {
        // SAFETY: the caller's word; any bytes are valid ones.
        unsafe { core::slice::from_raw_parts(self.base.as_ptr().wrapping_add(at), len) }
    }

    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(super) fn start(&self) -> u64 {
        self.base.as_ptr().addr() as u64
    }

    pub(super) fn end(&self) -> u64 {
        self.start() + self.len as u64
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Advice that changes what the mapping *is* (huge pages, forks, dumps), for all of it.
    ///
    /// # Errors
    ///
    /// The kernel's `errno`.
    pub(super) fn advise(&self, advice: i32) -> Result<(), i32> {
        // SAFETY: the range is this mapping's own; the advices used with this method (MADV_NOHUGEPAGE,
        // MADV_HUGEPAGE, MADV_WIPEONFORK, MADV_DONTFORK, MADV_DONTDUMP, MADV_POPULATE_WRITE) do not
        // change what its memory holds.
        if unsafe { libc::madvise(self.base.as_ptr().cast(), self.len, advice) } == 0 {
            Ok(())
        } else {
            Err(errno())
        }
    }

    /// Takes the memory of all `ranges` away: entries cleared, every CPU flushed, frames freed when
    /// this returns. One call, and so one shootdown, for up to [`AT_ONCE`] ranges where the kernel
    /// can (`process_madvise` on oneself, Linux 6.14); one call for each range where it cannot.
    ///
    /// # Errors
    ///
    /// The kernel's `errno`; some ranges may be gone.
    ///
    /// # Safety
    ///
    /// Nobody holds a reference into, or keeps data in, any of the ranges; they lie in the mapping.
    pub(super) unsafe fn discard(&self, ranges: &[WindowRange]) -> Result<(), i32> {
        /// The calling process as a pidfd (Linux 6.14).
        const PIDFD_SELF: i64 = -10000;
        /// The plain advice is refused where the program has locked its memory; this one is not
        /// (Linux 5.18).
        const MADV_DONTNEED_LOCKED: i32 = 24;

        let mut vector = [libc::iovec {
            iov_base: core::ptr::null_mut(),
            iov_len: 0,
        }; AT_ONCE];
        for batch in ranges.chunks(AT_ONCE) {
            let mut bytes = 0;
            for (slot, range) in vector.iter_mut().zip(batch) {
                debug_assert!(
                    range.end().get() <= self.len as u64,
                    "range outside its window"
                );
                *slot = libc::iovec {
                    iov_base: self
                        .base
                        .as_ptr()
                        .wrapping_add(range.start().get() as usize)
                        .cast(),
                    iov_len: range.len() as usize,
                };
                bytes += range.len();
            }
            // SAFETY: the vector's first `batch.len()` elements name parts of this mapping that the
            // caller has declared dead.
            let done = unsafe {
                libc::syscall(
                    libc::SYS_process_madvise,
                    PIDFD_SELF,
                    vector.as_ptr(),
                    batch.len(),
                    MADV_DONTNEED_LOCKED,
                    0,
                )
            };
            if done == bytes as i64 {
                continue;
            }
            // Not this kernel, or stopped half-way: once more, one by one. Discarding twice is harmless.
            for part in &vector[..batch.len()] {
                let advise = |advice| {
                    // SAFETY: as above.
                    unsafe { libc::madvise(part.iov_base, part.iov_len, advice) == 0 }
                };
                if !advise(MADV_DONTNEED_LOCKED) && !advise(libc::MADV_DONTNEED) {
                    return Err(errno());
                }
            }
        }
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is ours since `reserve`; whoever borrowed addresses from it borrowed the
        // mapping, so nobody uses them any more.
        unsafe { libc::munmap(self.base.as_ptr().cast::<c_void>(), self.len) };
    }
}

/// Memory that is a file and has no name.
#[derive(Debug)]
pub(super) struct MemoryFile(OwnedFd);

impl MemoryFile {
    /// `bytes` of zeroes.
    pub(super) fn new(bytes: u64) -> Result<Self, ReserveError> {
        let resources = |call| ReserveError::Resources {
            call,
            errno: errno(),
        };
        // SAFETY: a name that ends with a zero, and a flag.
        let fd = unsafe { libc::memfd_create(c"pageless-ram".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(resources("memfd_create"));
        }
        // SAFETY: a descriptor that was just made and that nobody else knows.
        let file = unsafe { OwnedFd::from_raw_fd(fd) };
        let len = i64::try_from(bytes).map_err(|_| ReserveError::AddressSpace { asked: bytes })?;
        // SAFETY: sets the length of a file that is ours.
        if unsafe { libc::ftruncate(file.as_raw_fd(), len) } != 0 {
            return Err(resources("ftruncate"));
        }
        Ok(MemoryFile(file))
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// All of a file, mapped for good. Others write to the same memory, so it is read and written by copying; with an instruction, since
/// nothing keeps two threads from doing so at once. Then there are bytes of both, as with a kernel's direct map, and no data race that the
/// compiler could know of.
#[derive(Debug)]
pub(super) struct FileMapping(Mapping);

impl FileMapping {
    /// Maps the first `bytes` of `file`.
    pub(super) fn whole(file: BorrowedFd<'_>, bytes: u64) -> Result<Self, ReserveError> {
        let out_of_space = ReserveError::AddressSpace { asked: bytes };
        let len = usize::try_from(bytes).map_err(|_| out_of_space)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
        let any = core::ptr::null_mut();
        // SAFETY: a new mapping at an address of the kernel's choice aliases no Rust object.
        let base = unsafe { libc::mmap(any, len, protection, flags, file.as_raw_fd(), 0) };
        match NonNull::new(base.cast::<u8>()).filter(|_| base != libc::MAP_FAILED) {
            Some(base) => Ok(FileMapping(Mapping { base, len })),
            None => Err(out_of_space),
        }
    }

    pub(super) fn start(&self) -> u64 {
        self.0.start()
    }

    fn at(&self, at: usize, len: usize) -> *mut u8 {
        assert!(
            at.checked_add(len).is_some_and(|end| end <= self.0.len),
            "{len} bytes at {at} of a mapping of {}",
            self.0.len
        );
        self.0.base.as_ptr().wrapping_add(at)
    }

    /// Copies out of it.
    pub(super) fn read(&self, at: usize, into: &mut [u8]) {
        let from = self.at(at, into.len());
        // SAFETY: the range lies in the mapping, `into` outside it.
        unsafe { copy(into.as_mut_ptr(), from, into.len()) };
    }

    /// Copies into it.
    pub(super) fn write(&self, at: usize, from: &[u8]) {
        let into = self.at(at, from.len());
        // SAFETY: the range lies in the mapping. No Rust reference covers it but those of `bytes`, whose caller has promised that nobody
        // writes.
        unsafe { copy(into, from.as_ptr(), from.len()) };
    }

    /// Fills it with zeroes.
    pub(super) fn zero(&self, at: usize, len: usize) {
        let into = self.at(at, len);
        // SAFETY: as in `write`; the direction flag is clear by the calling convention.
        unsafe {
            asm!(
                "rep stosb",
                inout("rcx") len => _,
                inout("rdi") into => _,
                in("al") 0_u8,
                options(nostack, preserves_flags),
            );
        }
    }

    /// The `len` bytes at `at`, that anybody may write to.
    pub(super) fn cells(&self, at: usize, len: usize) -> &[UnsafeCell<u8>] {
        let first = self.at(at, len).cast::<UnsafeCell<u8>>();
        // SAFETY: the range lies in the mapping (`at` has checked it), which is readable and writable until `self` is gone. A cell has the
        // layout of its byte, any byte is one, and a reference to a cell promises nothing about what is in it.
        unsafe { core::slice::from_raw_parts(first, len) }
    }

    /// The `len` bytes at `at`.
    ///
    /// # Safety
    ///
    /// Nobody writes to them while they are borrowed.
    pub(super) unsafe fn bytes(&self, at: usize, len: usize) -> &[u8] {
        // SAFETY: the range lies in the mapping (`at` has checked it) and can be read; the rest is the caller's word.
        unsafe { core::slice::from_raw_parts(self.at(at, len), len) }
    }
}

/// A page that reads 1 in the process that made it and 0 in every forked child.
#[derive(Debug)]
pub(super) struct ForkCanary {
    page: Mapping,
}

impl ForkCanary {
    pub(super) fn new() -> Result<Self, ReserveError> {
        let resources = |errno| ReserveError::Resources {
            call: "mmap",
            errno,
        };
        let page = Mapping::reserve(4096, 4096, true).map_err(resources)?;
        page.advise(libc::MADV_WIPEONFORK)
            .map_err(|errno| ReserveError::Unsupported {
                what: "MADV_WIPEONFORK",
                errno,
            })?;
        let canary = ForkCanary { page };
        canary.word().store(1, Ordering::Relaxed);
        Ok(canary)
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: a page-aligned, writable, private page, zero or written by `new`, mapped as long as
        // `self`.
        unsafe { self.page.base().cast::<AtomicU32>().as_ref() }
    }

    /// Whether this is a forked child.
    pub(super) fn is_child(&self) -> bool {
        self.word().load(Ordering::Relaxed) == 0
    }
}

/// Makes the C library protect every registered window in a forked child before the child's own code
/// runs. (The windows read as zeroes there, by MADV_WIPEONFORK; this makes them fault.)
pub(super) fn protect_windows_in_forked_children() -> Result<(), ReserveError> {
    extern "C" fn in_child() {
        if Mutant::ForkUnnoticed.active() {
            return;
        }
        for (start, end) in regions::iter() {
            let address = core::ptr::without_provenance_mut::<c_void>(start as usize);
            // SAFETY: the child's copy of a window, which no thread of the child uses yet. Taking the
            // rights away makes every use fault.
            unsafe { libc::mprotect(address, (end - start) as usize, libc::PROT_NONE) };
        }
    }
    // SAFETY: registers a handler that makes system calls on a table of atomics, nothing else.
    match unsafe { libc::pthread_atfork(None, None, Some(in_child)) } {
        0 => Ok(()),
        errno => Err(ReserveError::Resources {
            call: "pthread_atfork",
            errno,
        }),
    }
}

/// Whether `MADV_DONTNEED` over an empty leaf table's whole span frees the table: Linux 6.14 on.
pub(super) fn frees_leaf_tables() -> bool {
    // SAFETY: `uname` writes a struct of byte arrays, for which all-zero is valid.
    let release = unsafe {
        let mut names: libc::utsname = core::mem::zeroed();
        libc::uname(&raw mut names);
        names.release
    };
    let text: String = release
        .iter()
        .take_while(|c| **c != 0)
        .map(|c| *c as u8 as char)
        .collect();
    let mut numbers = text
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 14)
}

/// `struct uffdio_api` of the kernel's `linux/userfaultfd.h`.
#[repr(C)]
struct UffdioApi {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
struct UffdioRegister {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

/// `struct uffdio_copy`, and `struct uffdio_move`, which has the same fields.
#[repr(C)]
struct UffdioCopy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    /// Bytes done, or a negative errno.
    done: i64,
}

const UFFD_API: u64 = 0xAA;
const UFFD_USER_MODE_ONLY: i32 = 1;
const UFFD_FEATURE_SIGBUS: u64 = 1 << 7;
const UFFD_FEATURE_MOVE: u64 = 1 << 16;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;

/// `_IOWR(0xAA, nr, size)`.
const fn iowr(nr: u64, size: usize) -> u64 {
    3 << 30 | (size as u64) << 16 | UFFD_API << 8 | nr
}

const UFFDIO_API: u64 = iowr(0x3f, size_of::<UffdioApi>());
const UFFDIO_REGISTER: u64 = iowr(0x00, size_of::<UffdioRegister>());
const UFFDIO_COPY: u64 = iowr(0x03, size_of::<UffdioCopy>());
const UFFDIO_MOVE: u64 = iowr(0x05, size_of::<UffdioCopy>());

const _: () = assert!(UFFDIO_API == 0xc018_aa3f);
const _: () = assert!(UFFDIO_REGISTER == 0xc020_aa00);
const _: () = assert!(UFFDIO_COPY == 0xc028_aa03);
const _: () = assert!(UFFDIO_MOVE == 0xc028_aa05);

/// What this kernel's userfaultfd can do.
#[derive(Debug, Clone, Copy)]
pub(super) struct UserfaultFeatures {
    /// Pages can be moved into a window without allocating (Linux 6.8).
    moves: bool,
}

impl UserfaultFeatures {
    pub(super) fn probe() -> Result<Self, ReserveError> {
        let probe = Userfault::open()?;
        let offered = probe.handshake(0)?;
        if offered & UFFD_FEATURE_SIGBUS == 0 {
            return Err(ReserveError::Unsupported {
                what: "UFFD_FEATURE_SIGBUS",
                errno: 0,
            });
        }
        Ok(UserfaultFeatures {
            moves: offered & UFFD_FEATURE_MOVE != 0,
        })
    }

    pub(super) fn moves(self) -> bool {
        self.moves
    }
}

/// How a fill stopped.
#[derive(Debug, Clone, Copy)]
pub(super) struct FillError {
    pub(super) done: u64,
    pub(super) errno: i32,
}

/// A userfaultfd for user-mode faults, answered by SIGBUS.
#[derive(Debug)]
pub(super) struct Userfault {
    fd: OwnedFd,
}

impl Userfault {
    /// A userfaultfd registered for missing pages in `window`.
    pub(super) fn register(
        features: UserfaultFeatures,
        window: &Mapping,
    ) -> Result<Self, ReserveError> {
        let uffd = Userfault::open()?;
        uffd.handshake(UFFD_FEATURE_SIGBUS | if features.moves { UFFD_FEATURE_MOVE } else { 0 })?;
        let mut register = UffdioRegister {
            start: window.start(),
            len: window.len() as u64,
            mode: UFFDIO_REGISTER_MODE_MISSING,
            ioctls: 0,
        };
        // SAFETY: the request takes a pointer to this struct, which outlives the call.
        let done = unsafe { libc::ioctl(uffd.fd.as_raw_fd(), UFFDIO_REGISTER, &raw mut register) };
        if done != 0 {
            return Err(match errno() {
                libc::ENOMEM => ReserveError::Resources {
                    call: "UFFDIO_REGISTER",
                    errno: libc::ENOMEM,
                },
                errno => ReserveError::Unsupported {
                    what: "userfaultfd on private anonymous memory",
                    errno,
                },
            });
        }
        Ok(uffd)
    }

    fn open() -> Result<Self, ReserveError> {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | UFFD_USER_MODE_ONLY;
        // SAFETY: creates a file descriptor; takes no pointer.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
        if fd < 0 {
            return Err(match errno() {
                errno @ (libc::EPERM | libc::EACCES) => ReserveError::NotPermitted { errno },
                errno @ (libc::ENOSYS | libc::EINVAL) => ReserveError::Unsupported {
                    what: "userfaultfd with UFFD_USER_MODE_ONLY",
                    errno,
                },
                errno => ReserveError::Resources {
                    call: "userfaultfd",
                    errno,
                },
            });
        }
        // SAFETY: a fresh descriptor that nobody else owns; it fits an int.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        Ok(Userfault { fd })
    }

    /// Agrees on features, and returns those offered.
    fn handshake(&self, features: u64) -> Result<u64, ReserveError> {
        let mut api = UffdioApi {
            api: UFFD_API,
            features,
            ioctls: 0,
        };
        // SAFETY: the request takes a pointer to this struct, which outlives the call.
        if unsafe { libc::ioctl(self.fd.as_raw_fd(), UFFDIO_API, &raw mut api) } != 0 {
            return Err(ReserveError::Unsupported {
                what: "the userfaultfd API",
                errno: errno(),
            });
        }
        Ok(api.features)
    }

    /// Copies `len` bytes from `src` to the missing pages at `dst`.
    pub(super) fn copy(&self, dst: u64, src: &Mapping, len: u64) -> Result<(), FillError> {
        self.fill(UFFDIO_COPY, dst, src, len)
    }

    /// Moves the pages of `src` to the missing pages at `dst`. Allocates no frame.
    pub(super) fn take(&self, dst: u64, src: &Mapping, len: u64) -> Result<(), FillError> {
        self.fill(UFFDIO_MOVE, dst, src, len)
    }

    fn fill(&self, request: u64, dst: u64, src: &Mapping, len: u64) -> Result<(), FillError> {
        debug_assert!(len <= src.len() as u64, "fill longer than its source");
        let mut filled = 0;
        loop {
            let mut copy = UffdioCopy {
                dst: dst + filled,
                src: src.start() + filled,
                len: len - filled,
                mode: 0,
                done: 0,
            };
            // SAFETY: the request takes a pointer to this struct. The kernel reads `len` bytes of the
            // source mapping (or takes its pages) and writes only to pages of registered windows that
            // are missing, which nobody can have data in.
            let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), request, &raw mut copy) };
            if result == 0 {
                return Ok(());
            }
            let errno = errno();
            if copy.done > 0 {
                filled += copy.done as u64;
            }
            // EAGAIN: the address space was being changed, or it stopped half-way. Go on.
            if errno != libc::EAGAIN {
                return Err(FillError {
                    done: filled,
                    errno,
                });
            }
        }
    }
}
