//! Process-context identifiers.

use pageless_fault::sim::{BuildError, Cpu, FaultCause, Level, Pcid, SimConfig, SimMachine};

use crate::rig::{HERE, RW, Rig, THERE, VA, read_fault};

/// Both spaces map a page at [`VA`], each has it cached, and both pages are gone from memory. The CPU is in [`THERE`].
fn both_cached() -> (Rig, Cpu) {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    for space in [HERE, THERE] {
        rig.map(space, VA, RW);
        cpu.load_cr3(space, true);
        assert_eq!(read_fault(&cpu, VA), None);
        let absent = pageless_fault::sim::Entry::ABSENT;
        let _was = rig.machine.replace_entry(space, VA, Level::Table, absent);
    }
    (rig, cpu)
}

fn is_cached(cpu: &Cpu, space: pageless_fault::shootdown::SpaceId) -> bool {
    cpu.load_cr3(space, true);
    cpu.caches(VA)
}

/// SDM 4.10.4.1: MOV to CR3 with bit 63 clear drops what the new PCID has, tables included. APM 5.5.1 agrees.
#[test]
fn a_load_of_cr3_forgets_the_pcid_it_loads() {
    let (_rig, cpu) = both_cached();
    cpu.load_cr3(HERE, false);
    assert_eq!(read_fault(&cpu, VA), Some(FaultCause::NotPresent));
}

/// SDM 4.10.4.1: ... and is not required to drop anything of other PCIDs. This model never does.
#[test]
fn a_load_of_cr3_leaves_other_pcids_alone() {
    let (_rig, cpu) = both_cached();
    cpu.load_cr3(HERE, false);
    assert!(!is_cached(&cpu, HERE));
    assert!(is_cached(&cpu, THERE));
    assert_eq!(cpu.cached_structures(), 3);
}

/// SDM 4.10.4.1: with bit 63 set nothing needs to be dropped, neither translations nor tables. This model never does.
#[test]
fn bit_63_keeps_everything() {
    let (_rig, cpu) = both_cached();
    let before = (cpu.cached_translations(), cpu.cached_structures());
    assert_eq!(before, (2, 6));
    cpu.load_cr3(HERE, true);
    cpu.load_cr3(THERE, true);
    assert_eq!((cpu.cached_translations(), cpu.cached_structures()), before);
    assert_eq!(read_fault(&cpu, VA), None, "stale, and kept");
}

/// SDM 4.10.1: entries made under one PCID are not used under another.
#[test]
fn what_one_pcid_caches_another_does_not_see() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    rig.map(HERE, VA, RW);
    cpu.store(VA, 1).unwrap();
    cpu.load_cr3(THERE, true);
    assert_eq!(read_fault(&cpu, VA), Some(FaultCause::NotPresent));
    rig.map(THERE, VA, RW);
    cpu.store(VA, 2).unwrap();
    cpu.load_cr3(HERE, true);
    assert_eq!(cpu.load(VA), Ok(1));
}

/// SDM 4.10.4.1: INVLPG is for the current PCID. It may drop more; this model does not, so that software which counts on more is
/// found out.
#[test]
fn invlpg_leaves_other_pcids_alone() {
    let (_rig, cpu) = both_cached();
    cpu.invalidate_page(VA);
    assert!(!cpu.caches(VA));
    assert_eq!(cpu.cached_structures(), 3, "those of the other PCID");
    assert!(is_cached(&cpu, HERE));
}

/// SDM 4.10.1: a PCID has 12 bits. A machine with more address spaces would have to share them, and is refused.
#[test]
fn there_are_4096_pcids_and_no_more() {
    assert_eq!(Pcid::try_new(4095).map(Pcid::get), Some(4095));
    assert_eq!(Pcid::try_new(4096), None);
    let spaces = |user_spaces| {
        SimMachine::new(SimConfig {
            user_spaces,
            frames: 16,
            ..SimConfig::default()
        })
        .err()
    };
    assert_eq!(spaces(3), None);
    assert_eq!(spaces(4096), Some(BuildError::Spaces { spaces: 4096 }));
}
