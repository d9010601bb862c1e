//! Hazard: a queue that takes in more than it has room for, leaks a place, or mixes up the order.

extern crate alloc;

mod rig;

use pageless_block::{
    Bio, BlkError, BlockDevice, DeviceInfo, MAX_DEPTH, Queue, QueueError, QueueId, RejectReason,
    Request, Sector, submit_sync,
};
use pageless_pfn::ByteLen;

#[test]
#[cfg_attr(miri, ignore = "needs a memfd")]
fn a_full_queue_gives_the_bio_back_and_takes_the_next_after_a_reap() {
    let (device, ram) = rig::pmem(1 << 20);
    for depth in [1, 2, 32] {
        let mut queue = Queue::try_new(&device, QueueId::new(0), depth).unwrap();
        let bio = |n| Bio::write(Sector::new(n), rig::segment(&ram, 0, 512)).with_token(n);
        for n in 0..u64::from(depth) {
            queue.submit(bio(n)).unwrap();
        }
        for _ in 0..3 {
            let back = queue.submit(bio(99)).unwrap_err();
            assert_eq!(back.reason, RejectReason::QueueFull { depth });
            assert_eq!(back.bio, bio(99));
        }
        assert!(queue.reap().is_some());
        assert_eq!(queue.in_flight(), depth - 1);
        queue.submit(bio(100)).unwrap();
        assert!(queue.submit(bio(101)).is_err());
    }
}

#[test]
fn tags_in_flight_are_distinct_and_below_the_depth() {
    let shelf = rig::Shelf::new();
    let mut queue = Queue::try_new(&shelf, QueueId::new(0), 7).unwrap();
    for round in 0..5 {
        let mut tags: Vec<u16> = (queue.in_flight()..7)
            .map(|_| queue.submit(Bio::flush()).unwrap().get())
            .collect();
        tags.sort_unstable();
        tags.dedup();
        assert!(tags.iter().all(|&tag| tag < 7));
        assert_eq!(tags.len(), if round == 0 { 7 } else { 3 });
        for _ in 0..3 {
            shelf.release(round % shelf.kept(), Ok(()));
            assert!(queue.reap().is_some());
        }
    }
    while shelf.kept() != 0 {
        shelf.release(0, Ok(()));
    }
    queue.drain(|done| assert!(done.result.is_ok()));
}

#[test]
#[cfg_attr(miri, ignore = "needs a memfd")]
fn a_device_that_finishes_at_once_completes_in_order_of_submission() {
    let (device, ram) = rig::pmem(1 << 20);
    let mut queue = Queue::try_new(&device, QueueId::new(0), 32).unwrap();
    let mut expected = 0;
    for token in 0..1000 {
        let at = Sector::new(token * 37 % 2000);
        queue
            .submit(Bio::read(at, rig::segment(&ram, 0, 512)).with_token(token))
            .unwrap();
        if token % 5 == 4 {
            queue.drain(|done| {
                assert_eq!(done.bio.token(), expected);
                expected += 1;
            });
        }
    }
    assert_eq!(expected, 1000);
}

#[test]
fn late_completions_are_reaped_in_the_order_in_which_the_device_hands_them_over() {
    let shelf = rig::Shelf::new();
    let mut queue = Queue::try_new(&shelf, QueueId::new(0), 4).unwrap();
    for token in 0..4 {
        queue.submit(Bio::flush().with_token(token)).unwrap();
    }
    for which in [2, 0, 1, 0] {
        shelf.release(which, Ok(()));
    }
    let mut order = Vec::new();
    queue.drain(|done| order.push(done.bio.token()));
    assert_eq!(order, [2, 0, 3, 1]);
}

#[test]
fn a_split_bio_keeps_one_place_and_has_one_piece_at_the_device_at_a_time() {
    let shelf = rig::Shelf::new();
    let mut queue = Queue::try_new(&shelf, QueueId::new(0), 2).unwrap();
    queue
        .submit(Bio::discard(Sector::new(0), ByteLen::new(3 * 8192 + 512)))
        .unwrap();
    for piece in 0..4 {
        assert_eq!((shelf.kept(), queue.in_flight()), (1, 1), "piece {piece}");
        shelf.release(0, Ok(()));
        if piece < 3 {
            assert_eq!(queue.reap(), None);
        }
    }
    let done = queue.reap().unwrap();
    assert_eq!((done.result, done.done.get()), (Ok(()), 3 * 8192 + 512));
    assert_eq!(queue.counters().splits, 3);
}

#[test]
fn a_failed_piece_ends_the_bio_and_says_how_far_it_got() {
    let shelf = rig::Shelf::new();
    let mut queue = Queue::try_new(&shelf, QueueId::new(0), 1).unwrap();
    queue
        .submit(Bio::discard(Sector::new(0), ByteLen::new(4 * 8192)))
        .unwrap();
    shelf.release(0, Ok(()));
    assert_eq!(queue.reap(), None);
    shelf.release(0, Err(BlkError::Medium));
    let done = queue.reap().unwrap();
    assert_eq!(
        (done.result, done.done.get()),
        (Err(BlkError::Medium), 8192)
    );
    assert_eq!((shelf.kept(), queue.counters().failed), (0, 1));
}

/// Fails every request from byte 16384 on.
#[derive(Debug)]
struct Breaks;

impl BlockDevice for Breaks {
    fn info(&self) -> DeviceInfo {
        DeviceInfo::new(ByteLen::new(1 << 20))
            .with_max_request(ByteLen::new(8192))
            .unwrap()
    }

    fn execute(&self, request: &Request) -> Result<(), BlkError> {
        assert!(request.position().get() <= 16384, "went on after a failure");
        if request.position().get() == 16384 {
            Err(BlkError::Target)
        } else {
            Ok(())
        }
    }
}

#[test]
fn both_ways_of_submitting_stop_at_the_first_failed_piece() {
    let bio = Bio::discard(Sector::new(0), ByteLen::new(10 * 8192));
    let sync = submit_sync(&Breaks, bio.clone()).unwrap();
    assert_eq!(
        (sync.result, sync.done.get()),
        (Err(BlkError::Target), 16384)
    );
    let mut queue = Queue::try_new(&Breaks, QueueId::new(0), 1).unwrap();
    queue.submit(bio).unwrap();
    assert_eq!(queue.reap(), Some(sync));
}

#[test]
#[cfg_attr(miri, ignore = "needs a memfd")]
fn a_queue_needs_room_and_not_too_much_of_it() {
    let (device, _ram) = rig::pmem(1 << 20);
    for depth in [0, MAX_DEPTH + 1, u16::MAX] {
        let refused = Queue::try_new(&device, QueueId::new(0), depth).map(|_| ());
        assert_eq!(refused, Err(QueueError::Depth { depth }));
    }
    assert!(Queue::try_new(&device, QueueId::new(0), MAX_DEPTH).is_ok());
}

#[test]
#[cfg_attr(miri, ignore = "needs a memfd")]
fn the_counters_add_up() {
    let (device, ram) = rig::pmem(1 << 20);
    let mut queue = Queue::try_new(&device, QueueId::new(0), 16).unwrap();
    queue
        .submit(Bio::write(Sector::new(0), rig::segment(&ram, 0, 8192)))
        .unwrap();
    queue
        .submit(Bio::read(Sector::new(0), rig::segment(&ram, 0, 4096)))
        .unwrap();
    queue.submit(Bio::flush()).unwrap();
    queue
        .submit(Bio::discard(Sector::new(0), ByteLen::new(1024)))
        .unwrap();
    queue
        .submit(Bio::write_zeroes(Sector::new(0), ByteLen::new(512)))
        .unwrap();
    queue
        .submit(Bio::discard(Sector::new(1 << 20), ByteLen::new(512)))
        .unwrap();
    queue
        .submit(Bio::discard(Sector::new(0), ByteLen::ZERO))
        .unwrap_err();
    let mut failed = 0;
    queue.drain(|done| failed += u64::from(done.result.is_err()));
    let counters = queue.counters();
    assert_eq!(failed, 1);
    assert_eq!(
        (counters.submitted, counters.completed, counters.failed),
        (6, 6, 1)
    );
    assert_eq!(
        (counters.rejected, counters.splits, counters.flushes),
        (1, 0, 1)
    );
    assert_eq!((counters.bytes_read, counters.bytes_written), (4096, 8192));
    assert_eq!(
        (counters.bytes_discarded, counters.bytes_zeroed),
        (1024, 512)
    );
}
