//! Hazard: a bio that comes back twice, never, or as another one.

extern crate alloc;

mod rig;

use alloc::sync::Arc;
use core::panic::AssertUnwindSafe;
use std::collections::HashMap;
use std::panic::catch_unwind;

use pageless_block::{Bio, BlkError, Completion, Op, Queue, QueueId, Sector};
use pageless_pfn::ByteLen;
use proptest::prelude::*;

#[test]
#[cfg_attr(miri, ignore = "needs a memfd")]
fn the_bio_comes_back_as_it_went_in_with_its_memory() {
    let (device, ram) = rig::pmem(1 << 20);
    let mut bio = Bio::new(Op::Write, Sector::new(8)).with_token(77);
    bio.push(rig::segment(&ram, 100, 412));
    bio.push(rig::segment(&ram, 9000, 100));
    let mut queue = Queue::try_new(&device, QueueId::new(0), 1).unwrap();
    queue.submit(bio.clone()).unwrap();
    let done = queue.reap().unwrap();
    assert_eq!(
        done,
        Completion {
            bio,
            result: Ok(()),
            done: ByteLen::new(512)
        }
    );
    assert_eq!(queue.reap(), None);
}

#[test]
fn a_driver_that_hands_a_request_to_the_wrong_queue_is_stopped() {
    let shelf = Arc::new(rig::Shelf::new());
    let mut first = Queue::try_new(Arc::clone(&shelf), QueueId::new(0), 1).unwrap();
    // The same number for a second queue: its requests are not to be told apart by that.
    let mut second = Queue::try_new(Arc::clone(&shelf), QueueId::new(0), 2).unwrap();
    first.submit(Bio::flush()).unwrap();
    second.submit(Bio::flush()).unwrap();
    second.submit(Bio::flush()).unwrap();
    // Tag 1 is in flight in the second queue only.
    shelf.release(2, Ok(()));
    let panic = catch_unwind(AssertUnwindSafe(|| first.reap()));
    let text = *panic.unwrap_err().downcast::<String>().unwrap();
    assert!(text.contains("driver bug"), "{text}");
    core::mem::forget((first, second, shelf));
}

#[test]
fn a_tag_that_has_come_back_is_not_waited_for_any_more() {
    let shelf = Arc::new(rig::Shelf::new());
    let mut first = Queue::try_new(Arc::clone(&shelf), QueueId::new(0), 1).unwrap();
    let mut second = Queue::try_new(Arc::clone(&shelf), QueueId::new(0), 2).unwrap();
    assert_eq!(second.submit(Bio::flush()).unwrap().get(), 0);
    assert_eq!(second.submit(Bio::flush()).unwrap().get(), 1);
    shelf.release(0, Ok(()));
    assert!(second.reap().is_some());
    // Tag 0 of the first queue, handed to the second, which waits for its tag 1 only.
    assert_eq!(first.submit(Bio::flush()).unwrap().get(), 0);
    shelf.release(1, Ok(()));
    let panic = catch_unwind(AssertUnwindSafe(|| second.reap()));
    let text = *panic.unwrap_err().downcast::<String>().unwrap();
    assert!(text.contains("driver bug"), "{text}");
    core::mem::forget((first, second, shelf));
}

#[derive(Clone, Debug)]
enum Step {
    Submit { sectors: u64 },
    Release { which: usize, fail: bool },
    Reap,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..80_u64).prop_map(|sectors| Step::Submit { sectors }),
        (0..8_usize, any::<bool>()).prop_map(|(which, fail)| Step::Release { which, fail }),
        Just(Step::Reap),
    ]
}

proptest! {
    #[test]
    fn a_device_that_finishes_in_any_order_returns_every_bio_once(
        steps in proptest::collection::vec(step(), 1..120),
        depth in 1..6_u16,
    ) {
        let shelf = rig::Shelf::new();
        let mut queue = Queue::try_new(&shelf, QueueId::new(0), depth).unwrap();
        let mut out: HashMap<u64, Bio> = HashMap::new();
        let mut next = 0;
        let came_back = |out: &mut HashMap<u64, Bio>, done: Completion| {
            let sent = out.remove(&done.bio.token()).expect("came back twice, or never went in");
            assert_eq!(done.bio, sent);
            assert!(done.done <= sent.len());
            assert_eq!(done.result.is_ok(), done.done == sent.len());
        };
        for step in steps {
            match step {
                Step::Submit { sectors } => {
                    let len = ByteLen::new(sectors * 512);
                    let bio = Bio::discard(Sector::new(next), len).with_token(next);
                    match queue.submit(bio.clone()) {
                        Ok(_) => { out.insert(next, bio); }
                        Err(back) => {
                            prop_assert_eq!(back.bio, bio);
                            prop_assert_eq!(queue.in_flight(), depth);
                        }
                    }
                    next += 1;
                }
                Step::Release { which, fail } => {
                    if which < shelf.kept() {
                        shelf.release(which, if fail { Err(BlkError::Medium) } else { Ok(()) });
                    }
                }
                Step::Reap => {
                    if let Some(done) = queue.reap() {
                        came_back(&mut out, done);
                    }
                }
            }
            prop_assert_eq!(usize::from(queue.in_flight()), out.len());
        }
        while queue.in_flight() != 0 {
            if shelf.kept() != 0 {
                shelf.release(0, Ok(()));
            }
            if let Some(done) = queue.reap() {
                came_back(&mut out, done);
            }
        }
        prop_assert!(out.is_empty());
        let counters = queue.counters();
        prop_assert_eq!(counters.submitted, counters.completed);
        prop_assert_eq!(counters.submitted + counters.rejected, next);
    }
}

/// Keeps each request and answers with the one before.
struct OneLate(std::sync::Mutex<Option<pageless_block::Request>>);

impl pageless_block::BlockDevice for OneLate {
    fn info(&self) -> pageless_block::DeviceInfo {
        pageless_block::DeviceInfo::new(ByteLen::new(1 << 20))
    }

    fn execute(&self, _: &pageless_block::Request) -> Result<(), BlkError> {
        Ok(())
    }

    fn submit(&self, request: pageless_block::Request) -> Option<pageless_block::Done> {
        let before = self.0.lock().unwrap().replace(request)?;
        Some(before.complete(Ok(())))
    }
}

#[test]
fn a_driver_that_answers_a_submission_with_another_request_is_stopped() {
    let mut queue = Queue::try_new(
        Arc::new(OneLate(std::sync::Mutex::new(None))),
        QueueId::new(0),
        4,
    )
    .unwrap();
    queue.submit(Bio::flush()).unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| queue.submit(Bio::flush())));
    let text = *panic.unwrap_err().downcast::<String>().unwrap();
    assert!(text.contains("driver bug"), "{text}");
    // What is in flight is not to be missed twice.
    core::mem::forget(queue);
}
