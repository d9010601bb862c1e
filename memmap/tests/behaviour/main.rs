//! What every memmap does, whatever machine is under it. Each hazard is a module, and its tests are
//! written once, over a [`rig::Rig`]; each machine at the end of this file runs the whole catalogue.
//!
//! ```text
//!   rig/host.rs ---+
//!   rig/model.rs --+--> Rig: a machine, its CPUs, how much of it there is
//!   rig/sim.rs ----+                         |
//!                  |     budget.rs, detach.rs, ..: fn test<R: Rig>(rig: &R)
//!                  |                         |
//!                  +----> catalogue!(..) ----+----> #[test] fn host::budget::test
//! ```
//!
//! What is true of Linux only (signals, forks, petabytes, the kernel's accounting) is in `tests/host`,
//! `tests/fork.rs` and `tests/sparse_sweep.rs`; races that need a hook are in `tests/model`.
#![cfg(not(loom))]

extern crate alloc;

mod budget;
mod detach;
mod device;
mod fault_storm;
mod fill_ahead;
mod generations;
#[path = "../model/machine.rs"]
#[expect(
    dead_code,
    reason = "its hooks are for the forced races in tests/model"
)]
mod machine;
mod reclaim_order;
mod reference_counts;
mod references_under_reclaim;
mod rig;
mod try_get;
mod two_memmaps;

/// One `#[test]` for each test of each hazard, in a module named after the hazard.
macro_rules! tests {
    ($rig:ty, $($hazard:ident: $($test:ident),+;)+) => {
        $(mod $hazard {
            $(#[test]
            fn $test() {
                crate::rig::run::<$rig>(crate::$hazard::$test);
            })+
        })+
    };
}

/// Every test that any machine can run. A test that is missing here is dead code, which does not pass.
macro_rules! catalogue {
    ($rig:ty) => {
        tests! { $rig,
            budget:
                a_budget_that_cannot_work_is_refused_with_the_numbers,
                a_scan_above_the_watermark_is_bounded_however_much_is_pinned,
                no_chunk_size_ever_overruns_its_budget,
                reclaim_begins_above_the_high_watermark_and_stops_at_the_low_one;
            detach:
                a_deadline_that_passes_says_who_still_holds_what,
                after_detaching_every_lookup_says_so,
                detaching_waits_for_the_last_reference,
                the_deadline_may_ask_the_memmap_and_may_panic;
            fault_storm:
                a_crowd_of_cpus_on_one_chunk_fills_it_once,
                a_fault_on_a_chunk_under_reclaim_ends_in_a_new_generation;
            fill_ahead:
                a_run_stops_at_what_is_there_and_at_the_watermark,
                a_walk_takes_fewer_faults_and_every_chunk_once,
                whoever_does_not_walk_gets_what_was_asked_for;
            generations:
                a_chunk_that_stays_keeps_its_generation_and_its_memory,
                every_filling_of_a_chunk_is_a_new_generation_with_fresh_memory;
            reclaim_order:
                a_budget_that_is_all_pinned_is_a_typed_error,
                pinned_chunks_keep_their_place,
                reclaim_order_is_allocation_order_whatever_is_touched_in_between;
            reference_counts:
                a_lookup_a_clone_and_a_pin_count_one_each,
                no_increment_is_lost_however_many_cpus_look_one_descriptor_up;
            references_under_reclaim:
                cpus_that_take_turns_on_three_chunks_keep_their_references,
                no_count_no_tag_and_no_referenced_chunk_is_lost;
            try_get:
                a_large_reserve_serves_as_many_as_it_has,
                a_present_descriptor_is_had_under_a_spin_lock,
                a_race_that_reclaim_wins_is_would_block_and_nothing_else,
                an_absent_descriptor_would_block_and_stays_absent,
                the_reserve_fits_the_budget_wherever_it_is_used,
                the_reserve_serves_those_who_cannot_wait_and_is_refilled_by_those_who_can;
            two_memmaps:
                a_page_pinned_in_one_cannot_be_given_to_the_other,
                a_pfn_outside_is_not_covered,
                each_has_its_own_descriptors_budget_and_end;
        }
    };
}

/// Tests in which the memmap starts a thread of its own: for machines on which any thread is a CPU. On the modelled
/// machine a thread is given a CPU by whoever starts it, and the memmap knows of none.
macro_rules! catalogue_of_threads {
    ($rig:ty) => {
        mod threads {
            tests! { $rig,
                budget:
                    the_background_reclaimer_keeps_the_faulting_cpus_out_of_reclaim;
            }
        }
    };
}

// The machines. One more is a rig in `rig/`, and a module here.

/// This process's own MMU; a CPU is a thread.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod host {
    catalogue!(crate::rig::host::HostRig);
    catalogue_of_threads!(crate::rig::host::HostRig);
}

/// Plain memory that checks what is done to it; a CPU is a thread. Also run by Miri.
mod model {
    catalogue!(crate::rig::model::ModelRig);
    catalogue_of_threads!(crate::rig::model::ModelRig);
}

/// The modelled machine, each CPU a thread.
mod sim_threads {
    catalogue!(crate::rig::sim::SimThreadsRig);
}

/// The modelled machine, all CPUs in one thread, under several schedules.
mod sim_scheduled {
    catalogue!(crate::rig::sim::SimScheduledRig);
}

/// The same under every safe policy.
mod sim_policies {
    catalogue!(crate::rig::sim::SimPoliciesRig);
}
