//! Hazard: a program that locks its memory, as real-time programs do, cannot have anything unmapped. The
//! only test of its process: the lock is the whole process's.
#![cfg(all(not(loom), target_os = "linux", target_arch = "x86_64"))]
#![expect(unsafe_code, reason = "locks the process's memory")]

use pageless_fault::host::HostMachine;
use pageless_fault::{
    FaultReason, Machine, MaySleep, Window, WindowLen, WindowOffset, WindowRange, Word,
};
use std::io::Write as _;

#[test]
fn a_window_of_locked_memory_gives_its_ranges_back() {
    let ctx = MaySleep::claim();
    let window = HostMachine::new()
        .unwrap()
        .reserve(WindowLen::covering(1 << 30).unwrap(), 4096)
        .unwrap();
    // SAFETY: takes flags only.
    if unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_ONFAULT) } != 0 {
        // Not `eprintln!`: what a passing test prints is not shown.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: mlockall is not permitted here ({}); raise `ulimit -l`",
            std::io::Error::last_os_error()
        );
        return;
    }
    let page = WindowRange::try_new(WindowOffset::new(1 << 20), 4096).unwrap();
    let word = window.word(WindowOffset::new(1 << 20)).unwrap();
    for _ in 0..3 {
        window.populate(page, &ctx).unwrap();
        assert_eq!(word.fetch_add(1).get(), Ok(0));
        window
            .unmap(&[page], ())
            .unwrap()
            .settle(&ctx)
            .unwrap()
            .into_inner();
        assert_eq!(word.fetch_add(1).get(), Err(FaultReason::NotPresent));
    }
}
