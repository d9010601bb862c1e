//! The modelled clock against published measurements: the real engine on simulated CPUs, ordered by their clocks.
//!
//! Nothing here looks at a real clock: modelled time is the same on every machine, so it can be asserted.

use pageless_fault::shootdown::PolicyKind::{ConcurrentIpi, EarlyAck, KernelRange, SyncIpi};
use pageless_fault::shootdown::{PolicyKind, Processor, SINGLE_PAGE_CEILING, SpaceId};
use pageless_fault::sim::{Costs, Scene, ScheduledBody, SimConfig, SimMachine};

fn added(cpus: u16, policy: PolicyKind, costs: Costs) -> u64 {
    Scene::new(cpus, policy, costs).play().unwrap().added()
}

fn off_by(modelled: u64, published: u64) -> u64 {
    modelled.abs_diff(published) * 100 / published
}

#[test]
fn the_six_points_of_amit_2019_come_out() {
    // Added to the latency of one thread by 1 and 3 others, ns, and how far off the model may be, per cent.
    for (policy, published, within) in [
        (SyncIpi, [775, 910], 10),
        (ConcurrentIpi, [562, 758], 15),
        (EarlyAck, [260, 407], 20),
    ] {
        for (cpus, published) in [(2, published[0]), (4, published[1])] {
            let modelled = added(cpus, policy, Costs::HASWELL_2019);
            assert!(
                off_by(modelled, published) <= within,
                "{policy:?} on {cpus} CPUs: {modelled} ns modelled, {published} published"
            );
        }
    }
}

#[test]
fn the_engine_charges_what_the_formula_says() {
    // Setup 90 + 2n, 35 a post, 60 a message, delivery 150, entry 120, take 2 * 35, flush 200, 35 an answer; less the own flush
    // where it overlaps.
    for (policy, by_hand) in [
        (SyncIpi, [764, 908]),
        (ConcurrentIpi, [564, 708]),
        (EarlyAck, [294, 438]),
    ] {
        assert_eq!(
            added(2, policy, Costs::HASWELL_2019),
            by_hand[0],
            "{policy:?}"
        );
        assert_eq!(
            added(4, policy, Costs::HASWELL_2019),
            by_hand[1],
            "{policy:?}"
        );
    }
}

#[test]
fn the_pace_of_the_targets_has_no_influence() {
    for pace in [0, 7, 30, 100] {
        let scene = Scene {
            pace,
            ..Scene::new(4, ConcurrentIpi, Costs::HASWELL_2019)
        };
        assert_eq!(scene.play().unwrap().added(), 708, "pace {pace}");
        let scene = Scene {
            policy: PolicyKind::Broadcast,
            ..scene
        };
        assert_eq!(scene.play().unwrap().waited, 898, "pace {pace}");
    }
}

#[test]
fn the_two_points_of_latr_come_out() {
    // And what the formula says by hand: answers of near CPUs are read while far ones are still on their way.
    for (cpus, costs, published, by_hand) in [
        (16, Costs::TWO_SOCKETS_2014, 6_000, 6_143),
        (120, Costs::EIGHT_SOCKETS_2013, 80_000, 80_352),
    ] {
        let scene = Scene {
            pace: 100,
            ..Scene::new(cpus, SyncIpi, costs)
        };
        let modelled = scene.play().unwrap().waited;
        assert!(
            off_by(modelled, published) <= 10,
            "{cpus} CPUs: {modelled} ns modelled, {published} published"
        );
        assert_eq!(modelled, by_hand, "{cpus} CPUs");
    }
}

#[test]
fn pages_cost_what_hansen_measured_up_to_the_ceiling_and_nothing_above() {
    // Cycles at 2.67 GHz, of a flush of a CPU's own.
    let cycles = |pages| {
        let scene = Scene {
            pages,
            ..Scene::new(1, SyncIpi, Costs::IVY_BRIDGE_2014)
        };
        scene.play().unwrap().alone as f64 * 2.67
    };
    let last = SINGLE_PAGE_CEILING;
    let slope = (cycles(last) - cycles(1)) / (last - 1) as f64;
    assert!(
        (slope - 227.0).abs() <= 0.15 * 227.0,
        "{slope} cycles a page"
    );
    assert!(cycles(last + 1) < cycles(last), "a full flush is cheaper");
    assert_eq!(cycles(last + 1), cycles(Scene::PAGES_MOST));
}

/// CPU 0 shoots one page down, which `others` have and do something with; its latency, and their clocks at the end, all modelled.
fn shot_at(policy: PolicyKind, others: Vec<ScheduledBody<'_>>) -> (u64, Vec<u64>) {
    const VA: u64 = 0x1000;
    let machine = SimMachine::new(SimConfig {
        cpus: others.len() as u16 + 1,
        policy,
        ..SimConfig::default()
    })
    .unwrap();
    let frame = machine.alloc().unwrap();
    machine.map(SpaceId::new(0), VA, frame, true).unwrap();
    let mut took = 0;
    let initiator: ScheduledBody<'_> = Box::new(|cpu| {
        // The others have begun whatever they do.
        cpu.advance_to(10_000);
        cpu.pause();
        let unmapped = machine.unmap(cpu, SpaceId::new(0), VA).unwrap();
        unmapped
            .free(&machine, cpu)
            .map_err(|(_, error)| error)
            .unwrap();
        took = cpu.now() - 10_000;
    });
    let bodies = core::iter::once(initiator).chain(others).collect();
    let schedule = pageless_fault::sim::schedule::Schedule::by_clock(1);
    let run = machine.run_scheduled(&schedule, bodies).unwrap();
    (took, run.clocks)
}

fn spins_until(ns: u64) -> ScheduledBody<'static> {
    Box::new(move |cpu| {
        while cpu.now() < ns {
            cpu.pause();
        }
    })
}

#[test]
fn an_idle_target_costs_its_idle_exit_and_not_the_senders_time() {
    let running = shot_at(
        ConcurrentIpi,
        vec![spins_until(20_000), spins_until(20_000)],
    );
    // A CPU whose body has ended sleeps, and a flush of the kernel's range wakes it.
    let idle = shot_at(KernelRange, vec![Box::new(|_| ()), spins_until(20_000)]);
    let both = shot_at(KernelRange, vec![Box::new(|_| ()), Box::new(|_| ())]);
    // The line that is read first is the one that comes last: the other is there by then.
    let exit = Costs::HASWELL_2019.idle_exit;
    assert_eq!(idle.0, running.0 + exit);
    assert_eq!(both.0, idle.0, "two wake at the same time");
}

#[test]
fn an_idle_cpu_wakes_after_the_handler_that_it_slept_through() {
    let mut woke = 0;
    let napper: ScheduledBody<'_> = Box::new(|cpu| {
        // A turn is a pause of the CPU that spins: in the middle of the shootdown.
        cpu.idle(10_500);
        woke = cpu.now();
    });
    let (took, _) = shot_at(ConcurrentIpi, vec![napper, spins_until(20_000)]);
    assert!(
        woke >= 10_000 + took,
        "woke at {woke}, and was asked until {took} after 10000"
    );
}

#[test]
fn an_interrupt_waits_for_interrupts_to_come_on_and_no_clock_goes_back() {
    let mut clocks = Vec::new();
    let deaf: ScheduledBody<'_> = Box::new(|cpu| {
        cpu.advance_to(9_000);
        cpu.with_interrupts_off(|| {
            while cpu.now() < 15_000 {
                cpu.advance_to(cpu.now() + 50);
                cpu.pause();
                clocks.push(cpu.now());
            }
        });
        clocks.push(cpu.now());
    });
    let (took, _) = shot_at(ConcurrentIpi, vec![deaf]);
    assert!(clocks.is_sorted(), "{clocks:?}");
    // Interrupts came on at 15000 and a little; then entry, take, flush and the answer.
    let costs = Costs::HASWELL_2019;
    let handler = costs.entry + 2 * costs.line_near + costs.flush_page;
    let residual = 5_000 + handler + costs.line_near;
    assert!(
        (residual..residual + 100).contains(&took),
        "{took} ns, {residual} expected"
    );
}

#[test]
fn a_broadcast_is_executed_with_interrupts_off_and_costs_no_line_for_each_cpu() {
    let deaf = || -> ScheduledBody<'static> {
        Box::new(|cpu| {
            cpu.with_interrupts_off(|| {
                while cpu.now() < 15_000 {
                    cpu.pause();
                }
            });
        })
    };
    let (one, _) = shot_at(PolicyKind::Broadcast, vec![deaf()]);
    let (three, _) = shot_at(PolicyKind::Broadcast, vec![deaf(), deaf(), deaf()]);
    let costs = Costs::HASWELL_2019;
    let by_hand = |cpus| {
        costs.setup + costs.scan * cpus + costs.fabric_post + costs.flush_page + costs.fabric_sync
    };
    // All began a pause late.
    assert_eq!((one, three), (by_hand(2) + 1, by_hand(4) + 1));
    let (asleep, _) = shot_at(PolicyKind::Broadcast, vec![Box::new(|_| ())]);
    assert_eq!(asleep, by_hand(2) + 1, "who sleeps is not woken");
}

#[test]
fn a_second_run_begins_at_zero() {
    let machine = SimMachine::new(SimConfig::default()).unwrap();
    let mut ends = Vec::new();
    for _ in 0..2 {
        let frame = machine.alloc().unwrap();
        machine.map(SpaceId::new(0), 0x1000, frame, true).unwrap();
        let initiator: ScheduledBody<'_> = Box::new(|cpu| {
            let unmapped = machine.unmap(cpu, SpaceId::new(0), 0x1000).unwrap();
            unmapped
                .free(&machine, cpu)
                .map_err(|(_, error)| error)
                .unwrap();
        });
        let schedule = pageless_fault::sim::schedule::Schedule::by_clock(1);
        let bodies = vec![initiator, spins_until(5_000)];
        ends.push(machine.run_scheduled(&schedule, bodies).unwrap().clocks);
    }
    assert_eq!(ends[0], ends[1]);
}
