//! Hazard: a request is given up on that is not overdue, because it has the tag of one that was.

extern crate alloc;

mod rig;

use alloc::sync::Arc;
use core::time::Duration;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use pageless_block::{
    Abort, BlockDevice, Clock, Done, Limits, ManualClock, QueueConfig, QueueId, Request,
    RequestQueue, Submitted, Tag,
};

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

#[test]
fn a_request_with_the_tag_of_one_that_finished_at_the_last_moment_is_not_given_up_on() {
    let timeout = Duration::from_millis(1);
    let clock = Arc::new(ManualClock::new());
    let (finished, told_finished) = channel();
    let (replaced, told_replaced) = channel();
    let device = LastMoment {
        shelf: rig::Shelf::new(),
        finished: Mutex::new(finished),
        replaced: Mutex::new(told_replaced),
    };
    device.shelf.set_gives_back(true);
    let config = QueueConfig {
        depth: 1,
        timeout: Some(timeout),
        clock: Some(Arc::clone(&clock) as Arc<dyn Clock>),
        ..QueueConfig::default()
    };
    let queue = RequestQueue::try_new(device, config).unwrap();
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
    assert_eq!(queue.device().shelf.sectors(), [2]);
    queue.device().shelf.succeed(0);
    let done = owner.reap().unwrap();
    assert_eq!((done.token(), done.result()), (2, Ok(())));
}
