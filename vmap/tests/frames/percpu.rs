//! The lists of single frames that each CPU has.

use pageless_fault::{FrameMemory, MaySleep};
use pageless_vmap::frames::{AllocError, FrameConfig, Gfp, PageBlock, PerCpuPlan};

use crate::memory::{POISON, run_on};
use crate::{Allocator, bare, frames, on_cpus, order};

fn lists(batch: u64, high: u64) -> FrameConfig {
    FrameConfig {
        percpu: PerCpuPlan::Fixed {
            batch: frames(batch),
            high: frames(high),
        },
        ..bare()
    }
}

fn parked(allocator: &Allocator) -> Vec<u64> {
    let zones = allocator.statistics().zones;
    zones[0]
        .lists
        .iter()
        .map(|list| list.parked.get())
        .collect()
}

fn take(allocator: &Allocator, count: usize) -> Vec<PageBlock> {
    (0..count)
        .map(|_| allocator.alloc(&Gfp::atomic(), order(0)).unwrap())
        .collect()
}

#[test]
fn frames_come_and_go_in_batches() {
    run_on(0);
    let allocator = on_cpus(2, 64, lists(4, 6));
    let held = take(&allocator, 1);
    assert_eq!(parked(&allocator), [3, 0]);
    let more = take(&allocator, 4);
    assert_eq!(parked(&allocator), [3, 0]);
    run_on(1);
    for block in held.into_iter().chain(more) {
        allocator.free(block);
    }
    assert_eq!(parked(&allocator), [3, 5]);
    run_on(0);
    let held = take(&allocator, 3);
    run_on(1);
    let mut held = held.into_iter();
    allocator.free(held.next().unwrap());
    assert_eq!(parked(&allocator), [0, 6]);
    // The seventh is one too many: a batch goes.
    allocator.free(held.next().unwrap());
    assert_eq!(parked(&allocator), [0, 3]);
    allocator.free(held.next().unwrap());
    allocator.self_check().unwrap();

    let lists = &allocator.statistics().zones[0].lists;
    let (zero, one) = (lists[0].counts, lists[1].counts);
    assert_eq!(
        (zero.taken, zero.freed, zero.refills, zero.spills),
        (8, 0, 2, 0)
    );
    assert_eq!(
        (one.taken, one.freed, one.refills, one.spills),
        (0, 8, 0, 1)
    );
    run_on(0);
}

#[test]
fn the_frame_freed_last_is_taken_first() {
    run_on(0);
    let allocator = on_cpus(1, 64, lists(4, 8));
    let mut held = take(&allocator, 4);
    let last = held.remove(1);
    let pfn = last.pfn();
    held.into_iter().for_each(|block| allocator.free(block));
    allocator.free(last);
    assert_eq!(take(&allocator, 1)[0].pfn(), pfn);
}

#[test]
fn drained_frames_meet_their_buddies() {
    let allocator = on_cpus(4, 64, lists(4, 8));
    for cpu in 0..4 {
        run_on(cpu);
        take(&allocator, 1)
            .into_iter()
            .for_each(|block| allocator.free(block));
    }
    assert_eq!(parked(&allocator), [4, 4, 4, 4]);
    assert_eq!(allocator.statistics().blocks().of(order(6)), 0);
    assert_eq!(allocator.drain_percpu(), frames(16));
    assert_eq!(parked(&allocator), [0, 0, 0, 0]);
    assert_eq!(allocator.statistics().blocks().of(order(6)), 1);
    allocator.self_check().unwrap();
    run_on(0);
}

#[test]
fn whoever_may_sleep_gets_a_large_block_out_of_the_lists() {
    let ctx = MaySleep::claim();
    run_on(0);
    let allocator = on_cpus(2, 16, lists(8, 8));
    let held = take(&allocator, 1);
    held.into_iter().for_each(|block| allocator.free(block));
    assert!(matches!(
        allocator.alloc(&Gfp::atomic(), order(4)),
        Err(AllocError::Fragmented { free, largest, .. }) if free == frames(16) && largest == order(3)
    ));
    assert_eq!(allocator.statistics().events.drains, 0);
    // Not a reclaim: who does not want to retry gets it as well.
    let block = allocator
        .alloc(&Gfp::kernel(&ctx).no_retry(), order(4))
        .unwrap();
    assert_eq!(allocator.statistics().events.drains, 1);
    allocator.free(block);
    assert_eq!(allocator.statistics().events.fragmented, 1);
}

#[test]
fn the_last_frame_is_found_in_the_list_of_another_cpu() {
    run_on(0);
    let allocator = on_cpus(3, 8, lists(8, 8));
    let mut held = take(&allocator, 1);
    assert_eq!(parked(&allocator), [7, 0, 0]);
    run_on(2);
    held.extend(take(&allocator, 7));
    assert_eq!(
        allocator.alloc(&Gfp::atomic(), order(0)),
        Err(AllocError::NoMemory {
            order: order(0),
            free: frames(0)
        })
    );
    assert_eq!(allocator.statistics().zones[0].lists[0].counts.stolen, 7);
    allocator.self_check().unwrap();
    held.into_iter().for_each(|block| allocator.free(block));
    run_on(0);
}

#[test]
fn a_frame_is_retired_when_it_comes_back_not_when_its_list_is_drained() {
    run_on(0);
    let allocator = on_cpus(1, 64, lists(4, 8));
    let block = take(&allocator, 1).remove(0);
    let at = block.pfn().phys();
    allocator.memory().write(at, &[1, 2, 3]).unwrap();
    allocator.free(block);
    assert_eq!(allocator.memory().retired(), 1);
    let mut bytes = [0; 3];
    allocator.memory().read(at, &mut bytes).unwrap();
    assert_eq!(bytes, [POISON; 3]);
    allocator.drain_percpu();
    assert_eq!(allocator.memory().retired(), 1);
}

#[test]
fn zeroed_means_zeroed_and_only_then() {
    run_on(0);
    let ctx = MaySleep::claim();
    let allocator = on_cpus(1, 64, lists(4, 8));
    for wanted in [0, 3] {
        for zeroed in [true, false] {
            let gfp = Gfp::kernel(&ctx);
            let gfp = if zeroed { gfp.zeroed() } else { gfp };
            let block = allocator.alloc(&gfp, order(wanted)).unwrap();
            for pfn in block.frames() {
                let mut bytes = [1; 4096];
                allocator.memory().read(pfn.phys(), &mut bytes).unwrap();
                let expected = if zeroed { 0 } else { POISON };
                assert!(bytes.iter().all(|&byte| byte == expected));
            }
            allocator.free(block);
        }
    }
}
