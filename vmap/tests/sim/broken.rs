//! The detector's own test: what is wrong with a shootdown is seen, on the same machines and by the same work as in the storm.

use pageless_fault::shootdown::PolicyKind;
use pageless_fault::sim::schedule::Schedule;

use crate::space::Fault;
use crate::storm::scheduled;
use crate::world::Setup;

/// Runs until something is seen: how many stale hits and wrong reads.
fn seen(cpus: u16, policy: PolicyKind, fault: Fault) -> (u64, u64) {
    for seed in 0..400 {
        let setup = Setup {
            fault,
            ..Setup::new(cpus, policy, seed)
        };
        let schedule = Schedule::random(seed).record_deviations(false);
        let (world, tally) = scheduled(&setup, &schedule, 4_000);
        let seen = (world.machine.stale_hits(), tally.wrong());
        if seen != (0, 0) {
            return seen;
        }
    }
    panic!(
        "{fault:?} under {} on {cpus} CPUs: nothing is seen",
        policy.name()
    );
}

#[test]
fn whatever_is_left_out_of_a_shootdown_is_seen() {
    for fault in [
        Fault::NobodyTold,
        Fault::OnlyHere,
        Fault::FirstRangeOnly,
        Fault::LastPageMissed,
    ] {
        for cpus in [2, 4, 8, 64] {
            let (stale, wrong) = seen(cpus, PolicyKind::ConcurrentIpi, fault);
            println!("{fault:?} on {cpus} CPUs: {stale} stale hits, {wrong} wrong reads");
        }
    }
}

#[test]
fn every_unsafe_policy_is_seen() {
    for &policy in PolicyKind::ALL.iter().filter(|policy| !policy.is_safe()) {
        for cpus in [2, 4, 8] {
            let (stale, wrong) = seen(cpus, policy, Fault::None);
            println!(
                "{} on {cpus} CPUs: {stale} stale hits, {wrong} wrong reads",
                policy.name()
            );
        }
    }
}
