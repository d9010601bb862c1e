//! Hazard: a queue that says something else of itself than it does. What Debian's `blkparse` counts in
//! the trace of a run is what the queue's own counters say.

extern crate alloc;

#[path = "blktrace/tools.rs"]
mod tools;

use alloc::sync::Arc;
use core::time::Duration;
use std::sync::Mutex;

use pageless_block::{
    Action, BadBlocks, Bio, BioFlags, BlkTrace, CompletionMode, Context, DeadlineSettings,
    DeviceNumber, Event, EventCounts, FaultAttr, HeapFrames, MonotonicClock, MqDeadline, NullBlk,
    NullConfig, Op, Probe, QueueConfig, QueueCounters, QueueId, RequestQueue, Sector, SectorRange,
};
use pageless_pfn::{ByteLen, FrameCount, Pfn};

type Device<'a> = NullBlk<&'a HeapFrames>;

const ROUNDS: u64 = 60;

/// What one thread does: neighbours under a plug, a bio that is too long, one that ends on bad sectors,
/// one that is durable, a discard.
fn rounds(context: &mut Context<'_, Device<'_>>, ram: &HeapFrames, place: u64) -> QueueCounters {
    let segment = |len| ram.segment(0, ByteLen::new(len)).unwrap();
    for round in 0..ROUNDS {
        let at = place + round * 4096;
        let mut plugged = context.plug();
        for next in 0..4 {
            let write = Bio::write(Sector::new(at + 8 * next), segment(4096));
            plugged.submit(write.with_flags(BioFlags::SYNC)).unwrap();
        }
        drop(plugged);
        context
            .submit(Bio::read(Sector::new(at), segment(4096)))
            .unwrap();
        let long = Bio::write(Sector::new(at + 64), segment(1 << 20));
        context.submit(long).unwrap();
        let durable = Bio::write(Sector::new(at + 8), segment(4096));
        context
            .submit(durable.with_flags(BioFlags::FLUSHES | BioFlags::META))
            .unwrap();
        context
            .submit(Bio::discard(Sector::new(at), ByteLen::new(8192)))
            .unwrap();
        let bad = Bio::read(Sector::new(0), segment(4096));
        context.submit(bad.with_flags(BioFlags::RAHEAD)).unwrap();
        context.drain(drop);
    }
    context.counters()
}

fn run(probe: Arc<dyn Probe>) -> QueueCounters {
    let ram = HeapFrames::new(Pfn::try_new(0x100).unwrap(), FrameCount::new(256)).unwrap();
    let clock = Arc::new(MonotonicClock::new());
    let mut badblocks = BadBlocks::new();
    badblocks
        .set(SectorRange::try_new(Sector::new(3), 1).unwrap(), true)
        .unwrap();
    let config = NullConfig {
        max_sectors: 256,
        submit_queues: 2,
        completion: CompletionMode::Timer(Duration::from_micros(50)),
        memory_backed: true,
        discard: true,
        write_cache: true,
        badblocks,
        requeues: FaultAttr::percent(5),
        ..NullConfig::new(ByteLen::new(1 << 30))
    };
    let device = NullBlk::try_new(config, &ram, clock.clone()).unwrap();
    let queue = RequestQueue::try_new(
        device,
        QueueConfig {
            hw_queues: 2,
            depth: 32,
            elevator: Some(Box::new(MqDeadline::new(&DeadlineSettings::default(), 128))),
            clock: Some(clock),
            probe: Some(probe),
            ..QueueConfig::default()
        },
    )
    .unwrap();
    std::thread::scope(|threads| {
        let work = [0, 1].map(|id| {
            let (queue, ram) = (&queue, &ram);
            threads.spawn(move || {
                let mut context = queue.context(QueueId::new(id)).unwrap();
                rounds(&mut context, ram, 4096 + 1_000_000 * u64::from(id))
            })
        });
        let mut sum = QueueCounters::default();
        for thread in work {
            let counters = thread.join().unwrap();
            sum.submitted += counters.submitted;
            sum.completed += counters.completed;
            sum.failed += counters.failed;
            sum.splits += counters.splits;
            sum.requeues += counters.requeues;
        }
        sum
    })
}
/// Requests given to the device, without the flushes that the queue makes itself.
#[derive(Default)]
struct Requests(Mutex<Vec<(Action, Op)>>);

impl Probe for Requests {
    fn event(&self, event: &Event) {
        if event.tag.is_some() && event.op != Op::Flush {
            self.0.lock().unwrap().push((event.action, event.op));
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "runs programs")]
fn blkparse_counts_what_the_queue_counts() {
    let directory = tempfile::tempdir().unwrap();
    let device = DeviceNumber::try_new(250, 0).unwrap();
    let trace = Arc::new(BlkTrace::create(directory.path(), "null0", device, 2).unwrap());
    let counts = Arc::new(EventCounts::new());
    let requests = Arc::new(Requests::default());
    let probe = (
        (Arc::clone(&trace), Arc::clone(&counts)),
        Arc::clone(&requests),
    );
    let counters = run(Arc::new(probe));
    Arc::into_inner(trace).unwrap().finish().unwrap();

    // 4 neighbours of which 3 join, a read, 8 pieces, one durable, a discard, one on a bad sector.
    let contexts = 2;
    assert_eq!(counts.get(Action::Queue), 9 * ROUNDS * contexts);
    assert_eq!(counts.get(Action::Queue), counters.submitted);
    assert_eq!(counts.get(Action::Split), 7 * ROUNDS * contexts);
    assert_eq!(counts.get(Action::Split), counters.splits);
    let merges = counts.get(Action::BackMerge) + counts.get(Action::FrontMerge);
    assert_eq!(merges, 3 * ROUNDS * contexts);
    assert_eq!(
        counts.get(Action::GetRequest),
        counters.submitted + counters.splits - merges
    );
    assert_eq!(counts.get(Action::Plug), ROUNDS * contexts);
    assert_eq!(counts.get(Action::Unplug), ROUNDS * contexts);
    assert_eq!(counts.get(Action::Requeue), counters.requeues);
    assert_ne!(
        counters.requeues, 0,
        "the device was to be busy now and then"
    );
    assert_eq!(counts.errors(), counters.failed);
    assert_eq!(counters.failed, ROUNDS * contexts);
    // Each request is issued once more than it came back, and completed once.
    let requests = requests.0.lock().unwrap();
    let of = |action| requests.iter().filter(|found| found.0 == action).count();
    assert_eq!(
        of(Action::Issue),
        of(Action::Complete) + of(Action::Requeue)
    );
    assert_eq!(of(Action::Complete), of(Action::GetRequest));
    // All but the durable one go through the scheduler.
    let inserted = of(Action::Insert) as u64;
    assert_eq!(inserted + ROUNDS * contexts, counts.get(Action::GetRequest));

    let Some((stdout, _)) = tools::tool(directory.path(), "blkparse", &["-i", "null0"]) else {
        return;
    };
    tools::assert_counted(&stdout, &counts);
    // The errno of BLK_STS_IOERR, negative, in 16 bits.
    let failed = stdout.lines().filter(|line| line.ends_with("+ 8 [65531]"));
    assert_eq!(failed.count() as u64, counters.failed);
    let written = requests
        .iter()
        .filter(|(action, op)| *action == Action::Complete && op.is_write());
    let total = stdout.split_once("Total (null0):").unwrap().1;
    let theirs = total.split_once("Writes Completed:").unwrap().1;
    let theirs: usize = theirs.split(',').next().unwrap().trim().parse().unwrap();
    assert_eq!(theirs, written.count(), "{total}");
    let binary = ["-q", "-i", "null0", "-O", "-d", "null0.bin"];
    if tools::tool(directory.path(), "blkparse", &binary).is_some() {
        let btt = tools::tool(directory.path(), "btt", &["-i", "null0.bin"]).unwrap();
        assert!(btt.0.contains("(250,  0)"), "{}", btt.0);
    }
}
