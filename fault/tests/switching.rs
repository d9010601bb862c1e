//! Hazard: a CPU that is left out of a shootdown, because it does not use the address space or sleeps, and that comes back with what
//! its TLB still has.
#![cfg(all(feature = "std", not(loom), not(miri)))]

use pageless_fault::shootdown::{CpuId, CpuState, PolicyKind, SpaceId};
use pageless_fault::sim::schedule::{Schedule, Task, explore};
use pageless_fault::sim::{Cpu, SimConfig, SimMachine, Speculation};

/// What is shot at.
const HERE: SpaceId = SpaceId::new(1);
const THERE: SpaceId = SpaceId::new(2);
const VA: u64 = 0x40_0000;
/// Where the freed frame comes back.
const ELSEWHERE: u64 = 0x7000_0000;

type Body<'a> = Box<dyn FnOnce(&Cpu) + 'a>;

fn machine(policy: PolicyKind) -> SimMachine {
    let machine = SimMachine::new(SimConfig {
        cpus: 2,
        frames: 32,
        user_spaces: 2,
        policy,
        tick_every: 4,
        ..SimConfig::default()
    });
    let machine = machine.unwrap();
    let frame = machine.alloc().unwrap();
    machine.map(HERE, VA, frame, true).unwrap();
    // The tables that the frame will need when it comes back.
    let frame = machine.alloc().unwrap();
    machine.map(THERE, ELSEWHERE + 0x1000, frame, true).unwrap();
    machine
}

/// Unmaps the page of [`HERE`], frees its frame as soon as that is allowed, and uses it again at once.
fn unmap_and_reuse(machine: &SimMachine, cpu: &Cpu) {
    let unmapped = machine.unmap(cpu, HERE, VA).unwrap();
    unmapped.free(machine, cpu).unwrap();
    let again = machine.alloc().unwrap();
    machine.map(THERE, ELSEWHERE, again, true).unwrap();
}

/// Two tasks, and the check that nobody came back to a frame of an earlier life.
fn program(
    policy: PolicyKind,
    traveller: fn(&Cpu),
) -> (Vec<Task<'static>>, impl FnOnce() + 'static) {
    let machine = machine(policy);
    let initiator: Body<'static> = Box::new({
        let machine = machine.clone();
        move |cpu| unmap_and_reuse(&machine, cpu)
    });
    let tasks = machine.tasks(vec![Box::new(traveller), initiator]);
    (tasks.unwrap(), move || {
        assert_eq!(machine.stale_hits(), 0, "{:?}", machine.incidents());
    })
}

/// Away and back. The entry of [`HERE`] stays in the TLB meanwhile, under its PCID.
fn switches(cpu: &Cpu) {
    cpu.switch_to(HERE);
    let _ = cpu.load(VA);
    cpu.switch_to(THERE);
    cpu.pause();
    cpu.switch_to(HERE);
    let _ = cpu.load(VA);
}

/// Asleep and awake.
fn sleeps(cpu: &Cpu) {
    cpu.switch_to(HERE);
    let _ = cpu.load(VA);
    cpu.idle(2);
    let _ = cpu.load(VA);
}

fn explored(traveller: fn(&Cpu)) {
    let explored = explore(2, 1_000_000, || program(PolicyKind::IdleSkip, traveller));
    println!("{} schedules", explored.schedules);
    assert!(explored.failure.is_none(), "{}", explored.failure.unwrap());
    assert!(explored.complete);
}

/// CVE-2025-37964. A CPU that switches back to an address space says "switching", looks whether it missed a flush of
/// that space, and says "loaded". An initiator that came between the look and the end saw neither the one space nor the other in use, and
/// skipped the interrupt; its flush was counted too late for the look. So the CPU went on with the old translation of a page whose frame had
/// been freed. Whoever is switching must be interrupted, whichever space it is about.
#[test]
fn cve_2025_37964_a_cpu_in_the_middle_of_a_switch_is_not_skipped() {
    explored(switches);
}

/// The same for sleep: whoever sleeps is skipped, and looks what it missed before its first access.
#[test]
fn a_cpu_skipped_in_its_sleep_looks_before_its_first_access() {
    explored(sleeps);
}

/// Both, longer, at random, and under every policy that claims to be safe.
#[test]
fn no_policy_lets_a_traveller_come_back_to_a_freed_frame() {
    for &policy in PolicyKind::ALL {
        // Local flushes prove nothing where others have been.
        if !policy.is_safe() || policy == PolicyKind::LocalOnly {
            continue;
        }
        let mut caught_up = 0;
        for seed in 0..60 {
            let machine = SimMachine::new(SimConfig {
                cpus: 3,
                frames: 40,
                user_spaces: 2,
                policy,
                speculation: Speculation::Marked,
                tick_every: 8,
                ..SimConfig::default()
            });
            let machine = machine.unwrap();
            for page in 0..4 {
                let frame = machine.alloc().unwrap();
                machine.map(HERE, VA + page * 4096, frame, true).unwrap();
            }
            let travel = |cpu: &Cpu| {
                let mut random = fastrand::Rng::with_seed(seed ^ u64::from(cpu.id().get()) << 32);
                for _ in 0..60 {
                    match random.u32(..8) {
                        0 => cpu.switch_to(HERE),
                        1 => cpu.switch_to(THERE),
                        2 => cpu.idle(random.u32(1..3)),
                        3 => drop(cpu.store(VA + random.u64(..4) * 4096, 1)),
                        _ => drop(cpu.load(VA + random.u64(..4) * 4096)),
                    }
                }
            };
            let initiate = |cpu: &Cpu| {
                for turn in 0..20 {
                    let va = VA + turn % 4 * 4096;
                    if turn % 3 == 0 {
                        cpu.switch_to(HERE);
                    }
                    let unmapped = machine.unmap(cpu, HERE, va).unwrap();
                    unmapped.free(&machine, cpu).unwrap();
                    let frame = machine.alloc().unwrap();
                    machine.map(HERE, va, frame, true).unwrap();
                }
            };
            let bodies: Vec<Body<'_>> =
                vec![Box::new(travel), Box::new(travel), Box::new(initiate)];
            let run = machine.run_scheduled(&Schedule::random(seed), bodies);
            run.unwrap_or_else(|failure| panic!("{}: {failure}", policy.name()));
            assert_eq!(
                machine.stale_hits(),
                0,
                "{} seed {seed}: {:?}",
                policy.name(),
                machine.incidents()
            );
            caught_up += machine.counters().caught_up;
        }
        assert!(caught_up > 0, "{}: nobody was ever behind", policy.name());
    }
}

/// What a caller may ask for has an answer: such a CPU uses what is in every space, and is interrupted for everything.
#[test]
fn a_space_that_the_machine_does_not_have_has_only_what_is_in_every_space() {
    let machine = machine(PolicyKind::IdleSkip);
    let cpu = machine.cpu(CpuId::new(0)).unwrap();
    for space in [SpaceId::EVERY, SpaceId::new(99)] {
        cpu.switch_to(space);
        cpu.idle(1);
        assert!(cpu.load(VA).is_err());
    }
}

#[test]
fn a_cpu_that_nobody_runs_on_is_gone_and_not_only_asleep() {
    let machine = machine(PolicyKind::IdleSkip);
    let state = || machine.engine().presence(CpuId::new(0)).state().0;
    machine
        .run_on(CpuId::new(0), |_| assert_eq!(state(), CpuState::Running))
        .unwrap();
    assert_eq!(state(), CpuState::Gone);
}
