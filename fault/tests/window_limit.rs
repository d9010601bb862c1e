//! Hazard: the table that the signal handler looks windows up in runs full. The only test of its process:
//! it takes all places there are.
#![cfg(all(not(loom), target_os = "linux", target_arch = "x86_64"))]

use pageless_fault::host::HostMachine;
use pageless_fault::{FaultReason, Machine, ReserveError, Window, WindowLen, WindowOffset, Word};

#[test]
fn more_windows_than_places_is_a_clear_error_and_places_come_back() {
    let machine = HostMachine::new().unwrap();
    let len = WindowLen::covering(1 << 20).unwrap();
    let mut windows = Vec::new();
    let limit = loop {
        match machine.reserve(len, 4096) {
            Ok(window) => windows.push(window),
            Err(ReserveError::TooManyWindows { limit }) => break limit,
            Err(error) => panic!("{error}"),
        }
        assert!(windows.len() < 10_000);
    };
    assert!(windows.len() <= limit);
    windows.clear();
    let window = machine.reserve(len, 4096).unwrap();
    let word = window.word(WindowOffset::new(0)).unwrap();
    assert_eq!(word.fetch_add(1).get(), Err(FaultReason::NotPresent));
}
