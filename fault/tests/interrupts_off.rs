//! Hazard: a section with interrupts off that is left, or slept in, with its interrupts in a state that nobody expects.
#![cfg(all(feature = "std", not(loom)))]

use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use pageless_fault::shootdown::{CpuId, PolicyKind, Processor, SpaceId};
use pageless_fault::sim::{Cpu, SimConfig, SimMachine};

const VA: u64 = 0x1000;
const KERNEL: SpaceId = SpaceId::new(0);

/// Two CPUs, and a page that the first has cached.
fn two() -> (SimMachine, Cpu, Cpu) {
    let machine = SimMachine::new(SimConfig {
        cpus: 2,
        frames: 32,
        policy: PolicyKind::SyncIpi,
        tick_every: 0,
        ..SimConfig::default()
    });
    let machine = machine.unwrap();
    let frame = machine.alloc().unwrap();
    machine.map(KERNEL, VA, frame, true).unwrap();
    let (cpu, other) = (machine.cpu(CpuId::new(0)), machine.cpu(CpuId::new(1)));
    let (cpu, other) = (cpu.unwrap(), other.unwrap());
    cpu.load(VA).unwrap();
    (machine, cpu, other)
}

#[test]
fn a_cpu_does_not_sleep_with_interrupts_off() {
    let (machine, cpu, other) = two();
    let unmapped = cpu.with_interrupts_off(|| {
        let unmapped = machine.unmap(&other, KERNEL, VA).unwrap();
        let slept = catch_unwind(AssertUnwindSafe(|| cpu.idle(1)));
        assert!(slept.is_err(), "slept");
        assert!(cpu.caches(VA), "the request was served in spite of that");
        unmapped.try_free(&machine, &other).unwrap_err()
    });
    assert!(!cpu.caches(VA), "served as soon as they are on");
    unmapped.try_free(&machine, &other).unwrap();
    cpu.idle(1);
    assert_eq!(machine.stale_hits(), 0);
}

#[test]
fn a_panic_inside_turns_interrupts_on_again() {
    let (machine, cpu, other) = two();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        cpu.with_interrupts_off(|| {
            cpu.with_interrupts_off(|| assert!(cpu.interrupts_on(), "on purpose"));
        });
    }));
    assert!(outcome.is_err());
    assert!(cpu.interrupts_on());
    let unmapped = machine.unmap(&other, KERNEL, VA).unwrap();
    assert!(cpu.load(VA).is_err(), "the request was not served");
    unmapped.try_free(&machine, &other).unwrap();
}
