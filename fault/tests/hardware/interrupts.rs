//! When a CPU listens: interrupts between two instructions and while they are on, the interconnect always.

use alloc::rc::Rc;
use core::cell::Cell;

use pageless_fault::Completion;
use pageless_fault::shootdown::{Flush, Place, PolicyKind, Processor, SpaceId};
use pageless_fault::sim::schedule::explore;
use pageless_fault::sim::{Cpu, Entry, FaultCause, Level, SimConfig, SimMachine};
use pageless_pfn::Pfn;

use crate::rig::{HERE, RW, Rig, VA, read_fault};

/// SDM 6.6 and 6.8.1: an interrupt is taken at an instruction boundary. One that is pending is taken before the next access, which
/// then finds its translation gone.
#[test]
fn a_pending_interrupt_is_taken_before_the_next_instruction() {
    let rig = Rig::under(PolicyKind::SyncIpi);
    let (cpu, other) = (rig.cpu(0), rig.cpu(1));
    rig.map(HERE, VA, RW);
    assert_eq!(read_fault(&cpu, VA), None);
    let unmapped = rig.machine.unmap(&other, HERE, VA).unwrap();
    assert!(cpu.caches(VA), "nothing reaches into another CPU's TLB");
    assert_eq!(read_fault(&cpu, VA), Some(FaultCause::NotPresent));
    unmapped.try_free(&rig.machine, &other).unwrap();
}

/// SDM 6.8.1: with IF = 0 interrupts stay pending. Meanwhile the stale translation is used, and nothing is acknowledged.
#[test]
fn an_interrupt_waits_until_interrupts_are_on() {
    let rig = Rig::under(PolicyKind::SyncIpi);
    let (cpu, other) = (rig.cpu(0), rig.cpu(1));
    rig.map(HERE, VA, RW);
    assert_eq!(read_fault(&cpu, VA), None);
    let unmapped = cpu.with_interrupts_off(|| {
        let unmapped = rig.machine.unmap(&other, HERE, VA).unwrap();
        assert_eq!(read_fault(&cpu, VA), None);
        unmapped.try_free(&rig.machine, &other).unwrap_err()
    });
    assert!(!cpu.caches(VA), "taken as soon as they are on");
    unmapped.try_free(&rig.machine, &other).unwrap();
    assert_eq!(rig.machine.stale_hits(), 0);
}

/// APM 5.5.3, INVLPGB and TLBSYNC: broadcast invalidations are executed by the hardware, whatever the interrupt flag of the target.
#[test]
fn the_interconnect_does_not_wait_for_interrupts() {
    let rig = Rig::under(PolicyKind::Broadcast);
    let (cpu, other) = (rig.cpu(0), rig.cpu(1));
    rig.map(HERE, VA, RW);
    assert_eq!(read_fault(&cpu, VA), None);
    cpu.with_interrupts_off(|| {
        let unmapped = rig.machine.unmap(&other, HERE, VA).unwrap();
        assert_eq!(read_fault(&cpu, VA), Some(FaultCause::NotPresent));
        unmapped.try_free(&rig.machine, &other).unwrap();
    });
}

/// What one exploration has seen of an access that a shootdown meets.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// An access that ended behind the request, and used what was read before it.
    old_behind_the_request: bool,
    new_behind_the_request: bool,
}

/// CPU 0 reads, and later reads again; CPU 1 exchanges the whole table on the way, and shoots the page down under `policy`.
/// After the proof nobody reads through the old table, whatever the schedule.
fn meet(policy: PolicyKind) -> Seen {
    const OLD: u64 = 1;
    const NEW: u64 = 2;
    let seen = Rc::new(Cell::new(Seen::default()));
    let explored = explore(2, 100_000, || {
        let machine = SimMachine::new(SimConfig {
            cpus: 2,
            frames: 32,
            tick_every: 0,
            ..SimConfig::default()
        });
        let machine = machine.unwrap();
        let kernel = SpaceId::new(0);
        let map = |value: u64| {
            let frame = machine.alloc().unwrap();
            let pfn: Pfn = frame.pfn();
            machine.map(kernel, VA, frame, true).unwrap();
            let cpu = machine
                .cpu(pageless_fault::shootdown::CpuId::new(0))
                .unwrap();
            cpu.store(VA, value).unwrap();
            cpu.invalidate_all();
            (
                machine.replace_entry(kernel, VA, Level::Directory, Entry::ABSENT),
                pfn,
            )
        };
        // Two ways down to the page; the old one is linked first.
        let (old, _) = map(OLD);
        let (new, _) = map(NEW);
        machine
            .map_entry(kernel, VA, Level::Directory, old)
            .unwrap();
        let (posted, proved) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let read: Box<dyn FnOnce(&Cpu)> = Box::new({
            let (posted, proved, seen) = (Rc::clone(&posted), Rc::clone(&proved), Rc::clone(&seen));
            move |cpu| {
                let first = cpu.load(VA).unwrap();
                if posted.get() {
                    let mut so_far = seen.get();
                    so_far.old_behind_the_request |= first == OLD;
                    so_far.new_behind_the_request |= first == NEW;
                    seen.set(so_far);
                }
                let mut turn = 0;
                while !proved.get() {
                    cpu.relax(turn);
                    turn += 1;
                }
                assert_eq!(cpu.load(VA), Ok(NEW), "after the proof");
            }
        });
        let exchange: Box<dyn FnOnce(&Cpu)> = Box::new({
            let machine = machine.clone();
            move |cpu| {
                let engine = machine.engine();
                let _old = machine.replace_entry(kernel, VA, Level::Directory, new);
                let place = Place {
                    space: kernel,
                    window: None,
                };
                let flush = Flush::pages(VA, 1);
                let pending = engine.begin(cpu, policy, &flush, place);
                posted.set(true);
                engine
                    .wait(cpu, &pending, Completion::WalkQuiescent)
                    .unwrap();
                proved.set(true);
            }
        });
        machine.tasks(vec![read, exchange]).unwrap()
    });
    assert!(explored.failure.is_none(), "{}", explored.failure.unwrap());
    assert!(explored.complete);
    seen.get()
}

/// SDM 6.6: the walk belongs to its instruction, which an interrupt does not split. So an access that has begun may end with the old
/// translation although the request is out; the acknowledgement comes after it.
#[test]
fn an_interrupt_waits_for_the_end_of_the_instruction() {
    let seen = meet(PolicyKind::SyncIpi);
    assert!(seen.old_behind_the_request, "{seen:?}");
}

/// APM 5.5.3, INVLPGB: a broadcast that arrives between two memory accesses of a walk overtakes it: the walk begins again, and what it had
/// read is neither used nor cached.
#[test]
fn the_interconnect_overtakes_a_walk_which_begins_again() {
    let seen = meet(PolicyKind::Broadcast);
    assert!(!seen.old_behind_the_request, "{seen:?}");
    assert!(seen.new_behind_the_request, "{seen:?}");
}
