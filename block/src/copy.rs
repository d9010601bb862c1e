//! The bytes themselves: spans of memory that others may touch at the same time.
//!
//! All raw copies of the crate are here. On x86-64 they are one string instruction each, which
//! the compiler cannot see into: unlike a `memcpy` it makes no promise that nobody else writes,
//! so that a program which scribbles over a buffer under I/O gets torn bytes and not undefined
//! behaviour, as with a device. Measured on processors with fast short string operations it is
//! as fast as the C library at 4 KiB. Elsewhere, and under Miri, a plain copy stands in; there,
//! overlapping I/O on the same bytes from two threads is a data race.
#![expect(
    unsafe_code,
    reason = "raw copies between memory that has no Rust owner"
)]

use core::fmt;
use core::marker::PhantomData;

/// Bytes that are reachable for now: an address and a length, both for as long as `'a`.
///
/// Handed out by [`FrameAccess::with`](crate::FrameAccess::with). No reference to the bytes can
/// be had; they are copied. A span stays on its thread.
///
/// # Invariants
/// `start..start + len` is mapped readable and writable for `'a`, and no Rust reference to any of
/// it exists in that time other than those a method is called with.
pub struct Span<'a> {
    start: *mut u8,
    len: usize,
    mapped: PhantomData<&'a ()>,
}

impl<'a> Span<'a> {
    /// The span of `len` bytes from `start` on; for those who implement
    /// [`FrameAccess`](crate::FrameAccess).
    ///
    /// # Safety
    /// For as long as `'a`, `start..start + len` must be valid for reads and writes, and Rust
    /// references to those bytes must not exist (`UnsafeCell` bytes may).
    #[inline]
    pub const unsafe fn from_raw(start: *mut u8, len: usize) -> Self {
        Self {
            start,
            len,
            mapped: PhantomData,
        }
    }

    /// How many bytes.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies to `dst`, as many bytes as the shorter of the two has, and says how many. Where
    /// they overlap, the bytes of the overlap are unspecified afterwards.
    #[inline]
    pub fn copy_to(&self, dst: &Span<'_>) -> usize {
        let len = self.len.min(dst.len);
        // SAFETY: both spans are valid for at least `len` bytes by their invariant.
        unsafe { copy(self.start, dst.start, len) };
        len
    }

    /// As [`Span::copy_to`], past the caches, on x86-64: whole cache lines of the destination are in memory when this
    /// returns, and in no cache. Bytes before its first whole line and behind its last are copied as ever. For a
    /// destination that is in no cache beforehand and need not be afterwards: a plain copy leaves its last lines
    /// waiting for memory, and everything that is stored after them waits behind.
    #[inline]
    pub fn stream_to(&self, dst: &Span<'_>) -> usize {
        let len = self.len.min(dst.len);
        // SAFETY: both spans are valid for at least `len` bytes by their invariant.
        unsafe { stream(self.start, dst.start, len) };
        len
    }

    /// Copies to `out`, as many bytes as the shorter of the two has, and says how many.
    #[inline]
    pub fn read_into(&self, out: &mut [u8]) -> usize {
        let len = self.len.min(out.len());
        // SAFETY: the span is valid for `len` bytes by its invariant, and `out` is by its type.
        unsafe { copy(self.start, out.as_mut_ptr(), len) };
        len
    }

    /// Copies from `data`, as many bytes as the shorter of the two has, and says how many.
    #[inline]
    pub fn write_from(&self, data: &[u8]) -> usize {
        let len = self.len.min(data.len());
        // SAFETY: the span is valid for `len` bytes by its invariant, and `data` is by its type.
        unsafe { copy(data.as_ptr(), self.start, len) };
        len
    }

    /// Has this many cache lines from its start on brought near, and their translation, to be read or written
    /// in a moment. Changes nothing, never waits, and may go beyond the end.
    #[cfg(feature = "std")]
    #[inline]
    pub(crate) fn expect(&self, write: bool, lines: usize) {
        for line in 0..lines {
            prefetch(self.start.wrapping_add(line * CACHE_LINE), write);
        }
    }

    /// Makes every byte zero.
    #[inline]
    pub fn zero(&self) {
        // SAFETY: the span is valid for `len` bytes by its invariant.
        unsafe { zero(self.start, self.len) };
    }
}

impl fmt::Debug for Span<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Span({:p}+{})", self.start, self.len)
    }
}

/// Bytes that move between caches together.
#[cfg(feature = "std")]
const CACHE_LINE: usize = 64;

/// Any address will do: where there is nothing, nothing happens.
#[cfg(all(feature = "std", target_arch = "x86_64", not(miri)))]
#[inline(always)]
fn prefetch(at: *const u8, write: bool) {
    // SAFETY: neither instruction reads, writes or faults, as far as a program can tell.
    unsafe {
        if write {
            core::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
        } else {
            core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(at.cast());
        }
    }
}

#[cfg(all(feature = "std", not(all(target_arch = "x86_64", not(miri)))))]
fn prefetch(_at: *const u8, _write: bool) {}

/// # Safety
/// `src` must be valid for reads and `dst` for writes of `len` bytes.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
unsafe fn copy(src: *const u8, dst: *mut u8, len: usize) {
    // SAFETY: reads and writes exactly the `len` bytes that the caller vouches for. The direction
    // flag is clear, as the ABI has it on entry to every function.
    unsafe {
        core::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rsi") src => _,
            inout("rdi") dst => _,
            options(nostack, preserves_flags),
        );
    }
}

/// Copies with stores that go to memory, and waits until they are there.
///
/// # Safety
/// `src` must be valid for reads and `dst` for writes of `len` bytes.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
unsafe fn stream(src: *const u8, dst: *mut u8, len: usize) {
    // Such stores are whole cache lines, or they are slow; what lies before the first line and behind the
    // last is copied.
    let head = dst.align_offset(64).min(len);
    let (lines, tail) = ((len - head) & !63, (len - head) & 63);
    // SAFETY: head, lines and tail together are the `len` bytes that the caller vouches for.
    unsafe {
        if head != 0 {
            copy(src, dst, head);
        }
        if lines != 0 {
            // SSE2, which every x86-64 processor has. The fence orders these stores, which are not ordered by
            // themselves, before all that follow: whoever is told of the copy sees it.
            core::arch::asm!(
                "2:",
                "movups {a}, [{src}]",
                "movups {b}, [{src} + 16]",
                "movups {c}, [{src} + 32]",
                "movups {d}, [{src} + 48]",
                "movntps [{dst}], {a}",
                "movntps [{dst} + 16], {b}",
                "movntps [{dst} + 32], {c}",
                "movntps [{dst} + 48], {d}",
                "add {src}, 64",
                "add {dst}, 64",
                "sub {left}, 64",
                "jnz 2b",
                "sfence",
                src = inout(reg) src.add(head) => _,
                dst = inout(reg) dst.add(head) => _,
                left = inout(reg) lines => _,
                a = out(xmm_reg) _,
                b = out(xmm_reg) _,
                c = out(xmm_reg) _,
                d = out(xmm_reg) _,
                options(nostack),
            );
        }
        if tail != 0 {
            copy(src.add(head + lines), dst.add(head + lines), tail);
        }
    }
}

/// # Safety
/// `src` must be valid for reads and `dst` for writes of `len` bytes.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
unsafe fn stream(src: *const u8, dst: *mut u8, len: usize) {
    // SAFETY: the caller vouches for it.
    unsafe { copy(src, dst, len) };
}

/// # Safety
/// `dst` must be valid for writes of `len` bytes.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
unsafe fn zero(dst: *mut u8, len: usize) {
    // SAFETY: writes exactly the `len` bytes that the caller vouches for; direction flag as above.
    unsafe {
        core::arch::asm!(
            "rep stosb",
            inout("rcx") len => _,
            inout("rdi") dst => _,
            in("al") 0u8,
            options(nostack, preserves_flags),
        );
    }
}

/// # Safety
/// `src` must be valid for reads and `dst` for writes of `len` bytes.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
unsafe fn copy(src: *const u8, dst: *mut u8, len: usize) {
    // SAFETY: the caller vouches for both; `copy` allows them to overlap.
    unsafe { core::ptr::copy(src, dst, len) };
}

/// # Safety
/// `dst` must be valid for writes of `len` bytes.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
unsafe fn zero(dst: *mut u8, len: usize) {
    // SAFETY: the caller vouches for it.
    unsafe { core::ptr::write_bytes(dst, 0, len) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_streamed_copy_is_a_copy_wherever_it_begins_and_ends() {
        let from: [u8; 512] = core::array::from_fn(|n| (n * 7 + n / 256) as u8);
        for at in 0..=130 {
            for len in 0..=200 {
                let (mut source, mut to) = (from, [0; 512]);
                // SAFETY: both arrays are borrowed by nobody else while the spans exist.
                let (src, dst) = unsafe {
                    (
                        Span::from_raw(source.as_mut_ptr().wrapping_add(3), len),
                        Span::from_raw(to.as_mut_ptr().wrapping_add(at), len + 1),
                    )
                };
                assert_eq!(src.stream_to(&dst), len);
                assert_eq!(to[at..at + len], from[3..3 + len], "{len} bytes to {at}");
                assert!(
                    to[..at]
                        .iter()
                        .chain(&to[at + len..])
                        .all(|byte| *byte == 0)
                );
            }
        }
    }
}
