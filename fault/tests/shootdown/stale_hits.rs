//! Hazard: a CPU reaches a frame through a translation made in an earlier life of it.

use pageless_fault::shootdown::PolicyKind;
use pageless_fault::sim::schedule::Schedule;

use crate::workload::{Fight, config};

#[test]
fn no_safe_policy_lets_a_stale_hit_happen() {
    for &policy in PolicyKind::ALL {
        if policy == PolicyKind::LocalOnly {
            continue;
        }
        for cpus in [2, 4, 8, 64] {
            let seed = u64::from(cpus);
            let fight = Fight::new(config(cpus, policy, seed));
            let begun = std::time::Instant::now();
            let run = fight.scheduled(&Schedule::random(seed), 100_000 / u64::from(cpus), seed);
            let hits = fight.machine.stale_hits();
            println!(
                "{:16} {cpus:3} cpus: {} stale, {:?} {:?} {:?}",
                policy.name(),
                hits,
                run.as_ref().map(|run| run.steps).map_err(|e| e.to_string()),
                begun.elapsed(),
                fight.machine.counters()
            );
            run.unwrap();
        }
    }
}
