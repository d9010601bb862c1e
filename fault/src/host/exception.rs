//! The instructions that may fault, and the table that says where each one goes on.
//!
//! Every expansion of [`HostWord::fetch_add`], [`HostWord::release`] and [`copy`] leaves one entry in the
//! linker section `pageless_extable`: the distance to the instruction and the distance to its
//! fix-up, 32 bits each, relative to the entry's own fields, so that the table needs no relocation
//! and lives in read-only memory. The fault handler looks the interrupted instruction up, puts the
//! reason into `rax` and continues at the fix-up: to the program the instruction simply returned a
//! value that no memory word can hold.
#![expect(
    unsafe_code,
    reason = "inline assembly, and atomics at raw window addresses"
)]

use core::arch::asm;
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::access::Fetched;
use crate::machine::Word;

/// A 32-bit word in a host window.
///
/// # Invariants
///
/// `at` is 4-byte aligned and lies in a window that outlives `'w`. There may be no memory behind it.
#[derive(Debug, Clone, Copy)]
pub struct HostWord<'w> {
    at: NonNull<AtomicU32>,
    _window: PhantomData<&'w ()>,
}

// SAFETY: a word is a place for atomic operations in memory that all threads of the process share;
// nothing about it belongs to the thread that made it.
unsafe impl Send for HostWord<'_> {}
// SAFETY: as above; all its operations are atomic and take it by value.
unsafe impl Sync for HostWord<'_> {}

/// An instruction that is resumed behind itself when it faults, with the reason in `rax`, and what
/// comes before it.
macro_rules! resumable {
    ($before:literal, $instruction:literal, $($operands:tt)*) => {
        asm!(
            $before,
            concat!("2: ", $instruction),
            "3:",
            ".pushsection pageless_extable, \"aR\", @progbits",
            ".balign 4",
            ".long 2b - .",
            ".long 3b - .",
            ".popsection",
            $($operands)*
        )
    };
}

impl HostWord<'_> {
    /// The word at `at`.
    ///
    /// # Safety
    ///
    /// `at` is 4-byte aligned and lies in a window that is not given back during `'w`.
    #[inline]
    pub(super) unsafe fn new(at: NonNull<u32>) -> Self {
        HostWord {
            at: at.cast(),
            _window: PhantomData,
        }
    }

    /// The same word as an ordinary atomic.
    #[inline]
    fn atomic(&self) -> &AtomicU32 {
        // SAFETY: aligned and inside a live window (invariant); window memory is only ever accessed
        // by atomic operations. Where no memory is present the access raises SIGBUS at an instruction
        // outside the exception table, which ends the process: that is no undefined behaviour of the
        // program but a report of one (the contract of `Word`).
        unsafe { self.at.as_ref() }
    }
}

impl Word for HostWord<'_> {
    #[inline]
    fn fetch_add(self, n: u32) -> Fetched {
        let mut register = u64::from(n);
        // SAFETY: a locked exchange-and-add on an aligned word inside a live window (invariant).
        // Either it executes, and zero-extends the old value into rax; or it faults without effect,
        // and the handler in `signal` sets rax to a fault code and resumes at label 3, which is the
        // instruction behind it. No other register and no stack is touched either way; memory and
        // flags are clobbered by default, so the compiler orders nothing across it. The prefetch before
        // it is a hint that cannot fault; it lets the lines of later lookups arrive while locked
        // instructions wait for each other.
        unsafe {
            resumable!(
                "prefetchw byte ptr [{at}]",
                "lock xadd dword ptr [{at}], eax",
                at = in(reg) self.at.as_ptr(),
                inout("rax") register,
                options(nostack),
            );
        }
        let fetched = Fetched::from_register(register);
        // ThreadSanitizer does not see the instruction above. An old value below a quarter of all means
        // that this increment is a reference, so an instrumented Acquire load of the word is harmless
        // and tells it what the instruction ordered. (Above it the memory may already be going.)
        #[cfg(pageless_tsan)]
        if fetched.raw() < 1 << 30 {
            self.atomic().load(Ordering::Acquire);
        }
        fetched
    }

    #[inline]
    fn release(self) {
        // As for `fetch_add`: give ThreadSanitizer a Release on this word that it can see.
        #[cfg(pageless_tsan)]
        self.atomic().fetch_add(0, Ordering::Release);
        // SAFETY: as in `fetch_add`. Where the window is not mapped (a forked child dropping a
        // reference that its parent holds) the instruction has no effect and rax is overwritten, which
        // is declared as an output.
        unsafe {
            resumable!(
                "",
                "lock dec dword ptr [{at}]",
                at = in(reg) self.at.as_ptr(),
                out("rax") _,
                options(nostack),
            );
        }
    }

    #[inline]
    fn compare_exchange(self, current: u32, new: u32) -> Result<u32, u32> {
        // Acquire pairs with the Release of `release`: whoever finds the count at 0 sees everything
        // its holders did. Release: counts that holders keep in words of their own end in this operation, and pair with it.
        self.atomic()
            .compare_exchange(current, new, Ordering::AcqRel, Ordering::Relaxed)
    }

    #[inline]
    fn exchange(self, new: u32) -> u32 {
        // Release pairs with the Acquire of `fetch_add`.
        self.atomic().swap(new, Ordering::Release)
    }

    #[inline]
    fn load(self, order: Ordering) -> u32 {
        self.atomic().load(order)
    }

    #[inline]
    fn store(self, value: u32, order: Ordering) {
        self.atomic().store(value, order);
    }
}

/// Copies `len` bytes and answers how many it has copied before it came to a page without a translation, or that may not be written.
///
/// # Safety
///
/// Both ranges belong to the program: each is either memory that the caller may read or write, or lies in a registered window.
pub(super) unsafe fn copy(into: *mut u8, from: *const u8, len: usize) -> usize {
    let mut left = len;
    // SAFETY: the caller's ranges; the direction flag is clear by the calling convention. Where an access faults, what has been copied
    // is told by rcx, and the handler resumes behind the instruction with rax changed, which is declared as an output.
    unsafe {
        resumable!(
            "",
            "rep movsb",
            inout("rcx") left,
            inout("rdi") into => _,
            inout("rsi") from => _,
            out("rax") _,
            options(nostack, preserves_flags),
        );
    }
    len - left
}

/// One entry of the table, as the assembler lays it down.
#[repr(C)]
struct Entry {
    /// From this field to the instruction.
    instruction: i32,
    /// From this field to where it goes on after a fault.
    fixup: i32,
}

const _: () = assert!(size_of::<Entry>() == 8 && align_of::<Entry>() == 4);

/// Where to go on if the instruction at `rip` faulted; `None` if it is not one that may.
/// Safe in a signal handler.
pub(super) fn fixup(rip: u64) -> Option<u64> {
    let start: *const Entry;
    let stop: *const Entry;
    // SAFETY: reads two addresses that the linker defines for every section whose name is a C
    // identifier. The entry laid down here (which points at itself, hence at no instruction) makes sure
    // that the section exists.
    unsafe {
        asm!(
            ".pushsection pageless_extable, \"aR\", @progbits",
            ".balign 4",
            ".long 0",
            ".long 0",
            ".popsection",
            ".hidden __start_pageless_extable",
            ".hidden __stop_pageless_extable",
            "lea {start}, [rip + __start_pageless_extable]",
            "lea {stop}, [rip + __stop_pageless_extable]",
            start = out(reg) start,
            stop = out(reg) stop,
            options(nomem, nostack, preserves_flags),
        );
    }
    // SAFETY: the section consists of `Entry`s laid down back to back, 4-byte aligned, in read-only
    // memory that lives as long as the program.
    let table =
        unsafe { core::slice::from_raw_parts(start, stop.addr().wrapping_sub(start.addr()) / 8) };
    let target = |field: &i32| {
        core::ptr::from_ref(field)
            .addr()
            .wrapping_add_signed(*field as isize) as u64
    };
    table
        .iter()
        .find(|entry| target(&entry.instruction) == rip)
        .map(|entry| target(&entry.fixup))
}
