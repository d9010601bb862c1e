//! Hazard: a CPU reaches a frame through a translation made in an earlier life of it.
//!
//! Ten million operations for each safe policy, on 2, 4, 8 and 64 CPUs, deterministic from the seeds below. Under a policy that is broken on
//! purpose the detector must see it: that is the test of the detector.

use pageless_fault::shootdown::PolicyKind;
use pageless_fault::sim::SimConfig;
use pageless_fault::sim::schedule::Schedule;

use crate::workload::{Fight, config};

/// Operations for each policy and number of CPUs.
const OPERATIONS: u64 = 2_500_000;
/// Operations of one run: a failing one is short enough to be shrunk.
const RUN: u64 = 100_000;

fn fight_on(policy: PolicyKind, cpus: u16) {
    let mut fought = 0;
    let mut seed = u64::from(cpus);
    while fought < OPERATIONS {
        let fight = Fight::new(config(cpus, policy, seed));
        if let Err(failure) = fight.scheduled(&Schedule::random(seed), RUN / u64::from(cpus), seed)
        {
            panic!("{} on {cpus} CPUs: {failure}", policy.name());
        }
        assert!(
            fight.machine.stale_hits() == 0 && fight.machine.stale_walks() == 0,
            "{} on {cpus} CPUs, seed {seed}: {} stale hits, the first: {}",
            policy.name(),
            fight.machine.stale_hits(),
            fight.machine.incidents()[0],
        );
        fight.assert_balanced();
        fought += RUN / u64::from(cpus) * u64::from(cpus);
        seed += 1000;
    }
}

macro_rules! safe {
    ($($name:ident: $policy:ident;)*) => {
        $(#[test]
        fn $name() {
            for cpus in [2, 4, 8, 64] {
                fight_on(PolicyKind::$policy, cpus);
            }
        })*

        #[test]
        fn every_safe_policy_is_fought_over() {
            let fought = [$(PolicyKind::$policy),*];
            for policy in PolicyKind::ALL {
                assert_eq!(policy.is_safe(), fought.contains(policy), "{policy:?}");
            }
        }
    };
}

safe! {
    sync_ipi_has_no_stale_hits: SyncIpi;
    concurrent_ipi_has_no_stale_hits: ConcurrentIpi;
    early_ack_waited_for_has_no_stale_hits: EarlyAck;
    coalescing_has_no_stale_hits: Coalescing;
    idle_skip_has_no_stale_hits: IdleSkip;
    kernel_range_has_no_stale_hits: KernelRange;
    resident_has_no_stale_hits: Resident;
    lazy_purge_has_no_stale_hits: LazyPurge;
    sweep_has_no_stale_hits: Sweep;
    flush_at_realloc_has_no_stale_hits: AtRealloc;
    broadcast_has_no_stale_hits: Broadcast;
    local_only_has_no_stale_hits_in_private_windows: LocalOnly;
}

#[test]
fn every_unsafe_policy_is_seen_by_the_detector() {
    for policy in PolicyKind::ALL.iter().filter(|policy| !policy.is_safe()) {
        for cpus in [2, 4, 8, 64] {
            let mut seen = 0;
            let mut seed = 0;
            while seen == 0 {
                assert!(
                    seed < 40,
                    "{} on {cpus} CPUs: nothing in {seed} runs",
                    policy.name()
                );
                // The same machine as that of the safe ones: what it would see there, it sees here.
                let fight = Fight::new(config(cpus, *policy, seed));
                fight
                    .scheduled(&Schedule::random(seed), RUN / u64::from(cpus), seed)
                    .unwrap();
                seen = fight.machine.stale_hits();
                seed += 1;
            }
        }
    }
}

#[test]
fn speculation_that_marks_and_none_at_all_are_no_different() {
    use pageless_fault::sim::Speculation;
    for speculation in [Speculation::Off, Speculation::Marked] {
        let config = SimConfig {
            speculation,
            ..config(4, PolicyKind::ConcurrentIpi, 1)
        };
        let fight = Fight::new(config);
        fight.scheduled(&Schedule::random(1), RUN, 1).unwrap();
        assert_eq!(fight.machine.stale_hits(), 0);
    }
}

#[test]
fn threads_that_fight_over_a_few_pages_have_no_stale_hits() {
    let (operations, cpus) = if cfg!(miri) { (24, 2) } else { (50_000, 4) };
    for &policy in PolicyKind::ALL.iter().filter(|policy| policy.is_safe()) {
        // Interpreting is slow: one policy for each way in which a request travels.
        let interpreted = [
            PolicyKind::Resident,
            PolicyKind::Coalescing,
            PolicyKind::Sweep,
            PolicyKind::Broadcast,
        ];
        if cfg!(miri) && !interpreted.contains(&policy) {
            continue;
        }
        let fight = Fight::new(config(cpus, policy, 1));
        fight.threads(operations, 1);
        assert_eq!(
            fight.machine.stale_hits(),
            0,
            "{policy:?}: {:?}",
            fight.machine.incidents()
        );
        fight.assert_balanced();
    }
}
