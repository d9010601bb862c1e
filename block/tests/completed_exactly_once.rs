//! Hazard: a bio that comes back twice, never, or as another one.

extern crate alloc;

mod rig;

use core::panic::AssertUnwindSafe;
use std::collections::HashMap;
use std::panic::catch_unwind;
use std::sync::Mutex;

use pageless_block::{
    Bio, BlkError, BlockDevice, Completion, Done, Failure, Features, Limits, Op, QueueConfig,
    QueueId, Request, RequestQueue, Sector, Submitted, ZoneLimits, submit_sync,
};
use pageless_pfn::ByteLen;
use proptest::prelude::*;
use rig::Face;

#[test]
#[cfg_attr(miri, ignore = "needs a memfd")]
fn the_bio_comes_back_as_it_went_in_with_its_memory() {
    let (device, ram) = rig::pmem(1 << 20);
    let mut bio = Bio::new(Op::Write, Sector::new(8)).with_token(77);
    bio.push(rig::segment(&ram, 100, 412));
    bio.push(rig::segment(&ram, 9000, 100));
    let sent = rig::face(&bio);
    let queue = RequestQueue::with_depth(&device, 1).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    context.submit(bio).unwrap();
    let done = context.reap().unwrap();
    assert_eq!((done.result(), done.done().get()), (Ok(()), 512));
    assert_eq!(rig::face(&done.into_bio()), sent);
    assert!(context.reap().is_none());
}

/// Hands whatever it has to whoever polls.
#[derive(Debug, Default)]
struct Careless(Mutex<Vec<Done>>);

impl BlockDevice for Careless {
    fn limits(&self) -> Limits {
        Limits::new(ByteLen::new(1 << 20))
    }

    fn submit(&self, request: Request) -> Submitted {
        self.0.lock().unwrap().push(request.complete(Ok(())));
        Submitted::Kept
    }

    fn poll(&self, _queue: QueueId, done: &mut dyn FnMut(Done)) {
        self.0.lock().unwrap().drain(..).for_each(done);
    }
}

#[test]
fn a_driver_that_hands_a_request_to_the_wrong_hardware_queue_is_stopped() {
    let config = QueueConfig {
        hw_queues: 2,
        ..QueueConfig::default()
    };
    let queue = RequestQueue::try_new(Careless::default(), config).unwrap();
    let mut first = queue.context(QueueId::new(0)).unwrap();
    let mut second = queue.context(QueueId::new(1)).unwrap();
    second.submit(rig::sector(1)).unwrap();
    first.submit(rig::sector(0)).unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| first.reap()));
    let text = *panic.unwrap_err().downcast::<String>().unwrap();
    assert!(text.contains("driver bug"), "{text}");
    // What is in flight is not to be missed twice.
    core::mem::forget((first, second));
}

/// Two queues over one device, which tells them apart by nothing: what the second submitted goes home all
/// the same, for a request knows its own.
#[test]
fn a_request_that_another_queue_finds_goes_to_the_context_it_came_from() {
    let device = Careless::default();
    let first = RequestQueue::with_depth(&device, 1).unwrap();
    let second = RequestQueue::with_depth(&device, 2).unwrap();
    let mut here = first.context(rig::QUEUE).unwrap();
    let mut there = second.context(rig::QUEUE).unwrap();
    here.submit(rig::sector(7)).unwrap();
    there.submit(rig::sector(8)).unwrap();
    there.submit(rig::sector(9)).unwrap();
    assert_eq!(here.reap().unwrap().token(), 7);
    let mut found = [there.reap(), there.reap()].map(|done| done.unwrap().token());
    found.sort_unstable();
    assert_eq!(found, [8, 9]);
    assert_eq!((first.in_flight(), second.in_flight()), (0, 0));
}

#[derive(Clone, Debug)]
enum Step {
    Submit { sectors: u64 },
    Release { which: usize, fail: Option<u64> },
    Reap,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..80_u64).prop_map(|sectors| Step::Submit { sectors }),
        (0..8_usize, proptest::option::of(0..20_u64))
            .prop_map(|(which, fail)| Step::Release { which, fail }),
        Just(Step::Reap),
    ]
}

/// How a request ends: well, or after so many sectors.
fn outcome(fail: Option<u64>) -> Result<(), Failure> {
    match fail {
        None => Ok(()),
        Some(sectors) => Err(Failure {
            error: BlkError::Medium,
            done: ByteLen::new(sectors * 512),
        }),
    }
}

proptest! {
    #[test]
    fn a_device_that_finishes_in_any_order_returns_every_bio_once(
        steps in proptest::collection::vec(step(), 1..120),
        depth in 1..6_u16,
    ) {
        let shelf = rig::Shelf::new();
        let queue = RequestQueue::with_depth(&shelf, depth).unwrap();
        let mut context = queue.context(rig::QUEUE).unwrap();
        let mut out: HashMap<u64, Face> = HashMap::new();
        let mut next = 0;
        let came_back = |out: &mut HashMap<u64, Face>, done: Completion| {
            let sent = out.remove(&done.token()).expect("came back twice, or never went in");
            let (result, bytes) = (done.result(), done.done());
            let bio = done.into_bio();
            assert_eq!(rig::face(&bio), sent);
            assert!(bytes <= bio.len());
            if result.is_ok() {
                assert_eq!(bytes, bio.len());
            }
        };
        for step in steps {
            match step {
                Step::Submit { sectors } => {
                    let len = ByteLen::new(sectors * 512);
                    let bio = Bio::discard(Sector::new(next), len).with_token(next);
                    let sent = rig::face(&bio);
                    match context.submit(bio) {
                        Ok(()) => { out.insert(next, sent); }
                        Err(back) => {
                            prop_assert_eq!(rig::face(&back.bio), sent);
                            // Full are the places of the context, or the tags.
                            let full = context.in_flight() == u32::from(depth)
                                || queue.in_flight() >= u32::from(depth);
                            prop_assert!(full);
                        }
                    }
                    next += 1;
                }
                Step::Release { which, fail } => {
                    if which < shelf.kept() {
                        shelf.release(which, outcome(fail));
                    }
                }
                Step::Reap => {
                    if let Some(done) = context.reap() {
                        came_back(&mut out, done);
                    }
                }
            }
            prop_assert_eq!(context.in_flight() as usize, out.len());
            prop_assert!(shelf.kept() <= usize::from(depth));
        }
        while context.in_flight() != 0 {
            if shelf.kept() != 0 {
                shelf.succeed(0);
            }
            if let Some(done) = context.reap() {
                came_back(&mut out, done);
            }
        }
        prop_assert!(out.is_empty());
        prop_assert_eq!(queue.in_flight(), 0);
        let counters = context.counters();
        prop_assert_eq!(counters.submitted, counters.completed);
        prop_assert_eq!(counters.submitted + counters.rejected, next);
    }
}

/// Keeps each request and answers with the one before.
struct OneLate(Mutex<Option<Request>>);

impl BlockDevice for OneLate {
    fn limits(&self) -> Limits {
        Limits::new(ByteLen::new(1 << 20))
    }

    fn submit(&self, request: Request) -> Submitted {
        match self.0.lock().unwrap().replace(request) {
            Some(before) => Submitted::Done(before.complete(Ok(()))),
            None => Submitted::Kept,
        }
    }
}

#[test]
fn a_driver_that_answers_a_submission_with_another_request_is_stopped() {
    let device = OneLate(Mutex::new(None));
    let queue = RequestQueue::with_depth(&device, 4).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    context.submit(rig::sector(0)).unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| context.submit(rig::sector(1))));
    let text = *panic.unwrap_err().downcast::<String>().unwrap();
    assert!(text.contains("driver bug"), "{text}");
    // What is in flight is not to be missed twice.
    core::mem::forget(context);
    core::mem::forget(device.0.lock().unwrap().take());
}

/// A driver that has done all it was asked and fails all the same, say because what it did cannot be made
/// durable, is believed.
#[test]
fn a_failure_after_the_last_byte_is_a_failure() {
    let shelf = rig::Shelf::new();
    let queue = RequestQueue::with_depth(&shelf, 1).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    for sectors in [1, 16, 40] {
        let len = ByteLen::new(sectors * 512);
        context.submit(Bio::discard(Sector::new(0), len)).unwrap();
        while shelf.kept() != 0 {
            shelf.release(0, outcome(Some(99)));
            context.poll();
        }
        let done = context.reap().unwrap();
        assert_eq!(done.result(), Err(BlkError::Medium), "{sectors} sectors");
    }
}

/// Appends at sector 8, the first time.
#[derive(Debug, Default)]
struct FullSoon(Mutex<bool>);

impl BlockDevice for FullSoon {
    fn limits(&self) -> Limits {
        let mut limits = Limits::new(ByteLen::new(1 << 20));
        limits.features |= Features::ZONED;
        limits.zones = Some(ZoneLimits {
            size: ByteLen::new(1 << 19),
            max_append: ByteLen::new(1 << 19),
            max_open: 0,
            max_active: 0,
        });
        limits
    }

    fn submit(&self, request: Request) -> Submitted {
        let full = core::mem::replace(&mut *self.0.lock().unwrap(), true);
        request.run(|request| match full {
            true => Err(BlkError::NoSpace.into()),
            false => {
                request.set_written(Sector::new(8));
                Ok(())
            }
        })
    }
}

#[test]
fn an_append_that_fails_does_not_say_where_the_one_before_it_went() {
    let device = FullSoon::default();
    let bio = Bio::zone_append(Sector::new(0), rig::memory(4096));
    let done = submit_sync(&device, bio).unwrap();
    assert_eq!(done.written(), Some(Sector::new(8)));
    let again = submit_sync(&device, done.into_bio()).unwrap();
    assert_eq!(
        (again.result(), again.written()),
        (Err(BlkError::NoSpace), None)
    );
}
