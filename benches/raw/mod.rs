//! The machinery of a lazily faulted window with nothing on top: userfaultfd in its SIGBUS mode, a
//! handler that copies zeroes in, `process_madvise` to take scattered pages away. No states, no
//! order, no bound: the floor under ours.
//!
//! One [`RawWindow`] for each process at a time, since it owns SIGBUS; so it runs in a side of its
//! own and never meets the handler of ours.

use super::mapping::{Mapping, PAGE, Pages};
use core::{
    ffi::{c_int, c_void},
    mem, ptr,
    sync::atomic::{AtomicI32, AtomicUsize, Ordering},
};
use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// `UFFDIO_API`: agree on version and features.
const API: libc::c_ulong = 0xc018_aa3f;
/// `UFFDIO_REGISTER`: report missing pages of a range.
const REGISTER: libc::c_ulong = 0xc020_aa00;
/// `UFFDIO_COPY`: fill a missing page.
const COPY: libc::c_ulong = 0xc028_aa03;
/// `UFFD_API`, the only version there is.
const VERSION: u64 = 0xaa;
/// `UFFD_FEATURE_SIGBUS`: a missing page is a SIGBUS in the thread that touched it.
const SIGBUS_FEATURE: u64 = 1 << 7;
/// `UFFD_USER_MODE_ONLY`: needs no privilege.
const USER_MODE_ONLY: c_int = 1;
/// `UFFDIO_REGISTER_MODE_MISSING`.
const MISSING: u64 = 1;
/// `PIDFD_SELF`: the caller, in place of a pidfd (Linux 6.14).
const THIS_PROCESS: c_int = -10000;

#[repr(C)]
struct ApiRequest {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct RegisterRequest {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct CopyRequest {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copy: i64,
}

const _: () = assert!(size_of::<ApiRequest>() == 24);
const _: () = assert!(size_of::<RegisterRequest>() == 32);
const _: () = assert!(size_of::<CopyRequest>() == 40);

#[repr(C, align(4096))]
struct Zeroes([u8; PAGE]);

static ZEROES: Zeroes = Zeroes([0; PAGE]);

/// What the handler needs to know of the window; set before the first fault can come.
static START: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);
static USERFAULTFD: AtomicI32 = AtomicI32::new(-1);

extern "C" fn on_sigbus(signal: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid `info`, and a SIGBUS states an address.
    let address = unsafe { (*info).si_addr() }.addr();
    let start = START.load(Ordering::Relaxed);
    let mut request = CopyRequest {
        dst: (address & !(PAGE - 1)) as u64,
        src: ZEROES.0.as_ptr().addr() as u64,
        len: PAGE as u64,
        mode: 0,
        copy: 0,
    };
    let ours = address.wrapping_sub(start) < BYTES.load(Ordering::Relaxed);
    let fd = USERFAULTFD.load(Ordering::Relaxed);
    // SAFETY: `request` is what UFFDIO_COPY takes and lives across the call; the kernel writes into
    // the registered window only, and only where no page is.
    if !ours || unsafe { libc::ioctl(fd, COPY, &raw mut request) } != 0 {
        // SAFETY: resetting a disposition has no memory effect; the access that comes next then ends
        // the process, as it must.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// A window whose pages come by SIGBUS and `UFFDIO_COPY`.
pub(crate) struct RawWindow {
    memory: Mapping,
    _userfaultfd: OwnedFd,
}

impl RawWindow {
    /// A window of `bytes` bytes, nothing in it present.
    pub(crate) fn new(bytes: usize) -> io::Result<Self> {
        let memory = Mapping::new(bytes, Pages::Small);
        let flags = libc::O_CLOEXEC | USER_MODE_ONLY;
        // SAFETY: the call takes flags only and makes a new descriptor.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, and owned by nobody else.
        let userfaultfd = unsafe { OwnedFd::from_raw_fd(fd as c_int) };
        let fd = userfaultfd.as_raw_fd();
        let mut api = ApiRequest {
            api: VERSION,
            features: SIGBUS_FEATURE,
            ioctls: 0,
        };
        // SAFETY: `api` is what UFFDIO_API takes and lives across the call.
        check(unsafe { libc::ioctl(fd, API, &raw mut api) })?;
        let mut register = RegisterRequest {
            start: memory.start().addr() as u64,
            len: bytes as u64,
            mode: MISSING,
            ioctls: 0,
        };
        // SAFETY: `register` is what UFFDIO_REGISTER takes and lives across the call; its range is
        // the mapping above.
        check(unsafe { libc::ioctl(fd, REGISTER, &raw mut register) })?;
        START.store(memory.start().addr(), Ordering::Relaxed);
        BYTES.store(bytes, Ordering::Relaxed);
        USERFAULTFD.store(fd, Ordering::Relaxed);
        let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_sigbus;
        // SAFETY: all-zero is a valid `sigaction`: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_flags = libc::SA_SIGINFO;
        action.sa_sigaction = handler as usize;
        // SAFETY: the handler has the signature that SA_SIGINFO promises, and does only what may be
        // done in a handler: atomics and system calls.
        check(unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) })?;
        Ok(Self {
            memory,
            _userfaultfd: userfaultfd,
        })
    }

    /// The first byte.
    pub(crate) fn start(&self) -> *mut u8 {
        self.memory.start()
    }
}

fn check(result: c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The page number `page` after `start`, as a vector for [`unmap_scattered`].
pub(crate) fn page_vector(start: *mut u8, page: u64) -> libc::iovec {
    libc::iovec {
        iov_base: start.wrapping_add(page as usize * PAGE).cast(),
        iov_len: PAGE,
    }
}

/// Gives all of `pages` back in one call.
///
/// # Safety
///
/// Each vector lies in an anonymous mapping whose bytes there nobody refers to.
pub(crate) unsafe fn unmap_scattered(pages: &[libc::iovec]) -> io::Result<()> {
    // SAFETY: the vectors are read only; what they name may be discarded, as the caller promises.
    let done = unsafe {
        libc::syscall(
            libc::SYS_process_madvise,
            THIS_PROCESS,
            pages.as_ptr(),
            pages.len(),
            libc::MADV_DONTNEED,
            0,
        )
    };
    let asked: usize = pages.iter().map(|page| page.iov_len).sum();
    match done {
        done if done == asked as libc::c_long => Ok(()),
        -1 => Err(io::Error::last_os_error()),
        _ => Err(io::Error::other("some pages were not taken")),
    }
}
