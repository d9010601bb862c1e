//! Hazard: a lookup in a signal handler faults, fills, waits or allocates.
#![expect(
    unsafe_code,
    reason = "installs a signal handler that looks a descriptor up"
)]

use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::OnceLock;

use pageless_fault::MaySleep;
use pageless_fault::host::HostMachine;
use pageless_memmap::{Config, HostMemmap, Memmap, TryGetError};

use crate::device::{frames, paged};

static MEMMAP: OnceLock<HostMemmap> = OnceLock::new();
/// What the handler found: 1 for a reference, 2 for would-block.
static FOUND: AtomicU32 = AtomicU32::new(0);

extern "C" fn on_signal(_: i32) {
    let found = match MEMMAP.get().map(|memmap| memmap.try_get(paged(640))) {
        Some(Ok(_)) => 1,
        Some(Err(TryGetError::WouldBlock { .. })) => 2,
        _ => 3,
    };
    FOUND.store(found, Ordering::Relaxed);
}

#[test]
fn a_signal_handler_may_look_descriptors_up() {
    let ctx = MaySleep::claim();
    let memmap = MEMMAP.get_or_init(|| {
        let machine = HostMachine::new().unwrap();
        Memmap::attach(&machine, frames(1 << 20), Config::default()).unwrap()
    });
    // SAFETY: installs a handler for a signal that nobody else in this process uses; it only does what
    // `try_get` promises to be fit for a handler. `raise` runs it in this thread.
    let raise = || unsafe {
        let handler: extern "C" fn(i32) = on_signal;
        libc::signal(libc::SIGUSR2, handler as libc::sighandler_t);
        libc::raise(libc::SIGUSR2);
    };
    raise();
    assert_eq!(FOUND.load(Ordering::Relaxed), 2);
    let _page = memmap.get(&ctx, paged(641)).unwrap();
    raise();
    assert_eq!(FOUND.load(Ordering::Relaxed), 1);
}
