//! The path alone: bios of 4 KiB to a device that moves nothing.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};
use pageless_block::{
    BlockDevice, Context, Elevator, Limits, MonotonicClock, MqDeadline, NullDevice, QueueConfig,
    QueueId, RequestQueue, Sector,
};
use pageless_pfn::{ByteLen, FrameOffset, Pfn, PhysSegment};
use std::{thread, time::Instant};

use crate::{
    BLOCK, SECTORS, Stream, cpus,
    ratios::{self, Figure, Line, Pairs, Report, Target},
    steady,
};

/// Bios of a sample: about a millisecond.
const ROUND: usize = 16_384;

/// The most that a bio may take, in ns.
const LIMIT: f64 = 60.0;

const CAPACITY: u64 = 1 << 30;

fn segment(n: u64) -> PhysSegment {
    let frame = Pfn::try_new(0x100 + n).unwrap().into();
    PhysSegment::try_new(frame, FrameOffset::ZERO, ByteLen::new(BLOCK as u64)).unwrap()
}

fn queue(hw_queues: u16, elevator: bool) -> RequestQueue<NullDevice> {
    let config = QueueConfig {
        hw_queues,
        depth: 32,
        elevator: elevator.then(|| Box::new(MqDeadline::default()) as Box<dyn Elevator>),
        clock: elevator.then(|| Arc::new(MonotonicClock::new()) as _),
        ..QueueConfig::default()
    };
    RequestQueue::try_new(NullDevice::new(Limits::new(ByteLen::new(CAPACITY))), config).unwrap()
}

/// Submits and reaps `bios` reads, `depth` at a time.
#[inline(never)]
fn work<D: BlockDevice>(
    context: &mut Context<'_, D>,
    stream: &mut Stream,
    depth: usize,
    bios: usize,
) {
    for _ in 0..bios / depth {
        for n in 0..depth {
            let block = stream.next() & (CAPACITY / BLOCK as u64 - 1);
            let bio = context
                .pool()
                .read(Sector::new(block * SECTORS), segment(n as u64));
            context.submit(bio).unwrap();
        }
        for _ in 0..depth {
            let done = context.reap().unwrap();
            done.result().unwrap();
            context.pool().put(done.into_bio());
        }
    }
}

/// Nanoseconds for each bio, with proof that none of them allocated.
fn sample<D: BlockDevice>(context: &mut Context<'_, D>, stream: &mut Stream, depth: usize) -> f64 {
    steady::unallocated(|| {
        let start = Instant::now();
        work(context, stream, depth, ROUND);
        start.elapsed().as_nanos() as f64 / ROUND as f64
    })
}

/// Nanoseconds for each bio of `threads` threads together, each with a hardware queue of its own.
fn together(queue: &RequestQueue<NullDevice>, threads: usize, seed: u64) -> f64 {
    const BIOS: usize = 8 * ROUND;
    let ready = AtomicUsize::new(0);
    let run = |number: usize| {
        cpus::pin(number);
        let mut context = queue.context(QueueId::new(number as u16)).unwrap();
        let mut stream = Stream(seed * 2 + number as u64 + 1);
        work(&mut context, &mut stream, 1, ROUND);
        ready.fetch_add(1, Ordering::AcqRel);
        while ready.load(Ordering::Acquire) < threads {
            core::hint::spin_loop();
        }
        let start = Instant::now();
        work(&mut context, &mut stream, 1, BIOS);
        (start, Instant::now())
    };
    let run = &run;
    let worked: Vec<(Instant, Instant)> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|n| scope.spawn(move || run(n))).collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let start = worked.iter().map(|&(start, _)| start).min().unwrap();
    let end = worked.iter().map(|&(_, end)| end).max().unwrap();
    (end - start).as_nanos() as f64 / (BIOS * threads) as f64
}

/// A context that is warm: all it will ever allocate it has.
fn warm<'q, D: BlockDevice>(queue: &'q RequestQueue<D>, stream: &mut Stream) -> Context<'q, D> {
    let mut context = queue.context(QueueId::new(0)).unwrap();
    work(&mut context, stream, 32, 1024);
    context
}

pub(crate) fn measure(report: &mut Report) {
    let plain = queue(1, false);
    let mut stream = Stream(0x9e37_79b9_7f4a_7c15);
    let mut context = warm(&plain, &mut stream);
    for depth in [1, 32] {
        let rounds = report.scaled(400, 100);
        let ours: Vec<f64> = (0..rounds)
            .map(|_| sample(&mut context, &mut stream, depth))
            .collect();
        let line = Line {
            name: &format!(
                "4 KiB read of null, submitted and completed, depth {depth}, no allocation"
            ),
            against: "the limit: 60 ns",
            unit: "ns",
            figure: Figure::Cost,
            target: if depth == 1 {
                Target::AtMost(1.0)
            } else {
                Target::Informs
            },
        };
        let limit = vec![LIMIT; ours.len()];
        report.add(&line, &Pairs::taken(ours, limit));
    }

    let scheduled = queue(1, true);
    let mut other_stream = Stream(0x2545_f491_4f6c_dd1d);
    let mut other = warm(&scheduled, &mut other_stream);
    for depth in [1, 32] {
        let pairs = ratios::alternate(
            report.scaled(400, 100),
            || sample(&mut other, &mut other_stream, depth),
            || sample(&mut context, &mut stream, depth),
        );
        let line = Line {
            name: &format!("4 KiB read of null through mq-deadline, depth {depth}, no allocation"),
            against: "without a scheduler",
            unit: "ns",
            figure: Figure::Added,
            target: if depth == 1 {
                Target::AtMost(150.0)
            } else {
                Target::Informs
            },
        };
        report.add(&line, &pairs);
    }

    let two = queue(2, false);
    let mut seed = 0;
    let mut next = || {
        seed += 1;
        seed
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..report.scaled(200, 40) {
        ours.push(together(&two, 2, next()));
        theirs.push(together(&two, 1, next()));
    }
    let line = Line {
        name: "throughput of 2 threads on 2 hardware queues of null, depth 1",
        against: "1 thread",
        unit: "ns",
        figure: Figure::Speed,
        target: Target::AtLeast(1.8),
    };
    report.add(&line, &Pairs::taken(ours, theirs));
}
