//! Walks that no instruction has asked for.

use pageless_fault::shootdown::SpaceId;
use pageless_fault::sim::schedule::Schedule;
use pageless_fault::sim::{Cpu, FaultCause, Level, SimConfig, SimMachine, Speculation};

use crate::rig::{Flags, HERE, RO, RW, Rig, THERE, VA, read_fault, write_fault};

const NEXT: u64 = VA + 0x1000;

fn eager(speculation: Speculation, seed: u64) -> Rig {
    Rig::with(SimConfig {
        speculation,
        speculate_one_in: 2,
        seed,
        ..SimConfig::default()
    })
}

/// Instructions that touch nothing, so that the hardware has time for what it likes.
fn idle_away(cpu: &Cpu) {
    (0..300).for_each(|_| cpu.pause());
}

/// SDM 4.10.2.3: translations may be cached for accesses that are never executed; 4.8: then the accessed bits are set.
#[test]
fn a_page_that_nobody_touched_can_be_cached_and_is_marked_accessed() {
    let rig = eager(Speculation::Marked, 1);
    let cpu = rig.cpu(0);
    rig.map(HERE, VA, RW);
    rig.map(HERE, NEXT, RW);
    assert_eq!(read_fault(&cpu, VA), None);
    idle_away(&cpu);
    assert!(cpu.caches(NEXT));
    assert!(rig.has(NEXT, Level::Table, Flags::ACCESSED));
}

/// Not the manual's: this mode caches without the accessed bit, which no processor may. It is there to break software that takes
/// a clear accessed bit for "in no TLB".
#[test]
fn a_page_can_be_cached_without_a_mark_where_that_is_asked_for() {
    let rig = eager(Speculation::WithoutAccessed, 1);
    let cpu = rig.cpu(0);
    rig.map(HERE, VA, RW);
    rig.map(HERE, NEXT, RW);
    assert_eq!(read_fault(&cpu, VA), None);
    idle_away(&cpu);
    assert!(cpu.caches(NEXT));
    assert!(!rig.has(NEXT, Level::Table, Flags::ACCESSED));
}

/// SDM 4.8: a dirty bit is set by writes only; these walks never are for one.
#[test]
fn speculation_never_marks_dirty() {
    for speculation in [Speculation::Marked, Speculation::WithoutAccessed] {
        let rig = eager(speculation, 2);
        let cpu = rig.cpu(0);
        rig.map(HERE, VA, RW);
        rig.map(HERE, NEXT, RW);
        assert_eq!(write_fault(&cpu, VA), None);
        idle_away(&cpu);
        assert!(cpu.caches(NEXT) && !rig.has(NEXT, Level::Table, Flags::DIRTY));
    }
}

/// SDM 4.10.2.3: what has no valid translation is not cached by speculation either, and faults only when an instruction is
/// executed.
#[test]
fn speculation_neither_faults_nor_caches_what_is_not_there() {
    let rig = eager(Speculation::Marked, 3);
    let cpu = rig.cpu(0);
    rig.map(HERE, VA, RW);
    rig.map(HERE, NEXT, RO);
    rig.set_bits(NEXT, Level::Table, 1 << 51);
    assert_eq!(read_fault(&cpu, VA), None);
    idle_away(&cpu);
    assert_eq!(cpu.cached_translations(), 1);
    assert_eq!(read_fault(&cpu, NEXT), Some(FaultCause::Reserved));
    let absent = VA + 0x2000;
    assert_eq!(read_fault(&cpu, absent), Some(FaultCause::NotPresent));
    rig.map(HERE, absent, RW);
    assert_eq!(read_fault(&cpu, absent), None);
}

/// SDM 4.10.4.1: after INVLPG nothing of before is used, so a walk that has read its entry before must not insert it afterwards.
/// (4.10.2.3 makes no exception for walks under way.)
#[test]
fn a_walk_begun_before_invlpg_does_not_insert_after_it() {
    for seed in 0..40 {
        let rig = eager(Speculation::Marked, seed);
        let cpu = rig.cpu(0);
        rig.map(HERE, VA, RW);
        rig.map(HERE, NEXT, RW);
        for round in 0..20 {
            assert_eq!(read_fault(&cpu, VA), None);
            (0..round).for_each(|_| cpu.pause());
            let was = rig.remove(NEXT, Level::Table);
            cpu.invalidate_page(NEXT);
            (0..20).for_each(|_| cpu.pause());
            assert!(!cpu.caches(NEXT), "seed {seed}, round {round}");
            let _absent = rig.machine.replace_entry(HERE, NEXT, Level::Table, was);
        }
    }
}

/// SDM 4.10.1: what is cached belongs to the PCID under which the walk was begun, never to the one that has become current meanwhile.
/// Narrower than the manual: a load of CR3 ends the walk, although with bit 63 set it could go on for its own PCID.
#[test]
fn a_walk_begun_under_one_pcid_does_not_insert_under_another() {
    for seed in 0..40 {
        let rig = eager(Speculation::Marked, seed);
        let cpu = rig.cpu(0);
        rig.map(HERE, VA, RW);
        rig.map(HERE, NEXT, RW);
        for round in 0..20 {
            assert_eq!(read_fault(&cpu, VA), None);
            (0..round).for_each(|_| cpu.pause());
            cpu.load_cr3(THERE, true);
            (0..20).for_each(|_| cpu.pause());
            assert!(!cpu.caches(NEXT), "seed {seed}, round {round}");
            cpu.load_cr3(HERE, false);
        }
    }
}

/// SDM 4.10.5 with 4.10.4.1: the same where another CPU asks for the invalidation: a frame that is free by its acknowledgement stays
/// free.
#[test]
fn a_walk_begun_before_a_shootdown_does_not_insert_after_it() {
    for seed in 0..200 {
        let machine = SimMachine::new(SimConfig {
            cpus: 2,
            frames: 32,
            speculation: Speculation::Marked,
            speculate_one_in: 2,
            ..SimConfig::default()
        });
        let machine = machine.unwrap();
        let kernel = SpaceId::new(0);
        for va in [VA, NEXT] {
            let frame = machine.alloc().unwrap();
            machine.map(kernel, va, frame, true).unwrap();
        }
        let touch: Box<dyn FnOnce(&Cpu) + '_> = Box::new(|cpu| {
            for _ in 0..12 {
                let _ = cpu.load(VA);
                (0..4).for_each(|_| cpu.pause());
                let _ = cpu.load(NEXT);
            }
        });
        let unmap: Box<dyn FnOnce(&Cpu) + '_> = Box::new(|cpu| {
            for _ in 0..4 {
                let unmapped = machine.unmap(cpu, kernel, NEXT).unwrap();
                unmapped.free(&machine, cpu).unwrap();
                (0..4).for_each(|_| cpu.pause());
                let frame = machine.alloc().unwrap();
                machine.map(kernel, NEXT, frame, true).unwrap();
                (0..4).for_each(|_| cpu.pause());
            }
        });
        let run = machine.run_scheduled(&Schedule::random(seed), vec![touch, unmap]);
        run.unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(
            machine.stale_hits(),
            0,
            "seed {seed}: {:?}",
            machine.incidents()
        );
    }
}
