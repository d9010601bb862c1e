//! Hazard: a device is larger than the address space, or a window of the largest one costs something.

use pageless_fault::host::HostMachine;
use pageless_memmap::{AttachError, Config, Memmap};

use crate::device::frames;

#[test]
fn a_petabyte_can_be_attached_and_a_zettabyte_cannot() {
    let memmap = Memmap::attach(
        &HostMachine::new().unwrap(),
        frames(1 << 38),
        Config::default(),
    )
    .unwrap();
    assert_eq!(memmap.counters().used_bytes(), 0);
    let error = Memmap::attach(
        &HostMachine::new().unwrap(),
        frames(1 << 51),
        Config::default(),
    )
    .unwrap_err();
    assert!(matches!(error, AttachError::Window(_)), "{error}");
}
