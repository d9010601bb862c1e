//! Hazard: a scheduler somebody else wrote, and a queue that loses what it does not give out at once, gives the
//! device more than it takes, or sends a request home to the wrong thread.

extern crate alloc;

mod rig;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Mutex;

use pageless_block::{
    Bio, Elevator, Incoming, Limits, Merge, Nanos, QueueConfig, QueueError, QueueId, RejectReason,
    Request, RequestQueue, Sector,
};
use pageless_pfn::ByteLen;
use proptest::prelude::*;
use rig::Shelf;

/// The last one first, as in the documentation of [`Elevator`].
#[derive(Default)]
struct Stack(Vec<Request>);

impl Elevator for Stack {
    fn name(&self) -> &'static str {
        "stack"
    }

    fn insert(&mut self, request: Request, _now: Nanos) -> Result<(), Request> {
        self.0.push(request);
        Ok(())
    }

    fn dispatch(&mut self, _now: Nanos) -> Option<Request> {
        self.0.pop()
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

fn config(hw_queues: u16, depth: u16, elevator: impl Elevator + 'static) -> QueueConfig {
    QueueConfig {
        hw_queues,
        depth,
        elevator: Some(Box::new(elevator)),
        ..QueueConfig::default()
    }
}

#[test]
fn the_scheduler_decides_who_goes_first_among_those_that_wait() {
    let shelf = Shelf::new();
    let queue = RequestQueue::try_new(&shelf, config(1, 2, Stack::default())).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    // Twice the depth by default: two at the device, two to choose from.
    for n in 0..4 {
        context.submit(rig::sector(n)).unwrap();
    }
    let back = context.submit(rig::sector(4)).unwrap_err();
    assert_eq!(back.reason, RejectReason::QueueFull { depth: 4 });
    assert_eq!((shelf.sectors(), queue.in_flight()), (vec![0, 1], 4));
    shelf.succeed(0);
    assert_eq!(context.reap().unwrap().token(), 0);
    assert_eq!(shelf.sectors(), [1, 3]);
    // There is room to choose from again, but none at the device.
    context.submit(rig::sector(4)).unwrap();
    assert_eq!(shelf.sectors(), [1, 3]);
    let mut order = Vec::new();
    while context.in_flight() != 0 {
        shelf.succeed(0);
        order.extend(context.reap().map(|done| done.token()));
    }
    assert_eq!(order, [1, 3, 4, 2]);
}

#[test]
fn a_plug_is_let_go_as_a_whole_before_the_scheduler_is_asked() {
    let shelf = Shelf::new();
    let queue = RequestQueue::try_new(&shelf, config(1, 8, Stack::default())).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let mut plug = context.plug();
    for n in [1, 2, 3] {
        plug.submit(rig::sector(n * 100)).unwrap();
    }
    drop(plug);
    assert_eq!(shelf.sectors(), [300, 200, 100]);
    (0..3).for_each(|_| shelf.succeed(0));
    context.drain(|done| assert_eq!(done.result(), Ok(())));
}

#[test]
fn a_device_that_is_busy_gets_what_was_chosen_first() {
    let shelf = Shelf::new();
    shelf.set_room(1);
    let queue = RequestQueue::try_new(&shelf, config(1, 4, Stack::default())).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    for n in 0..4 {
        context.submit(rig::sector(n)).unwrap();
    }
    // The second one was chosen, and the device was busy: it waits in front, whatever came after.
    shelf.set_room(9);
    context.poll();
    assert_eq!(shelf.sectors(), [0, 1, 3, 2]);
    (0..4).for_each(|_| shelf.succeed(0));
    context.drain(|done| assert_eq!(done.result(), Ok(())));
}

/// Has room for so many, and gives out nothing while it is told not to.
#[derive(Default)]
struct Fussy {
    room: usize,
    waits: Arc<Mutex<bool>>,
    requests: VecDeque<Request>,
    merged: Arc<Mutex<Vec<Merge>>>,
}

impl Elevator for Fussy {
    fn name(&self) -> &'static str {
        "fussy"
    }

    fn insert(&mut self, request: Request, _now: Nanos) -> Result<(), Request> {
        match self.requests.len() < self.room {
            true => self.requests.push_back(request),
            false => return Err(request),
        }
        Ok(())
    }

    fn dispatch(&mut self, _now: Nanos) -> Option<Request> {
        match *self.waits.lock().unwrap() {
            true => None,
            false => self.requests.pop_front(),
        }
    }

    fn len(&self) -> usize {
        self.requests.len()
    }

    fn merge(&mut self, incoming: Incoming, limits: &Limits) -> Result<Merge, Incoming> {
        let mut incoming = incoming;
        for request in &mut self.requests {
            match request.try_merge(incoming, limits) {
                Ok(end) => {
                    self.merged.lock().unwrap().push(end);
                    return Ok(end);
                }
                Err(apart) => incoming = apart,
            }
        }
        Err(incoming)
    }
}

#[test]
fn what_the_scheduler_has_no_room_for_goes_to_the_device_directly() {
    let shelf = Shelf::new();
    let waits = Arc::new(Mutex::new(true));
    let elevator = Fussy {
        room: 2,
        waits: Arc::clone(&waits),
        ..Fussy::default()
    };
    let queue = RequestQueue::try_new(&shelf, config(1, 4, elevator)).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    for n in 0..4 {
        context.submit(rig::sector(n * 100)).unwrap();
    }
    assert_eq!(shelf.sectors(), [200, 300]);
    context.poll();
    assert_eq!(shelf.kept(), 2, "the scheduler says not yet");
    *waits.lock().unwrap() = false;
    context.poll();
    assert_eq!(shelf.sectors(), [200, 300, 0, 100]);
    (0..4).for_each(|_| shelf.succeed(0));
    context.drain(|done| assert_eq!(done.result(), Ok(())));
}

#[test]
fn a_scheduler_joins_bios_to_what_it_has() {
    let shelf = Shelf::new();
    let (waits, merged) = (Arc::new(Mutex::new(true)), Arc::default());
    let elevator = Fussy {
        room: 9,
        waits: Arc::clone(&waits),
        merged: Arc::clone(&merged),
        ..Fussy::default()
    };
    let queue = RequestQueue::try_new(&shelf, config(1, 8, elevator)).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    for n in [10, 11, 9, 50] {
        context.submit(rig::sector(n)).unwrap();
    }
    assert_eq!(*merged.lock().unwrap(), [Merge::Back, Merge::Front]);
    assert_eq!((queue.in_flight(), context.counters().merges), (2, 2));
    *waits.lock().unwrap() = false;
    context.poll();
    assert_eq!(shelf.sectors(), [9, 50]);
    assert_eq!(shelf.look(0, |request| request.len().get()), 3 * 512);
    (0..2).for_each(|_| shelf.succeed(0));
    let mut tokens = Vec::new();
    context.drain(|done| tokens.push(done.token()));
    assert_eq!(tokens, [9, 10, 11, 50]);
}

#[test]
fn what_waits_in_the_scheduler_is_in_flight_for_who_freezes() {
    let shelf = Shelf::new();
    let queue = RequestQueue::try_new(&shelf, config(1, 1, Stack::default())).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    context.submit(rig::sector(0)).unwrap();
    context.submit(rig::sector(1)).unwrap();
    let frozen = queue.freeze();
    shelf.succeed(0);
    context.poll();
    assert!(!frozen.is_settled());
    assert_eq!(shelf.sectors(), [1], "what is inside goes on");
    shelf.succeed(0);
    context.poll();
    assert!(frozen.is_settled());
    drop(frozen);
    context.drain(|done| assert_eq!(done.result(), Ok(())));
}

/// Loses what it is given.
struct Sieve;

impl Elevator for Sieve {
    fn name(&self) -> &'static str {
        "sieve"
    }

    fn insert(&mut self, request: Request, _now: Nanos) -> Result<(), Request> {
        drop(request);
        Ok(())
    }

    fn dispatch(&mut self, _now: Nanos) -> Option<Request> {
        None
    }

    fn len(&self) -> usize {
        0
    }
}

#[test]
fn a_scheduler_that_loses_a_request_is_heard() {
    let shelf = Shelf::new();
    let queue = RequestQueue::try_new(&shelf, config(1, 2, Sieve)).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| context.submit(rig::sector(5))));
    let text = *panic.unwrap_err().downcast::<String>().unwrap();
    assert!(
        text.contains("request lost") && text.contains("sector 5"),
        "{text}"
    );
    // It is missed once, and that is enough.
    core::mem::forget(context);
}

#[test]
fn a_scheduler_has_at_least_as_much_to_choose_from_as_the_device_takes() {
    for (depth, elevator_depth, fits) in [
        (4, 0, true),
        (4, 4, true),
        (4, 3, false),
        (4, 10_240, true),
        (4, 10_241, false),
        (10_240, 0, true),
    ] {
        let config = QueueConfig {
            elevator_depth,
            ..config(1, depth, Stack::default())
        };
        let refused = RequestQueue::try_new(Shelf::new(), config).err();
        let expected = (!fits).then_some(QueueError::Depth {
            depth: elevator_depth,
        });
        assert_eq!(refused, expected, "{depth} {elevator_depth}");
    }
}

#[test]
fn a_request_that_another_thread_sends_to_the_device_comes_home() {
    let shelf = Shelf::new();
    let waits = Arc::new(Mutex::new(true));
    let elevator = Fussy {
        room: 9,
        waits: Arc::clone(&waits),
        ..Fussy::default()
    };
    let queue = RequestQueue::try_new(&shelf, config(2, 4, elevator)).unwrap();
    let mut contexts = [0, 1].map(|id| queue.context(QueueId::new(id)).unwrap());
    for (n, context) in contexts.iter_mut().enumerate() {
        context.submit(rig::sector(n as u64 * 100)).unwrap();
    }
    *waits.lock().unwrap() = false;
    let [first, second] = &mut contexts;
    // The second one sends both, and each is in its own hardware queue.
    second.poll();
    let queues = [0, 1].map(|n| shelf.look(n, |request| request.queue().get()));
    assert_eq!((shelf.sectors(), queues), (vec![0, 100], [0, 1]));
    shelf.succeed(0);
    shelf.succeed(0);
    assert_eq!(second.reap().unwrap().token(), 100);
    assert_eq!((first.in_flight(), queue.in_flight()), (1, 1));
    assert_eq!(first.reap().unwrap().token(), 0);
    assert_eq!(queue.in_flight(), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Submit { who: usize, sectors: u64 },
    Plugged { who: usize, bios: u64 },
    Room(usize),
    Finish { which: usize },
    Poll { who: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..3_usize;
    prop_oneof![
        4 => (who.clone(), 1..40_u64).prop_map(|(who, sectors)| Step::Submit { who, sectors }),
        1 => (who.clone(), 1..6_u64).prop_map(|(who, bios)| Step::Plugged { who, bios }),
        1 => (0..6_usize).prop_map(Step::Room),
        4 => (0..6_usize).prop_map(|which| Step::Finish { which }),
        1 => who.prop_map(|who| Step::Poll { who }),
    ]
}

proptest! {
    /// Three contexts, two of which share a hardware queue.
    #[test]
    fn all_that_goes_in_comes_out_once_and_the_device_never_has_more_than_it_takes(
        steps in proptest::collection::vec(step(), 1..100),
        depth in 1..4_u16,
    ) {
        let shelf = Shelf::new();
        let queue = RequestQueue::try_new(&shelf, config(2, depth, Stack::default())).unwrap();
        let (shared, sole) = (QueueId::new(0), QueueId::new(1));
        let mut contexts = [
            queue.shared_context(shared).unwrap(),
            queue.shared_context(shared).unwrap(),
            queue.context(sole).unwrap(),
        ];
        let (mut sent, mut back) = (Vec::new(), Vec::new());
        let mut token = 0;
        let mut bio = |sectors| {
            token += 1;
            Bio::discard(Sector::new(token * 100), ByteLen::new(sectors * 512)).with_token(token)
        };
        for step in steps {
            match step {
                Step::Submit { who, sectors } => {
                    let bio = bio(sectors);
                    let token = bio.token();
                    if contexts[who].submit(bio).is_ok() {
                        sent.push((who, token));
                    }
                }
                Step::Plugged { who, bios } => {
                    let mut plug = contexts[who].plug();
                    for _ in 0..bios {
                        let bio = bio(1);
                        let token = bio.token();
                        if plug.submit(bio).is_ok() {
                            sent.push((who, token));
                        }
                    }
                }
                Step::Room(room) => shelf.set_room(room),
                Step::Finish { which } if which < shelf.kept() => shelf.succeed(which),
                Step::Finish { .. } => {}
                Step::Poll { who } => back.extend(contexts[who].reap().map(|done| (who, done.token()))),
            }
            for id in [shared, sole] {
                let kept = (0..shelf.kept()).filter(|&n| shelf.look(n, Request::queue) == id);
                prop_assert!(kept.count() <= usize::from(depth));
            }
        }
        shelf.set_room(usize::MAX);
        while contexts.iter().any(|context| context.in_flight() != 0) {
            if shelf.kept() != 0 {
                shelf.succeed(0);
            }
            for (who, context) in contexts.iter_mut().enumerate() {
                back.extend(context.reap().map(|done| (who, done.token())));
            }
        }
        back.sort_unstable();
        sent.sort_unstable();
        prop_assert_eq!(back, sent);
        prop_assert_eq!(queue.in_flight(), 0);
    }
}
