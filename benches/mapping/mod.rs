//! An anonymous mapping for the peers: zeroed, not reserved, with a stated page size.

use core::{ffi::c_void, ptr};

/// Bytes of a small page.
pub(crate) const PAGE: usize = 4096;

/// Bytes of a huge page, and of what one leaf page table maps.
pub(crate) const HUGE: usize = 2 << 20;

/// Which pages the kernel may back a mapping with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pages {
    /// 4 KiB only, whatever the machine's setting.
    Small,
    /// 2 MiB where it can.
    Huge,
}

/// A private anonymous mapping, unmapped when dropped.
///
/// # Invariants
///
/// `base` is the start of `reserved` bytes mapped by this value alone; `start` is the first
/// huge-page boundary in it and has `bytes` mapped bytes after it.
pub(crate) struct Mapping {
    base: *mut c_void,
    reserved: usize,
    start: *mut u8,
}

// SAFETY: the mapping belongs to this value alone and is only handed out as raw addresses; whoever
// dereferences them argues for that access.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`: no method reads or writes the mapped bytes.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `bytes` zeroed bytes, aligned to a huge page.
    pub(crate) fn new(bytes: usize, pages: Pages) -> Self {
        let reserved = bytes + HUGE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that
        // exists.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                reserved,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        assert_ne!(base, libc::MAP_FAILED, "no room for {bytes} bytes");
        let advice = match pages {
            Pages::Small => libc::MADV_NOHUGEPAGE,
            Pages::Huge => libc::MADV_HUGEPAGE,
        };
        // SAFETY: the range is the mapping made above; the advice changes no content.
        let advised = unsafe { libc::madvise(base, reserved, advice) };
        assert!(
            advised == 0 || pages == Pages::Small,
            "the kernel has no huge pages"
        );
        let start = base.cast::<u8>();
        let start = start.wrapping_add(start.align_offset(HUGE));
        Self {
            base,
            reserved,
            start,
        }
    }

    /// The first byte.
    pub(crate) fn start(&self) -> *mut u8 {
        self.start
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: by the invariant the range is ours, and nobody may use its addresses after the
        // value that hands them out has gone.
        unsafe { libc::munmap(self.base, self.reserved) };
    }
}
