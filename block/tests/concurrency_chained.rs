//! Hazard: a bio that waits for others is never told, is told too early, or leaves its context waiting.

extern crate alloc;

use alloc::sync::Arc;
use std::sync::Mutex;

use pageless_block::{
    Bio, BlkError, BlockDevice, Done, Limits, NullDevice, Op, QueueId, Request, RequestQueue,
    Sector, Submitted,
};
use pageless_pfn::ByteLen;

const SECTORS: ByteLen = ByteLen::new(4096);

fn discard(sector: u64, token: u64) -> Bio {
    let bio = Bio::discard(Sector::new(sector), SECTORS);
    bio.with_token(token).erase()
}

fn limits() -> Limits {
    let mut limits = Limits::new(ByteLen::new(1 << 30));
    limits.max_discard = SECTORS;
    limits
}

/// Keeps requests, and hands over the last one first; those at odd sectors fail.
struct Backwards(Mutex<Vec<Request>>);

impl BlockDevice for Backwards {
    fn limits(&self) -> Limits {
        limits()
    }

    fn submit(&self, request: Request) -> Submitted {
        self.0.lock().unwrap().push(request);
        Submitted::Kept
    }

    fn poll(&self, queue: QueueId, done: &mut dyn FnMut(Done)) {
        let mut kept = self.0.lock().unwrap();
        let Some(at) = kept.iter().rposition(|kept| kept.queue() == queue) else {
            return;
        };
        let request = kept.remove(at);
        drop(kept);
        let result = match request.sector().get() % 2 {
            0 => Ok(()),
            _ => Err(BlkError::Medium.into()),
        };
        done(request.complete(result));
    }
}

#[test]
fn a_part_that_has_finished_is_no_longer_in_flight_and_is_counted() {
    let queue = RequestQueue::with_depth(NullDevice::new(limits()), 4).unwrap();
    let mut context = queue.context(QueueId::new(0)).unwrap();
    for _ in 0..10 {
        let (mut parent, mut part) = (discard(0, 1), discard(8, 2));
        part.chain_to(&mut parent);
        context.submit(part).unwrap();
        assert_eq!(context.in_flight(), 0, "nobody gets the part back");
        context.submit(parent).unwrap();
        let done = context.reap().unwrap();
        assert_eq!((done.token(), done.result()), (1, Ok(())));
    }
    let counters = context.counters();
    assert_eq!((counters.submitted, counters.completed), (20, 20));
    assert_eq!(counters.bytes_discarded, 20 * SECTORS.get());
}

#[test]
fn a_bio_waits_for_its_parts_and_for_parts_of_parts_that_were_split() {
    let queue = RequestQueue::with_depth(Backwards(Mutex::default()), 8).unwrap();
    let mut context = queue.context(QueueId::new(0)).unwrap();
    let mut top = discard(0, 1);
    // Three pieces each.
    let long = |sector| Bio::discard(Sector::new(sector), ByteLen::new(3 * 4096)).with_token(2);
    let (mut middle, mut bottom) = (long(100), long(200));
    bottom.chain_to(&mut middle);
    middle.chain_to(&mut top);
    context.submit(top).unwrap();
    context.submit(middle).unwrap();
    context.submit(bottom).unwrap();
    // One request each time it is asked, so seven in all.
    for _ in 0..6 {
        assert!(context.reap().is_none(), "completed before its parts");
    }
    let done = context.reap().unwrap();
    assert_eq!((done.token(), done.result()), (1, Ok(())));
    assert_eq!(context.in_flight(), 0);
    assert_eq!(context.counters().completed, 3);
}

#[test]
fn a_bio_fails_if_a_part_does_that_another_context_submitted() {
    let queue = RequestQueue::with_depth(Backwards(Mutex::default()), 8).unwrap();
    let mut one = queue.shared_context(QueueId::new(0)).unwrap();
    let mut other = queue.shared_context(QueueId::new(0)).unwrap();
    let (mut parent, mut part) = (discard(0, 1), discard(9, 2));
    part.chain_to(&mut parent);
    let called = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&called);
    let parent = parent.with_callback(move |done| {
        tell.lock().unwrap().push((done.token(), done.result()));
    });
    assert_eq!(parent.op(), Op::Discard);
    one.submit(parent).unwrap();
    other.submit(part).unwrap();
    // The part is found by a context that is not its own, and so is the parent.
    one.poll();
    other.poll();
    assert_eq!(other.in_flight(), 0);
    assert_eq!(one.in_flight(), 1, "nobody has told it yet");
    one.poll();
    assert_eq!(*called.lock().unwrap(), [(1, Err(BlkError::Medium))]);
    assert_eq!(one.in_flight(), 0);
}

#[test]
fn parts_that_are_made_anew_each_time_do_not_pile_up() {
    let queue = RequestQueue::with_depth(NullDevice::new(limits()), 4).unwrap();
    let mut context = queue.context(QueueId::new(0)).unwrap();
    for _ in 0..100 {
        let (mut parent, mut part) = (discard(0, 1), discard(8, 2));
        part.chain_to(&mut parent);
        context.submit(part).unwrap();
        context.submit(parent).unwrap();
        drop(context.reap().unwrap().into_bio());
    }
    // Their memory is the pool's, which wants no more than can be in flight.
    assert_eq!(context.pool().available(), 4);
}
