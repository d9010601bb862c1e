//! A machine of two CPUs and two address spaces, and entries changed bit by bit.

use pageless_fault::shootdown::{CpuId, PolicyKind, SpaceId};
use pageless_fault::sim::{Cpu, Entry, FaultCause, Level, SimConfig, SimMachine};
pub(crate) use x86_64::structures::paging::PageTableFlags as Flags;

/// The address spaces: both have PCIDs of their own.
pub(crate) const HERE: SpaceId = SpaceId::new(1);
pub(crate) const THERE: SpaceId = SpaceId::new(2);

/// An address whose index differs at every level: 1, 2, 3, 4.
pub(crate) const VA: u64 = 1 << 39 | 2 << 30 | 3 << 21 | 4 << 12;

pub(crate) const RO: Flags = Flags::PRESENT;
pub(crate) const RW: Flags = Flags::PRESENT.union(Flags::WRITABLE);

/// A frame number that is a multiple of 512, for 2 MiB pages. Nobody owns it.
pub(crate) const LARGE_FRAME: u64 = 512;

pub(crate) struct Rig {
    pub(crate) machine: SimMachine,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Rig::with(SimConfig::default())
    }

    /// As `config` says, with two CPUs, two spaces, and no ticks.
    pub(crate) fn with(config: SimConfig) -> Self {
        let machine = SimMachine::new(SimConfig {
            cpus: 2,
            frames: 1536,
            user_spaces: 2,
            tick_every: 0,
            ..config
        });
        Rig {
            machine: machine.unwrap(),
        }
    }

    pub(crate) fn under(policy: PolicyKind) -> Self {
        Rig::with(SimConfig {
            policy,
            ..SimConfig::default()
        })
    }

    /// CPU `n`, in [`HERE`] and with nothing cached.
    pub(crate) fn cpu(&self, n: u16) -> Cpu {
        let cpu = self.machine.cpu(CpuId::new(n)).unwrap();
        cpu.switch_to(HERE);
        cpu.invalidate_all();
        cpu
    }

    /// A fresh frame at `va`; its number.
    pub(crate) fn map(&self, space: SpaceId, va: u64, flags: Flags) -> u64 {
        let frame = self.machine.alloc().unwrap();
        self.machine
            .map_with(space, va, frame, flags)
            .unwrap()
            .get()
    }

    pub(crate) fn map_frame(&self, space: SpaceId, va: u64, frame: u64, flags: Flags) {
        let entry = Entry::new(frame, flags);
        self.machine
            .map_entry(space, va, Level::Table, entry)
            .unwrap();
    }

    pub(crate) fn map_large(&self, space: SpaceId, va: u64, flags: Flags) {
        let entry = Entry::new(LARGE_FRAME, flags | Flags::HUGE_PAGE);
        self.machine
            .map_entry(space, va, Level::Directory, entry)
            .unwrap();
    }

    pub(crate) fn has(&self, va: u64, level: Level, flags: Flags) -> bool {
        self.machine.entry(HERE, va, level).has(flags)
    }

    /// Sets bits of an entry in memory. No CPU is told.
    pub(crate) fn set(&self, va: u64, level: Level, flags: Flags) {
        self.set_bits(va, level, flags.bits());
    }

    pub(crate) fn set_bits(&self, va: u64, level: Level, bits: u64) {
        let old = self.machine.entry(HERE, va, level).bits();
        let _ = self
            .machine
            .replace_entry(HERE, va, level, Entry::from_bits(old | bits));
    }

    /// Clears bits of an entry in memory. No CPU is told.
    pub(crate) fn clear(&self, va: u64, level: Level, flags: Flags) {
        let old = self.machine.entry(HERE, va, level).bits();
        let new = Entry::from_bits(old & !flags.bits());
        let _ = self.machine.replace_entry(HERE, va, level, new);
    }

    /// Takes the whole entry away. No CPU is told.
    pub(crate) fn remove(&self, va: u64, level: Level) -> Entry {
        self.machine.replace_entry(HERE, va, level, Entry::ABSENT)
    }
}

/// The cause of the fault that a read of `va` ends in.
pub(crate) fn read_fault(cpu: &Cpu, va: u64) -> Option<FaultCause> {
    cpu.load(va).err().map(|fault| {
        assert_eq!((fault.va, fault.write), (va, false));
        fault.cause
    })
}

/// The cause of the fault that a write to `va` ends in.
pub(crate) fn write_fault(cpu: &Cpu, va: u64) -> Option<FaultCause> {
    cpu.store(va, 1).err().map(|fault| {
        assert_eq!((fault.va, fault.write), (va, true));
        fault.cause
    })
}
