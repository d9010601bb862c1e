//! Hazard: threads that share a queue lose each other's bios, use each other's tags, or get past a
//! gate that is closed.
//!
//! Each thread has a part of the device for itself and holds it against its own vector of bytes. A further one
//! stops the queue again and again and looks whether it has stopped.

extern crate alloc;

#[path = "oracle/driver.rs"]
mod driver;
#[path = "oracle/plan.rs"]
mod plan;
#[path = "oracle/strict.rs"]
mod strict;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};

use pageless_block::{Limits, RamFrames, RequestQueue};
use pageless_pfn::{FrameCount, Pfn};
use proptest::prelude::*;

use driver::Driver;
use plan::{Scheduler, Shape, Step};
use strict::{Manner, Strict};

const THREADS: u16 = 2;

/// Rounds of asking everybody, after which a bio is lost. The others may get no CPU for long.
const PATIENCE: u64 = 20_000_000;

/// A sanitizer takes long for each.
const CASES: u32 = if cfg!(pageless_tsan) { 20 } else { 60 };
const STEPS: usize = 40;

fn stop_again_and_again(queue: &RequestQueue<Strict>, working: &AtomicUsize) {
    let device = queue.device();
    // Relaxed: when it ends does not matter, only that it does.
    while working.load(Ordering::Relaxed) != 0 {
        let quiesced = queue.quiesce();
        device.left_alone(|| (0..3).for_each(|_| std::thread::yield_now()));
        drop(quiesced);
        std::thread::yield_now();

        let frozen = queue.freeze();
        while working.load(Ordering::Relaxed) != 0 && !frozen.is_settled() {
            std::thread::yield_now();
        }
        if frozen.is_settled() {
            for _ in 0..3 {
                assert_eq!(device.here(), 0, "the queue is frozen and has settled");
                std::thread::yield_now();
            }
        }
        drop(frozen);
        std::thread::yield_now();
    }
}

fn check_in_threads(limits: Limits, manner: Manner, shape: Shape, plans: &[Vec<Step>]) {
    let ram = RamFrames::new(Pfn::try_new(0x100).unwrap(), FrameCount::new(1024)).unwrap();
    // With a scheduler a thread that is just looking may give out one more.
    let room = shape.depth + THREADS;
    let device = Strict::new(limits, Arc::new(ram), manner, room);
    let queue = RequestQueue::try_new(device, shape.config()).unwrap();
    let working = AtomicUsize::new(plans.len());
    let (queue, working) = (&queue, &working);
    let counts = std::thread::scope(|threads| {
        threads.spawn(|| stop_again_and_again(queue, working));
        let each = plans.iter().enumerate().map(|(n, steps)| {
            threads.spawn(move || {
                // Also if it panics: the others are to end, and to be heard.
                let _ended = Ended(working);
                let contexts = n as u16..n as u16 + 1;
                let parts = u64::from(THREADS);
                let mut driver = Driver::new(queue, &shape, contexts, n as u64, parts, PATIENCE);
                driver.run(steps);
                driver.finish()
            })
        });
        let each: Vec<_> = each.collect();
        let counts = each.into_iter().map(|thread| thread.join());
        counts.collect::<Result<Vec<_>, _>>()
    });
    let counts = counts.expect("a thread has panicked, and said why");
    let sum = |(a, b): (u64, u64), (c, d): (u64, u64)| (a + c, b + d);
    let counts = counts.into_iter().fold((0, 0), sum);
    let seen = queue.device().seen();
    assert_eq!(counts, (seen.requests, seen.busy), "counters");
    assert_eq!(queue.in_flight(), 0);
}

struct Ended<'a>(&'a AtomicUsize);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

proptest! {
    // What fails does so sometimes: shrinking would not come to anything.
    #![proptest_config(ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        max_shrink_iters: 0,
        ..ProptestConfig::default()
    })]

    #[test]
    fn threads_that_share_a_hardware_queue_keep_their_bytes_apart(
        limits in plan::limits(),
        manner in plan::manner(),
        shape in plan::shape(),
        plans in proptest::collection::vec(plan::steps(STEPS), usize::from(THREADS)),
    ) {
        let shape = Shape { hw_queues: 1, contexts: THREADS, ..shape };
        check_in_threads(limits, manner, shape, &plans);
    }

    #[test]
    fn threads_with_a_hardware_queue_each_and_one_scheduler_keep_their_bytes_apart(
        limits in plan::limits(),
        manner in plan::manner(),
        shape in plan::shape(),
        plans in proptest::collection::vec(plan::steps(STEPS), usize::from(THREADS)),
    ) {
        let scheduler = match shape.scheduler {
            Scheduler::None => Scheduler::Deadline,
            other => other,
        };
        let shape = Shape { hw_queues: THREADS, contexts: THREADS, scheduler, ..shape };
        check_in_threads(limits, manner, shape, &plans);
    }
}
