//! What is not an address is not translated.

use pageless_fault::shootdown::{CpuId, PolicyKind};
use pageless_fault::sim::{FaultCause, Level, MapError, Speculation};
use pageless_fault::sim::{SimConfig, SimMachine};

use crate::rig::{Flags, HERE, RW, Rig, VA, read_fault, write_fault};

/// Like [`VA`] in the bits that choose table entries.
const TWINS: [u64; 3] = [VA | 1 << 48, VA | 1 << 63, VA | 0xffff << 48];

/// The last page below the hole in the middle of the address space.
const LAST: u64 = (1 << 47) - 0x1000;

/// SDM volume 1, 3.3.7.1: a reference to an address whose bits 63:47 are not all equal raises #GP. It neither uses what is cached for
/// the address that it resembles, nor walks. Model: reported as a fault with a cause of its own.
#[test]
fn no_address_reaches_the_page_of_the_one_it_resembles() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    rig.map(HERE, VA, RW);
    for cached in [false, true] {
        for twin in TWINS {
            assert_eq!(read_fault(&cpu, twin), Some(FaultCause::NonCanonical));
            assert_eq!(write_fault(&cpu, twin), Some(FaultCause::NonCanonical));
            assert!(!cpu.caches(twin));
        }
        assert_eq!(cpu.caches(VA), cached);
        assert_eq!(rig.has(VA, Level::Table, Flags::ACCESSED), cached);
        assert_eq!(write_fault(&cpu, VA), None);
    }
}

/// SDM volume 1, 3.3.7.1: canonical are the lowest and the highest 2^47 bytes, and nothing between.
#[test]
fn the_hole_begins_and_ends_where_the_manual_says() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    for (va, cause) in [
        (LAST, FaultCause::NotPresent),
        (1 << 47, FaultCause::NonCanonical),
        (!0 << 47, FaultCause::NotPresent),
        ((!0 << 47) - 8, FaultCause::NonCanonical),
        (!7, FaultCause::NotPresent),
        (1 << 63, FaultCause::NonCanonical),
    ] {
        assert_eq!(read_fault(&cpu, va), Some(cause), "{va:#x}");
    }
}

/// SDM volume 2, 3.2 INVLPG: the same as a NOP if the address is not canonical.
#[test]
fn invlpg_of_no_address_does_nothing() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    rig.map(HERE, VA, RW);
    assert_eq!(read_fault(&cpu, VA), None);
    let structures = cpu.cached_structures();
    for twin in TWINS {
        cpu.invalidate_page(twin);
    }
    assert!(cpu.caches(VA));
    assert_eq!(cpu.cached_structures(), structures);
}

/// SDM volume 1, 3.3.7.1: nor does a walk that no instruction waits for go across the end of the lower half.
#[test]
fn no_speculative_walk_goes_into_the_hole() {
    let rig = Rig::with(SimConfig {
        speculation: Speculation::Marked,
        speculate_one_in: 1,
        ..SimConfig::default()
    });
    let cpu = rig.cpu(0);
    // What the first pages of the hole resemble.
    let resembled = !0 << 47;
    for page in 0..4 {
        rig.map(HERE, resembled + (page << 12), RW);
    }
    rig.map(HERE, LAST, RW);
    for _ in 0..1000 {
        assert_eq!(read_fault(&cpu, LAST), None);
    }
    for page in 0..4 {
        let va = resembled + (page << 12);
        assert!(!rig.has(va, Level::Table, Flags::ACCESSED), "{va:#x}");
    }
}

/// SDM 4.5: what no CPU can reach has no entry. Model: software that tries to map there is refused.
#[test]
fn nothing_is_mapped_at_no_address() {
    let rig = Rig::new();
    let before = rig.map(HERE, VA, RW);
    for twin in TWINS {
        let frame = rig.machine.alloc().unwrap();
        let refused = rig.machine.map(HERE, twin, frame, true);
        assert_eq!(refused, Err(MapError::NonCanonical { va: twin }));
        let entry = rig.machine.entry(HERE, twin, Level::Table);
        assert!(!entry.has(Flags::PRESENT));
    }
    assert_eq!(rig.machine.entry(HERE, VA, Level::Table).frame(), before);
}

/// SDM volume 1, 3.3.7.1: a CPU that asks for what resembles an address in a window is no target of its shootdowns, because it
/// has nothing cached there.
#[test]
fn no_address_leads_around_the_door_of_a_window() {
    const PAGE: u64 = 0xffff_c900_0000_0000;
    let machine = SimMachine::new(SimConfig {
        policy: PolicyKind::Resident,
        ..SimConfig::default()
    });
    let machine = machine.unwrap();
    let (cpu, initiator) = (machine.cpu(CpuId::new(0)), machine.cpu(CpuId::new(1)));
    let (cpu, initiator) = (cpu.unwrap(), initiator.unwrap());
    let kernel = cpu.space();
    let frame = machine.alloc().unwrap();
    machine.map(kernel, PAGE, frame, true).unwrap();
    let _ = cpu.load(PAGE & !(0xffff << 48));
    let unmapped = machine.unmap(&initiator, kernel, PAGE).unwrap();
    unmapped.try_free(&machine, &initiator).unwrap();
    assert!(cpu.load(PAGE).is_err());
    assert_eq!(machine.stale_hits(), 0);
}
