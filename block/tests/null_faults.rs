//! Hazard: a fault that cannot be had again, because it depends on what other threads did or on the time
//! it happened to be.

extern crate alloc;

use alloc::sync::Arc;
use core::time::Duration;
use std::sync::Mutex;

use pageless_block::{
    Action, Bio, BioFlags, BlkError, BytePos, Clock, CompletionMode, Event, HeapFrames,
    ManualClock, Nanos, NullBlk, NullConfig, Op, Probe, QueueConfig, QueueId, Request,
    RequestQueue, Sector, carry_out,
};
use pageless_pfn::{ByteLen, FrameCount, Pfn, PhysSegment};

/// Writes down everything.
#[derive(Default)]
struct Diary(Mutex<Vec<Event>>);

impl Probe for Diary {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(*event);
    }
}

fn config(seed: u64) -> NullConfig {
    let mut config = NullConfig::new(ByteLen::new(1 << 30));
    config.completion = CompletionMode::DEFAULT_TIMER;
    config.timeouts = "1,5,0,-1".parse().unwrap();
    config.requeues = "1,20,0,-1".parse().unwrap();
    config.mbps = 500;
    config.submit_queues = 2;
    config.badblocks_partial_io = true;
    config.badblocks.apply("+300-330".parse().unwrap()).unwrap();
    config.seed = seed;
    config
}

fn frames() -> HeapFrames {
    HeapFrames::new(Pfn::try_new(0x100).unwrap(), FrameCount::new(16)).unwrap()
}

/// Which bio, its status, and how much of it was done.
type End = (u64, Result<(), BlkError>, ByteLen);

/// Everything that was seen of 200 bios, and how each ended.
fn trace(seed: u64) -> (Vec<Event>, Vec<End>) {
    let clock = Arc::new(ManualClock::new());
    let memory = Arc::new(frames());
    let device = NullBlk::try_new(config(seed), Arc::clone(&memory), clock.clone()).unwrap();
    let diary = Arc::new(Diary::default());
    let config = QueueConfig {
        depth: 16,
        clock: Some(clock.clone()),
        timeout: Some(Duration::from_millis(3)),
        probe: Some(diary.clone()),
        ..QueueConfig::default()
    };
    let queue = RequestQueue::try_new(device, config).unwrap();
    let mut context = queue.context(QueueId::new(0)).unwrap();
    let (mut ends, mut n) = (vec![], 0);
    while n < 200 || context.in_flight() > 0 {
        while n < 200 && context.in_flight() < 12 {
            let buffer = memory
                .segment(n % 8 * 4096, ByteLen::new((n % 5 + 1) * 4096))
                .unwrap();
            let bio = Bio::write(Sector::new(n * 37 % 4096), buffer);
            context.submit(bio.with_token(n)).unwrap();
            n += 1;
        }
        match context.reap() {
            Some(done) => ends.push((done.token(), done.result(), done.done())),
            // Whoever waits for a timeout waits for the clock.
            None => clock.advance(Duration::from_micros(50)),
        }
    }
    drop(context);
    let events = diary.0.lock().unwrap().clone();
    (events, ends)
}

#[test]
fn a_seed_gives_the_same_trace_to_the_last_event_and_nanosecond() {
    let (events, ends) = trace(1);
    let (again, ends_again) = trace(1);
    assert_eq!(events, again);
    assert_eq!(ends, ends_again);
    assert_eq!(ends.len(), 200);
    assert_ne!(ends, trace(2).1, "the seed does not matter");
    // All of it was there to be seen.
    let ended = |wanted| ends.iter().filter(|(_, end, _)| *end == wanted).count();
    assert!(ended(Err(BlkError::Timeout)) > 2);
    assert!(ended(Err(BlkError::Io)) > 2);
    assert!(ended(Ok(())) > 100);
    assert!(
        ends.iter()
            .any(|(_, end, done)| end.is_err() && !done.is_zero())
    );
    let requeued = |event: &&Event| event.action == Action::Requeue;
    assert!(events.iter().filter(requeued).count() > 10);
}

/// Which of the bios of each of two threads timed out.
fn timed_out(together: bool) -> [Vec<u64>; 2] {
    let clock = Arc::new(ManualClock::new());
    let memory = Arc::new(frames());
    let mut config = config(7);
    config.mbps = 0;
    let device = NullBlk::try_new(config, Arc::clone(&memory), clock.clone()).unwrap();
    let config = QueueConfig {
        hw_queues: 2,
        depth: 4,
        clock: Some(clock.clone()),
        timeout: Some(Duration::from_millis(3)),
        ..QueueConfig::default()
    };
    let queue = &RequestQueue::try_new(device, config).unwrap();
    let (memory, clock) = (&memory, &clock);
    let run = move |id: u16| {
        let mut context = queue.context(QueueId::new(id)).unwrap();
        let mut lost = vec![];
        for n in 0..if cfg!(miri) { 40 } else { 400 } {
            let buffer = memory.segment(0, ByteLen::new(512)).unwrap();
            context
                .submit(Bio::read(Sector::new(1000 + n), buffer).with_token(n))
                .unwrap();
            let done = loop {
                match context.reap() {
                    Some(done) => break done,
                    None => clock.advance(Duration::from_millis(4)),
                }
            };
            if done.result() == Err(BlkError::Timeout) {
                lost.push(done.token());
            }
        }
        lost
    };
    if !together {
        return [run(0), run(1)];
    }
    std::thread::scope(|scope| {
        let other = scope.spawn(move || run(1));
        let lost = run(0);
        [lost, other.join().unwrap()]
    })
}

#[test]
fn threads_on_queues_of_their_own_get_the_faults_they_would_get_alone() {
    let alone = timed_out(false);
    assert!(alone.iter().all(|lost| !lost.is_empty()));
    assert_ne!(alone[0], alone[1]);
    assert_eq!(timed_out(true), alone);
}

/// Which submissions were turned away, of as many as it takes for 100 bios.
fn turned_away(seed: u64, timeouts: &str) -> Vec<usize> {
    let clock = Arc::new(ManualClock::new());
    let memory = Arc::new(frames());
    let mut config = config(seed);
    (config.mbps, config.timeouts) = (0, timeouts.parse().unwrap());
    config.requeues = "1,30,0,-1".parse().unwrap();
    let device = NullBlk::try_new(config, Arc::clone(&memory), clock.clone()).unwrap();
    let diary = Arc::new(Diary::default());
    let config = QueueConfig {
        clock: Some(clock.clone()),
        timeout: Some(Duration::from_millis(3)),
        probe: Some(diary.clone()),
        ..QueueConfig::default()
    };
    let queue = RequestQueue::try_new(device, config).unwrap();
    let mut context = queue.context(QueueId::new(0)).unwrap();
    for n in 0..100 {
        let buffer = memory.segment(0, ByteLen::new(512)).unwrap();
        context
            .submit(Bio::read(Sector::new(1000 + n), buffer))
            .unwrap();
        while context.reap().is_none() {
            clock.advance(Duration::from_millis(1));
        }
    }
    drop(context);
    let events = diary.0.lock().unwrap();
    let device_saw = |event: &&Event| matches!(event.action, Action::Issue | Action::Requeue);
    let mut issued = 0;
    let mut away = vec![];
    for event in events.iter().filter(device_saw) {
        match event.action {
            Action::Issue => issued += 1,
            _ => away.push(issued),
        }
    }
    away
}

#[test]
fn one_knob_does_not_shift_the_faults_of_another() {
    let alone = turned_away(1, "1,0,0,-1");
    assert!(alone.len() > 20);
    assert_eq!(turned_away(1, "1,40,0,-1"), alone);
    assert_ne!(turned_away(2, "1,0,0,-1"), alone);
}

#[test]
fn whoever_waits_for_a_timeout_moves_a_clock_that_does_not_run() {
    let clock = Arc::new(ManualClock::new());
    let mut config = NullConfig::new(ByteLen::new(1 << 20));
    config.timeouts = "1,100,0,2".parse().unwrap();
    let device = NullBlk::try_new(config, frames(), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let timed = QueueConfig {
        timeout: Some(Duration::from_millis(3)),
        clock: Some(Arc::clone(&clock) as Arc<dyn Clock>),
        ..QueueConfig::default()
    };
    let queue = RequestQueue::try_new(device, timed).unwrap();
    let mut context = queue.context(QueueId::new(0)).unwrap();
    let memory = PhysSegment::try_new(
        Pfn::try_new(0x100).unwrap().into(),
        Default::default(),
        ByteLen::new(512),
    );
    for n in 0..3 {
        let bio = Bio::write(Sector::new(n), memory.unwrap());
        context.submit(bio).unwrap();
    }
    let mut results = Vec::new();
    context.drain(|done| results.push(done.result()));
    assert_eq!(
        results,
        [Ok(()), Err(BlkError::Timeout), Err(BlkError::Timeout)]
    );
    assert_eq!(clock.now(), Nanos::new(3_000_000));
}

/// Whoever made a nested request waits for it, and nobody would take it back.
#[test]
fn what_a_driver_above_asks_for_is_never_left_to_time_out() {
    let clock = Arc::new(ManualClock::new());
    let mut config = NullConfig::new(ByteLen::new(1 << 20));
    config.timeouts = "1,100,0,-1".parse().unwrap();
    let device = NullBlk::try_new(config, frames(), clock as Arc<dyn Clock>).unwrap();
    for _ in 0..3 {
        let request = Request::nested(
            Op::Discard,
            BioFlags::empty(),
            BytePos::new(0),
            ByteLen::new(512),
            [],
        );
        let ended = carry_out(&device, request);
        assert_eq!(ended.map_err(|failure| failure.error), Ok(()));
    }
    assert_eq!(device.counters().timeouts, 0);
}
