//! Hazard: an allocation on the way of a bio. Counted by the allocator itself.
#![expect(unsafe_code, reason = "a global allocator")]

extern crate alloc;

mod rig;

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use std::alloc::System;

use pageless_block::{Bio, Op, Queue, QueueId, Sector, submit_sync};
use pageless_pfn::ByteLen;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: forwards everything to the system's allocator; counting touches a thread-local `Cell`
// that needs no allocation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn calls(work: impl FnOnce()) -> u64 {
    let before = CALLS.get();
    work();
    CALLS.get() - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(calls(|| drop(Box::new(1))), 2);
}

#[test]
fn queued_bios_of_one_segment_allocate_nothing_splits_included() {
    let (device, ram) = rig::pmem(6 << 40);
    let device = device.with_max_request(ByteLen::new(4096)).unwrap();
    let mut queue = Queue::try_new(&device, QueueId::new(0), 32).unwrap();
    let work = || {
        for n in 0..1000_u64 {
            let segment = rig::segment(&ram, n % 7 * 512, 8192);
            let bio = if n % 2 == 0 { Bio::read } else { Bio::write }(Sector::new(n * 8), segment);
            queue.submit(bio).unwrap();
            if n % 32 == 31 {
                queue.drain(|done| assert!(done.result.is_ok()));
            }
        }
        queue.drain(|done| assert!(done.result.is_ok()));
    };
    assert_eq!(calls(work), 0);
    assert_eq!(queue.counters().splits, 1000);
}

#[test]
fn bios_of_many_segments_allocate_nothing_once_they_have_been_used() {
    let (device, ram) = rig::pmem(6 << 40);
    let mut queue = Queue::try_new(&device, QueueId::new(0), 1).unwrap();
    let mut bio = Bio::new(Op::Write, Sector::new(0));
    let mut round = |n: u64| {
        bio.reset(Op::Write, Sector::new(n));
        for part in 0..8 {
            bio.push(rig::segment(&ram, part * 8192 + 100, 512));
        }
        queue.submit(core::mem::take(&mut bio)).unwrap();
        let done = queue.reap().unwrap();
        assert_eq!(done.result, Ok(()));
        bio = done.bio;
    };
    round(0);
    assert_eq!(calls(|| (1..200).for_each(&mut round)), 0);
}

#[test]
fn waiting_for_a_bio_and_a_full_queue_allocate_nothing_either() {
    let (device, ram) = rig::pmem(1 << 20);
    let bio = || Bio::read(Sector::new(1), rig::segment(&ram, 0, 512));
    let mut queue = Queue::try_new(&device, QueueId::new(0), 1).unwrap();
    queue.submit(bio()).unwrap();
    let work = || {
        for _ in 0..100 {
            submit_sync(&device, bio()).unwrap().result.unwrap();
            queue.submit(bio()).unwrap_err();
        }
    };
    assert_eq!(calls(work), 0);
}
