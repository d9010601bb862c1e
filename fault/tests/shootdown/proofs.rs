//! Hazard: a policy known by type proves more than it guarantees, or its proof comes too early.
//!
//! That [`Entered`] frees nothing is said by the compiler: see the documentation of `shootdown::policy`.

use pageless_fault::Completion;
use pageless_fault::shootdown::policy::{self, ConcurrentIpi, EarlyAck};
use pageless_fault::shootdown::{
    CpuId, Entered, Owed, Policy, PolicyKind, Proof, SpaceId, WaitError,
};
use pageless_fault::sim::{Cpu, Entry, Level, OwnedFrame, SimConfig, SimMachine};
use x86_64::structures::paging::PageTableFlags as Flags;

use crate::scene::{Role, Scene, play};

/// Maps a frame at page 0, and gives others the time to use it.
fn map(scene: &Scene, cpu: &Cpu) {
    scene.map(0);
    (0..4).for_each(|_| cpu.pause());
}

/// Takes page 0 away under `P`.
fn shoot<P: Policy>(scene: &Scene, cpu: &Cpu) -> Owed<P, Option<OwnedFrame>> {
    scene
        .machine
        .unmap_by(cpu, SpaceId::EVERY, scene.va(0))
        .unwrap()
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
        map(scene, cpu);
        let owed = shoot::<ConcurrentIpi>(scene, cpu);
        let flushed = scene.machine.engine().settle(cpu, owed).unwrap();
        scene.machine.memory().free(flushed);
        reuse(scene, cpu);
    };
    play(config(10_000), |_, _| {}, &[REPLACE, READ]);
}

#[test]
fn an_early_acknowledgement_frees_after_it_has_been_finished() {
    const REPLACE: Role = |scene, cpu| {
        map(scene, cpu);
        let (engine, owed) = (scene.machine.engine(), shoot::<EarlyAck>(scene, cpu));
        let _: Entered = engine.prove(cpu, &owed).unwrap();
        let flushed = engine.settle(cpu, owed).unwrap();
        scene.machine.memory().free(flushed);
        reuse(scene, cpu);
    };
    play(config(10_000), |_, _| {}, &[REPLACE, READ]);
}

#[test]
fn a_target_that_never_answers_yields_no_proof() {
    let scene = Scene::new(config(50));
    let cpu = scene.machine.cpu(INITIATOR).unwrap();
    let _runs_and_hears_nothing = scene.machine.cpu(OTHER).unwrap();
    map(&scene, &cpu);
    scene.machine.lose_interrupts(1);
    let free = scene.machine.memory().free_frames();
    let owed = shoot::<ConcurrentIpi>(&scene, &cpu);
    let unanswered = WaitError::Unanswered {
        reached: None,
        missing: 1,
        turns: 50,
    };
    let engine = scene.machine.engine();
    assert_eq!(engine.prove(&cpu, &owed).unwrap_err(), unanswered);
    let (owed, error) = engine.settle(&cpu, owed).unwrap_err();
    assert_eq!(error, unanswered);
    drop(owed);
    assert_eq!(
        scene.machine.memory().free_frames(),
        free,
        "freed without a proof"
    );
}

const INITIATOR: CpuId = CpuId::new(0);
const OTHER: CpuId = CpuId::new(1);

/// Page 0 is mapped, and nobody runs.
fn quiet(policy: PolicyKind) -> Scene {
    let scene = Scene::new(SimConfig {
        policy,
        ..config(50)
    });
    scene.map(0);
    scene
}

#[test]
fn a_local_flush_proves_nothing_while_another_cpu_may_have_the_translation() {
    let scene = quiet(PolicyKind::LocalOnly);
    let (machine, free) = (&scene.machine, scene.machine.memory().free_frames());
    machine
        .run_on(OTHER, |cpu| cpu.load(scene.va(0)).unwrap())
        .unwrap();
    let unmapped = machine
        .run_on(INITIATOR, |cpu| {
            let (unmapped, error) = scene.unmap(cpu, 0).free(machine, cpu).unwrap_err();
            assert!(matches!(error, WaitError::Unanswered { .. }), "{error}");
            unmapped
        })
        .unwrap();
    assert_eq!(machine.memory().free_frames(), free, "a frame went back");
    // When the other one has flushed everything of its own accord, the initiator is alone.
    machine.run_on(OTHER, |cpu| cpu.invalidate_all()).unwrap();
    machine
        .run_on(INITIATOR, |cpu| unmapped.free(machine, cpu).unwrap())
        .unwrap();
    assert_eq!(machine.memory().free_frames(), free + 1);
    scene.assert_clean();
}

#[test]
fn what_an_entry_maps_beyond_the_memory_is_nobodys_frame() {
    let scene = quiet(PolicyKind::SyncIpi);
    let (machine, free) = (&scene.machine, scene.machine.memory().free_frames());
    let beyond = Entry::new(machine.memory().frames(), Flags::PRESENT);
    machine
        .map_entry(SpaceId::EVERY, scene.va(1), Level::Table, beyond)
        .unwrap();
    machine
        .run_on(INITIATOR, |cpu| scene.unmap_and_free(cpu, 1))
        .unwrap();
    assert_eq!(machine.memory().free_frames(), free);
}

#[test]
fn whoever_only_points_at_a_frame_does_not_own_it() {
    let scene = quiet(PolicyKind::SyncIpi);
    let machine = &scene.machine;
    // Even an entry copied bit for bit, with the bit that says so.
    let owning = machine.entry(SpaceId::EVERY, scene.va(0), Level::Table);
    machine
        .map_entry(SpaceId::EVERY, scene.va(1), Level::Table, owning)
        .unwrap();
    let free = machine.memory().free_frames();
    machine
        .run_on(INITIATOR, |cpu| {
            scene.unmap_and_free(cpu, 1);
            assert_eq!(
                machine.memory().free_frames(),
                free,
                "freed by a second owner"
            );
            scene.unmap_and_free(cpu, 0);
        })
        .unwrap();
    assert_eq!(machine.memory().free_frames(), free + 1);
}

#[test]
#[should_panic(expected = "a frame of another machine")]
fn a_frame_does_not_go_back_to_another_machine() {
    let (scene, other) = (
        quiet(PolicyKind::SyncIpi),
        SimMachine::new(config(50)).unwrap(),
    );
    scene
        .machine
        .run_on(INITIATOR, |cpu| {
            let owed = shoot::<ConcurrentIpi>(&scene, cpu);
            let flushed = scene.machine.engine().settle(cpu, owed).unwrap();
            other.memory().free(flushed);
        })
        .unwrap();
}
