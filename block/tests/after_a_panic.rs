//! Hazard: after a panic, in a driver or in a callback, a queue hangs, loses what else is under way, or names two
//! requests alike.

use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use pageless_block::{
    Bio, BlockDevice, Done, Limits, QueueError, QueueId, Request, RequestQueue, Sector, Submitted,
};
use pageless_pfn::ByteLen;

const QUEUE: QueueId = QueueId::new(0);

/// Keeps requests until it is polled; at sector 0 it panics.
#[derive(Default)]
struct Keeper(Mutex<Vec<Request>>);

impl BlockDevice for Keeper {
    fn limits(&self) -> Limits {
        let mut limits = Limits::new(ByteLen::new(1 << 20));
        limits.max_discard = Limits::UNLIMITED;
        limits
    }

    fn submit(&self, request: Request) -> Submitted {
        assert_ne!(request.sector(), Sector::new(0), "nothing is there");
        self.0.lock().unwrap().push(request);
        Submitted::Kept
    }

    fn poll(&self, _queue: QueueId, done: &mut dyn FnMut(Done)) {
        let kept = core::mem::take(&mut *self.0.lock().unwrap());
        kept.into_iter()
            .for_each(|request| done(request.complete(Ok(()))));
    }
}

fn discard(sector: u64) -> Bio {
    let bio = Bio::discard(Sector::new(sector), ByteLen::new(512));
    bio.with_token(sector).erase()
}

#[test]
fn a_context_that_outlives_a_panic_of_its_driver_keeps_nobody_waiting() {
    let queue = RequestQueue::with_depth(Keeper::default(), 4).unwrap();
    let mut context = queue.context(QUEUE).unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| context.submit(discard(0))));
    assert!(panic.is_err());
    let (tell, told) = channel();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            drop(queue.quiesce());
            tell.send(()).unwrap();
        });
        // Where it is waited for, nothing else would end this thread.
        if told.recv_timeout(Duration::from_secs(30)).is_err() {
            eprintln!("a queue waits for a driver that has panicked");
            std::process::exit(1);
        }
    });
    context.submit(discard(8)).unwrap();
    assert_eq!(context.reap().unwrap().token(), 8);
    // The lost one is still owed: that is loud.
    assert_eq!(context.in_flight(), 1);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(context))).is_err());
}

#[test]
fn a_hardware_queue_whose_tags_the_device_still_has_gets_no_other_context() {
    let queue = RequestQueue::with_depth(Keeper::default(), 4).unwrap();
    let dropped = catch_unwind(AssertUnwindSafe(|| {
        let mut context = queue.context(QUEUE).unwrap();
        context.submit(discard(8)).unwrap();
    }));
    assert!(dropped.is_err());
    // Its requests would be called the same.
    let second = queue.context(QUEUE);
    assert_eq!(second.err(), Some(QueueError::Taken { id: QUEUE }));
    for kept in queue.device().0.lock().unwrap().drain(..) {
        core::mem::forget(kept);
    }
}

#[test]
fn what_came_back_together_with_a_bio_whose_callback_panics_is_not_lost() {
    let queue = RequestQueue::with_depth(Keeper::default(), 4).unwrap();
    let mut context = queue.context(QUEUE).unwrap();
    context.submit(discard(8)).unwrap();
    let bad = discard(16).with_callback(|done| panic!("{done:?} is not welcome"));
    context.submit(bad).unwrap();
    context.submit(discard(24)).unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| context.poll()));
    assert!(panic.is_err());
    let mut reaped = Vec::new();
    context.drain(|done| reaped.push(done.token()));
    assert_eq!(reaped, [8, 24]);
}

#[test]
fn of_bios_that_went_as_one_request_a_panic_in_one_s_callback_loses_no_other() {
    let queue = RequestQueue::with_depth(Keeper::default(), 4).unwrap();
    let mut context = queue.context(QUEUE).unwrap();
    let mut plug = context.plug();
    let bad = discard(8).with_callback(|done| panic!("{done:?} is not welcome"));
    plug.submit(bad).unwrap();
    plug.submit(discard(9)).unwrap();
    plug.submit(discard(10)).unwrap();
    drop(plug);
    assert_eq!(context.counters().merges, 2);
    assert!(catch_unwind(AssertUnwindSafe(|| context.poll())).is_err());
    let mut reaped = Vec::new();
    context.drain(|done| reaped.push(done.token()));
    assert_eq!(reaped, [9, 10]);
    // Nor is the request.
    (0..4).for_each(|n| context.submit(discard(8 * (n + 1))).unwrap());
    context.drain(|done| assert_eq!(done.result(), Ok(())));
}
