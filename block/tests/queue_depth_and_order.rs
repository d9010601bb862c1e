//! Hazard: a queue that takes in more than it has room for, leaks a place, or mixes up the order.

extern crate alloc;

mod rig;

use pageless_block::{
    Bio, BlkError, BlockDevice, Context, Failure, Limits, MAX_DEPTH, QueueConfig, QueueError,
    QueueId, RejectReason, Request, RequestQueue, Sector, Submitted, submit_sync,
};
use pageless_pfn::ByteLen;

#[test]
#[cfg_attr(miri, ignore = "needs a memfd")]
fn a_full_queue_gives_the_bio_back_and_takes_the_next_after_a_reap() {
    let (device, ram) = rig::pmem(1 << 20);
    for depth in [1, 2, 32] {
        let queue = RequestQueue::with_depth(&device, depth).unwrap();
        let mut context = queue.context(rig::QUEUE).unwrap();
        let bio = |n| Bio::write(Sector::new(n), rig::segment(&ram, 0, 512)).with_token(n);
        for n in 0..u64::from(depth) {
            context.submit(bio(n)).unwrap();
        }
        for _ in 0..3 {
            let back = context.submit(bio(99)).unwrap_err();
            assert_eq!(back.reason, RejectReason::QueueFull { depth });
            assert_eq!(rig::face(&back.bio), rig::face(&bio(99)));
        }
        assert!(context.reap().is_some());
        assert_eq!(context.in_flight(), u32::from(depth) - 1);
        context.submit(bio(100)).unwrap();
        assert!(context.submit(bio(101)).is_err());
    }
}

#[test]
fn tags_in_flight_are_distinct_and_below_the_depth() {
    let shelf = rig::Shelf::new();
    let queue = RequestQueue::with_depth(&shelf, 7).unwrap();
    tags_are_distinct(&shelf, queue.context(rig::QUEUE).unwrap());
    tags_are_distinct(&shelf, queue.shared_context(rig::QUEUE).unwrap());
}

fn tags_are_distinct(shelf: &rig::Shelf, mut context: Context<'_, &rig::Shelf>) {
    let queue = context.queue();
    for round in 0..5 {
        while context.in_flight() < 7 {
            context.submit(rig::sector(8)).unwrap();
        }
        let mut tags: Vec<u16> = (0..shelf.kept())
            .map(|n| shelf.look(n, |request| request.tag().get()))
            .collect();
        tags.sort_unstable();
        assert_eq!(tags, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(queue.in_flight(), 7);
        for _ in 0..3 {
            shelf.succeed(round % shelf.kept());
            assert!(context.reap().is_some());
        }
        assert_eq!(queue.in_flight(), 4);
    }
    while shelf.kept() != 0 {
        shelf.succeed(0);
    }
    context.drain(|done| assert!(done.result().is_ok()));
    assert_eq!(queue.in_flight(), 0);
}

#[test]
fn contexts_that_share_a_hardware_queue_share_its_tags() {
    let shelf = rig::Shelf::new();
    let queue = RequestQueue::with_depth(&shelf, 3).unwrap();
    let mut first = queue.shared_context(rig::QUEUE).unwrap();
    let mut second = queue.shared_context(rig::QUEUE).unwrap();
    for n in 0..2 {
        first.submit(rig::sector(n)).unwrap();
    }
    second.submit(rig::sector(2)).unwrap();
    for context in [&mut first, &mut second] {
        let back = context.submit(rig::sector(3)).unwrap_err();
        assert_eq!(back.reason, RejectReason::QueueFull { depth: 3 });
    }
    // Whoever polls finds all of them, and each goes to the context it came from.
    for _ in 0..3 {
        shelf.succeed(0);
    }
    assert_eq!(second.reap().unwrap().token(), 2);
    assert_eq!(queue.in_flight(), 2, "the owner gives the tag back");
    for n in 0..2 {
        assert_eq!(first.reap().unwrap().token(), n);
    }
    assert_eq!((queue.in_flight(), second.in_flight()), (0, 0));
}

#[test]
fn a_hardware_queue_belongs_to_one_context_or_is_shared_by_several() {
    let shelf = rig::Shelf::new();
    let queue = RequestQueue::with_depth(&shelf, 3).unwrap();
    let taken = Some(QueueError::Taken { id: rig::QUEUE });
    for _ in 0..2 {
        let sole = queue.context(rig::QUEUE).unwrap();
        assert_eq!(queue.context(rig::QUEUE).err(), taken);
        assert_eq!(queue.shared_context(rig::QUEUE).err(), taken);
        drop(sole);
        let one = queue.shared_context(rig::QUEUE).unwrap();
        let other = queue.shared_context(rig::QUEUE).unwrap();
        assert_ne!(one.number(), other.number());
        drop(one);
        assert_eq!(queue.context(rig::QUEUE).err(), taken, "one is left");
    }
}

#[test]
#[cfg_attr(miri, ignore = "needs a memfd")]
fn a_device_that_finishes_at_once_completes_in_order_of_submission() {
    let (device, ram) = rig::pmem(1 << 20);
    let queue = RequestQueue::with_depth(&device, 32).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let mut expected = 0;
    for token in 0..1000 {
        let at = Sector::new(token * 37 % 2000);
        context
            .submit(Bio::read(at, rig::segment(&ram, 0, 512)).with_token(token))
            .unwrap();
        if token % 5 == 4 {
            context.drain(|done| {
                assert_eq!(done.token(), expected);
                expected += 1;
            });
        }
    }
    assert_eq!(expected, 1000);
}

#[test]
fn late_completions_are_reaped_in_the_order_in_which_the_device_hands_them_over() {
    let shelf = rig::Shelf::new();
    let queue = RequestQueue::with_depth(&shelf, 4).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    for n in 0..4 {
        context.submit(rig::sector(n)).unwrap();
    }
    for which in [2, 0, 1, 0] {
        shelf.succeed(which);
    }
    let mut order = Vec::new();
    context.drain(|done| order.push(done.token()));
    assert_eq!(order, [2, 0, 3, 1]);
}

/// The pieces of a bio are requests of their own: as many are at the device at a time as there are tags.
/// The bio keeps one of its context's places all the while, and nothing else comes between its pieces.
#[test]
fn a_split_bio_keeps_one_place_and_has_as_many_pieces_at_the_device_as_there_are_tags() {
    let shelf = rig::Shelf::new();
    let queue = RequestQueue::with_depth(&shelf, 2).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    context
        .submit(Bio::discard(Sector::new(0), ByteLen::new(3 * 8192 + 512)))
        .unwrap();
    // Whoever has pieces that wait for a tag counts for one more.
    for (at_device, out) in [([0, 16], 3), ([16, 32], 3), ([32, 48], 2)] {
        assert_eq!(shelf.sectors(), at_device);
        assert_eq!((context.in_flight(), queue.in_flight()), (1, out));
        shelf.succeed(0);
        assert!(context.reap().is_none());
    }
    assert_eq!(shelf.sectors(), [48]);
    shelf.succeed(0);
    let done = context.reap().unwrap();
    assert_eq!((done.result(), done.done().get()), (Ok(()), 3 * 8192 + 512));
    assert_eq!(context.counters().splits, 3);
}

/// Pieces do not know of each other: the device gets those after the one that fails as well, and the bio
/// is over when all of them are. It says how far it got without a gap.
#[test]
fn a_failed_piece_fails_the_bio_which_says_how_far_it_got() {
    let shelf = rig::Shelf::new();
    let queue = RequestQueue::with_depth(&shelf, 1).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    context
        .submit(Bio::discard(Sector::new(0), ByteLen::new(4 * 8192)))
        .unwrap();
    shelf.succeed(0);
    assert!(context.reap().is_none());
    shelf.release(0, Err(BlkError::Medium));
    assert!(context.reap().is_none());
    assert_eq!(shelf.sectors(), [32], "the next piece went on its way");
    shelf.succeed(0);
    assert!(context.reap().is_none());
    shelf.release(0, Err(BlkError::Target));
    let done = context.reap().unwrap();
    assert_eq!(
        (done.result(), done.done().get()),
        (Err(BlkError::Medium), 8192)
    );
    assert_eq!((shelf.kept(), context.counters().failed), (0, 1));
}

#[test]
fn the_failure_that_counts_is_the_first_by_place_and_not_by_time() {
    let shelf = rig::Shelf::new();
    let queue = RequestQueue::with_depth(&shelf, 4).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    context
        .submit(Bio::discard(Sector::new(0), ByteLen::new(4 * 8192)))
        .unwrap();
    shelf.release(3, Err(BlkError::Target));
    // The second piece has a first half.
    let done = ByteLen::new(512);
    shelf.release(
        1,
        Err(Failure {
            error: BlkError::Medium,
            done,
        }),
    );
    shelf.release(1, Err(BlkError::Transport));
    shelf.succeed(0);
    let done = context.reap().unwrap();
    assert_eq!(
        (done.result(), done.done().get()),
        (Err(BlkError::Medium), 8192 + 512)
    );
}

/// Fails every request at byte 16384.
#[derive(Debug)]
struct Breaks;

impl BlockDevice for Breaks {
    fn limits(&self) -> Limits {
        let mut limits = Limits::new(ByteLen::new(1 << 20));
        limits.max_discard = ByteLen::new(8192);
        limits
    }

    fn submit(&self, request: Request) -> Submitted {
        request.run(|request| match request.position().get() {
            16384 => Err(BlkError::Target.into()),
            _ => Ok(()),
        })
    }
}

#[test]
fn both_ways_of_submitting_report_the_first_failed_piece() {
    let bio = Bio::discard(Sector::new(0), ByteLen::new(10 * 8192));
    let sync = submit_sync(&Breaks, bio.clone()).unwrap();
    assert_eq!(
        (sync.result(), sync.done().get()),
        (Err(BlkError::Target), 16384)
    );
    let queue = RequestQueue::with_depth(&Breaks, 1).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    context.submit(bio).unwrap();
    let queued = context.reap().unwrap();
    assert_eq!(
        (queued.result(), queued.done()),
        (sync.result(), sync.done())
    );
    assert_eq!(rig::face(queued.bio()), rig::face(sync.bio()));
}

#[test]
#[cfg_attr(miri, ignore = "needs a memfd")]
fn a_queue_needs_room_and_not_too_much_of_it() {
    let (device, _ram) = rig::pmem(1 << 20);
    for depth in [0, MAX_DEPTH + 1, u16::MAX] {
        let refused = RequestQueue::with_depth(&device, depth).map(|_| ());
        assert_eq!(refused, Err(QueueError::Depth { depth }));
    }
    let queue = RequestQueue::with_depth(&device, MAX_DEPTH).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    for n in 0..u64::from(MAX_DEPTH) {
        let bio = Bio::discard(Sector::new(n % 8), ByteLen::new(512));
        context.submit(bio).unwrap();
    }
    assert!(context.submit(Bio::flush()).is_err());
}

#[test]
fn hardware_queues_that_do_not_exist_are_an_error_with_the_number() {
    let shelf = rig::Shelf::new();
    let config = |hw_queues| QueueConfig {
        hw_queues,
        ..QueueConfig::default()
    };
    for hw_queues in [0, u16::MAX] {
        let refused = RequestQueue::try_new(&shelf, config(hw_queues)).map(|_| ());
        assert_eq!(refused, Err(QueueError::HwQueues { hw_queues }));
    }
    let queue = RequestQueue::try_new(&shelf, config(3)).unwrap();
    assert!(queue.context(QueueId::new(2)).is_ok());
    for id in [QueueId::new(3), QueueId::NESTED] {
        let refused = queue.context(id).map(|_| ());
        assert_eq!(
            refused.unwrap_err(),
            QueueError::NoSuchQueue { id, hw_queues: 3 }
        );
    }
}

#[test]
#[cfg_attr(miri, ignore = "needs a memfd")]
fn the_counters_add_up() {
    let (device, ram) = rig::pmem(1 << 20);
    let queue = RequestQueue::with_depth(&device, 16).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    context
        .submit(Bio::write(Sector::new(0), rig::segment(&ram, 0, 8192)))
        .unwrap();
    context
        .submit(Bio::read(Sector::new(0), rig::segment(&ram, 0, 4096)))
        .unwrap();
    context.submit(Bio::flush()).unwrap();
    context
        .submit(Bio::discard(Sector::new(0), ByteLen::new(1024)))
        .unwrap();
    context
        .submit(Bio::write_zeroes(Sector::new(0), ByteLen::new(512)))
        .unwrap();
    context
        .submit(Bio::discard(Sector::new(1 << 20), ByteLen::new(512)))
        .unwrap();
    context
        .submit(Bio::discard(Sector::new(0), ByteLen::ZERO))
        .unwrap_err();
    let mut failed = 0;
    context.drain(|done| failed += u64::from(done.result().is_err()));
    let counters = context.counters();
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

#[test]
fn a_plug_within_a_plug_holds_back_until_the_outer_one_goes() {
    let shelf = rig::Shelf::new();
    let queue = RequestQueue::with_depth(&shelf, 8).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let mut outer = context.plug();
    outer.submit(rig::sector(0)).unwrap();
    let mut inner = outer.plug();
    inner.submit(rig::sector(8)).unwrap();
    drop(inner);
    assert_eq!(shelf.kept(), 0);
    outer.submit(rig::sector(16)).unwrap();
    drop(outer);
    assert_eq!(shelf.sectors(), [0, 8, 16]);
    for _ in 0..3 {
        shelf.succeed(0);
    }
    context.drain(|done| assert_eq!(done.result(), Ok(())));
}
