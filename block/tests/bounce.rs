//! Hazard: a device gets frames without descriptors that it cannot use, or the copy that keeps them
//! from it loses bytes, leaks a buffer, or is not counted.

extern crate alloc;

mod stacking_rig;

use alloc::sync::Arc;
use core::time::Duration;

use pageless_block::{
    Abort, Action, Bio, BlkError, BlockDevice, Bounce, BounceCounters, BounceError, Clock, Effect,
    Event, Fault, Features, Flakey, FrameAccess, Limits, ManualClock, Op, Probe, QueueConfig,
    QueueId, RamFrames, Request, RequestQueue, Sector, Submitted, Tag, submit_sync,
};
use pageless_pfn::{ByteLen, PhysSegment};
use stacking_rig::{Later, SECTOR, Store, bytes_of, pageless, ram, segment};
use std::sync::Mutex;

/// Frames of the pool come first.
const POOL: u64 = 16 << 10;
const BUFFER: ByteLen = ByteLen::new(4 << 10);

fn paged_store(ram: &Arc<RamFrames>) -> Arc<Store> {
    let mut limits = Limits::new(ByteLen::new(1 << 20));
    limits.max_discard = Limits::UNLIMITED;
    limits.max_write_zeroes = Limits::UNLIMITED;
    limits.features -= Features::PAGELESS;
    Arc::new(Store::with_limits(limits, ram))
}

fn bounce<D: BlockDevice>(device: D, ram: &Arc<RamFrames>) -> Bounce<D, Arc<RamFrames>> {
    let pool = segment(ram, 0, POOL);
    Bounce::try_new(device, Arc::clone(ram), pool, BUFFER).unwrap()
}

/// `len` bytes of memory without descriptors, full of a pattern.
fn patterned(ram: &RamFrames, offset: u64, len: u64, pattern: u8) -> PhysSegment {
    let memory = segment(ram, POOL + offset, len);
    let bytes: Vec<u8> = (0..len)
        .map(|n| (n as u8).wrapping_mul(7) ^ pattern)
        .collect();
    ram.write_bytes(memory, &bytes).unwrap();
    pageless(memory)
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn without_it_such_a_device_refuses_pageless_bios() {
    let ram = ram(16);
    let store = paged_store(&ram);
    let memory = patterned(&ram, 0, 512, 1);
    for bio in [
        Bio::write(Sector::new(0), memory).erase(),
        Bio::read(Sector::new(0), memory).erase(),
    ] {
        let done = submit_sync(&store, bio).unwrap();
        assert_eq!(done.result(), Err(BlkError::NotSupported));
    }
    assert!(store.seen.lock().unwrap().is_empty());
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn bytes_arrive_and_the_device_sees_only_frames_with_descriptors() {
    let ram = ram(64);
    let store = paged_store(&ram);
    let device = bounce(Arc::clone(&store), &ram);
    assert!(device.limits().accepts_pageless());
    // Longer than a buffer, not aligned to anything, and partly with descriptors.
    let mut bio = Bio::write(Sector::new(8), patterned(&ram, 100, 3000, 1));
    bio.push(segment(&ram, POOL + 5000, 1000));
    bio.push(patterned(&ram, 9000, 10 * 1024 - 4000, 2));
    let written: Vec<u8> = bio
        .segments()
        .iter()
        .flat_map(|&memory| bytes_of(&*ram, memory))
        .collect();
    submit_sync(&device, bio).unwrap().result().unwrap();
    assert_eq!(store.bytes.lock().unwrap()[8 * 512..][..10 * 1024], written);

    let back = patterned(&ram, 20_003, 10 * 1024, 3);
    let read = submit_sync(&device, Bio::read(Sector::new(8), back)).unwrap();
    read.result().unwrap();
    assert_eq!(bytes_of(&*ram, back), written);

    let seen = store.seen.lock().unwrap();
    assert_eq!(seen.len(), 6, "10 KiB in buffers of 4 KiB, twice");
    assert!(seen.iter().all(|one| one.paged));
    let expected = BounceCounters {
        requests: 6,
        bytes_out: 10 * 1024,
        bytes_in: 10 * 1024,
        passed: 0,
        waited: 0,
    };
    assert_eq!(device.counters(), expected);
    assert_eq!(device.in_use(), 0);
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn what_has_descriptors_passes_untouched() {
    let ram = ram(64);
    let store = paged_store(&ram);
    let device = bounce(Arc::clone(&store), &ram);
    let memory = segment(&ram, POOL + 512, 1024);
    submit_sync(&device, Bio::write(Sector::new(0), memory))
        .unwrap()
        .result()
        .unwrap();
    submit_sync(&device, Bio::read(Sector::new(0), memory))
        .unwrap()
        .result()
        .unwrap();
    submit_sync(&device, Bio::discard(Sector::new(0), ByteLen::new(1 << 20)))
        .unwrap()
        .result()
        .unwrap();
    let seen = store.seen.lock().unwrap();
    assert_eq!(seen.len(), 3);
    for one in &seen[..2] {
        assert_eq!(one.memory, memory.phys().get(), "the caller's own frames");
    }
    let expected = BounceCounters {
        passed: 3,
        ..BounceCounters::default()
    };
    assert_eq!(device.counters(), expected);
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn of_a_read_that_fails_half_way_the_first_half_arrives_and_nothing_else() {
    let ram = ram(64);
    let store = paged_store(&ram);
    store.bytes.lock().unwrap().fill(0x5a);
    let flakey = Flakey::new(Arc::clone(&store), 1);
    let half = Effect::FailAfter {
        done: ByteLen::new(1024),
        error: BlkError::Medium,
    };
    flakey.inject(Fault::new(half).times(2));
    let device = bounce(flakey, &ram);
    let memory = patterned(&ram, 77, 2048, 9);
    let before = bytes_of(&*ram, memory);
    let read = submit_sync(&device, Bio::read(Sector::new(0), memory)).unwrap();
    assert_eq!(read.result(), Err(BlkError::Medium));
    assert_eq!(read.done().get(), 1024);
    let after = bytes_of(&*ram, memory);
    assert_eq!(after[..1024], [0x5a; 1024]);
    assert_eq!(after[1024..], before[1024..]);
    assert_eq!(device.counters().bytes_in, 1024);

    let write = submit_sync(&device, Bio::write(Sector::new(0), memory)).unwrap();
    assert_eq!(write.result(), Err(BlkError::Medium));
    assert_eq!(write.done().get(), 1024);
    assert_eq!(store.bytes.lock().unwrap()[..1024], after[..1024]);
    assert_eq!(store.bytes.lock().unwrap()[1024], 0x5a);
    assert_eq!(device.in_use(), 0);
}

/// 32 requests at a time through four buffers, over a device that finishes later and has room for a
/// few.
fn many_at_a_time(room: usize) -> BounceCounters {
    let ram = ram(128);
    let store = paged_store(&ram);
    let device = bounce(Later::new(Arc::clone(&store), room, 3), &ram);
    let queue = RequestQueue::with_depth(&device, 32).unwrap();
    let mut context = queue.context(QueueId::new(0)).unwrap();
    let memory = |n: u64| patterned(&ram, n * 2048, 1536, n as u8);
    for n in 0..32 {
        let bio = Bio::write(Sector::new(n * 3), memory(n));
        context.submit(bio).unwrap();
    }
    context.drain(|done| done.result().unwrap());
    let written: Vec<Vec<u8>> = (0..32).map(|n| bytes_of(&*ram, memory(n))).collect();
    for n in 0..32 {
        let back = segment(&ram, POOL + (1 << 17) + n * 2048, 1536);
        let bio = Bio::read(Sector::new(n * 3), pageless(back));
        context.submit(bio.with_token(n)).unwrap();
    }
    context.drain(|done| {
        done.result().unwrap();
        let read = bytes_of(&*ram, done.bio().segments()[0]);
        assert_eq!(read, written[done.token() as usize]);
    });
    assert_eq!(device.in_use(), 0);
    assert!(store.seen.lock().unwrap().iter().all(|one| one.paged));
    device.counters()
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn with_all_buffers_in_use_requests_wait_and_none_is_lost() {
    let counters = many_at_a_time(32);
    assert!(counters.waited > 0, "four buffers for 32 requests");
    assert_eq!(counters.requests, 64);
    assert_eq!(counters.bytes_out, 32 * 1536);
    assert_eq!(counters.bytes_in, 32 * 1536);
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn a_request_that_the_device_has_no_room_for_keeps_its_memory_and_no_buffer() {
    let counters = many_at_a_time(1);
    assert!(counters.requests > 64, "some were tried again");
    assert_eq!(counters.bytes_in, 32 * 1536);
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn a_request_that_is_taken_back_from_the_device_gives_its_buffer_back() {
    let ram = ram(32);
    let clock = Arc::new(ManualClock::new());
    let device = bounce(Never(paged_store(&ram), Mutex::default()), &ram);
    let config = QueueConfig {
        clock: Some(clock.clone()),
        timeout: Some(Duration::from_millis(1)),
        ..QueueConfig::default()
    };
    let queue = RequestQueue::try_new(&device, config).unwrap();
    let mut context = queue.context(QueueId::new(0)).unwrap();
    for n in 0..9 {
        let memory = patterned(&ram, 0, 512, n);
        context.submit(Bio::read(Sector::new(0), memory)).unwrap();
        assert_eq!(device.in_use(), 1);
        clock.advance(Duration::from_millis(2));
        let done = context.reap().unwrap();
        assert_eq!(done.result(), Err(BlkError::Timeout));
        assert_eq!(done.bio().segments(), [memory]);
        assert_eq!(device.in_use(), 0);
    }
}

/// Takes requests and does nothing with them until they are taken back.
struct Never(Arc<Store>, Mutex<Vec<Request>>);

impl BlockDevice for Never {
    fn limits(&self) -> Limits {
        self.0.limits()
    }

    fn submit(&self, request: Request) -> Submitted {
        self.1.lock().unwrap().push(request);
        Submitted::Kept
    }

    fn abort(&self, _: QueueId, _: Tag) -> Abort {
        match self.1.lock().unwrap().pop() {
            Some(request) => Abort::Aborted(request),
            None => Abort::Running,
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn whoever_looks_on_is_told_of_every_copy() {
    #[derive(Default)]
    struct Bounced(Mutex<Vec<Event>>);
    impl Probe for Bounced {
        fn event(&self, event: &Event) {
            self.0.lock().unwrap().push(*event);
        }
    }
    let ram = ram(32);
    let told = Arc::new(Bounced::default());
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new());
    let device = bounce(paged_store(&ram), &ram).with_probe(told.clone(), Some(clock));
    let memory = patterned(&ram, 0, 512, 0);
    submit_sync(&device, Bio::read(Sector::new(3), memory))
        .unwrap()
        .result()
        .unwrap();
    submit_sync(&device, Bio::read(Sector::new(3), segment(&ram, POOL, 512)))
        .unwrap()
        .result()
        .unwrap();
    let told = told.0.lock().unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].action, told[0].op), (Action::Bounce, Op::Read));
    assert_eq!((told[0].sector.get(), told[0].len.get()), (3, 512));
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn memory_that_nobody_reaches_fails_and_leaks_no_buffer() {
    let (ram, strange) = (ram(32), pageless(segment(&ram(2000), 1999 * 4096, 512)));
    let device = bounce(paged_store(&ram), &ram);
    for _ in 0..9 {
        let write = submit_sync(&device, Bio::write(Sector::new(0), strange)).unwrap();
        assert_eq!(write.result(), Err(BlkError::Io));
        let read = submit_sync(&device, Bio::read(Sector::new(0), strange)).unwrap();
        assert_eq!((read.result(), read.done().get()), (Err(BlkError::Io), 0));
    }
    assert_eq!(device.in_use(), 0);
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn no_request_is_longer_than_what_the_device_takes_of_a_buffer() {
    let ram = ram(32);
    let mut limits = Limits::new(ByteLen::new(1 << 20));
    limits.features -= Features::PAGELESS;
    limits.max_segments = 2;
    limits.max_segment = ByteLen::new(1024);
    let store = Arc::new(Store::with_limits(limits, &ram));
    let device = bounce(Arc::clone(&store), &ram);
    assert_eq!(device.limits().max_request.get(), 2048);
    let memory = patterned(&ram, 0, 8192, 5);
    submit_sync(&device, Bio::write(Sector::new(0), memory))
        .unwrap()
        .result()
        .unwrap();
    assert_eq!(store.seen_of(Op::Write).len() as u64, 8192 / 2048);
    assert_eq!(store.bytes.lock().unwrap()[..8192], bytes_of(&*ram, memory));
}

#[test]
#[cfg_attr(miri, ignore = "maps memory")]
fn a_pool_that_the_device_cannot_use_is_refused() {
    let ram = ram(32);
    let store = paged_store(&ram);
    let try_new = |pool, each| {
        let device = Bounce::try_new(Arc::clone(&store), &*ram, pool, ByteLen::new(each));
        device.map(drop)
    };
    let pool = segment(&ram, 0, POOL);
    assert!(matches!(
        try_new(pageless(pool), 4096),
        Err(BounceError::NoDescriptors { .. })
    ));
    assert!(matches!(
        try_new(pool, 100),
        Err(BounceError::Buffer { .. })
    ));
    assert!(matches!(
        try_new(pool, 1 << 20),
        Err(BounceError::Pool { .. })
    ));
    assert!(try_new(pool, SECTOR).is_ok());
}

#[cfg(feature = "failpoints")]
#[test]
fn without_memory_for_a_buffer_the_bio_fails_with_resource() {
    use pageless_block::Failpoint;
    let ram = ram(32);
    let device = bounce(paged_store(&ram), &ram);
    let memory = patterned(&ram, 0, 512, 1);
    Failpoint::BounceAlloc.arm(1, 1);
    let result = |bio: Bio| submit_sync(&device, bio).unwrap().result();
    assert_eq!(result(Bio::write(Sector::new(0), memory).erase()), Ok(()));
    let failed = result(Bio::write(Sector::new(0), memory).erase());
    assert_eq!(failed, Err(BlkError::Resource));
    assert_eq!(result(Bio::write(Sector::new(0), memory).erase()), Ok(()));
    assert_eq!(Failpoint::BounceAlloc.disarm(), (3, 1));
    assert_eq!(device.in_use(), 0);
}
