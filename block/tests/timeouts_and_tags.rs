//! Hazard: a request is given up on that is not overdue, because it has the tag of one that was.

extern crate alloc;

mod rig;

use alloc::sync::Arc;
use core::time::Duration;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use pageless_block::{
    Abort, BlockDevice, BytePos, Clock, Done, Limits, ManualClock, Partition, QueueConfig, QueueId,
    Request, RequestQueue, Submitted, Tag,
};
use pageless_pfn::ByteLen;

/// Finishes a request in the very moment in which it is asked to give it back, and then waits until somebody has put
/// another one in its place. That it gives back.
struct LastMoment {
    shelf: rig::Shelf,
    finished: Mutex<Sender<()>>,
    replaced: Mutex<Receiver<()>>,
}

impl BlockDevice for LastMoment {
    fn limits(&self) -> Limits {
        self.shelf.limits()
    }

    fn submit(&self, request: Request) -> Submitted {
        self.shelf.submit(request)
    }

    fn poll(&self, queue: QueueId, done: &mut dyn FnMut(Done)) {
        self.shelf.poll(queue, done);
    }

    fn abort(&self, queue: QueueId, tag: Tag) -> Abort {
        self.shelf.succeed(0);
        self.finished.lock().unwrap().send(()).unwrap();
        self.replaced.lock().unwrap().recv().unwrap();
        self.shelf.abort(queue, tag)
    }
}

/// `first` is the sector of the device at which the queue's begin.
fn finishes_at_the_last_moment<D: BlockDevice + Sync>(
    first: u64,
    stack: impl FnOnce(Arc<LastMoment>) -> D,
) {
    let timeout = Duration::from_millis(1);
    let clock = Arc::new(ManualClock::new());
    let (finished, told_finished) = channel();
    let (replaced, told_replaced) = channel();
    let device = Arc::new(LastMoment {
        shelf: rig::Shelf::new(),
        finished: Mutex::new(finished),
        replaced: Mutex::new(told_replaced),
    });
    device.shelf.set_gives_back(true);
    let config = QueueConfig {
        depth: 1,
        timeout: Some(timeout),
        clock: Some(Arc::clone(&clock) as Arc<dyn Clock>),
        ..QueueConfig::default()
    };
    let queue = RequestQueue::try_new(stack(Arc::clone(&device)), config).unwrap();
    let mut owner = queue.shared_context(rig::QUEUE).unwrap();
    owner.submit(rig::sector(1)).unwrap();
    clock.advance(timeout);
    let owner = std::thread::scope(|threads| {
        let owner = threads.spawn(move || {
            told_finished.recv().unwrap();
            assert_eq!(owner.reap().unwrap().token(), 1);
            owner.submit(rig::sector(2)).unwrap();
            replaced.send(()).unwrap();
            owner
        });
        queue.shared_context(rig::QUEUE).unwrap().poll();
        owner.join().unwrap()
    });
    let mut owner = owner;
    owner.poll();
    assert_eq!(device.shelf.sectors(), [first + 2]);
    device.shelf.succeed(0);
    let done = owner.reap().unwrap();
    assert_eq!((done.token(), done.result()), (2, Ok(())));
}

#[test]
fn a_request_with_the_tag_of_one_that_finished_at_the_last_moment_is_not_given_up_on() {
    finishes_at_the_last_moment(0, |device| device);
}

#[test]
fn such_a_request_goes_where_it_went_also_through_a_driver_that_sends_it_on() {
    let start = BytePos::new(1 << 20);
    finishes_at_the_last_moment(1 << 11, |device| {
        Partition::try_new(device, start, ByteLen::new(1 << 20)).unwrap()
    });
}
