//! Hazard: a proof that says more than what has happened.

use pageless_fault::shootdown::policy::{EarlyAck, SyncIpi};
use pageless_fault::shootdown::{
    CpuId, Entered, Flush, Place, PolicyKind, SpaceId, WaitError, WalkQuiescent,
};
use pageless_fault::sim::{Entry, Level, SimConfig};
use x86_64::structures::paging::PageTableFlags as Flags;

use crate::scene::Scene;

fn scene(policy: PolicyKind) -> Scene {
    let scene = Scene::new(SimConfig {
        cpus: 2,
        frames: 24,
        policy,
        patience: 50,
        ..SimConfig::default()
    });
    scene.map(0);
    scene
}

const INITIATOR: CpuId = CpuId::new(0);
const OTHER: CpuId = CpuId::new(1);

#[test]
fn an_early_acknowledgement_proves_that_the_handler_was_entered_and_the_end_is_waited_for_apart() {
    let scene = scene(PolicyKind::EarlyAck);
    let place = Place {
        space: SpaceId::EVERY,
        window: Some(0),
    };
    let flush = Flush::pages(scene.va(0), 1);
    let shoot = |cpu: &pageless_fault::sim::Cpu| {
        let engine = scene.machine.engine();
        let early = engine.begin_by::<EarlyAck>(cpu, &flush, place);
        let entered: Result<Entered, WaitError> = engine.prove(cpu, &early);
        entered.unwrap();
        let ended: Result<WalkQuiescent, WaitError> = engine.finish(cpu, &early);
        ended.unwrap();
        let whole = engine.begin_by::<SyncIpi>(cpu, &flush, place);
        let ended: Result<WalkQuiescent, WaitError> = engine.prove(cpu, &whole);
        ended.unwrap();
    };
    scene.machine.run_on(INITIATOR, shoot).unwrap();
    scene.assert_clean();
}

#[test]
fn a_local_flush_proves_nothing_while_another_cpu_may_have_the_translation() {
    let scene = scene(PolicyKind::LocalOnly);
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
    let scene = scene(PolicyKind::SyncIpi);
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
