//! Reserved bits.

use pageless_fault::sim::{FaultCause, Level, PHYSICAL_BITS};

use crate::rig::{Flags, HERE, RW, Rig, VA, read_fault};

const LEVELS: [Level; 4] = [Level::Table, Level::Directory, Level::Pointers, Level::Root];

/// SDM 4.7 and tables 4-15 to 4-20: address bits from MAXPHYADDR to 51 are reserved at every level.
#[test]
fn address_bits_that_do_not_exist_fault_at_every_level() {
    for level in LEVELS {
        for bit in [PHYSICAL_BITS, 51] {
            let rig = Rig::new();
            let cpu = rig.cpu(0);
            rig.map(HERE, VA, RW);
            rig.set_bits(VA, level, 1 << bit);
            assert_eq!(read_fault(&cpu, VA), Some(FaultCause::Reserved));
            assert!(!rig.has(VA, level, Flags::ACCESSED), "{level:?} {bit}");
        }
    }
}

/// SDM 4.10.2.3: a TLB entry is made only where every entry on the way is present with its reserved bits clear. So a repaired entry needs
/// no invalidation.
#[test]
fn an_entry_with_reserved_bits_is_not_cached() {
    for level in LEVELS {
        let rig = Rig::new();
        let cpu = rig.cpu(0);
        rig.map(HERE, VA, RW);
        let good = rig.machine.entry(HERE, VA, level);
        rig.set_bits(VA, level, 1 << 50);
        assert_eq!(read_fault(&cpu, VA), Some(FaultCause::Reserved));
        assert!(!cpu.caches(VA));
        let _bad = rig.machine.replace_entry(HERE, VA, level, good);
        assert_eq!(read_fault(&cpu, VA), None, "{level:?}");
    }
}

/// SDM 4.7: P is looked at first. An entry that is not present has no reserved bits.
#[test]
fn reserved_bits_of_an_absent_entry_are_ignored() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    rig.map(HERE, VA, RW);
    rig.set_bits(VA, Level::Table, 1 << 51);
    rig.clear(VA, Level::Table, Flags::PRESENT);
    assert_eq!(read_fault(&cpu, VA), Some(FaultCause::NotPresent));
}

/// SDM table 4-15: bit 7 of a PDPTE maps 1 GiB only on processors that have such pages (CPUID.80000001H:EDX[26]); on others, as
/// here, it is reserved. In a PML4E it always is (table 4-14).
#[test]
fn there_are_no_pages_of_1_gib() {
    for level in [Level::Pointers, Level::Root] {
        let rig = Rig::new();
        let cpu = rig.cpu(0);
        rig.map(HERE, VA, RW);
        rig.set(VA, level, Flags::HUGE_PAGE);
        assert_eq!(read_fault(&cpu, VA), Some(FaultCause::Reserved));
    }
}

/// SDM table 4-20: bit 7 of a PTE is not the page size but selects a memory type (PAT), which the model does not have: ignored.
#[test]
fn bit_7_of_a_4_kib_entry_is_not_the_page_size() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    rig.map(HERE, VA, RW);
    rig.set(VA, Level::Table, Flags::HUGE_PAGE);
    cpu.store(VA + 8, 3).unwrap();
    assert_eq!(cpu.load(VA + 8), Ok(3));
    assert!(!cpu.caches(VA + 0x1000));
}
