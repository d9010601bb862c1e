//! Hazard: one page goes while another CPU uses it. The smallest race there is, in each of the ways in which it can be lost.

use pageless_fault::shootdown::{CpuId, PolicyKind, SpaceId};
use pageless_fault::sim::{BuildError, SeatError, SimConfig, SimMachine, Speculation};

use crate::scene::{Role, play};

fn config(cpus: u16, policy: PolicyKind) -> SimConfig {
    SimConfig {
        cpus,
        frames: 24,
        policy,
        patience: 10_000,
        tick_every: 4,
        ..SimConfig::default()
    }
}

const MAP_ONE: Role = |scene, _| scene.map(0);

/// Uses the page until it is gone.
const USE: Role = |scene, cpu| {
    for turn in 0..8 {
        if cpu.store(scene.va(0) + 8 * turn, turn).is_err() {
            break;
        }
    }
};

/// Takes the page away, and gives its frame to another page at once.
const REPLACE: Role = |scene, cpu| {
    scene.unmap_and_free(cpu, 0);
    scene.map(1);
    cpu.store(scene.va(1), 7).unwrap();
};

fn safe() -> impl Iterator<Item = PolicyKind> {
    PolicyKind::ALL
        .iter()
        .copied()
        .filter(|policy| policy.is_safe() && *policy != PolicyKind::LocalOnly)
}

#[test]
fn a_page_that_another_cpu_uses_is_not_freed_under_it() {
    for policy in safe() {
        play(config(2, policy), MAP_ONE, &[REPLACE, USE]);
    }
}

#[test]
fn three_cpus_two_of_which_use_the_page() {
    play(
        config(3, PolicyKind::ConcurrentIpi),
        MAP_ONE,
        &[REPLACE, USE, USE],
    );
}

#[test]
fn whoever_takes_a_page_away_forgets_it_as_well() {
    const ALONE: Role = |scene, cpu| {
        cpu.store(scene.va(0), 1).unwrap();
        scene.unmap_and_free(cpu, 0);
        // Whether or not its frame is used again: the page is gone.
        scene.map(1);
        assert!(
            cpu.store(scene.va(0), 2).is_err(),
            "a page that is gone was written"
        );
    };
    for policy in safe() {
        play(config(1, policy), MAP_ONE, &[ALONE]);
    }
}

#[test]
fn a_cpu_that_walks_in_between_is_a_target_all_the_same() {
    // It has never been in the window when the shootdown begins.
    const ONCE: Role = |scene, cpu| {
        let _ = cpu.load(scene.va(0));
        let _ = cpu.load(scene.va(0));
        let _ = cpu.load(scene.va(0));
    };
    play(config(2, PolicyKind::Resident), MAP_ONE, &[REPLACE, ONCE]);
}

#[test]
fn a_cpu_that_flushes_everything_is_a_target_until_it_has() {
    const FLUSH_OFTEN: Role = |scene, cpu| {
        for _ in 0..3 {
            let _ = cpu.load(scene.va(0));
            cpu.invalidate_all();
        }
    };
    let config = SimConfig {
        nmi_one_in: 2,
        ..config(2, PolicyKind::Resident)
    };
    play(config, MAP_ONE, &[REPLACE, FLUSH_OFTEN]);
}

#[test]
fn an_nmi_between_early_acknowledgement_and_flush_meets_no_freed_frame() {
    for policy in [PolicyKind::EarlyAck, PolicyKind::ConcurrentIpi] {
        let config = SimConfig {
            nmi_one_in: 2,
            ..config(2, policy)
        };
        play(config, MAP_ONE, &[REPLACE, USE]);
    }
}

#[test]
fn a_full_mailbox_loses_nothing() {
    const MAP_FOUR: Role = |scene, _| (0..4).for_each(|page| scene.map(page));
    /// Two shootdowns in a row, waited for afterwards: the second finds the mailbox full.
    const TWO_AT_ONCE: Role = |scene, cpu| {
        let (first, second) = (scene.unmap(cpu, 0), scene.unmap(cpu, 1));
        for unmapped in [first, second] {
            unmapped
                .free(&scene.machine, cpu)
                .map_err(|(_, e)| e)
                .unwrap();
        }
        scene.map(2 + 2);
        scene.map(3 + 2);
    };
    const USE_BOTH: Role = |scene, cpu| {
        for turn in 0..6 {
            let _ = cpu.store(scene.va(turn % 2), turn);
        }
    };
    let config = SimConfig {
        mailbox: 1,
        ..config(2, PolicyKind::ConcurrentIpi)
    };
    play(config, MAP_FOUR, &[TWO_AT_ONCE, USE_BOTH]);
}

#[test]
fn an_answer_to_an_earlier_request_is_no_answer_to_this_one() {
    const MAP_TWO: Role = |scene, _| (0..2).for_each(|page| scene.map(page));
    const ONE_AFTER_THE_OTHER: Role = |scene, cpu| {
        scene.unmap_and_free(cpu, 0);
        scene.unmap_and_free(cpu, 1);
        scene.map(2);
    };
    const USE_BOTH: Role = |scene, cpu| {
        for turn in 0..8 {
            let _ = cpu.load(scene.va(turn % 2));
        }
    };
    let config = SimConfig {
        mailbox: 1,
        ..config(2, PolicyKind::ConcurrentIpi)
    };
    play(config, MAP_TWO, &[ONE_AFTER_THE_OTHER, USE_BOTH]);
}

#[test]
fn two_cpus_that_shoot_at_each_other_both_end() {
    const MAP_TWO: Role = |scene, _| (0..2).for_each(|page| scene.map(page));
    const FIRST: Role = |scene, cpu| {
        let _ = cpu.load(scene.va(1));
        scene.unmap_and_free(cpu, 0);
    };
    const SECOND: Role = |scene, cpu| {
        let _ = cpu.load(scene.va(0));
        scene.unmap_and_free(cpu, 1);
    };
    for policy in safe() {
        play(config(2, policy), MAP_TWO, &[FIRST, SECOND]);
    }
}

#[test]
fn a_target_with_interrupts_off_is_waited_for() {
    const OFF: Role = |scene, cpu| {
        cpu.with_interrupts_off(|| {
            for _ in 0..4 {
                let _ = cpu.load(scene.va(0));
            }
        });
        let _ = cpu.load(scene.va(0));
    };
    for policy in safe() {
        play(config(2, policy), MAP_ONE, &[REPLACE, OFF]);
    }
}

#[test]
fn whoever_would_wait_with_interrupts_off_is_refused() {
    const REFUSED: Role = |scene, cpu| {
        let unmapped = scene.unmap(cpu, 0);
        let refused = cpu.with_interrupts_off(|| unmapped.free(&scene.machine, cpu));
        let (unmapped, error) = refused.unwrap_err();
        assert_eq!(
            error,
            pageless_fault::shootdown::WaitError::InterruptsOff { cpu: cpu.id() }
        );
        unmapped
            .free(&scene.machine, cpu)
            .map_err(|(_, e)| e)
            .unwrap();
    };
    play(config(2, PolicyKind::SyncIpi), MAP_ONE, &[REFUSED, USE]);
}

#[test]
fn an_idle_cpu_forgets_on_waking_what_it_slept_through() {
    const SLEEPER: Role = |scene, cpu| {
        let _ = cpu.load(scene.va(0));
        cpu.idle(3);
        let _ = cpu.load(scene.va(0));
    };
    for policy in safe() {
        play(config(2, policy), MAP_ONE, &[REPLACE, SLEEPER]);
    }
}

#[test]
fn speculation_reaches_nothing_that_was_freed() {
    for policy in safe() {
        let config = SimConfig {
            speculation: Speculation::WithoutAccessed,
            speculate_one_in: 2,
            ..config(2, policy)
        };
        play(config, MAP_ONE, &[REPLACE, USE]);
    }
}

#[test]
fn nobody_else_gets_the_cpu_of_somebody_who_sleeps() {
    const NAPPER: Role = |scene, cpu| {
        cpu.idle(3);
        let _ = cpu.load(scene.va(0));
    };
    const THIEF: Role = |scene, _| {
        let taken = scene.machine.cpu(CpuId::new(0));
        assert_eq!(taken.err(), Some(SeatError::Taken { cpu: CpuId::new(0) }));
    };
    play(config(2, PolicyKind::IdleSkip), MAP_ONE, &[NAPPER, THIEF]);
}

#[test]
fn a_cpu_that_sleeps_on_when_all_others_have_ended_is_no_deadlock() {
    const LONG: Role = |_, cpu| cpu.idle(20);
    play(config(1, PolicyKind::IdleSkip), MAP_ONE, &[LONG]);
}

#[test]
fn a_sweep_ends_however_rare_ticks_are() {
    let config = SimConfig {
        tick_every: 10_000,
        ..config(2, PolicyKind::Sweep)
    };
    play(config, MAP_ONE, &[REPLACE, USE]);
}

#[test]
fn a_machine_has_as_many_cpus_as_a_set_can_hold_and_no_more() {
    let config = |cpus| SimConfig {
        frames: 24,
        ..config(cpus, PolicyKind::KernelRange)
    };
    let machine = SimMachine::new(config(1024)).unwrap();
    let cpu = machine.cpu(CpuId::new(1023)).unwrap();
    let frame = machine.alloc().unwrap();
    machine.map(SpaceId::new(0), 0x1000, frame, true).unwrap();
    let unmapped = machine.unmap(&cpu, SpaceId::new(0), 0x1000).unwrap();
    unmapped.free(&machine, &cpu).map_err(|(_, e)| e).unwrap();
    assert_eq!(machine.counters().received, 1023);
    for cpus in [0, 1025] {
        assert_eq!(
            SimMachine::new(config(cpus)).err(),
            Some(BuildError::Cpus { cpus })
        );
    }
}
