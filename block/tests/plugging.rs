//! Hazard: a plug that holds a request back for good, lets it go out of turn, or joins what does not belong
//! together.

extern crate alloc;

mod rig;

use alloc::sync::Arc;
use std::sync::Mutex;

use pageless_block::{
    Action, AtomicLimits, Bio, BioFlags, BlkError, Context, Event, Failure, Features, Limits, Op,
    Priority, PriorityClass, Probe, QueueConfig, RequestQueue, Sector,
};
use pageless_pfn::{ByteLen, PhysSegment};
use rig::Shelf;

/// A device of 1 GiB without limits.
fn limits() -> Limits {
    let mut limits = Limits::new(ByteLen::new(1 << 30));
    limits.max_discard = Limits::UNLIMITED;
    limits
}

fn with<T>(limits: Limits, f: impl FnOnce(&Shelf, &mut Context<'_, &Shelf>) -> T) -> T {
    let shelf = Shelf::with_limits(limits);
    let queue = RequestQueue::with_depth(&shelf, 64).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let out = f(&shelf, &mut context);
    while context.in_flight() != 0 {
        if shelf.kept() != 0 {
            shelf.succeed(0);
        }
        let _ = context.reap();
    }
    assert_eq!(queue.in_flight(), 0);
    out
}

/// Far from its neighbours: never merged.
fn far(n: u64) -> Bio {
    rig::sector(n * 100)
}

/// A write of these sectors from memory of the same number.
fn write(sector: u64, sectors: u64) -> Bio {
    Bio::write(Sector::new(sector), memory(sector, sectors))
        .with_token(sector)
        .erase()
}

/// Memory that continues where that of the sector before ends.
fn memory(sector: u64, sectors: u64) -> PhysSegment {
    rig::memory(1 << 30)
        .slice(ByteLen::new(sector * 512), ByteLen::new(sectors * 512))
        .unwrap()
}

#[test]
fn requests_are_held_back_until_the_plug_goes_and_keep_their_order() {
    with(limits(), |shelf, context| {
        let mut plug = context.plug();
        for n in [3, 1, 2] {
            plug.submit(far(n)).unwrap();
        }
        assert_eq!((shelf.kept(), plug.in_flight()), (0, 3));
        drop(plug);
        assert_eq!(shelf.sectors(), [300, 100, 200]);
        context.submit(far(4)).unwrap();
        assert_eq!(shelf.kept(), 4, "held back without a plug");
    });
}

#[test]
fn thirty_two_requests_are_enough() {
    with(limits(), |shelf, context| {
        let mut plug = context.plug();
        for n in 0..31 {
            plug.submit(far(n)).unwrap();
            assert_eq!(shelf.kept(), 0);
        }
        plug.submit(far(31)).unwrap();
        assert_eq!(shelf.kept(), 32);
        plug.submit(far(32)).unwrap();
        assert_eq!(shelf.kept(), 32, "the plug has gone");
    });
}

#[test]
fn a_request_of_128_kib_is_worth_going_for() {
    with(limits(), |shelf, context| {
        let mut plug = context.plug();
        plug.submit(far(9)).unwrap();
        plug.submit(write(1 << 12, 255)).unwrap();
        assert_eq!(shelf.kept(), 0);
        plug.submit(write(1 << 13, 256)).unwrap();
        assert_eq!(shelf.sectors(), [900, 1 << 12, 1 << 13]);
    });
}

#[test]
fn whoever_waits_for_a_completion_lets_go_of_what_it_holds_back() {
    with(limits(), |shelf, context| {
        context.submit(far(0)).unwrap();
        context.submit(far(1)).unwrap();
        shelf.succeed(0);
        shelf.succeed(0);
        let mut plug = context.plug();
        plug.submit(far(2)).unwrap();
        // Two have finished: the first call has to ask the device, the second finds one.
        assert!(plug.reap().is_some());
        assert_eq!(shelf.sectors(), [200]);
        plug.submit(far(3)).unwrap();
        assert!(plug.reap().is_some());
        assert_eq!(shelf.sectors(), [200], "nobody had to wait");
        assert!(plug.reap().is_none());
        assert_eq!(shelf.sectors(), [200, 300]);
        plug.submit(far(4)).unwrap();
        plug.poll();
        assert_eq!(shelf.sectors(), [200, 300, 400]);
    });
}

#[test]
fn neighbours_join_a_request_at_either_end() {
    with(limits(), |shelf, context| {
        let mut plug = context.plug();
        for (sector, sectors) in [(16, 8), (24, 8), (8, 8), (32, 1), (0, 8)] {
            plug.submit(write(sector, sectors)).unwrap();
        }
        assert_eq!(plug.counters().merges, 4);
        drop(plug);
        assert_eq!(shelf.sectors(), [0]);
        let (len, bios, segments) = shelf.look(0, |request| {
            let segments: Vec<_> = request.segments().collect();
            (request.len().get(), request.bios(), segments)
        });
        // Their memory lies in a row too: one segment.
        assert_eq!((len, bios, segments), (33 * 512, 5, vec![memory(0, 33)]));
        shelf.succeed(0);
        let mut tokens = Vec::new();
        context.drain(|done| {
            assert_eq!(done.result(), Ok(()));
            assert_eq!(done.done(), done.bio().len());
            tokens.push(done.token());
        });
        assert_eq!(tokens, [0, 8, 16, 24, 32]);
    });
}

#[test]
fn of_a_merged_request_that_fails_each_bio_has_its_share() {
    with(limits(), |shelf, context| {
        let mut plug = context.plug();
        for n in 0..4 {
            plug.submit(write(n * 2, 2)).unwrap();
        }
        drop(plug);
        let error = BlkError::Medium;
        let done = ByteLen::new(5 * 512);
        shelf.release(0, Err(Failure { error, done }));
        let mut shares = Vec::new();
        context.drain(|done| shares.push((done.token(), done.result(), done.done().get())));
        let expected = [
            (0, Ok(()), 1024),
            (2, Ok(()), 1024),
            (4, Err(error), 512),
            (6, Err(error), 0),
        ];
        assert_eq!(shares, expected);
    });
}

/// Whether the second of two bios joins the first.
fn joins(limits: Limits, first: Bio, second: Bio) -> bool {
    with(limits, |shelf, context| {
        let mut plug = context.plug();
        plug.submit(first).unwrap();
        plug.submit(second).unwrap();
        let merges = plug.counters().merges;
        drop(plug);
        assert_eq!(shelf.kept() as u64, 2 - merges);
        merges == 1
    })
}

#[test]
fn what_differs_does_not_go_together() {
    let (first, second) = (|| write(0, 8), || write(8, 8));
    assert!(joins(limits(), first(), second()), "the test is void");
    let read = Bio::read(Sector::new(8), memory(8, 8));
    assert!(!joins(limits(), first(), read.erase()));
    let rt = Priority::new(PriorityClass::RealTime, 0).unwrap();
    assert!(!joins(limits(), first(), second().with_priority(rt)));
    assert!(joins(
        limits(),
        first().with_priority(rt),
        second().with_priority(rt)
    ));
    assert!(!joins(limits(), first(), write(9, 8)), "a gap");
    assert!(!joins(limits(), first(), write(7, 8)), "an overlap");
    let mut takes_all = limits();
    takes_all.features |= Features::WRITE_CACHE | Features::FUA | Features::NOWAIT | Features::POLL;
    takes_all.atomic = Some(AtomicLimits {
        unit_min: ByteLen::new(512),
        unit_max: ByteLen::new(4096),
        boundary: None,
    });
    let alone = BioFlags::NOMERGE | BioFlags::FUA;
    for flag in BioFlags::all() - BioFlags::PREFLUSH {
        let one = joins(takes_all, first().with_flags(flag), second());
        let other = joins(takes_all, first(), second().with_flags(flag));
        assert!(!one && !other, "across {flag:?}");
        if alone.contains(flag) {
            let both = joins(
                takes_all,
                first().with_flags(flag),
                second().with_flags(flag),
            );
            assert!(!both, "both {flag:?}");
        }
    }
}

#[test]
fn ranges_join_where_linux_joins_them() {
    let mut limits = limits();
    limits.max_write_zeroes = Limits::UNLIMITED;
    limits.max_secure_erase = Limits::UNLIMITED;
    let range = |op, sector| Bio::with_range(op, Sector::new(sector), ByteLen::new(4096));
    for op in [Op::Discard, Op::WriteZeroes, Op::SecureErase] {
        let together = joins(limits, range(op, 0), range(op, 8));
        assert_eq!(together, op != Op::WriteZeroes, "{op}");
    }
}

#[test]
fn a_request_does_not_grow_beyond_the_devices_limits() {
    // Each limit lets two bios go together, and not three.
    let mut request = limits();
    request.max_request = ByteLen::new(2 * 4096);
    let mut discard = limits();
    discard.max_discard = ByteLen::new(2 * 4096);
    let mut segment = limits();
    segment.max_segment = ByteLen::new(4096);
    segment.max_segments = 2;
    let mut boundary = limits();
    boundary.segment_boundary = Some(ByteLen::new(4096));
    boundary.max_segments = 2;
    let mut chunk = limits();
    chunk.chunk = Some(ByteLen::new(2 * 4096));
    for (limits, op) in [
        (request, Op::Write),
        (discard, Op::Discard),
        (segment, Op::Write),
        (boundary, Op::Write),
        (chunk, Op::Write),
    ] {
        with(limits, |shelf, context| {
            let mut plug = context.plug();
            for n in 0..4 {
                let bio = match op {
                    Op::Discard => Bio::discard(Sector::new(n * 8), ByteLen::new(4096)).erase(),
                    _ => write(n * 8, 8),
                };
                plug.submit(bio).unwrap();
            }
            drop(plug);
            assert_eq!(shelf.sectors(), [0, 16], "{op} {limits:?}");
        });
    }
}

#[test]
fn the_pieces_of_a_bio_that_was_cut_do_not_grow_together_again() {
    let mut limits = limits();
    limits.max_request = ByteLen::new(4096);
    limits.max_discard = ByteLen::new(8192);
    with(limits, |shelf, context| {
        let mut plug = context.plug();
        plug.submit(write(0, 24)).unwrap();
        plug.submit(Bio::discard(Sector::new(800), ByteLen::new(3 * 8192)))
            .unwrap();
        drop(plug);
        assert_eq!(shelf.sectors(), [0, 8, 16, 800, 816, 832]);
    });
}

#[test]
fn a_plug_that_holds_every_tag_lets_go_for_the_next_piece() {
    let shelf = Shelf::new();
    let queue = RequestQueue::with_depth(&shelf, 2).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let mut plug = context.plug();
    plug.submit(Bio::discard(Sector::new(0), ByteLen::new(4 * 8192)))
        .unwrap();
    assert_eq!(shelf.sectors(), [0, 16], "the third piece made them go");
    drop(plug);
    for _ in 0..4 {
        shelf.succeed(0);
        context.poll();
    }
    assert_eq!(context.reap().unwrap().result(), Ok(()));
}

#[derive(Default)]
struct Recorder(Mutex<Vec<(Action, u64, u64)>>);

impl Probe for Recorder {
    fn event(&self, event: &Event) {
        let entry = (event.action, event.sector.get(), event.detail);
        self.0.lock().unwrap().push(entry);
    }
}

#[test]
fn those_who_look_on_see_the_plug_and_what_joined() {
    use Action::{BackMerge, Complete, FrontMerge, GetRequest, Issue, Plug, Queue, Unplug};
    let recorder = Arc::new(Recorder::default());
    let config = QueueConfig {
        probe: Some(Arc::clone(&recorder) as Arc<dyn Probe>),
        ..QueueConfig::default()
    };
    let shelf = Shelf::new();
    let queue = RequestQueue::try_new(&shelf, config).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    let mut plug = context.plug();
    for sector in [8, 9, 7, 100] {
        plug.submit(write(sector, 1)).unwrap();
    }
    drop(plug);
    shelf.succeed(0);
    shelf.succeed(0);
    context.drain(|_| ());
    let expected = [
        (Plug, 0, 0),
        (Queue, 8, 0),
        (GetRequest, 8, 0),
        (Queue, 9, 0),
        (BackMerge, 9, 0),
        (Queue, 7, 0),
        (FrontMerge, 7, 0),
        (Queue, 100, 0),
        (GetRequest, 100, 0),
        (Unplug, 0, 2),
        (Issue, 7, 0),
        (Issue, 100, 0),
        (Complete, 7, 0),
        (Complete, 100, 0),
    ];
    assert_eq!(*recorder.0.lock().unwrap(), expected);
}
