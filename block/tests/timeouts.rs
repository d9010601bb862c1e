//! Hazard: a request that the device never finishes, and one that it finishes just as it is given up.
//!
//! Time stands still unless a test moves it.

extern crate alloc;

mod rig;

use alloc::sync::Arc;
use core::time::Duration;
use std::sync::Mutex;

use pageless_block::{
    Abort, Bio, BioFlags, BlkError, BlockDevice, Clock, Done, Features, Limits, ManualClock, Nanos,
    Op, QueueConfig, QueueError, QueueId, Request, RequestQueue, Sector, Submitted, Tag,
};
use pageless_pfn::ByteLen;
use rig::Shelf;

const TIMEOUT: Duration = Duration::from_millis(30);
const A_BIT: Duration = Duration::from_nanos(1);

struct Setup {
    clock: Arc<ManualClock>,
    shelf: Shelf,
}

impl Setup {
    fn new() -> Self {
        let mut limits = Limits::new(ByteLen::new(1 << 30));
        limits.max_discard = ByteLen::new(8192);
        Self::with_limits(limits)
    }

    fn with_limits(limits: Limits) -> Self {
        let shelf = Shelf::with_limits(limits);
        shelf.set_gives_back(true);
        Self {
            clock: Arc::new(ManualClock::new()),
            shelf,
        }
    }

    fn queue(&self, depth: u16) -> RequestQueue<&Shelf> {
        let config = QueueConfig {
            depth,
            clock: Some(Arc::clone(&self.clock) as Arc<dyn Clock>),
            timeout: Some(TIMEOUT),
            ..QueueConfig::default()
        };
        RequestQueue::try_new(&self.shelf, config).unwrap()
    }
}

#[test]
fn who_wants_timeouts_says_what_time_it_is() {
    let config = QueueConfig {
        timeout: Some(TIMEOUT),
        ..QueueConfig::default()
    };
    let refused = RequestQueue::try_new(Shelf::new(), config);
    assert_eq!(refused.err(), Some(QueueError::TimeoutWithoutClock));
}

#[test]
fn a_request_that_takes_too_long_is_asked_for_and_fails() {
    let setup = Setup::new();
    let (clock, shelf) = (&setup.clock, &setup.shelf);
    let queue = setup.queue(4);
    let mut context = queue.context(rig::QUEUE).unwrap();
    context.submit(rig::sector(0)).unwrap();
    clock.advance(TIMEOUT - A_BIT);
    context.submit(rig::sector(1)).unwrap();
    assert!(context.reap().is_none());
    assert_eq!(shelf.take_asked(), [], "a moment too early");
    clock.advance(A_BIT);
    let tag = shelf.look(0, |request| request.tag().get());
    let done = context.reap().unwrap();
    assert_eq!(
        (done.token(), done.result(), done.done().get()),
        (0, Err(BlkError::Timeout), 0)
    );
    assert_eq!(done.result().unwrap_err().errno(), 110);
    assert_eq!(shelf.take_asked(), [tag]);
    assert_eq!(context.counters().timeouts, 1);
    // The other one has its own time.
    assert_eq!((shelf.sectors(), queue.in_flight()), (vec![1], 1));
    clock.advance(TIMEOUT - A_BIT);
    assert_eq!(context.reap().unwrap().token(), 1);
    assert_eq!(context.counters().timeouts, 2);
}

#[test]
fn a_device_that_goes_on_gets_the_same_time_again() {
    let setup = Setup::new();
    let (clock, shelf) = (&setup.clock, &setup.shelf);
    shelf.set_gives_back(false);
    let queue = setup.queue(4);
    let mut context = queue.context(rig::QUEUE).unwrap();
    context.submit(rig::sector(0)).unwrap();
    for _ in 0..3 {
        clock.advance(TIMEOUT - A_BIT);
        context.poll();
        assert_eq!(shelf.take_asked(), []);
        clock.advance(A_BIT);
        context.poll();
        context.poll();
        assert_eq!(shelf.take_asked().len(), 1, "asked once each time");
    }
    shelf.succeed(0);
    assert_eq!(context.reap().unwrap().result(), Ok(()));
    assert_eq!(context.counters().timeouts, 0);
    clock.advance(TIMEOUT * 9);
    context.poll();
    assert_eq!(shelf.take_asked(), [], "it is over");
}

#[test]
fn a_request_that_is_finished_in_time_is_not_asked_for_and_its_tag_starts_anew() {
    let setup = Setup::new();
    let (clock, shelf) = (&setup.clock, &setup.shelf);
    let queue = setup.queue(1);
    let mut context = queue.context(rig::QUEUE).unwrap();
    for n in 0..5 {
        context.submit(rig::sector(n)).unwrap();
        clock.advance(TIMEOUT - A_BIT);
        shelf.succeed(0);
        assert_eq!(context.reap().unwrap().result(), Ok(()));
    }
    assert_eq!(shelf.take_asked(), []);
}

#[test]
fn a_completion_that_is_on_its_way_when_time_is_up_counts() {
    let setup = Setup::new();
    let queue = setup.queue(4);
    let mut context = queue.context(rig::QUEUE).unwrap();
    context.submit(rig::sector(0)).unwrap();
    setup.clock.advance(TIMEOUT);
    // Finished, and nobody has looked: what there is is taken before anything is asked for.
    setup.shelf.succeed(0);
    assert_eq!(context.reap().unwrap().result(), Ok(()));
    assert_eq!(setup.shelf.take_asked(), []);
    assert!(context.reap().is_none());
    assert_eq!((context.in_flight(), queue.in_flight()), (0, 0));
}

/// Finishes its request at the very moment in which it is asked for it.
#[derive(Default)]
struct AtTheLastMoment {
    kept: Mutex<Option<Request>>,
    ready: Mutex<Option<Done>>,
}

impl BlockDevice for AtTheLastMoment {
    fn limits(&self) -> Limits {
        Limits::new(ByteLen::new(1 << 30))
    }

    fn submit(&self, request: Request) -> Submitted {
        assert!(self.kept.lock().unwrap().replace(request).is_none());
        Submitted::Kept
    }

    fn poll(&self, _queue: QueueId, done: &mut dyn FnMut(Done)) {
        if let Some(ready) = self.ready.lock().unwrap().take() {
            done(ready);
        }
    }

    fn abort(&self, _queue: QueueId, tag: Tag) -> Abort {
        let request = self.kept.lock().unwrap().take();
        if let Some(request) = request {
            assert_eq!(request.tag(), tag);
            *self.ready.lock().unwrap() = Some(request.complete(Ok(())));
        }
        Abort::Running
    }
}

#[test]
fn a_request_that_is_finished_while_it_is_asked_for_completes_once_and_well() {
    let clock = Arc::new(ManualClock::new());
    let config = QueueConfig {
        depth: 1,
        clock: Some(Arc::clone(&clock) as Arc<dyn Clock>),
        timeout: Some(TIMEOUT),
        ..QueueConfig::default()
    };
    let queue = RequestQueue::try_new(AtTheLastMoment::default(), config).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    for n in 0..3 {
        context.submit(rig::sector(n)).unwrap();
        clock.advance(TIMEOUT);
        assert!(context.reap().is_none());
        let done = context.reap().unwrap();
        assert_eq!((done.token(), done.result()), (n, Ok(())));
        assert!(context.reap().is_none());
    }
    let counters = context.counters();
    assert_eq!((counters.completed, counters.timeouts), (3, 0));
}

#[test]
fn the_time_begins_when_the_device_has_the_request() {
    let setup = Setup::new();
    let (clock, shelf) = (&setup.clock, &setup.shelf);
    shelf.set_room(0);
    let queue = setup.queue(4);
    let mut context = queue.context(rig::QUEUE).unwrap();
    context.submit(rig::sector(0)).unwrap();
    let quiesced = queue.quiesce();
    context.submit(rig::sector(1)).unwrap();
    clock.advance(TIMEOUT * 3);
    context.poll();
    assert_eq!(shelf.take_asked(), [], "the device has none of them");
    drop(quiesced);
    shelf.set_room(9);
    context.poll();
    assert_eq!(shelf.sectors(), [0, 1]);
    clock.advance(TIMEOUT - A_BIT);
    context.poll();
    assert_eq!(shelf.take_asked(), []);
    clock.advance(A_BIT);
    context.drain(|done| assert_eq!(done.result(), Err(BlkError::Timeout)));
    assert_eq!(context.counters().timeouts, 2);
}

#[test]
fn a_piece_that_takes_too_long_fails_its_bio_at_its_place() {
    let setup = Setup::new();
    let queue = setup.queue(4);
    let mut context = queue.context(rig::QUEUE).unwrap();
    context
        .submit(Bio::discard(Sector::new(0), ByteLen::new(3 * 8192)))
        .unwrap();
    setup.shelf.succeed(0);
    setup.shelf.succeed(1);
    setup.clock.advance(TIMEOUT);
    let done = context.reap().unwrap();
    assert_eq!(
        (done.result(), done.done().get()),
        (Err(BlkError::Timeout), 8192)
    );
}

#[test]
fn all_bios_of_a_merged_request_fail_with_it() {
    let setup = Setup::new();
    let queue = setup.queue(4);
    let mut context = queue.context(rig::QUEUE).unwrap();
    let mut plug = context.plug();
    for n in 0..3 {
        plug.submit(rig::sector(n)).unwrap();
    }
    drop(plug);
    assert_eq!(setup.shelf.kept(), 1);
    setup.clock.advance(TIMEOUT);
    let mut failed = Vec::new();
    context.drain(|done| failed.push((done.token(), done.result())));
    assert_eq!(failed, [0, 1, 2].map(|n| (n, Err(BlkError::Timeout))));
}

#[test]
fn a_flush_that_takes_too_long_fails_those_that_wait_and_the_next_one_is_sent() {
    let mut limits = Limits::new(ByteLen::new(1 << 30));
    limits.features |= Features::WRITE_CACHE;
    let setup = Setup::with_limits(limits);
    let (clock, shelf) = (&setup.clock, &setup.shelf);
    let queue = setup.queue(4);
    let mut context = queue.context(rig::QUEUE).unwrap();
    let durable = |flags| Bio::write(Sector::new(8), rig::memory(512)).with_flags(flags);
    context.submit(durable(BioFlags::PREFLUSH)).unwrap();
    context.submit(durable(BioFlags::FUA)).unwrap();
    assert_eq!(shelf.look(0, Request::op), Op::Flush);
    shelf.succeed(1);
    context.poll();
    clock.advance(TIMEOUT);
    // The write with PREFLUSH never begins. That with FUA has its data written, and waits for a flush of its
    // own.
    let first = context.reap().unwrap();
    assert_eq!(
        (first.bio().flags(), first.result()),
        (BioFlags::PREFLUSH, Err(BlkError::Timeout))
    );
    assert_eq!((shelf.kept(), shelf.look(0, Request::op)), (1, Op::Flush));
    clock.advance(TIMEOUT);
    let second = context.reap().unwrap();
    assert_eq!(
        (second.bio().flags(), second.result(), second.done().get()),
        (BioFlags::FUA, Err(BlkError::Timeout), 0)
    );
    // And once more, in time.
    context.submit(Bio::flush()).unwrap();
    shelf.succeed(0);
    assert_eq!(context.reap().unwrap().result(), Ok(()));
    assert_eq!(context.counters().timeouts, 2);
}

#[test]
fn whoever_looks_gives_up_the_requests_of_others_and_they_hear_of_it() {
    let setup = Setup::new();
    let queue = setup.queue(4);
    let mut here = queue.shared_context(rig::QUEUE).unwrap();
    let mut there = queue.shared_context(rig::QUEUE).unwrap();
    there.submit(rig::sector(7)).unwrap();
    setup.clock.advance(TIMEOUT);
    here.poll();
    assert_eq!(setup.shelf.take_asked().len(), 1);
    assert_eq!(here.counters().timeouts, 1);
    let done = there.reap().unwrap();
    assert_eq!((done.token(), done.result()), (7, Err(BlkError::Timeout)));
    assert_eq!(setup.shelf.take_asked(), []);
}

#[test]
fn whoever_waits_by_a_clock_that_is_moved_by_hand_waits_until_time_is_up() {
    let setup = Setup::new();
    let queue = setup.queue(4);
    let mut context = queue.context(rig::QUEUE).unwrap();
    for n in 0..3 {
        context.submit(rig::sector(n)).unwrap();
    }
    let mut over = 0;
    context.drain(|done| {
        assert_eq!(done.result(), Err(BlkError::Timeout));
        over += 1;
    });
    assert_eq!(over, 3);
    assert_eq!(setup.clock.now(), Nanos::ZERO.saturating_add(TIMEOUT));
}
