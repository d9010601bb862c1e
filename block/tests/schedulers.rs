//! Whoever decides who goes first: every request goes once, none beyond the limits, in the order that
//! the scheduler says.

extern crate alloc;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::mem;
use core::time::Duration;
use std::sync::Mutex;

use pageless_block::{
    Bio, BioFlags, BlockDevice, Context, DeadlineSettings, Done, Elevator, Incoming, Limits,
    ManualClock, Merge, MqDeadline, Nanos, Op, Priority, PriorityClass, QueueConfig, QueueId,
    Request, RequestQueue, Sector, Submitted, device_segments,
};
use pageless_pfn::{ByteLen, FrameOffset, Pfn, PhysSegment};
use proptest::prelude::*;

/// Carries out nothing, writes down what came, and keeps up to `room` requests; with none it is done
/// at once.
struct Desk {
    limits: Limits,
    room: usize,
    kept: Mutex<VecDeque<Request>>,
    seen: Mutex<Vec<(Op, u64, u64)>>,
}

impl Desk {
    fn new(room: usize, limits: Limits) -> Self {
        Self {
            limits,
            room,
            kept: Mutex::default(),
            seen: Mutex::default(),
        }
    }

    fn seen(&self) -> Vec<(Op, u64, u64)> {
        mem::take(&mut self.seen.lock().unwrap())
    }

    fn sectors(&self) -> Vec<u64> {
        self.seen()
            .into_iter()
            .map(|(_, sector, _)| sector)
            .collect()
    }

    /// What every driver may rely on.
    fn check(&self, request: &Request) {
        let Limits {
            max_request,
            max_segments,
            max_segment,
            chunk,
            ..
        } = self.limits;
        assert!(request.len() <= max_request, "{request:?} is too long");
        if let Some(chunk) = chunk {
            let of = |at: u64| at / chunk.get();
            assert_eq!(of(request.position().get()), of(request.end().get() - 1));
        }
        let seen: Vec<PhysSegment> = device_segments(&self.limits, request.segments()).collect();
        assert!(seen.len() <= max_segments as usize, "{request:?}: {seen:?}");
        assert!(seen.iter().all(|one| one.len() <= max_segment));
        let bytes: u64 = seen.iter().map(|one| one.len().get()).sum();
        assert_eq!(bytes, request.len().get());
    }
}

impl BlockDevice for Desk {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn submit(&self, request: Request) -> Submitted {
        self.check(&request);
        let mut kept = self.kept.lock().unwrap();
        if self.room != 0 && kept.len() == self.room {
            return Submitted::Busy(request);
        }
        let what = (
            request.op(),
            request.sector().get(),
            request.len().get() / 512,
        );
        self.seen.lock().unwrap().push(what);
        if self.room == 0 {
            return Submitted::Done(request.complete(Ok(())));
        }
        kept.push_back(request);
        Submitted::Kept
    }

    fn poll(&self, queue: QueueId, done: &mut dyn FnMut(Done)) {
        let mut kept = self.kept.lock().unwrap();
        let first = kept.iter().position(|request| request.queue() == queue);
        let next = first.and_then(|at| kept.remove(at));
        drop(kept);
        if let Some(request) = next {
            done(request.complete(Ok(())));
        }
    }
}

/// The shortest first; of several the one that came first. Starves the long ones: an example, not
/// advice.
#[derive(Default)]
struct ShortestFirst(Vec<Request>);

impl Elevator for ShortestFirst {
    fn name(&self) -> &'static str {
        "shortest-first"
    }

    fn insert(&mut self, request: Request, _now: Nanos) -> Result<(), Request> {
        self.0.push(request);
        Ok(())
    }

    fn dispatch(&mut self, _now: Nanos) -> Option<Request> {
        let (at, _) = self.0.iter().enumerate().min_by_key(|(_, one)| one.len())?;
        Some(self.0.remove(at))
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn merge(&mut self, incoming: Incoming, limits: &Limits) -> Result<Merge, Incoming> {
        self.0
            .iter_mut()
            .try_fold(incoming, |incoming, request| {
                match request.try_merge(incoming, limits) {
                    Ok(merge) => Err(merge),
                    Err(apart) => Ok(apart),
                }
            })
            .map_or_else(Ok, Err)
    }
}

fn mq_deadline() -> Option<Box<dyn Elevator>> {
    Some(Box::new(MqDeadline::default()))
}

fn shortest_first() -> Option<Box<dyn Elevator>> {
    Some(Box::new(ShortestFirst::default()))
}

fn queue(device: &Desk, elevator: Option<Box<dyn Elevator>>) -> RequestQueue<&Desk> {
    let config = QueueConfig {
        elevator,
        clock: Some(Arc::new(ManualClock::new())),
        ..QueueConfig::default()
    };
    RequestQueue::try_new(device, config).unwrap()
}

fn unlimited() -> Limits {
    Limits::new(ByteLen::new(1 << 30))
}

/// Memory for `sectors`, apart from any other.
fn memory(number: u64, sectors: u64) -> PhysSegment {
    let frame = Pfn::try_new(0x10_0000 + number * 0x100).unwrap().into();
    PhysSegment::try_new(frame, FrameOffset::ZERO, ByteLen::new(sectors * 512)).unwrap()
}

fn bio(op: Op, sector: u64, sectors: u64) -> Bio {
    let mut bio = Bio::new(op, Sector::new(sector));
    bio.push(memory(sector, sectors));
    bio
}

fn with_class(bio: Bio, class: PriorityClass) -> Bio {
    bio.with_priority(Priority::new(class, 0).unwrap())
}

fn drain(context: &mut Context<'_, &Desk>) -> usize {
    let mut count = 0;
    context.drain(|completion| {
        assert_eq!(completion.result(), Ok(()));
        count += 1;
    });
    count
}

#[test]
fn deadline_sends_a_plug_of_requests_by_class_direction_and_position() {
    let device = Desk::new(0, unlimited());
    let queue = queue(&device, mq_deadline());
    let mut context = queue.context(QueueId::new(0)).unwrap();
    let mut plug = context.plug();
    for sector in [900, 100, 500] {
        plug.submit(bio(Op::Write, sector, 1)).unwrap();
        plug.submit(bio(Op::Read, sector + 10, 1)).unwrap();
    }
    plug.submit(with_class(bio(Op::Read, 0, 1), PriorityClass::Idle))
        .unwrap();
    plug.submit(with_class(bio(Op::Read, 999, 1), PriorityClass::RealTime))
        .unwrap();
    drop(plug);
    assert_eq!(drain(&mut context), 8);
    assert_eq!(device.sectors(), [999, 110, 510, 910, 100, 500, 900, 0]);
}

#[test]
fn a_device_that_takes_one_at_a_time_leaves_the_scheduler_a_choice() {
    let device = Desk::new(1, unlimited());
    let config = QueueConfig {
        depth: 1,
        elevator_depth: 8,
        elevator: mq_deadline(),
        ..QueueConfig::default()
    };
    let queue = RequestQueue::try_new(&device, config).unwrap();
    let mut context = queue.context(QueueId::new(0)).unwrap();
    for sector in [500, 400, 100, 300, 200, 900, 700, 800] {
        context.submit(bio(Op::Read, sector, 1)).unwrap();
    }
    assert!(context.submit(bio(Op::Read, 0, 1)).is_err());
    assert_eq!(drain(&mut context), 8);
    // From where the first one was, and then from the one that has waited for longest.
    let order = [500, 700, 800, 900, 400, 100, 200, 300];
    assert_eq!(device.sectors(), order);
}

#[test]
fn an_overdue_request_goes_before_those_further_on() {
    let device = Desk::new(1, unlimited());
    let clock = Arc::new(ManualClock::new());
    let deadline = DeadlineSettings {
        fifo_batch: 1,
        ..DeadlineSettings::default()
    };
    let config = QueueConfig {
        depth: 1,
        elevator_depth: 8,
        elevator: Some(Box::new(MqDeadline::new(&deadline, 8))),
        clock: Some(clock.clone()),
        ..QueueConfig::default()
    };
    let queue = RequestQueue::try_new(&device, config).unwrap();
    let mut context = queue.context(QueueId::new(0)).unwrap();
    context.submit(bio(Op::Read, 500, 1)).unwrap();
    context.submit(bio(Op::Read, 100, 1)).unwrap();
    clock.advance(Duration::from_millis(499));
    for sector in [600, 700, 800] {
        context.submit(bio(Op::Read, sector, 1)).unwrap();
    }
    assert!(context.reap().is_some());
    assert_eq!(device.sectors(), [500, 600]);
    clock.advance(Duration::from_millis(1));
    assert_eq!(drain(&mut context), 4);
    assert_eq!(device.sectors(), [100, 700, 800]);
}

#[test]
fn another_scheduler_takes_its_place() {
    let device = Desk::new(0, unlimited());
    let queue = queue(&device, shortest_first());
    let mut context = queue.context(QueueId::new(0)).unwrap();
    let mut plug = context.plug();
    for (sector, sectors) in [(0, 8), (100, 2), (200, 4), (300, 2)] {
        plug.submit(bio(Op::Read, sector, sectors)).unwrap();
    }
    drop(plug);
    assert_eq!(drain(&mut context), 4);
    assert_eq!(device.sectors(), [100, 300, 200, 0]);
}

#[test]
fn threads_that_share_a_scheduler_each_get_their_own_back() {
    const BIOS: u64 = 2000;
    for elevator in [mq_deadline(), shortest_first()] {
        let device = Desk::new(3, unlimited());
        let config = QueueConfig {
            hw_queues: 2,
            depth: 4,
            elevator,
            ..QueueConfig::default()
        };
        let queue = RequestQueue::try_new(&device, config).unwrap();
        std::thread::scope(|threads| {
            for thread in 0..4 {
                let queue = &queue;
                threads.spawn(move || {
                    let id = QueueId::new((thread % 2) as u16);
                    let mut context = queue.shared_context(id).unwrap();
                    let mut back = Vec::new();
                    for number in 0..BIOS {
                        let token = thread * BIOS + number;
                        let mut bio = bio(Op::Write, token * 8, 8).with_token(token);
                        while let Err(rejected) = context.submit(bio) {
                            bio = rejected.bio;
                            back.extend(context.reap().map(|done| done.token()));
                        }
                    }
                    context.drain(|done| back.push(done.token()));
                    back.sort_unstable();
                    assert!(back.into_iter().eq(thread * BIOS..(thread + 1) * BIOS));
                });
            }
        });
        let sectors: u64 = device.seen().iter().map(|one| one.2).sum();
        assert_eq!(sectors, 4 * BIOS * 8);
        assert_eq!(queue.in_flight(), 0);
    }
}

#[test]
fn neighbours_wait_together_while_the_device_is_busy() {
    for elevator in [mq_deadline(), shortest_first()] {
        let device = Desk::new(1, unlimited());
        let queue = queue(&device, elevator);
        let mut context = queue.context(QueueId::new(0)).unwrap();
        // One at the device, one behind it, and then a stream that has to wait.
        for sector in [5000, 6000] {
            context.submit(bio(Op::Write, sector, 1)).unwrap();
        }
        for block in 0..32 {
            context.submit(bio(Op::Write, block * 8, 8)).unwrap();
        }
        assert_eq!(drain(&mut context), 34);
        let stream = (Op::Write, 0, 32 * 8);
        assert_eq!(
            device.seen(),
            [(Op::Write, 5000, 1), (Op::Write, 6000, 1), stream]
        );
        assert_eq!(context.counters().merges, 31);
    }
}

#[test]
fn a_stream_is_merged_up_to_the_limits_and_no_further() {
    let mut limits = unlimited();
    limits.max_segments = 5;
    limits.chunk = Some(ByteLen::new(64 * 512));
    let device = Desk::new(1, limits);
    let queue = queue(&device, mq_deadline());
    let mut context = queue.context(QueueId::new(0)).unwrap();
    for sector in [50_000, 60_000] {
        context.submit(bio(Op::Write, sector, 1)).unwrap();
    }
    for block in 0..24 {
        context.submit(bio(Op::Write, block * 8, 8)).unwrap();
    }
    assert_eq!(drain(&mut context), 26);
    // Five segments, then what is left of the chunk.
    let stream: Vec<(u64, u64)> = device.seen()[2..]
        .iter()
        .map(|one| (one.1, one.2))
        .collect();
    let expected = [(0, 40), (40, 24), (64, 40), (104, 24), (128, 40), (168, 24)];
    assert_eq!(stream, expected);
}

/// A bio to be submitted.
#[derive(Clone, Debug)]
struct Plan {
    op: Op,
    sector: u64,
    /// Sectors of each segment.
    sectors: u64,
    segments: u64,
    class: PriorityClass,
    flags: BioFlags,
}

#[derive(Clone, Debug)]
enum Step {
    Submit(Plan),
    Plugged(Vec<Plan>),
    Reap,
}

fn plan() -> impl Strategy<Value = Plan> {
    let class = prop_oneof![
        4 => Just(PriorityClass::None),
        1 => Just(PriorityClass::RealTime),
        1 => Just(PriorityClass::Idle),
    ];
    let flags = prop_oneof![8 => Just(BioFlags::empty()), 1 => Just(BioFlags::NOMERGE)];
    let op = prop_oneof![Just(Op::Read), Just(Op::Write)];
    (op, 0..64_u64, 1..12_u64, 1..4_u64, class, flags).prop_map(
        |(op, sector, sectors, segments, class, flags)| Plan {
            op,
            sector,
            sectors,
            segments,
            class,
            flags,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => plan().prop_map(Step::Submit),
        2 => proptest::collection::vec(plan(), 1..40).prop_map(Step::Plugged),
        4 => Just(Step::Reap),
    ]
}

/// What went in and what came out.
#[derive(Default)]
struct Books {
    token: u64,
    accepted: Vec<u64>,
    returned: Vec<u64>,
    bytes: u64,
}

impl Books {
    fn submit(&mut self, context: &mut Context<'_, &Desk>, plan: Plan) {
        self.token += 1;
        let mut bio = Bio::new(plan.op, Sector::new(plan.sector));
        for segment in 0..plan.segments {
            bio.push(memory(self.token * 4 + segment, plan.sectors));
        }
        let len = bio.len().get();
        let bio = with_class(bio, plan.class).with_flags(plan.flags);
        if context.submit(bio.with_token(self.token)).is_ok() {
            self.accepted.push(self.token);
            self.bytes += len;
        }
    }
}

fn limits() -> impl Strategy<Value = Limits> {
    (
        1..40_u64,
        1..6_u32,
        1..20_u64,
        proptest::option::of(1..24_u64),
    )
        .prop_map(|(request, max_segments, segment, chunk)| {
            let mut limits = unlimited();
            limits.max_request = ByteLen::new(request * 512);
            limits.max_segments = max_segments;
            limits.max_segment = ByteLen::new(segment * 512);
            limits.chunk = chunk.map(|sectors| ByteLen::new(sectors * 512));
            limits
        })
}

fn elevator(which: usize) -> Option<Box<dyn Elevator>> {
    match which {
        0 => None,
        1 => shortest_first(),
        _ => Some(Box::new(MqDeadline::new(
            &DeadlineSettings {
                fifo_batch: 3,
                ..DeadlineSettings::default()
            },
            2,
        ))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_the_scheduler_each_bio_comes_back_once(
        limits in limits(),
        which in 0..3_usize,
        room in 0..4_usize,
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let device = Desk::new(room, limits);
        let queue = queue(&device, elevator(which));
        let mut context = queue.context(QueueId::new(0)).unwrap();
        let mut books = Books::default();
        for step in steps {
            match step {
                Step::Submit(plan) => books.submit(&mut context, plan),
                Step::Plugged(plans) => {
                    let mut plug = context.plug();
                    plans.into_iter().for_each(|plan| books.submit(&mut plug, plan));
                }
                Step::Reap => {
                    if let Some(completion) = context.reap() {
                        prop_assert_eq!(completion.result(), Ok(()));
                        books.returned.push(completion.token());
                    }
                }
            }
        }
        let Books { accepted, mut returned, bytes, .. } = books;
        context.drain(|completion| returned.push(completion.token()));
        returned.sort_unstable();
        prop_assert_eq!(returned, accepted);
        let seen: u64 = device.seen().iter().map(|(_, _, sectors)| sectors * 512).sum();
        prop_assert_eq!(seen, bytes);
        prop_assert_eq!(queue.in_flight(), 0);
    }
}
