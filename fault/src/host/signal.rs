//! SIGBUS and SIGSEGV: ours are resumed at their fix-up, all others belong to somebody else.
//!
//! The handler runs on the alternate stack where the thread has one, takes no lock, allocates
//! nothing and cannot fault. A fault is *ours* if the kernel raised it, its address lies in a
//! registered window and its instruction is in the exception table. A fault in a window at any other
//! instruction is somebody's bug: it is named on stderr and then treated like every foreign fault.
//!
//! A foreign fault is handed to the previous owner as if we had never been there: its handler is
//! called with its own mask and flags; a default disposition is put back and the instruction runs
//! again, so that the process dies of the same signal, at the same place, with the same core.
#![expect(unsafe_code, reason = "signal handlers and what they are handed")]

use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::OnceLock;

use libc::{sigaction, siginfo_t, ucontext_t};

use crate::access::{FaultReason, Fetched};
use crate::machine::ReserveError;
use crate::mutant::Mutant;

use super::{exception, regions, sys};

/// The signals taken over.
const SIGNALS: [c_int; 2] = [libc::SIGBUS, libc::SIGSEGV];

/// Who had a signal before us.
struct Previous {
    action: UnsafeCell<MaybeUninit<sigaction>>,
    /// `false`: not written yet. `true`: `action` is initialised and never written again.
    known: AtomicBool,
}

// SAFETY: `action` is written by one thread, inside `INSTALLED`'s initialiser, before `known` becomes
// true with Release, and only read after `known` was seen true with Acquire.
unsafe impl Sync for Previous {}

static PREVIOUS: [Previous; 2] = [const {
    Previous {
        action: UnsafeCell::new(MaybeUninit::uninit()),
        known: AtomicBool::new(false),
    }
}; 2];

static INSTALLED: OnceLock<Result<(), ReserveError>> = OnceLock::new();

/// Takes the signals over, once for each process.
pub(super) fn install() -> Result<(), ReserveError> {
    *INSTALLED.get_or_init(|| {
        // Any decision about mutants is made here, not inside the handler.
        let _ = Mutant::ForeignFaultSwallowed.active();
        for (signal, previous) in SIGNALS.into_iter().zip(&PREVIOUS) {
            // SAFETY: `sigaction` with a null new action only writes the current one, into memory that
            // is ours alone until `known` is set.
            let asked = unsafe {
                sigaction(
                    signal,
                    core::ptr::null(),
                    previous.action.get().cast::<sigaction>(),
                )
            };
            if asked != 0 {
                return Err(ReserveError::Resources {
                    call: "sigaction",
                    errno: sys::errno(),
                });
            }
            // Release pairs with the Acquire in `hand_over`.
            previous.known.store(true, Ordering::Release);
            // SAFETY: all-zero is a valid `sigaction`; the fields that matter are set below.
            let mut ours: sigaction = unsafe { core::mem::zeroed() };
            ours.sa_sigaction = on_fault as *const () as usize;
            // On the alternate stack, or a stack overflow could not be reported; restarting
            // interrupted calls, since we do not mean to interrupt any.
            ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
            // SAFETY: `ours` is a complete action whose handler has the three-argument signature that
            // SA_SIGINFO promises and restricts itself to async-signal-safe operations.
            if unsafe { sigaction(signal, &raw const ours, core::ptr::null_mut()) } != 0 {
                return Err(ReserveError::Resources {
                    call: "sigaction",
                    errno: sys::errno(),
                });
            }
        }
        sys::protect_windows_in_forked_children()
    })
}

/// The handler of both signals.
extern "C" fn on_fault(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo to a SA_SIGINFO handler.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr() as u64) };
    // Positive codes come from the kernel and carry an address; others were sent by someone.
    if code > 0 && regions::contains(address) {
        // SAFETY: the kernel passes a valid ucontext to a SA_SIGINFO handler; it is ours to change
        // until we return.
        let registers = unsafe { &mut (*context.cast::<ucontext_t>()).uc_mcontext.gregs };
        let rip = registers[libc::REG_RIP as usize] as u64;
        if let Some(fixup) = exception::fixup(rip) {
            let reason = if signal == libc::SIGBUS {
                FaultReason::NotPresent
            } else {
                FaultReason::NotMapped
            };
            registers[libc::REG_RAX as usize] = Fetched::fault(reason).raw() as i64;
            registers[libc::REG_RIP as usize] = fixup as i64;
            return;
        }
        report_stray(address, rip);
    }
    if Mutant::ForeignFaultSwallowed.active() {
        // SAFETY: ends the process without running anything else.
        unsafe { libc::_exit(0) };
    }
    hand_over(signal, info, context);
}

/// Gives a fault to whoever had the signal before us.
fn hand_over(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let index = usize::from(signal != SIGNALS[0]);
    let previous = &PREVIOUS[index];
    // Acquire pairs with the Release in `install`.
    let action = previous.known.load(Ordering::Acquire).then(|| {
        // SAFETY: initialised before `known` was set, never written since.
        unsafe { (*previous.action.get()).assume_init_ref() }
    });
    // SAFETY: as in `on_fault`.
    let sent = unsafe { (*info).si_code } <= 0;
    match action {
        Some(action)
            if action.sa_sigaction != libc::SIG_DFL && action.sa_sigaction != libc::SIG_IGN =>
        {
            call(action, signal, info, context);
        }
        Some(action) if action.sa_sigaction == libc::SIG_IGN && sent => {}
        // Default; or an ignored fault raised by the kernel, which it does not let anyone ignore.
        _ => {
            // SAFETY: puts the default back; all-zero is SIG_DFL with no flags and an empty mask.
            unsafe {
                let default: sigaction = core::mem::zeroed();
                sigaction(signal, &raw const default, core::ptr::null_mut());
                if sent {
                    // No instruction will raise it again: send it to this thread once more. It is
                    // blocked until we return.
                    libc::raise(signal);
                }
            }
        }
    }
}

/// Calls a previous handler under the mask that it asked for.
fn call(action: &sigaction, signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: `action` was installed by someone as the handler of this signal, with the signature that
    // its flags name, so calling it with what the kernel gave us is what the kernel itself would have
    // done. The mask calls work on this thread's own mask and on two local sets.
    unsafe {
        if action.sa_flags & libc::SA_RESETHAND != 0 {
            // It asked to be called once.
            let default: sigaction = core::mem::zeroed();
            sigaction(signal, &raw const default, core::ptr::null_mut());
        }
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        libc::pthread_sigmask(
            libc::SIG_BLOCK,
            &raw const action.sa_mask,
            before.as_mut_ptr(),
        );
        if action.sa_flags & libc::SA_NODEFER != 0 {
            let mut own = MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigemptyset(own.as_mut_ptr());
            libc::sigaddset(own.as_mut_ptr(), signal);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, own.as_ptr(), core::ptr::null_mut());
        }
        if action.sa_flags & libc::SA_SIGINFO != 0 {
            let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
                core::mem::transmute(action.sa_sigaction);
            handler(signal, info, context);
        } else {
            let handler: extern "C" fn(c_int) = core::mem::transmute(action.sa_sigaction);
            handler(signal);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), core::ptr::null_mut());
    }
}

/// Says on stderr that somebody touched a window without the right to.
fn report_stray(address: u64, rip: u64) {
    let mut line = *b"pageless: access to descriptor memory at 0x................ without a \
                      reference, by the instruction at 0x................\n";
    let mut fields = line
        .windows(16)
        .enumerate()
        .filter(|(_, w)| w.iter().all(|b| *b == b'.'))
        .map(|(at, _)| at);
    let (first, second) = (fields.next(), fields.next_back());
    for (at, value) in [(first, address), (second, rip)] {
        let Some(at) = at else { continue };
        for digit in 0..16 {
            let nibble = (value >> (60 - 4 * digit) & 0xf) as usize;
            line[at + digit] = b"0123456789abcdef"[nibble];
        }
    }
    // SAFETY: writes bytes of a local array to stderr; write(2) is async-signal-safe.
    unsafe { libc::write(2, line.as_ptr().cast(), line.len()) };
}
