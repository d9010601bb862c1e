//! 2 MiB pages.

use pageless_fault::sim::{Entry, FaultCause, Level};

use crate::rig::{Flags, HERE, LARGE_FRAME, RW, Rig, VA, read_fault};

/// 2 MiB in bytes.
const LARGE: u64 = 1 << 21;

/// SDM 4.10.2.3: one TLB entry may serve a whole 2 MiB page. (Some processors cache it as several smaller ones; this one does not.)
#[test]
fn one_entry_serves_all_of_a_large_page() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    let va = VA & !(LARGE - 1);
    rig.map_large(HERE, va, RW);
    cpu.store(va + 5 * 4096 + 8, 42).unwrap();
    assert_eq!(cpu.cached_translations(), 1);
    assert!(cpu.caches(va) && cpu.caches(va + LARGE - 1));
    assert!(!cpu.caches(va + LARGE) && !cpu.caches(va - 1));
    // It is frame 5 of the 512 that was written.
    rig.map_frame(HERE, va + LARGE, LARGE_FRAME + 5, RW);
    assert_eq!(cpu.load(va + LARGE + 8), Ok(42));
}

/// SDM 4.10.4.1: INVLPG of any address in the page drops the entry, also where the page is a large one.
#[test]
fn a_large_page_dies_by_invlpg_of_any_of_its_addresses() {
    let va = VA & !(LARGE - 1);
    for at in [0, 1, 0xfff, 0x1000, 255 << 12, LARGE - 1] {
        let rig = Rig::new();
        let cpu = rig.cpu(0);
        rig.map_large(HERE, va, RW);
        assert_eq!(read_fault(&cpu, va), None);
        let _was = rig.remove(va, Level::Directory);
        assert_eq!(read_fault(&cpu, va), None, "stale, until it is flushed");
        cpu.invalidate_page(va + at);
        assert_eq!(cpu.cached_translations(), 0, "{at:#x}");
        assert_eq!(read_fault(&cpu, va), Some(FaultCause::NotPresent));
    }
}

/// SDM 4.10.4.1: INVLPG just outside does not have to drop it, and does not.
#[test]
fn a_large_page_survives_invlpg_of_its_neighbours() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    let va = VA & !(LARGE - 1);
    rig.map_large(HERE, va, RW);
    assert_eq!(read_fault(&cpu, va), None);
    cpu.invalidate_page(va - 1);
    cpu.invalidate_page(va + LARGE);
    assert!(cpu.caches(va));
}

/// SDM 4.5.4: the page is 2 MiB by bit 7 of the directory entry; no table below it is read.
#[test]
fn the_walk_of_a_large_page_ends_at_the_directory() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    rig.map_large(HERE, VA, RW);
    assert_eq!(read_fault(&cpu, VA), None);
    assert_eq!(cpu.cached_structures(), 2, "pointers and directory");
}

/// SDM table 4-17: bits 20:13 of an entry that maps 2 MiB are reserved. Other than the manual: so is bit 12 here, which would select
/// a memory type (PAT); memory has no types in the model.
#[test]
fn a_large_page_must_be_aligned() {
    for bit in 12..21 {
        let rig = Rig::new();
        let cpu = rig.cpu(0);
        rig.map_large(HERE, VA, RW);
        rig.set_bits(VA, Level::Directory, 1 << bit);
        assert_eq!(read_fault(&cpu, VA), Some(FaultCause::Reserved), "{bit}");
    }
}

/// Not the manual's: a 2 MiB page whose tail has no memory behind it would be a machine check. Here it is a fault, and nothing is
/// cached.
#[test]
fn a_large_page_that_leaves_the_memory_faults() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    let entry = Entry::new(1536, RW | Flags::HUGE_PAGE);
    rig.machine
        .map_entry(HERE, VA, Level::Directory, entry)
        .unwrap();
    assert_eq!(read_fault(&cpu, VA), Some(FaultCause::Reserved));
    assert!(!cpu.caches(VA));
}

/// Not the manual's: the frames of a large page may have had different lives before. What counts is the first one's: none of these
/// accesses is stale.
#[test]
fn frames_of_a_large_page_may_have_had_different_lives() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    let other = rig.cpu(1);
    // Frame 517 has been freed once.
    rig.map_frame(HERE, 0x1000, LARGE_FRAME + 5, RW);
    let unmapped = rig.machine.unmap(&cpu, HERE, 0x1000).unwrap();
    other.pause();
    unmapped.try_free(&rig.machine, &cpu).unwrap();
    rig.map_large(HERE, VA, RW);
    let va = VA & !(LARGE - 1);
    for page in 0..16 {
        assert_eq!(read_fault(&cpu, va + (page << 12)), None);
    }
    assert_eq!(rig.machine.stale_hits(), 0);
}
