//! Hazard: a device that has no room for a moment, or a queue that has none: a request that is forgotten
//! meanwhile, overtaken, or carried out twice.

extern crate alloc;

mod rig;

use std::sync::Mutex;

use pageless_block::{
    Bio, BioFlags, BlockDevice, Context, Features, Limits, Op, QueueId, RejectReason, Request,
    RequestQueue, Sector, Submitted, carry_out, submit_sync,
};
use pageless_pfn::{ByteLen, PhysSegment};
use proptest::prelude::*;
use rig::Shelf;

fn full(depth: u16) -> RejectReason {
    RejectReason::QueueFull { depth }
}

#[test]
fn what_the_device_has_no_room_for_waits_and_goes_in_its_turn() {
    let shelf = Shelf::new();
    shelf.set_room(2);
    let queue = RequestQueue::with_depth(&shelf, 8).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    for n in 0..6 {
        context.submit(rig::sector(n)).unwrap();
    }
    assert_eq!(shelf.sectors(), [0, 1]);
    assert_eq!((context.in_flight(), queue.in_flight()), (6, 6));
    assert!(context.counters().requeues > 0);
    // The device has finished one, and nobody has asked it yet.
    shelf.succeed(1);
    assert_eq!(shelf.sectors(), [0]);
    context.poll();
    assert_eq!(shelf.sectors(), [0, 2]);
    // A new one goes behind those that wait, also when there is room.
    shelf.set_room(4);
    context.submit(rig::sector(6)).unwrap();
    assert_eq!(shelf.sectors(), [0, 2, 3, 4]);
    shelf.set_room(usize::MAX);
    context.poll();
    assert_eq!(shelf.sectors(), [0, 2, 3, 4, 5, 6]);
    while shelf.kept() != 0 {
        shelf.succeed(0);
    }
    let mut tokens = Vec::new();
    context.drain(|done| tokens.push(done.token()));
    assert_eq!(tokens, [1, 0, 2, 3, 4, 5, 6]);
    assert_eq!(context.counters().completed, 7);
}

#[test]
fn asking_again_is_counted_each_time() {
    let shelf = Shelf::new();
    shelf.set_room(0);
    let queue = RequestQueue::with_depth(&shelf, 8).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    context.submit(rig::sector(0)).unwrap();
    for asked in 1..4 {
        assert_eq!(context.counters().requeues, asked);
        context.poll();
    }
    shelf.set_room(1);
    context.poll();
    assert_eq!((context.counters().requeues, shelf.kept()), (4, 1));
    shelf.succeed(0);
    assert!(context.reap().is_some());
}

#[test]
fn those_that_wait_have_their_places_in_the_queue() {
    let shelf = Shelf::new();
    shelf.set_room(1);
    let queue = RequestQueue::with_depth(&shelf, 3).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    for n in 0..3 {
        context.submit(rig::sector(n)).unwrap();
    }
    for flags in [BioFlags::empty(), BioFlags::SYNC] {
        let bio = rig::sector(3).with_flags(flags);
        let sent = rig::face(&bio);
        let back = context.submit(bio).unwrap_err();
        assert_eq!(back.reason, full(3));
        assert_eq!(rig::face(&back.bio), sent);
    }
    for n in 0..3 {
        shelf.succeed(0);
        assert_eq!(context.reap().unwrap().token(), n);
    }
    context.submit(rig::sector(3)).unwrap();
    shelf.succeed(0);
    assert_eq!(context.reap().unwrap().token(), 3);
}

#[test]
fn pieces_for_which_there_is_no_tag_wait_and_nothing_else_gets_in_between() {
    let shelf = Shelf::new();
    let queue = RequestQueue::with_depth(&shelf, 4).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    context.submit(rig::sector(5000)).unwrap();
    context
        .submit(Bio::discard(Sector::new(0), ByteLen::new(9 * 8192)))
        .unwrap();
    assert_eq!(shelf.sectors(), [5000, 0, 16, 32]);
    assert_eq!(context.in_flight(), 2, "two of four places");
    let back = context.submit(rig::sector(6000)).unwrap_err();
    assert_eq!(back.reason, full(4));
    let mut order = Vec::new();
    while shelf.kept() != 0 {
        assert!(shelf.kept() <= 4);
        order.push(shelf.sectors()[0]);
        shelf.succeed(0);
        context.poll();
    }
    let pieces: Vec<u64> = (0..9).map(|n| n * 16).collect();
    assert_eq!(order, [vec![5000], pieces].concat());
    let mut lens = Vec::new();
    context.drain(|done| lens.push(done.done().get()));
    assert_eq!(lens, [512, 9 * 8192]);
}

#[test]
fn tags_that_another_context_has_are_waited_for() {
    let shelf = Shelf::new();
    let queue = RequestQueue::with_depth(&shelf, 4).unwrap();
    let mut here = queue.shared_context(rig::QUEUE).unwrap();
    let mut there = queue.shared_context(rig::QUEUE).unwrap();
    for n in 0..3 {
        there.submit(rig::sector(n)).unwrap();
    }
    // One tag is left for three pieces.
    here.submit(Bio::discard(Sector::new(80), ByteLen::new(3 * 8192)))
        .unwrap();
    assert_eq!(shelf.sectors(), [0, 1, 2, 80]);
    assert_eq!(there.submit(rig::sector(9)).unwrap_err().reason, full(4));
    for _ in 0..3 {
        shelf.succeed(0);
    }
    // Found by one, the tags are free when their owner has looked.
    here.poll();
    assert_eq!(shelf.sectors(), [80]);
    for n in 0..3 {
        assert_eq!(there.reap().unwrap().token(), n);
    }
    here.poll();
    assert_eq!(shelf.sectors(), [80, 96, 112]);
    while shelf.kept() != 0 {
        shelf.succeed(0);
    }
    assert_eq!(here.reap().unwrap().result(), Ok(()));
}

/// Writes down what it gets and is busy whenever it is told to.
#[derive(Default)]
struct Moody {
    /// For each submission to come, whether it is busy; then never again.
    moods: Mutex<Vec<bool>>,
    seen: Mutex<Vec<(Op, u64)>>,
}

impl Moody {
    fn new(moods: Vec<bool>) -> Self {
        Self {
            moods: Mutex::new(moods),
            seen: Mutex::default(),
        }
    }
}

impl BlockDevice for Moody {
    fn limits(&self) -> Limits {
        let mut limits = Limits::new(ByteLen::new(1 << 30));
        limits.max_discard = ByteLen::new(8192);
        limits.features |= Features::WRITE_CACHE;
        limits
    }

    fn submit(&self, request: Request) -> Submitted {
        if self.moods.lock().unwrap().pop() == Some(true) {
            return Submitted::Busy(request);
        }
        let entry = (request.op(), request.sector().get());
        self.seen.lock().unwrap().push(entry);
        request.run(|_| Ok(()))
    }
}

#[test]
fn the_steps_of_a_flush_sequence_keep_their_order_however_busy_the_device_is() {
    for moods in 0..64_u32 {
        let moods = (0..6).map(|bit| moods & 1 << bit != 0).collect();
        let queue = RequestQueue::with_depth(Moody::new(moods), 4).unwrap();
        let mut context = queue.context(rig::QUEUE).unwrap();
        let durable = Bio::write(Sector::new(7), rig::memory(512))
            .with_flags(BioFlags::PREFLUSH | BioFlags::FUA);
        context.submit(durable).unwrap();
        context.drain(|done| assert_eq!(done.result(), Ok(())));
        let seen = queue.device().seen.lock().unwrap().clone();
        assert_eq!(seen, [(Op::Flush, 0), (Op::Write, 7), (Op::Flush, 0)]);
    }
}

#[test]
fn a_busy_device_is_waited_for_by_those_who_wait_and_by_drivers_above_it() {
    let device = Moody::new(vec![true; 5]);
    let done = submit_sync(&device, rig::sector(3)).unwrap();
    assert_eq!(done.result(), Ok(()));
    let device = Moody::new(vec![true; 5]);
    let nothing: [PhysSegment; 0] = [];
    let len = ByteLen::new(512);
    let at = Sector::new(3).position().unwrap();
    let request = Request::nested(Op::Discard, BioFlags::empty(), at, len, nothing);
    assert_eq!(request.queue(), QueueId::NESTED);
    carry_out(&device, request).unwrap();
    assert_eq!(*device.seen.lock().unwrap(), [(Op::Discard, 3)]);
}

#[derive(Clone, Debug)]
enum Step {
    Submit { sectors: u64 },
    Room(usize),
    Finish { which: usize },
    Poll,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..80_u64).prop_map(|sectors| Step::Submit { sectors }),
        1 => (0..4_usize).prop_map(Step::Room),
        3 => (0..4_usize).prop_map(|which| Step::Finish { which }),
        1 => Just(Step::Poll),
    ]
}

/// The sectors that arrived since the last look, by the length of each log.
fn note_arrivals(shelf: &Shelf, kept: &mut Vec<u64>, seen: &mut Vec<u64>) {
    let now = shelf.sectors();
    // Only ever added at the end.
    assert_eq!(now[..kept.len()], kept[..]);
    seen.extend(&now[kept.len()..]);
    *kept = now;
}

fn finish(shelf: &Shelf, kept: &mut Vec<u64>, which: usize) {
    if which < kept.len() {
        kept.remove(which);
        shelf.succeed(which);
    }
}

proptest! {
    /// Without a scheduler requests go to the device in the order in which their bios were submitted.
    #[test]
    fn nothing_overtakes_is_lost_or_goes_twice(
        steps in proptest::collection::vec(step(), 1..80),
        depth in 1..5_u16,
        shared in any::<bool>(),
    ) {
        let shelf = Shelf::new();
        let queue = RequestQueue::with_depth(&shelf, depth).unwrap();
        let mut context: Context<'_, &Shelf> = match shared {
            true => queue.shared_context(rig::QUEUE).unwrap(),
            false => queue.context(rig::QUEUE).unwrap(),
        };
        let (mut sent, mut kept, mut seen) = (Vec::new(), Vec::new(), Vec::new());
        let mut place = 0;
        for step in steps {
            match step {
                Step::Submit { sectors } => {
                    let bio = Bio::discard(Sector::new(place), ByteLen::new(sectors * 512));
                    if context.submit(bio).is_ok() {
                        sent.extend((place..place + sectors).step_by(16));
                    }
                    place += 100;
                }
                Step::Room(room) => shelf.set_room(room),
                Step::Finish { which } => finish(&shelf, &mut kept, which),
                Step::Poll => drop(context.reap()),
            }
            note_arrivals(&shelf, &mut kept, &mut seen);
        }
        shelf.set_room(usize::MAX);
        while context.in_flight() != 0 {
            drop(context.reap());
            note_arrivals(&shelf, &mut kept, &mut seen);
            finish(&shelf, &mut kept, 0);
        }
        prop_assert_eq!(seen, sent);
        prop_assert_eq!(queue.in_flight(), 0);
    }
}
