//! Hazard: a bio is told to be durable and is not, or a flush goes where none is needed.
//!
//! The device writes down what it gets and finishes a request when it is told to.

extern crate alloc;

use std::sync::Mutex;

use pageless_block::{
    Bio, BioFlags, BlkError, BlockDevice, Completion, Context, Done, Failure, Features, Limits, Op,
    QueueConfig, QueueId, Request, RequestQueue, Sector, Submitted, ToDevice,
};
use pageless_pfn::{ByteLen, FrameOffset, Pfn, PhysSegment};

const BLOCK: u64 = 4096;

struct Scripted {
    features: Features,
    /// At the device, in the order in which they came.
    kept: Mutex<Vec<Request>>,
    ready: Mutex<Vec<Done>>,
    came: Mutex<Vec<String>>,
}

impl Scripted {
    fn new(features: Features) -> Self {
        Self {
            features,
            kept: Mutex::default(),
            ready: Mutex::default(),
            came: Mutex::default(),
        }
    }

    /// What has come since the last time.
    fn came(&self) -> Vec<String> {
        self.came.lock().unwrap().drain(..).collect()
    }

    /// Ends the request that came first of those here.
    fn finish(&self, result: Result<(), Failure>) {
        let request = self.kept.lock().unwrap().remove(0);
        self.ready.lock().unwrap().push(request.complete(result));
    }
}

impl BlockDevice for Scripted {
    fn limits(&self) -> Limits {
        let mut limits = Limits::new(ByteLen::new(1 << 30));
        limits.features |= self.features;
        limits
    }

    fn submit(&self, request: Request) -> Submitted {
        let fua = request.flags().contains(BioFlags::FUA);
        assert!(!request.flags().contains(BioFlags::PREFLUSH));
        let what = match request.op() {
            Op::Flush => "flush".to_owned(),
            op => format!(
                "{op} {}{}",
                request.sector().get(),
                if fua { " FUA" } else { "" }
            ),
        };
        self.came.lock().unwrap().push(what);
        self.kept.lock().unwrap().push(request);
        Submitted::Kept
    }

    fn poll(&self, queue: QueueId, done: &mut dyn FnMut(Done)) {
        let ready: Vec<Done> = self.ready.lock().unwrap().drain(..).collect();
        for one in ready {
            assert_eq!(one.queue(), queue, "these tests have one queue");
            done(one);
        }
    }
}

fn write(sector: u64) -> Bio<ToDevice> {
    let frame = Pfn::try_new(0x100).unwrap().into();
    let memory = PhysSegment::try_new(frame, FrameOffset::ZERO, ByteLen::new(BLOCK)).unwrap();
    Bio::write(Sector::new(sector), memory).with_token(sector)
}

fn flush(token: u64) -> Bio {
    Bio::flush().with_token(token).erase()
}

const ALL: BioFlags = BioFlags::FLUSHES;

fn with<R>(features: Features, f: impl FnOnce(&Scripted, &mut Context<'_, Scripted>) -> R) -> R {
    let queue = RequestQueue::with_depth(Scripted::new(features), 32).unwrap();
    let mut context = queue.context(QueueId::new(0)).unwrap();
    let result = f(queue.device(), &mut context);
    assert_eq!((context.in_flight(), queue.in_flight()), (0, 0));
    assert!(queue.device().kept.lock().unwrap().is_empty());
    result
}

/// Token, result, bytes done.
fn outcome(done: &Completion) -> (u64, Result<(), BlkError>, u64) {
    (done.token(), done.result(), done.done().get())
}

fn reaped(context: &mut Context<'_, Scripted>) -> Vec<(u64, Result<(), BlkError>, u64)> {
    let mut all = Vec::new();
    while let Some(done) = context.reap() {
        all.push(outcome(&done));
    }
    all
}

#[test]
fn flush_data_flush_one_after_the_other() {
    with(Features::WRITE_CACHE, |device, context| {
        context.submit(write(8).with_flags(ALL)).unwrap();
        assert_eq!(device.came(), ["flush"]);
        device.finish(Ok(()));
        assert_eq!(reaped(context), []);
        assert_eq!(
            device.came(),
            ["WRITE 8"],
            "FUA is a flush after the data here"
        );
        device.finish(Ok(()));
        assert_eq!(reaped(context), []);
        assert_eq!(device.came(), ["flush"]);
        device.finish(Ok(()));
        assert_eq!(reaped(context), [(8, Ok(()), BLOCK)]);
        assert_eq!(device.came(), [""; 0]);
    });
}

#[test]
fn a_device_that_knows_fua_gets_it_and_no_flush_after_the_data() {
    with(Features::WRITE_CACHE | Features::FUA, |device, context| {
        context.submit(write(8).with_flags(ALL)).unwrap();
        context.submit(write(16).with_flags(BioFlags::FUA)).unwrap();
        assert_eq!(device.came(), ["flush", "WRITE 16 FUA"]);
        device.finish(Ok(()));
        context.poll();
        assert_eq!(device.came(), ["WRITE 8 FUA"]);
        device.finish(Ok(()));
        device.finish(Ok(()));
        assert_eq!(reaped(context), [(16, Ok(()), BLOCK), (8, Ok(()), BLOCK)]);
        assert_eq!(device.came(), [""; 0]);
    });
}

#[test]
fn without_a_cache_there_is_nothing_to_flush() {
    with(Features::FUA, |device, context| {
        context.submit(flush(1)).unwrap();
        assert_eq!(
            context.reap().map(|done| outcome(&done)),
            Some((1, Ok(()), 0))
        );
        assert_eq!(device.came(), [""; 0], "an empty flush goes nowhere");
        context.submit(write(8).with_flags(ALL)).unwrap();
        assert_eq!(device.came(), ["WRITE 8"]);
        device.finish(Ok(()));
        assert_eq!(reaped(context), [(8, Ok(()), BLOCK)]);
    });
}

#[test]
fn any_number_of_flushes_at_a_time_costs_two() {
    with(Features::WRITE_CACHE, |device, context| {
        for token in 0..20 {
            context.submit(flush(token)).unwrap();
        }
        assert_eq!(device.came(), ["flush"]);
        device.finish(Ok(()));
        // What came later says nothing about it: it must see a flush of its own begin.
        assert_eq!(reaped(context), [(0, Ok(()), 0)]);
        assert_eq!(device.came(), ["flush"]);
        device.finish(Ok(()));
        let rest: Vec<_> = (1..20).map(|token| (token, Ok(()), 0)).collect();
        assert_eq!(reaped(context), rest);
        assert_eq!(device.came(), [""; 0]);
    });
}

#[test]
fn writes_with_fua_share_the_flush_after_them() {
    with(Features::WRITE_CACHE, |device, context| {
        for sector in [8, 16, 24] {
            context
                .submit(write(sector).with_flags(BioFlags::FUA))
                .unwrap();
        }
        assert_eq!(device.came(), ["WRITE 8", "WRITE 16", "WRITE 24"]);
        device.finish(Ok(()));
        context.poll();
        assert_eq!(device.came(), ["flush"]);
        device.finish(Ok(()));
        device.finish(Ok(()));
        context.poll();
        // The first flush began before these two were there.
        assert_eq!(device.came(), [""; 0]);
        device.finish(Ok(()));
        assert_eq!(reaped(context), [(8, Ok(()), BLOCK)]);
        assert_eq!(device.came(), ["flush"]);
        device.finish(Ok(()));
        assert_eq!(reaped(context), [(16, Ok(()), BLOCK), (24, Ok(()), BLOCK)]);
    });
}

#[test]
fn a_flush_that_fails_fails_all_that_waited_for_it_and_nobody_else() {
    with(Features::WRITE_CACHE, |device, context| {
        context.submit(write(8).with_flags(BioFlags::FUA)).unwrap();
        device.finish(Ok(()));
        context.poll();
        assert_eq!(device.came(), ["WRITE 8", "flush"]);
        for bio in [flush(1), write(16).with_flags(BioFlags::PREFLUSH).erase()] {
            context.submit(bio).unwrap();
        }
        device.finish(Err(BlkError::Io.into()));
        let io = Err(BlkError::Io);
        assert_eq!(reaped(context), [(8, io, 0)], "written, and not durable");
        assert_eq!(device.came(), ["flush"]);
        context.submit(flush(2)).unwrap();
        device.finish(Err(BlkError::Medium.into()));
        // The data of the second never goes.
        let medium = Err(BlkError::Medium);
        assert_eq!(reaped(context), [(1, medium, 0), (16, medium, 0)]);
        assert_eq!(device.came(), ["flush"]);
        device.finish(Ok(()));
        assert_eq!(reaped(context), [(2, Ok(()), 0)]);
    });
}

#[test]
fn what_of_a_failed_write_is_done_is_made_durable_before_that_is_said() {
    with(Features::WRITE_CACHE, |device, context| {
        context.submit(write(8).with_flags(BioFlags::FUA)).unwrap();
        assert_eq!(device.came(), ["WRITE 8"]);
        device.finish(Err(Failure {
            error: BlkError::Medium,
            done: ByteLen::new(512),
        }));
        assert_eq!(reaped(context), [], "512 bytes are done, and not durable");
        assert_eq!(device.came(), ["flush"]);
        device.finish(Ok(()));
        assert_eq!(reaped(context), [(8, Err(BlkError::Medium), 512)]);

        // Where nothing is done there is nothing to flush.
        context.submit(write(16).with_flags(BioFlags::FUA)).unwrap();
        device.finish(Err(BlkError::Medium.into()));
        assert_eq!(reaped(context), [(16, Err(BlkError::Medium), 0)]);
        assert_eq!(device.came(), ["WRITE 16"]);
    });
}

#[test]
fn a_flush_goes_around_a_plug_and_a_scheduler() {
    struct Never;
    impl pageless_block::Elevator for Never {
        fn name(&self) -> &'static str {
            "never"
        }
        fn insert(&mut self, request: Request, _: pageless_block::Nanos) -> Result<(), Request> {
            panic!("{request:?} has no place here");
        }
        fn dispatch(&mut self, _: pageless_block::Nanos) -> Option<Request> {
            None
        }
        fn len(&self) -> usize {
            0
        }
    }
    let config = QueueConfig {
        elevator: Some(Box::new(Never)),
        ..QueueConfig::default()
    };
    let device = Scripted::new(Features::WRITE_CACHE);
    let queue = RequestQueue::try_new(device, config).unwrap();
    let mut context = queue.context(QueueId::new(0)).unwrap();
    let mut plug = context.plug();
    plug.submit(write(8).with_flags(ALL)).unwrap();
    assert_eq!(queue.device().came(), ["flush"]);
    for _ in 0..3 {
        queue.device().finish(Ok(()));
        plug.poll();
    }
    assert_eq!(queue.device().came(), ["WRITE 8", "flush"]);
    assert!(plug.reap().unwrap().result().is_ok());
}

#[test]
fn whoever_finds_the_flush_moves_on_all_that_waited() {
    let device = Scripted::new(Features::WRITE_CACHE);
    let queue = RequestQueue::with_depth(device, 8).unwrap();
    let device = queue.device();
    let mut one = queue.shared_context(QueueId::new(0)).unwrap();
    let mut other = queue.shared_context(QueueId::new(0)).unwrap();
    one.submit(write(8).with_flags(ALL)).unwrap();
    other.submit(flush(1)).unwrap();
    assert_eq!(device.came(), ["flush"]);
    device.finish(Ok(()));
    // The write of the one is sent on by the other, whose own flush begins.
    assert!(other.reap().is_none());
    assert_eq!(device.came(), ["WRITE 8", "flush"]);
    device.finish(Ok(()));
    device.finish(Ok(()));
    assert_eq!(
        other.reap().map(|done| outcome(&done)),
        Some((1, Ok(()), 0))
    );
    assert_eq!(device.came(), ["flush"]);
    device.finish(Ok(()));
    assert!(other.reap().is_none(), "nothing of its own is left");
    one.poll();
    other.poll();
    one.poll();
    assert_eq!(
        one.reap().map(|done| outcome(&done)),
        Some((8, Ok(()), BLOCK))
    );
}
