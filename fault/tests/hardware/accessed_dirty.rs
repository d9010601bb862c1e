//! Accessed and dirty bits: set by walks, and by nothing else.

use alloc::rc::Rc;
use core::cell::Cell;

use pageless_fault::shootdown::SpaceId;
use pageless_fault::sim::schedule::explore;
use pageless_fault::sim::{Cpu, Entry, FaultCause, Level, SimConfig, SimMachine};

use crate::rig::{Flags, HERE, RO, RW, Rig, VA, read_fault, write_fault};

const A: Flags = Flags::ACCESSED;
const D: Flags = Flags::DIRTY;
const UPPER: [Level; 3] = [Level::Directory, Level::Pointers, Level::Root];

/// SDM 4.8 with 4.10.4.3: the walk sets the accessed bit; while the translation is cached no walk needs to, so a bit that software has
/// cleared stays clear until it flushes. APM 5.4.1 agrees.
#[test]
fn the_accessed_bit_is_not_set_again_until_flushed() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    rig.map(HERE, VA, RW);
    assert!(!rig.has(VA, Level::Table, A));
    assert_eq!(read_fault(&cpu, VA), None);
    assert!(rig.has(VA, Level::Table, A));
    rig.clear(VA, Level::Table, A);
    for _ in 0..10 {
        assert_eq!(read_fault(&cpu, VA), None);
    }
    assert!(!rig.has(VA, Level::Table, A));
    cpu.invalidate_page(VA);
    assert!(!rig.has(VA, Level::Table, A), "a flush sets nothing");
    assert_eq!(read_fault(&cpu, VA), None);
    assert!(rig.has(VA, Level::Table, A));
}

/// SDM 4.8: the dirty bit is set by the first write, also where reads have cached the translation already; reads never set it.
#[test]
fn the_first_write_sets_the_dirty_bit_and_no_read_does() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    rig.map(HERE, VA, RW);
    for _ in 0..10 {
        assert_eq!(read_fault(&cpu, VA), None);
    }
    assert!(!rig.has(VA, Level::Table, D));
    assert_eq!(write_fault(&cpu, VA), None);
    assert!(rig.has(VA, Level::Table, A | D));
}

/// SDM 4.8 with 4.10.4.3: a cached translation that is known to be dirty is not written back; a dirty bit that software has cleared
/// stays clear until it flushes.
#[test]
fn the_dirty_bit_is_not_set_again_until_flushed() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    rig.map(HERE, VA, RW);
    assert_eq!(write_fault(&cpu, VA), None);
    rig.clear(VA, Level::Table, D);
    assert_eq!(write_fault(&cpu, VA), None);
    assert!(!rig.has(VA, Level::Table, D));
    cpu.invalidate_page(VA);
    assert_eq!(read_fault(&cpu, VA), None);
    assert!(!rig.has(VA, Level::Table, D));
    assert_eq!(write_fault(&cpu, VA), None);
    assert!(rig.has(VA, Level::Table, D));
}

/// SDM 4.8: also the read that finds the dirty bit set may remember it; this model always does.
#[test]
fn a_read_remembers_a_dirty_bit_that_it_finds() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    rig.map(HERE, VA, RW | D);
    assert_eq!(read_fault(&cpu, VA), None);
    rig.clear(VA, Level::Table, D);
    assert_eq!(write_fault(&cpu, VA), None);
    assert!(!rig.has(VA, Level::Table, D));
}

/// SDM 4.8: every entry on the way gets its accessed bit; only the one that maps the page has a dirty bit.
#[test]
fn every_level_is_marked_accessed_and_only_the_leaf_dirty() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    rig.map(HERE, VA, RW);
    assert!(UPPER.iter().all(|level| !rig.has(VA, *level, A)));
    assert_eq!(write_fault(&cpu, VA), None);
    assert!(UPPER.iter().all(|level| rig.has(VA, *level, A)));
    assert!(UPPER.iter().all(|level| !rig.has(VA, *level, D)));
    rig.map_large(HERE, VA + (1 << 21), RW);
    assert_eq!(write_fault(&cpu, VA + (1 << 21)), None);
    assert!(rig.has(VA + (1 << 21), Level::Directory, A | D));
}

/// SDM 4.8 with 4.10.3.2: a walk that begins at a cached table reads, and marks, nothing above it.
#[test]
fn a_walk_from_a_cached_table_marks_nothing_above_it() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    rig.map(HERE, VA, RW);
    rig.map(HERE, VA + 0x1000, RW);
    assert_eq!(read_fault(&cpu, VA), None);
    for level in UPPER {
        rig.clear(VA, level, A);
    }
    assert_eq!(read_fault(&cpu, VA + 0x1000), None);
    assert!(rig.has(VA + 0x1000, Level::Table, A));
    assert!(UPPER.iter().all(|level| !rig.has(VA, *level, A)));
    cpu.invalidate_page(VA);
    assert_eq!(read_fault(&cpu, VA), None);
    assert!(UPPER.iter().all(|level| rig.has(VA, *level, A)));
}

/// SDM 4.8: an access that faults has not used the entry that forbids it. The manual lets a processor mark it accessed all the same;
/// this model does not. What lies above has been used, and is marked.
#[test]
fn a_forbidden_write_marks_neither_accessed_nor_dirty() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    rig.map(HERE, VA, RO);
    assert_eq!(write_fault(&cpu, VA), Some(FaultCause::Protection));
    assert!(!rig.has(VA, Level::Table, A) && !rig.has(VA, Level::Table, D));
    assert!(UPPER.iter().all(|level| rig.has(VA, *level, A)));
}

/// SDM 4.8: accessed and dirty bits are set by locked updates. A write that another CPU's clearing meets has either marked the
/// entry that the clearing returns, or finds it gone: nothing is written that nobody knows of.
#[test]
fn no_dirty_bit_is_lost_between_a_write_and_a_clearing() {
    let runs = Rc::new(Cell::new((false, false)));
    let explored = explore(2, 100_000, || {
        let machine = SimMachine::new(SimConfig {
            cpus: 2,
            frames: 32,
            ..SimConfig::default()
        });
        let machine = machine.unwrap();
        let kernel = SpaceId::new(0);
        let frame = machine.alloc().unwrap();
        machine.map(kernel, VA, frame, true).unwrap();
        let wrote = Rc::new(Cell::new(false));
        let cleared = Rc::new(Cell::new(Entry::ABSENT));
        let write: Box<dyn FnOnce(&Cpu)> = Box::new({
            let wrote = Rc::clone(&wrote);
            move |cpu| wrote.set(cpu.store(VA, 1).is_ok())
        });
        let clear: Box<dyn FnOnce(&Cpu)> = Box::new({
            let (machine, cleared) = (machine.clone(), Rc::clone(&cleared));
            move |cpu| {
                cpu.pause();
                cleared.set(machine.replace_entry(kernel, VA, Level::Table, Entry::ABSENT));
            }
        });
        let runs = Rc::clone(&runs);
        let tasks = machine.tasks(vec![write, clear]).unwrap();
        (tasks, move || {
            let (yes, no) = runs.get();
            runs.set((yes || wrote.get(), no || !wrote.get()));
            assert_eq!(
                cleared.get().has(D),
                wrote.get(),
                "the write happened: {}, the entry was {:?}",
                wrote.get(),
                cleared.get()
            );
            assert!(!machine.entry(kernel, VA, Level::Table).has(Flags::PRESENT));
        })
    });
    assert!(explored.failure.is_none(), "{}", explored.failure.unwrap());
    assert!(explored.complete);
    assert_eq!(runs.get(), (true, true), "both outcomes were seen");
}
