//! Hazard: a queue that is stopped lets something in or out, or waits for what cannot come.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

use pageless_block::{
    Bio, BlkError, BlockDevice, Done, Elevator, Failure, Incoming, Limits, Merge, Nanos,
    QueueConfig, QueueId, RejectReason, Request, RequestQueue, Sector, Submitted,
};
use pageless_pfn::ByteLen;

const PIECE: u64 = 4096;

/// Keeps requests and hands them over one at a time, those that came first first.
#[derive(Default)]
struct Slow {
    kept: Mutex<Vec<Request>>,
    came: Mutex<Vec<u64>>,
    /// Loses its first request, when this is told.
    loses: Option<Mutex<Receiver<()>>>,
    fails_after: Option<u64>,
}

impl Slow {
    fn came(&self) -> Vec<u64> {
        self.came.lock().unwrap().clone()
    }
}

impl BlockDevice for Slow {
    fn limits(&self) -> Limits {
        let mut limits = Limits::new(ByteLen::new(1 << 30));
        limits.max_discard = ByteLen::new(2 * PIECE);
        limits
    }

    fn submit(&self, request: Request) -> Submitted {
        self.came.lock().unwrap().push(request.sector().get());
        if let (Some(told), 0) = (&self.loses, request.sector().get()) {
            told.lock().unwrap().recv().unwrap();
            panic!("{request:?} is lost");
        }
        self.kept.lock().unwrap().push(request);
        Submitted::Kept
    }

    fn poll(&self, _queue: QueueId, done: &mut dyn FnMut(Done)) {
        let mut kept = self.kept.lock().unwrap();
        if !kept.is_empty() {
            let request = kept.remove(0);
            drop(kept);
            let result = match self.fails_after {
                None => Ok(()),
                Some(bytes) => Err(Failure {
                    error: BlkError::Medium,
                    done: ByteLen::new(bytes),
                }),
            };
            done(request.complete(result));
        }
    }
}

fn discard(sector: u64, pieces: u64) -> Bio {
    let bio = Bio::discard(Sector::new(sector), ByteLen::new(pieces * PIECE));
    bio.with_token(sector).erase()
}

#[test]
fn the_pieces_of_a_bio_that_was_taken_in_go_on_while_the_queue_is_frozen() {
    let queue = RequestQueue::with_depth(Slow::default(), 2).unwrap();
    let mut context = queue.context(QueueId::new(0)).unwrap();
    // Five requests, of which two find a tag.
    context.submit(discard(0, 10)).unwrap();
    let frozen = queue.freeze();
    let refused = context.submit(discard(1000, 1)).unwrap_err();
    assert!(matches!(refused.reason, RejectReason::QueueFull { .. }));
    let mut polls = 0;
    frozen.settle(|| {
        polls += 1;
        assert!(polls < 100, "what is in flight does not go on");
        context.poll();
    });
    assert_eq!(
        queue.device().came().len(),
        5,
        "settled with pieces to come"
    );
    let done = context.reap().expect("the bio is over");
    assert_eq!(done.result(), Ok(()));
    let refused = context.submit(discard(1000, 10)).unwrap_err();
    assert_eq!(refused.reason, RejectReason::Frozen);
    let refused = context.submit(discard(1000, 1)).unwrap_err();
    assert_eq!(refused.reason, RejectReason::Frozen);
    drop(frozen);
    context.submit(refused.bio).unwrap();
    context.drain(|done| assert_eq!(done.result(), Ok(())));
    assert_eq!(queue.in_flight(), 0);
}

/// Keeps what it is given, and joins bios to it.
#[derive(Default)]
struct Line(Vec<Request>);

impl Elevator for Line {
    fn name(&self) -> &'static str {
        "line"
    }

    fn insert(&mut self, request: Request, _now: Nanos) -> Result<(), Request> {
        self.0.push(request);
        Ok(())
    }

    fn dispatch(&mut self, _now: Nanos) -> Option<Request> {
        (!self.0.is_empty()).then(|| self.0.remove(0))
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn merge(&mut self, incoming: Incoming, limits: &Limits) -> Result<Merge, Incoming> {
        match self.0.last_mut() {
            Some(last) => last.try_merge(incoming, limits),
            None => Err(incoming),
        }
    }
}

fn scheduled(device: Slow, depth: u16) -> RequestQueue<Slow> {
    let config = QueueConfig {
        depth,
        elevator: Some(Box::new(Line::default())),
        ..QueueConfig::default()
    };
    RequestQueue::try_new(device, config).unwrap()
}

#[test]
fn a_frozen_queue_joins_no_bio_to_a_request_that_is_inside() {
    let queue = scheduled(Slow::default(), 4);
    let mut context = queue.context(QueueId::new(0)).unwrap();
    let mut plug = context.plug();
    plug.submit(discard(0, 1)).unwrap();
    let frozen = queue.freeze();
    let refused = plug.submit(discard(8, 1)).unwrap_err();
    assert_eq!(refused.reason, RejectReason::Frozen);
    drop(frozen);
    plug.submit(refused.bio).unwrap();
    drop(plug);
    assert_eq!(context.counters().merges, 1);
    context.drain(|done| assert_eq!(done.result(), Ok(())));
}

#[test]
fn what_waits_for_a_quiesced_queue_goes_out_in_its_order() {
    for queue in [
        RequestQueue::with_depth(Slow::default(), 8).unwrap(),
        scheduled(Slow::default(), 8),
    ] {
        let mut context = queue.context(QueueId::new(0)).unwrap();
        let quiesced = queue.quiesce();
        for n in 0..6 {
            context.submit(discard(n * 1000, 1)).unwrap();
            // Asking does not shuffle what waits.
            context.poll();
        }
        assert_eq!(queue.device().came(), []);
        drop(quiesced);
        context.drain(|done| assert_eq!(done.result(), Ok(())));
        assert_eq!(queue.device().came(), [0, 1000, 2000, 3000, 4000, 5000]);
    }
}

#[test]
fn nobody_waits_for_a_thread_whose_driver_panicked() {
    let (tell, told) = channel();
    let device = Slow {
        loses: Some(Mutex::new(told)),
        ..Slow::default()
    };
    let queue = RequestQueue::with_depth(device, 64).unwrap();
    std::thread::scope(|threads| {
        let loses = threads.spawn(|| {
            let mut context = queue.shared_context(QueueId::new(0)).unwrap();
            let _ = context.submit(discard(0, 1));
        });
        while queue.device().came() != [0] {
            std::thread::yield_now();
        }
        let stops = threads.spawn(|| drop(queue.quiesce()));
        // When a bio does not get through the gate is closed; in a moment the other thread waits.
        let mut context = queue.shared_context(QueueId::new(0)).unwrap();
        for sector in [1000, 2000].into_iter().cycle() {
            context.submit(discard(sector, 1)).unwrap();
            if queue.device().came().last() != Some(&sector) {
                break;
            }
            context.drain(|done| assert_eq!(done.result(), Ok(())));
        }
        (0..1000).for_each(|_| std::thread::yield_now());
        tell.send(()).unwrap();
        assert!(loses.join().is_err(), "the loss of a request is loud");
        stops.join().unwrap();
        context.drain(|done| assert_eq!(done.result(), Ok(())));
    });
}

#[test]
fn of_a_failure_at_the_very_end_of_merged_bios_the_last_one_hears() {
    let device = Slow {
        fails_after: Some(2 * PIECE),
        ..Slow::default()
    };
    let queue = RequestQueue::with_depth(device, 4).unwrap();
    let mut context = queue.context(QueueId::new(0)).unwrap();
    let mut plug = context.plug();
    plug.submit(discard(0, 1)).unwrap();
    plug.submit(discard(8, 1)).unwrap();
    drop(plug);
    assert_eq!(context.counters().merges, 1);
    let mut results = Vec::new();
    context.drain(|done| results.push((done.token(), done.done().get(), done.result())));
    assert_eq!(
        results,
        [(0, PIECE, Ok(())), (8, PIECE, Err(BlkError::Medium))]
    );
}

#[test]
#[cfg_attr(miri, ignore = "65536 contexts take an interpreter long")]
fn bios_of_two_contexts_never_share_a_request_however_many_contexts_there_were() {
    let queue = scheduled(Slow::default(), 1);
    let mut one = queue.shared_context(QueueId::new(0)).unwrap();
    for _ in 0..0xFFFF {
        drop(queue.shared_context(QueueId::new(0)).unwrap());
    }
    let mut other = queue.shared_context(QueueId::new(0)).unwrap();
    let mut third = queue.shared_context(QueueId::new(0)).unwrap();
    // The device has one; the second waits with the scheduler, and no tag is left.
    third.submit(discard(5000, 1)).unwrap();
    one.submit(discard(0, 1)).unwrap();
    let refused = other.submit(discard(8, 1)).unwrap_err();
    assert!(matches!(refused.reason, RejectReason::QueueFull { .. }));
    for context in [&mut third, &mut one] {
        context.drain(|done| assert_eq!(done.result(), Ok(())));
        assert_eq!((context.in_flight(), context.counters().merges), (0, 0));
    }
}
