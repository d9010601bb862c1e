//! Global pages.

use pageless_fault::sim::{FaultCause, Level};

use crate::rig::{Flags, HERE, RW, Rig, THERE, VA, read_fault};

/// A global page, cached; gone from memory.
fn cached() -> (Rig, pageless_fault::sim::Cpu) {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    rig.map(HERE, VA, RW | Flags::GLOBAL);
    assert_eq!(read_fault(&cpu, VA), None);
    let _was = rig.remove(VA, Level::Table);
    (rig, cpu)
}

/// SDM 4.10.2.4 and 4.10.4.1: MOV to CR3 leaves global translations, its own PCID's included. APM 5.5.2 agrees.
#[test]
fn a_global_page_survives_a_load_of_cr3() {
    let (_rig, cpu) = cached();
    cpu.load_cr3(HERE, false);
    assert_eq!(cpu.cached_structures(), 0, "paging structures do not");
    assert_eq!(read_fault(&cpu, VA), None);
}

/// SDM 4.10.2.4: a global TLB entry is used whatever PCID is current, although another space maps nothing there.
#[test]
fn a_global_page_is_used_under_every_pcid() {
    let (_rig, cpu) = cached();
    cpu.load_cr3(THERE, false);
    assert_eq!(read_fault(&cpu, VA), None);
}

/// SDM 4.10.4.1: INVLPG drops global entries of its page regardless of PCID. APM 5.5.3 agrees.
#[test]
fn a_global_page_dies_by_invlpg_under_any_pcid() {
    for space in [HERE, THERE] {
        let (_rig, cpu) = cached();
        cpu.load_cr3(space, true);
        cpu.invalidate_page(VA + 0xfff);
        assert!(!cpu.caches(VA));
        assert_eq!(read_fault(&cpu, VA), Some(FaultCause::NotPresent));
    }
}

/// SDM 4.10.4.1: a change of CR4.PGE, or INVPCID of type 2, drops everything, global entries included.
#[test]
fn a_global_page_dies_by_a_flush_of_everything() {
    let (_rig, cpu) = cached();
    cpu.invalidate_all();
    assert_eq!((cpu.cached_translations(), cpu.cached_structures()), (0, 0));
    assert_eq!(read_fault(&cpu, VA), Some(FaultCause::NotPresent));
}

/// SDM tables 4-15 to 4-19: bit 8 of an entry that points to a table is ignored; only a leaf makes a page global.
#[test]
fn the_global_bit_of_a_table_is_ignored() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    rig.map(HERE, VA, RW);
    for level in [Level::Directory, Level::Pointers, Level::Root] {
        rig.set(VA, level, Flags::GLOBAL);
    }
    assert_eq!(read_fault(&cpu, VA), None);
    cpu.load_cr3(HERE, false);
    assert!(!cpu.caches(VA));
}

/// SDM 4.10.2.4 with table 4-17: also a 2 MiB page can be global.
#[test]
fn a_large_page_can_be_global() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    rig.map_large(HERE, VA, RW | Flags::GLOBAL);
    assert_eq!(read_fault(&cpu, VA), None);
    cpu.load_cr3(THERE, false);
    assert!(cpu.caches(VA + 0x1000));
    cpu.invalidate_page(VA + 0x1000);
    assert!(!cpu.caches(VA));
}
