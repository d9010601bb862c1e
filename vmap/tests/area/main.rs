//! What the vmalloc address space does, whatever machine is under it. Each hazard is a module, and its tests are written once, over a
//! [`rig::Rig`]; each machine at the end of this file runs the whole catalogue.
#![cfg(not(loom))]

extern crate alloc;

mod atomic_context;
mod books;
mod cap;
mod exhaustion;
mod guard_pages;
mod injected_failures;
mod interrupts_off;
mod listing;
mod mixed_lists;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod put_off;
mod reading;
mod reuse;
mod rig;
mod small_mappings;
mod storm;
mod taking_apart;
mod the_end;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod under_way;
mod vmalloc;

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
            atomic_context:
                an_unmapping_sends_nothing_and_the_next_sleeper_purges,
                what_is_unmapped_by_address_twice_is_refused;
            books:
                the_books_agree_with_a_naive_oracle;
            cap:
                after_a_call_that_may_sleep_no_more_waits_than_the_cap,
                an_eager_space_shoots_every_unmapping_down,
                nothing_is_shot_down_below_the_cap;
            exhaustion:
                a_full_space_is_purged_once_before_the_error_with_the_numbers,
                no_list_and_too_long_a_list_are_refused;
            guard_pages:
                an_overrun_finds_no_translation,
                neighbours_are_a_guard_page_apart;
            injected_failures:
                a_failed_mapping_leaves_nothing_behind_whichever_page_fails,
                a_failed_reference_leaves_nothing_behind_whichever_it_is,
                a_failed_shootdown_locks_everything_in,
                a_failed_small_mapping_leaves_nothing_behind,
                a_refused_unmapping_leaves_all_as_it_was,
                where_the_machine_has_no_room_a_purge_makes_some;
            listing:
                areas_are_listed_by_address_with_who_asked,
                every_address_of_an_area_finds_it;
            mixed_lists:
                a_mixed_list_references_those_with_descriptors_until_the_flush,
                a_page_may_be_in_a_list_many_times,
                the_place_of_a_table_is_no_frame;
            reading:
                holes_and_guard_pages_read_as_zeroes,
                what_is_unmapped_is_not_read_through_an_old_translation;
            reuse:
                addresses_and_owned_things_come_back_only_after_the_flush,
                one_shootdown_covers_the_actual_ranges,
                what_is_released_may_unmap_and_purge_itself;
            small_mappings:
                a_block_is_given_back_when_nothing_is_in_it,
                a_mapping_shows_its_frames_and_its_owner_gets_them_after_a_purge,
                blocks_are_filled_and_used_again_without_taking_addresses,
                more_than_64_pages_are_refused;
            storm:
                many_cpus_map_touch_and_unmap_at_once,
                of_those_who_unmap_one_area_at_once_one_succeeds;
            taking_apart:
                a_purge_at_the_cap_leaves_the_areas_to_the_calls_behind_it,
                a_purge_by_name_takes_all_of_them_apart,
                whoever_needs_addresses_gets_those_that_have_been_flushed;
            the_end:
                under_a_spin_lock_nothing_is_shot_down_and_what_areas_own_is_lost,
                what_areas_own_comes_back_whether_they_are_mapped_or_waiting;
            vmalloc:
                its_frames_are_told_in_order_whatever_bytes_are_asked_for,
                memory_is_zeroed_written_in_one_piece_and_back_after_the_flush,
                what_is_not_its_memory_has_no_segments,
                without_frames_nothing_is_left_behind_whichever_is_missing;
        }
    };
}

/// This process's own MMU.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod host {
    catalogue!(crate::rig::host::HostRig);
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
