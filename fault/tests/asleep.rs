//! Hazard: a CPU asleep, whose handler is executed by whoever rings. What happens meanwhile must be what would have happened to the
//! sleeper itself: near its last access, and by its own chance.
#![cfg(all(feature = "std", not(loom), not(miri)))]

use pageless_fault::shootdown::{CpuId, PolicyKind, SpaceId};
use pageless_fault::sim::{Cpu, Entry, Level, SimConfig, SimMachine};
use x86_64::structures::paging::PageTableFlags as Flags;

const KERNEL: SpaceId = SpaceId::new(0);
/// Where the sleeper was last.
const VA: u64 = 0x1000;
const OTHER: u64 = 0x2000;

/// A machine of two CPUs; in one of `nmi_one_in` handlers something reads where its CPU last was.
fn machine(nmi_one_in: u32) -> SimMachine {
    let machine = SimMachine::new(SimConfig {
        cpus: 2,
        frames: 32,
        policy: PolicyKind::KernelRange,
        tick_every: 0,
        nmi_one_in,
        ..SimConfig::default()
    });
    let machine = machine.unwrap();
    let frame = machine.alloc().unwrap();
    machine.map(KERNEL, VA, frame, true).unwrap();
    machine
}

/// CPU 1 reads, forgets what it has read, and sleeps; nothing tells that it has been there.
fn read_and_sleep(machine: &SimMachine) {
    let sleeper = machine.cpu(CpuId::new(1)).unwrap();
    sleeper.load(VA).unwrap();
    sleeper.invalidate_all();
    forget(machine);
}

fn forget(machine: &SimMachine) {
    let entry = machine.entry(KERNEL, VA, Level::Table);
    let clear = Entry::from_bits(entry.bits() & !Flags::ACCESSED.bits());
    machine.replace_entry(KERNEL, VA, Level::Table, clear);
}

/// Whether the handler of CPU 1, for a page that it has nothing to do with, has read where that was last.
fn shoot(machine: &SimMachine, cpu: &Cpu) -> bool {
    let frame = machine.alloc().unwrap();
    machine.map(KERNEL, OTHER, frame, true).unwrap();
    let unmapped = machine.unmap(cpu, KERNEL, OTHER).unwrap();
    unmapped.free(machine, cpu).unwrap();
    let entry = machine.entry(KERNEL, VA, Level::Table);
    entry.has(Flags::ACCESSED)
}

#[test]
fn an_unmaskable_interrupt_reads_where_the_sleeper_was() {
    let machine = machine(1);
    read_and_sleep(&machine);
    let cpu = machine.cpu(CpuId::new(0)).unwrap();
    assert!(shoot(&machine, &cpu));
}

#[test]
fn the_sleepers_chance_goes_on() {
    let machine = machine(2);
    let cpu = machine.cpu(CpuId::new(0)).unwrap();
    let read = (0..64).filter(|_| {
        read_and_sleep(&machine);
        shoot(&machine, &cpu)
    });
    let read = read.count();
    assert!((1..64).contains(&read), "{read} of 64: always the same");
}
