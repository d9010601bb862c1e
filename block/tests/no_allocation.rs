//! Hazard: an allocation on the way of a bio. Counted by the allocator itself.
#![expect(unsafe_code, reason = "a global allocator")]

extern crate alloc;

mod rig;

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use std::alloc::System;
use std::sync::Mutex;

use pageless_block::{
    Bio, BioFlags, BlockDevice, Done, Limits, NullDevice, Op, QueueId, Request, RequestQueue,
    Sector, Submitted,
};
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

/// What `work` allocates the third time: the first times fill the stocks.
fn calls_when_warm(mut work: impl FnMut()) -> u64 {
    work();
    work();
    calls(work)
}

#[test]
fn pooled_bios_of_one_segment_allocate_nothing() {
    let (device, ram) = rig::pmem(6 << 40);
    let queue = RequestQueue::with_depth(&device, 32).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let work = || {
        for n in 0..1000_u64 {
            let segment = rig::segment(&ram, n % 7 * 512, 8192);
            let sector = Sector::new(n * 8);
            let pool = context.pool();
            if n % 2 == 0 {
                let bio = pool.read(sector, segment);
                context.submit(bio).unwrap();
            } else {
                let bio = pool.write(sector, segment);
                context.submit(bio).unwrap();
            }
            if n % 32 == 31 || n == 999 {
                while let Some(done) = context.reap() {
                    assert!(done.result().is_ok());
                    context.pool().put(done.into_bio());
                }
            }
        }
    };
    assert_eq!(calls_when_warm(work), 0);
}

/// What joins the pieces of a split bio is the one allocation that is left: one each, given back when the
/// bio is over.
#[test]
fn a_split_bio_allocates_what_joins_its_pieces_and_nothing_else() {
    let (device, ram) = rig::pmem(6 << 40);
    let device = device
        .with_limits(|limits| limits.max_request = ByteLen::new(1024))
        .unwrap();
    let queue = RequestQueue::with_depth(&device, 32).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let work = || {
        for n in 0..100_u64 {
            let bio = context
                .pool()
                .read(Sector::new(n * 8), rig::segment(&ram, n % 7 * 512, 8192));
            context.submit(bio).unwrap();
            let done = context.reap().unwrap();
            assert!(done.result().is_ok());
            context.pool().put(done.into_bio());
        }
    };
    assert_eq!(calls_when_warm(work), 2 * 100);
    assert_eq!(context.counters().splits, 3 * 100 * 7);
}

#[test]
fn bios_of_many_segments_allocate_nothing_once_they_have_been_used() {
    let (device, ram) = rig::pmem(6 << 40);
    let queue = RequestQueue::with_depth(&device, 1).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let work = || {
        for n in 0..100 {
            let mut bio = context
                .pool()
                .with_range(Op::Write, Sector::new(n), ByteLen::ZERO);
            for part in 0..8 {
                bio.push(rig::segment(&ram, part * 8192 + 100, 512));
            }
            context.submit(bio).unwrap();
            let done = context.reap().unwrap();
            assert_eq!(done.result(), Ok(()));
            context.pool().put(done.into_bio());
        }
    };
    assert_eq!(calls_when_warm(work), 0);
}

#[test]
fn a_full_queue_allocates_nothing_either() {
    let (device, ram) = rig::pmem(1 << 20);
    let queue = RequestQueue::with_depth(&device, 1).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let segment = rig::segment(&ram, 0, 512);
    context.submit(Bio::read(Sector::new(1), segment)).unwrap();
    let work = || {
        for _ in 0..100 {
            let bio = context.pool().read(Sector::new(1), segment);
            let back = context.submit(bio).unwrap_err();
            context.pool().put(back.bio);
        }
    };
    assert_eq!(calls_when_warm(work), 0);
}

#[test]
fn flushes_and_writes_that_need_them_allocate_nothing() {
    let (device, ram) = rig::pmem(1 << 20);
    let queue = RequestQueue::with_depth(&device, 4).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let segment = rig::segment(&ram, 0, 512);
    let work = || {
        for _ in 0..100 {
            let durable = context.pool().write(Sector::new(1), segment);
            let durable = durable.with_flags(BioFlags::PREFLUSH | BioFlags::FUA);
            context.submit(durable).unwrap();
            let flush = context.pool().flush();
            context.submit(flush).unwrap();
            while let Some(done) = context.reap() {
                assert_eq!(done.result(), Ok(()));
                context.pool().put(done.into_bio());
            }
        }
    };
    assert_eq!(calls_when_warm(work), 0);
}

#[test]
fn a_device_that_finishes_later_has_its_requests_fetched_without_an_allocation() {
    let queue = RequestQueue::with_depth(OneAtATime::default(), 4).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let work = || {
        for n in 0..100 {
            let bio = context.pool().read(Sector::new(n), rig::memory(512));
            context.submit(bio).unwrap();
            let done = context.reap().unwrap();
            assert_eq!(done.result(), Ok(()));
            context.pool().put(done.into_bio());
        }
    };
    assert_eq!(calls_when_warm(work), 0);
}

#[test]
fn plugged_bios_that_merge_allocate_nothing() {
    let device = NullDevice::new(Limits::new(ByteLen::new(1 << 30)));
    let queue = RequestQueue::with_depth(device, 64).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let work = || {
        for _ in 0..20 {
            let mut plug = context.plug();
            for n in 0..40 {
                let bio = plug
                    .pool()
                    .read(Sector::new(n / 2 * 2 + n), rig::memory(512));
                plug.submit(bio).unwrap();
            }
            drop(plug);
            while let Some(done) = context.reap() {
                context.pool().put(done.into_bio());
            }
        }
    };
    assert_eq!(calls_when_warm(work), 0);
    assert_eq!(context.counters().merges, 3 * 20 * 20);
}

/// Has room for one request, and finishes it when it is polled.
#[derive(Default)]
struct OneAtATime(Mutex<Option<Request>>);

impl BlockDevice for OneAtATime {
    fn limits(&self) -> Limits {
        Limits::new(ByteLen::new(1 << 30))
    }

    fn submit(&self, request: Request) -> Submitted {
        match self.0.lock().unwrap().replace(request) {
            None => Submitted::Kept,
            Some(before) => panic!("had {before:?}"),
        }
    }

    fn poll(&self, _queue: QueueId, done: &mut dyn FnMut(Done)) {
        let request = self.0.lock().unwrap().take();
        request
            .into_iter()
            .for_each(|request| done(request.complete(Ok(()))));
    }
}
