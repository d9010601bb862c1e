//! Hazard: taking SIGBUS and SIGSEGV over breaks those who had them before. Each scenario runs in a
//! process of its own (this test binary again), since most of them end it.
#![cfg(all(not(loom), target_os = "linux", target_arch = "x86_64"))]
#![expect(
    unsafe_code,
    reason = "installs signal handlers and makes them necessary"
)]

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output};

use pageless_fault::host::{HostMachine, HostWindow};
use pageless_fault::{FaultReason, Machine, Table, Window, WindowLen, Word};

/// Names the scenario to the process that plays it.
const SCENARIO: &str = "PAGELESS_TEST_SCENARIO";
/// What a previous owner's handler ends the process with.
const OWNER_WAS_ASKED: i32 = 42;

/// Runs the test `name` of this binary again, in its own process, as the one that plays the scenario.
fn play(name: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(SCENARIO, name)
        .output()
        .unwrap()
}

fn playing() -> bool {
    std::env::var_os(SCENARIO).is_some()
}

/// A window that works: a fault of ours is resumed, so the handler is in force.
fn window() -> HostWindow {
    let window = HostMachine::new()
        .unwrap()
        .reserve(WindowLen::covering(1 << 30).unwrap(), 4096)
        .unwrap();
    let word = window.table::<64>(1 << 20).unwrap().nth(12345).unwrap();
    assert_eq!(word.fetch_add(1).get(), Err(FaultReason::NotPresent));
    window
}

/// An address where nothing is mapped.
fn nowhere() -> *mut u32 {
    core::ptr::without_provenance_mut(0x10)
}

/// An address that raises SIGBUS: a shared mapping of a file that is too short for it.
fn beyond_the_end_of_a_file() -> *mut u32 {
    // SAFETY: a new mapping of a new, empty file.
    unsafe {
        let file = libc::memfd_create(c"empty".as_ptr(), 0);
        let at = libc::mmap(
            core::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file,
            0,
        );
        assert_ne!(at, libc::MAP_FAILED);
        at.cast()
    }
}

fn touch(at: *mut u32) {
    // SAFETY: not sound, and meant not to be: the process is here to fault at this very address.
    unsafe { at.write_volatile(1) };
}

extern "C" fn owner(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel's siginfo; ends the process, without running anything else.
    unsafe {
        let expected = (*info).si_code > 0;
        libc::_exit(if expected { OWNER_WAS_ASKED } else { 1 });
    }
}

fn own(signal: i32) {
    // SAFETY: a complete action with a handler of the signature that SA_SIGINFO promises.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = owner as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(
            libc::sigaction(signal, &raw const action, core::ptr::null_mut()),
            0
        );
    }
}

#[test]
fn a_foreign_sigsegv_reaches_its_previous_owner() {
    if playing() {
        own(libc::SIGSEGV);
        let _window = window();
        touch(nowhere());
    }
    let output = play("a_foreign_sigsegv_reaches_its_previous_owner");
    assert_eq!(output.status.code(), Some(OWNER_WAS_ASKED), "{output:?}");
}

#[test]
fn a_foreign_sigbus_reaches_its_previous_owner() {
    if playing() {
        own(libc::SIGBUS);
        let _window = window();
        touch(beyond_the_end_of_a_file());
    }
    let output = play("a_foreign_sigbus_reaches_its_previous_owner");
    assert_eq!(output.status.code(), Some(OWNER_WAS_ASKED), "{output:?}");
}

extern "C" fn once(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: writes a constant to stderr.
    unsafe { libc::write(2, b"asked once\n".as_ptr().cast(), 11) };
}

#[test]
fn a_handler_that_wants_to_be_asked_once_is_asked_once() {
    if playing() {
        // SAFETY: a complete action with a handler of the signature that SA_SIGINFO promises; the alarm
        // ends a process that loops.
        unsafe {
            let mut action: libc::sigaction = core::mem::zeroed();
            action.sa_sigaction = once as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND;
            libc::sigaction(libc::SIGSEGV, &raw const action, core::ptr::null_mut());
            libc::alarm(20);
        }
        let _window = window();
        touch(nowhere());
    }
    let output = play("a_handler_that_wants_to_be_asked_once_is_asked_once");
    assert_eq!(
        output.status.signal(),
        Some(libc::SIGSEGV),
        "{:?}",
        output.status
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.matches("asked once").count(), 1, "{said}");
}

#[test]
fn a_real_crash_stays_a_real_crash() {
    if playing() {
        let _window = window();
        touch(nowhere());
    }
    let output = play("a_real_crash_stays_a_real_crash");
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{output:?}");
}

#[test]
fn a_stack_overflow_is_still_reported() {
    #[expect(unconditional_recursion, reason = "that is the point")]
    fn overflow(depth: &mut [u64; 512]) {
        depth[0] += 1;
        let mut deeper = core::hint::black_box(*depth);
        overflow(&mut deeper);
    }
    if playing() {
        let _window = window();
        overflow(&mut [0; 512]);
    }
    let output = play("a_stack_overflow_is_still_reported");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("has overflowed its stack"), "{said}");
}

#[test]
fn a_signal_that_was_ignored_and_is_only_sent_is_still_ignored() {
    if playing() {
        // SAFETY: ignores a signal, and sends it to this thread.
        unsafe {
            libc::signal(libc::SIGBUS, libc::SIG_IGN);
            let _window = window();
            libc::raise(libc::SIGBUS);
            libc::_exit(7);
        }
    }
    let output = play("a_signal_that_was_ignored_and_is_only_sent_is_still_ignored");
    assert_eq!(output.status.code(), Some(7), "{output:?}");
}

#[test]
fn a_signal_that_is_only_sent_ends_who_does_not_handle_it() {
    if playing() {
        // SAFETY: puts a default back, and sends the signal to this thread.
        unsafe {
            libc::signal(libc::SIGBUS, libc::SIG_DFL);
            let _window = window();
            libc::raise(libc::SIGBUS);
            libc::_exit(7);
        }
    }
    let output = play("a_signal_that_is_only_sent_ends_who_does_not_handle_it");
    assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{output:?}");
}

#[test]
fn a_stray_access_to_a_window_is_named_and_fatal() {
    if playing() {
        let window = window();
        let word = window
            .word(pageless_fault::WindowOffset::new(4096))
            .unwrap();
        // For whoever holds the range present; here nobody does.
        word.store(1, core::sync::atomic::Ordering::Relaxed);
    }
    let output = play("a_stray_access_to_a_window_is_named_and_fatal");
    assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said
        .lines()
        .find(|line| line.starts_with("pageless: access to descriptor memory at 0x"));
    assert!(line.is_some_and(|line| !line.contains('.')), "{said}");
}
