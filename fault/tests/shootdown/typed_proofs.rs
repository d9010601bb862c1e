//! Hazard: a policy known by type proves more than it guarantees, or its proof comes too early.
//!
//! That [`Entered`] frees nothing is said by the compiler: see the documentation of `shootdown::policy`.

use pageless_fault::Completion;
use pageless_fault::shootdown::policy::{self, ConcurrentIpi, EarlyAck};
use pageless_fault::shootdown::{
    CpuId, Entered, Flush, PendingBy, Place, Policy, PolicyKind, Proof, SpaceId, WaitError,
};
use pageless_fault::sim::{Cpu, Entry, Level, OwnedFrame, SimConfig};
use x86_64::structures::paging::PageTableFlags as Flags;

use crate::scene::{Role, Scene, play};

/// Maps a frame at page 0, keeps it, and gives others the time to use it.
fn map(scene: &Scene, cpu: &Cpu) -> OwnedFrame {
    let frame = scene.machine.alloc().unwrap();
    let leaf = Entry::new(frame.pfn().get(), Flags::PRESENT | Flags::WRITABLE);
    scene
        .machine
        .map_entry(SpaceId::EVERY, scene.va(0), Level::Table, leaf)
        .unwrap();
    (0..4).for_each(|_| cpu.pause());
    frame
}

/// Takes page 0 away under `P`.
fn shoot<P: Policy>(scene: &Scene, cpu: &Cpu) -> PendingBy<P> {
    let space = SpaceId::EVERY;
    scene
        .machine
        .replace_entry(space, scene.va(0), Level::Table, Entry::ABSENT);
    let place = Place {
        space,
        window: Some(0),
    };
    let flush = Flush::pages(scene.va(0), 1);
    scene.machine.engine().begin_by(cpu, &flush, place)
}

/// Gives the frame to another page at once.
fn reuse(scene: &Scene, cpu: &Cpu) {
    scene.map(1);
    cpu.store(scene.va(1), 7).unwrap();
}

/// Uses page 0 from when it is there until it is gone.
const READ: Role = |scene, cpu| {
    let mut seen = false;
    for _ in 0..32 {
        let reached = cpu.load(scene.va(0)).is_ok();
        if seen && !reached {
            break;
        }
        seen |= reached;
    }
};

fn config(patience: u32) -> SimConfig {
    SimConfig {
        cpus: 2,
        frames: 24,
        nmi_one_in: 2,
        patience,
        ..SimConfig::default()
    }
}

#[test]
fn only_an_early_acknowledgement_proves_less_than_the_end() {
    fn grade<P: Policy>() -> (PolicyKind, Completion) {
        (P::KIND, <P::Proof as Proof>::GRADE)
    }
    let grades = [
        grade::<policy::SyncIpi>(),
        grade::<ConcurrentIpi>(),
        grade::<EarlyAck>(),
        grade::<policy::Coalescing>(),
        grade::<policy::IdleSkip>(),
        grade::<policy::KernelRange>(),
        grade::<policy::Resident>(),
        grade::<policy::LazyPurge>(),
        grade::<policy::Sweep>(),
        grade::<policy::AtRealloc>(),
        grade::<policy::Broadcast>(),
        grade::<policy::LocalOnly>(),
        grade::<policy::NoRemote>(),
        grade::<policy::EarlyReuse>(),
        grade::<policy::SweepUnwaited>(),
        grade::<policy::SweepTimed>(),
    ];
    assert_eq!(grades.map(|(kind, _)| kind), *PolicyKind::ALL);
    for (kind, grade) in grades {
        let end = kind != PolicyKind::EarlyAck;
        assert_eq!(grade == Completion::WalkQuiescent, end, "{kind:?}");
    }
}

#[test]
fn what_is_freed_by_a_typed_proof_is_reached_by_nobody() {
    const REPLACE: Role = |scene, cpu| {
        let frame = map(scene, cpu);
        let pending = shoot::<ConcurrentIpi>(scene, cpu);
        let proof = scene.machine.engine().prove(cpu, &pending).unwrap();
        scene.machine.memory().free([frame], &proof);
        reuse(scene, cpu);
    };
    play(config(10_000), |_, _| {}, &[REPLACE, READ]);
}

#[test]
fn an_early_acknowledgement_frees_after_it_has_been_finished() {
    const REPLACE: Role = |scene, cpu| {
        let (engine, frame) = (scene.machine.engine(), map(scene, cpu));
        let pending = shoot::<EarlyAck>(scene, cpu);
        let _: Entered = engine.prove(cpu, &pending).unwrap();
        let proof = engine.finish(cpu, &pending).unwrap();
        scene.machine.memory().free([frame], &proof);
        reuse(scene, cpu);
    };
    play(config(10_000), |_, _| {}, &[REPLACE, READ]);
}

#[test]
fn a_target_that_never_answers_yields_no_proof() {
    let scene = Scene::new(config(50));
    let cpu = scene.machine.cpu(CpuId::new(0)).unwrap();
    let _locked_away = map(&scene, &cpu);
    scene.machine.lose_interrupts(1);
    let pending = shoot::<ConcurrentIpi>(&scene, &cpu);
    let unanswered = WaitError::Unanswered {
        reached: None,
        missing: 1,
        turns: 50,
    };
    assert_eq!(
        scene.machine.engine().prove(&cpu, &pending).unwrap_err(),
        unanswered
    );
}
