//! Hazard: a thread that runs on a CPU of one modelled machine and has to do with a window of another: its CPU can neither reach
//! the other's memory nor flush anything there.
#![cfg(all(feature = "std", not(loom)))]

use core::sync::atomic::Ordering;

use pageless_fault::shootdown::CpuId;
use pageless_fault::sim::{SimConfig, SimMachine, SimWindow};
use pageless_fault::{Machine, MaySleep, Window, WindowLen, WindowOffset, WindowRange, Word};

const CPU: CpuId = CpuId::new(0);

fn machine() -> SimMachine {
    SimMachine::new(SimConfig {
        cpus: 1,
        frames: 32,
        patience: 100,
        ..SimConfig::default()
    })
    .unwrap()
}

/// A window of one page, which is there.
fn window(machine: &SimMachine) -> SimWindow {
    let window = machine.reserve(WindowLen::covering(4096).unwrap(), 4096);
    let window = window.unwrap();
    let page = WindowRange::try_new(WindowOffset::new(0), 4096).unwrap();
    window.populate(page, &MaySleep::claim()).unwrap();
    window
}

#[test]
fn a_window_that_goes_on_another_machines_cpu_is_not_flushed_by_that() {
    let (ours, other) = (machine(), machine());
    let first = window(&ours);
    let cpu = ours.cpu(CPU).unwrap();
    let base = first.base();
    cpu.store(base, 7).unwrap();
    // The same number as that of the CPU which has the translation, and which is in use: nobody can flush there.
    other.run_on(CPU, |_| drop(first)).unwrap();
    let next = window(&ours);
    assert_ne!(next.base(), base, "addresses that nobody has flushed");
    assert_eq!(cpu.load(next.base()), Ok(0));
    assert_eq!(ours.stale_hits(), 0, "{:?}", ours.incidents());
}

#[test]
#[should_panic(expected = "no CPU of its machine")]
fn a_window_is_not_accessed_by_another_machines_cpu() {
    let (ours, other) = (machine(), machine());
    let window = window(&ours);
    let access = |_: &_| {
        let word = window.word(WindowOffset::new(0)).unwrap();
        word.load(Ordering::Acquire)
    };
    let _ = other.run_on(CPU, access);
}
