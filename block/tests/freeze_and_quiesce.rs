//! Hazard: a queue that is stopped and goes on, or one that is let go and does not.
//!
//! Scripts of one thread, and two threads where one must wait for the other. What happens when everybody runs at
//! once is in `concurrency_stopped`.

extern crate alloc;

mod rig;

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use pageless_block::{
    Bio, BioFlags, BlockDevice, Features, Limits, Op, QueueConfig, QueueId, RejectReason, Request,
    RequestQueue, Sector, Submitted,
};
use pageless_pfn::ByteLen;
use rig::Shelf;

#[test]
fn a_frozen_queue_gives_bios_back_and_sees_through_what_it_has() {
    let shelf = Shelf::new();
    let queue = RequestQueue::with_depth(&shelf, 4).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    context.submit(rig::sector(0)).unwrap();
    let frozen = queue.freeze();
    let long = Bio::discard(Sector::new(0), ByteLen::new(3 * 8192)).erase();
    let flush = Bio::write(Sector::new(9), rig::memory(512)).with_flags(BioFlags::PREFLUSH);
    for bio in [rig::sector(1), long, flush.erase()] {
        let sent = rig::face(&bio);
        // Without a cache the flush is nothing but a write.
        let back = context.submit(bio).unwrap_err();
        assert_eq!(
            (back.reason, rig::face(&back.bio)),
            (RejectReason::Frozen, sent)
        );
    }
    assert_eq!((shelf.sectors(), context.in_flight()), (vec![0], 1));
    assert!(!frozen.is_settled());
    shelf.succeed(0);
    assert!(!frozen.is_settled(), "nobody has looked");
    assert_eq!(context.reap().unwrap().token(), 0);
    assert!(frozen.is_settled());
    drop(frozen);
    context.submit(rig::sector(1)).unwrap();
    assert_eq!(shelf.sectors(), [1]);
    shelf.succeed(0);
    assert_eq!(context.reap().unwrap().token(), 1);
}

#[test]
fn bios_get_in_when_the_last_of_those_who_froze_has_gone() {
    let shelf = Shelf::new();
    let queue = RequestQueue::with_depth(&shelf, 4).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let (one, other, quiesced) = (queue.freeze(), queue.freeze(), queue.quiesce());
    drop(one);
    assert_eq!(
        context.submit(rig::sector(0)).unwrap_err().reason,
        RejectReason::Frozen
    );
    drop(other);
    context.submit(rig::sector(0)).unwrap();
    assert_eq!(shelf.kept(), 0, "quiesced all the same");
    drop(quiesced);
    context.poll();
    shelf.succeed(0);
    assert!(context.reap().is_some());
}

#[test]
fn settling_calls_for_as_long_as_something_is_in_flight_anywhere() {
    let shelf = Shelf::new();
    let config = QueueConfig {
        hw_queues: 2,
        ..QueueConfig::default()
    };
    let queue = RequestQueue::try_new(&shelf, config).unwrap();
    let mut contexts = [0, 1].map(|id| queue.context(QueueId::new(id)).unwrap());
    for (n, context) in contexts.iter_mut().enumerate() {
        for k in 0..2 {
            context.submit(rig::sector((n * 2 + k) as u64)).unwrap();
        }
    }
    // One is held back, and counts as well.
    let [first, _] = &mut contexts;
    let mut plug = first.plug();
    plug.submit(rig::sector(100)).unwrap();
    core::mem::forget(plug);
    let frozen = queue.freeze();
    let mut calls = 0;
    frozen.settle(|| {
        calls += 1;
        if shelf.kept() != 0 {
            shelf.succeed(0);
        }
        contexts.iter_mut().for_each(|context| context.poll());
    });
    assert_eq!(calls, 5);
    assert!(frozen.is_settled());
    let reaped = contexts.each_mut().map(|context| {
        let mut reaped = 0;
        context.drain(|_| reaped += 1);
        reaped
    });
    assert_eq!(reaped, [3, 2]);
}

#[test]
fn who_freezes_waits_for_threads_that_have_something_out() {
    let shelf = Shelf::new();
    let queue = RequestQueue::with_depth(&shelf, 4).unwrap();
    let (out, is_out) = mpsc::channel();
    let (frozen, is_frozen) = mpsc::channel();
    let reaped = AtomicBool::new(false);
    thread::scope(|threads| {
        let (shelf, queue, reaped) = (&shelf, &queue, &reaped);
        threads.spawn(move || {
            let mut context = queue.context(rig::QUEUE).unwrap();
            context.submit(rig::sector(0)).unwrap();
            out.send(()).unwrap();
            is_frozen.recv().unwrap();
            shelf.succeed(0);
            assert!(context.reap().is_some());
            // The request was over a moment ago; this is not yet known to anybody.
            reaped.store(true, Ordering::SeqCst);
            while context.submit(rig::sector(1)).is_err() {
                thread::yield_now();
            }
            shelf.succeed(0);
            assert!(context.reap().is_some());
        });
        is_out.recv().unwrap();
        let guard = queue.freeze();
        assert!(!guard.is_settled());
        frozen.send(()).unwrap();
        guard.settle(thread::yield_now);
        assert_eq!((shelf.kept(), queue.in_flight()), (0, 0));
        drop(guard);
    });
    assert!(reaped.into_inner());
}

#[test]
fn a_quiesced_queue_takes_bios_in_and_gives_none_out() {
    let shelf = Shelf::new();
    let queue = RequestQueue::with_depth(&shelf, 4).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    context.submit(rig::sector(0)).unwrap();
    let (quiesced, again) = (queue.quiesce(), queue.quiesce());
    for n in 1..4 {
        context.submit(rig::sector(n)).unwrap();
    }
    let back = context.submit(rig::sector(4)).unwrap_err();
    assert_eq!(back.reason, RejectReason::QueueFull { depth: 4 });
    // What the device has comes back all the same.
    shelf.succeed(0);
    assert_eq!(context.reap().unwrap().token(), 0);
    context.submit(rig::sector(4)).unwrap();
    drop(quiesced);
    for _ in 0..3 {
        assert!(context.reap().is_none());
    }
    assert_eq!((shelf.kept(), context.in_flight()), (0, 4));
    drop(again);
    assert_eq!(shelf.kept(), 0, "somebody has to look");
    context.poll();
    assert_eq!(shelf.sectors(), [1, 2, 3, 4]);
    (0..4).for_each(|_| shelf.succeed(0));
    let mut tokens = Vec::new();
    context.drain(|done| tokens.push(done.token()));
    assert_eq!(tokens, [1, 2, 3, 4]);
}

#[test]
fn a_quiesced_queue_takes_no_further_step_of_a_flush_sequence() {
    let mut limits = Limits::new(ByteLen::new(1 << 30));
    limits.features |= Features::WRITE_CACHE;
    let shelf = Shelf::with_limits(limits);
    let queue = RequestQueue::with_depth(&shelf, 4).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let durable =
        Bio::write(Sector::new(8), rig::memory(512)).with_flags(BioFlags::PREFLUSH | BioFlags::FUA);
    context.submit(durable).unwrap();
    for op in [Op::Flush, Op::Write, Op::Flush] {
        assert_eq!(shelf.look(0, Request::op), op);
        let quiesced = queue.quiesce();
        shelf.succeed(0);
        assert!(op == Op::Flush || context.reap().is_none());
        context.poll();
        assert_eq!(shelf.kept(), 0);
        drop(quiesced);
        context.poll();
    }
    assert_eq!(context.reap().unwrap().result(), Ok(()));
}

#[test]
fn plugged_and_split_bios_wait_as_well() {
    let shelf = Shelf::new();
    let queue = RequestQueue::with_depth(&shelf, 3).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let quiesced = queue.quiesce();
    let mut plug = context.plug();
    plug.submit(rig::sector(1000)).unwrap();
    // Four pieces, and two tags are left.
    plug.submit(Bio::discard(Sector::new(0), ByteLen::new(4 * 8192)))
        .unwrap();
    drop(plug);
    assert_eq!(shelf.kept(), 0);
    drop(quiesced);
    context.poll();
    assert_eq!(shelf.sectors(), [1000, 0, 16]);
    while context.in_flight() != 0 {
        shelf.succeed(0);
        let _ = context.reap();
        context.poll();
    }
}

/// Takes its time in `submit`: until somebody is about to quiesce, and then a while.
#[derive(Default)]
struct Slow {
    inside: AtomicBool,
    wanted: AtomicBool,
    left: AtomicBool,
}

impl BlockDevice for Slow {
    fn limits(&self) -> Limits {
        Limits::new(ByteLen::new(1 << 30))
    }

    fn submit(&self, request: Request) -> Submitted {
        self.inside.store(true, Ordering::SeqCst);
        while !self.wanted.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        for _ in 0..1000 {
            thread::yield_now();
        }
        self.left.store(true, Ordering::SeqCst);
        request.run(|_| Ok(()))
    }
}

#[test]
fn when_a_queue_is_quiesced_nobody_is_in_the_driver() {
    let queue = RequestQueue::with_depth(Slow::default(), 4).unwrap();
    thread::scope(|threads| {
        threads.spawn(|| {
            let mut context = queue.context(rig::QUEUE).unwrap();
            context.submit(rig::sector(0)).unwrap();
            context.drain(|done| assert_eq!(done.result(), Ok(())));
        });
        let device = queue.device();
        while !device.inside.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        device.wanted.store(true, Ordering::SeqCst);
        let quiesced = queue.quiesce();
        assert!(device.left.load(Ordering::SeqCst), "somebody is in there");
        drop(quiesced);
    });
}
