//! What the block layer costs: a bio that moves nothing, and what a queue adds to a copy, a bio
//! submitted and completed against the bare `memcpy` between the same memory.
//!
//! ```text
//! cargo bench --bench block                   everything, some minutes
//! cargo bench --bench block -- --quick        the same with fewer samples, under one
//! cargo bench --bench block -- ratios         only the table of ratios
//! ```
//!
//! The blocks are random and independent; "hot" is a device that fits the L2 cache, "cold" one of
//! 1 GiB. Both sides reach the device's own pages, each through a mapping of its own.
//!
//! Where a block misses, the stores of the copy wait for their lines, and every store after them
//! waits behind them: there a word of book-keeping costs nearly two nanoseconds instead of a
//! fraction. So each line is followed by one against a copy with 64 such words.

extern crate alloc;

#[expect(dead_code, reason = "this program joins no pairs")]
#[path = "../ratios/mod.rs"]
mod ratios;

mod bare;
#[path = "../cpus/mod.rs"]
mod cpus;
mod null;
mod steady;

use bare::{BLOCK, Besides, Mapped, Memory};
use core::{hint, time::Duration};
use criterion::{Criterion, Throughput};
use pageless_block::{Context, Op, Pmem, PmemFrames, QueueId, RamFrames, RequestQueue, Sector};
use pageless_pfn::{ByteLen, FrameCount, Pfn, PhysSegment};
use ratios::{Figure, Line, Report, Target};
use std::{io, time::Instant};

/// 512-byte sectors in a block.
const SECTORS: u64 = BLOCK as u64 / 512;

const HOT: usize = 512 << 10;
const COLD: usize = 1 << 30;

/// xorshift64, as good a source of blocks as any and cheap.
#[derive(Clone, Copy)]
struct Stream(u64);

impl Stream {
    #[inline]
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A context of a queue over a device, with a buffer for each bio in flight.
struct Queued<'q, 'r> {
    context: Context<'q, Pmem<&'r RamFrames>>,
    buffers: Vec<PhysSegment>,
    blocks: u64,
    /// Sectors in a block.
    sectors: u64,
    stream: Stream,
}

/// Frames of RAM for the buffers of `depth` bios.
fn ram(depth: usize) -> RamFrames {
    RamFrames::new(Pfn::try_new(0x100).unwrap(), FrameCount::new(depth as u64)).unwrap()
}

/// A queue over a device that consists of `memory`.
fn queue<'r>(
    memory: &Memory,
    ram: &'r RamFrames,
    depth: usize,
) -> RequestQueue<Pmem<&'r RamFrames>> {
    let frames = PmemFrames::open(Pfn::try_new(1 << 30).unwrap(), memory.path()).unwrap();
    RequestQueue::with_depth(Pmem::new(frames, ram), depth as u16).unwrap()
}

impl<'q, 'r> Queued<'q, 'r> {
    fn new(queue: &'q RequestQueue<Pmem<&'r RamFrames>>, ram: &'r RamFrames, depth: usize) -> Self {
        let blocks = queue.limits().capacity.get() / BLOCK as u64;
        let buffer = |n| {
            let offset = (n * BLOCK) as u64;
            ram.segment(offset, ByteLen::new(BLOCK as u64)).unwrap()
        };
        let mut queued = Self {
            context: queue.context(QueueId::new(0)).unwrap(),
            buffers: (0..depth).map(buffer).collect(),
            blocks,
            sectors: SECTORS,
            stream: Stream(0x9e37_79b9_7f4a_7c15),
        };
        // So that every page of the device is mapped, and writable.
        for block in 0..blocks {
            queued.submit(Op::Write, block, 0);
            queued.complete();
        }
        queued
    }

    #[inline]
    fn submit(&mut self, op: Op, block: u64, buffer: usize) {
        let (sector, segment) = (Sector::new(block * self.sectors), self.buffers[buffer]);
        let pool = self.context.pool();
        let bio = match op {
            Op::Write => pool.write(sector, segment).erase(),
            _ => pool.read(sector, segment).erase(),
        };
        self.context.submit(bio).unwrap();
    }

    #[inline]
    fn complete(&mut self) {
        let done = self.context.reap().unwrap();
        done.result().unwrap();
        self.context.pool().put(done.into_bio());
    }

    /// Fills the queue and empties it, `rounds` times: nanoseconds for each bio.
    #[inline(never)]
    fn sample(&mut self, op: Op, rounds: usize) -> f64 {
        let depth = self.buffers.len();
        let start = Instant::now();
        for _ in 0..rounds {
            for buffer in 0..depth {
                let block = self.stream.next() & (self.blocks - 1);
                self.submit(op, block, buffer);
            }
            for _ in 0..depth {
                self.complete();
            }
        }
        start.elapsed().as_nanos() as f64 / (rounds * depth) as f64
    }
}

/// The copies alone.
struct Copied {
    device: Mapped,
    buffers: Mapped,
    depth: usize,
    blocks: u64,
    stream: Stream,
}

impl Copied {
    fn new(memory: &Memory, bytes: usize, depth: usize) -> Self {
        Self {
            device: Mapped::shared(memory).unwrap(),
            buffers: Mapped::private(depth * BLOCK).unwrap(),
            depth,
            blocks: (bytes / BLOCK) as u64,
            // Not the blocks that the other side has just brought into the cache.
            stream: Stream(0x2545_f491_4f6c_dd1d),
        }
    }

    /// Nanoseconds for each copy.
    #[inline(never)]
    fn sample(&mut self, op: Op, rounds: usize, besides: Besides) -> f64 {
        let start = Instant::now();
        for _ in 0..rounds {
            for buffer in 0..self.depth {
                let block = (self.stream.next() & (self.blocks - 1)) as usize;
                match op {
                    Op::Write => self.buffers.copy(buffer, &self.device, block, besides),
                    _ => self.device.copy(block, &self.buffers, buffer, besides),
                }
                hint::black_box(&self.buffers);
            }
        }
        start.elapsed().as_nanos() as f64 / (rounds * self.depth) as f64
    }
}

impl Copied {
    /// The same for blocks of `len` bytes.
    #[inline(never)]
    fn sample_long(&mut self, op: Op, rounds: usize, len: usize) -> f64 {
        let start = Instant::now();
        for _ in 0..rounds {
            let block = (self.stream.next() & (self.blocks - 1)) as usize;
            match op {
                Op::Write => self.buffers.copy_long(0, &self.device, block, len),
                _ => self.device.copy_long(block, &self.buffers, 0, len),
            }
            hint::black_box(&self.buffers);
        }
        start.elapsed().as_nanos() as f64 / rounds as f64
    }
}

/// Both sides over one memory, for both directions.
fn measure(report: &mut Report, (bytes, heat): (usize, &str), depth: usize) {
    let memory = Memory::new(bytes).unwrap();
    let ram = ram(depth);
    let queue = queue(&memory, &ram, depth);
    let mut queued = Queued::new(&queue, &ram, depth);
    let mut copied = Copied::new(&memory, bytes, depth);
    // About half a millisecond for a sample.
    let copies = if bytes == HOT { 4096 } else { 1024 };
    for (op, verb) in [(Op::Read, "read"), (Op::Write, "write")] {
        for (besides, against, target) in [
            (Besides::Nothing, "the bare memcpy", Target::AtMost(40.0)),
            (
                Besides::Notes,
                "the bare memcpy and 64 words noted in L1",
                Target::Informs,
            ),
        ] {
            let pairs = ratios::alternate(
                report.scaled(600, 150),
                || queued.sample(op, copies / depth),
                || copied.sample(op, copies / depth, besides),
            );
            let line = Line {
                name: &format!("{verb} of 4 KiB, queued and completed, depth {depth}, {heat}"),
                against,
                unit: "ns",
                figure: Figure::Added,
                target,
            };
            report.add(&line, &pairs);
        }
    }
}

/// Copies of 1 MiB over a device that no cache holds.
fn bandwidth(report: &mut Report) {
    const LONG: usize = 1 << 20;
    let memory = Memory::new(COLD).unwrap();
    let ram = ram(LONG / BLOCK);
    let queue = queue(&memory, &ram, 1);
    let mut queued = Queued::new(&queue, &ram, 1);
    queued.buffers = vec![ram.segment(0, ByteLen::new(LONG as u64)).unwrap()];
    queued.blocks = (COLD / LONG) as u64;
    queued.sectors = (LONG / 512) as u64;
    let mut copied = Copied::new(&memory, COLD, 1);
    copied.buffers = Mapped::private(LONG).unwrap();
    copied.blocks = (COLD / LONG) as u64;
    for (op, verb) in [(Op::Read, "read"), (Op::Write, "write")] {
        let pairs = ratios::alternate(
            report.scaled(400, 100),
            || queued.sample(op, 16),
            || copied.sample_long(op, 16, LONG),
        );
        let line = Line {
            name: &format!("bandwidth of {verb}s of 1 MiB, one segment, depth 1"),
            against: "the bare memcpy",
            unit: "ns",
            figure: Figure::Speed,
            target: Target::AtLeast(0.97),
        };
        report.add(&line, &pairs);
    }
}

/// Writes past the caches, which a device larger than they are is for.
fn streamed(report: &mut Report, depth: usize) {
    let memory = Memory::new(COLD).unwrap();
    let ram = ram(depth);
    let frames = PmemFrames::open(Pfn::try_new(1 << 30).unwrap(), memory.path()).unwrap();
    let device = Pmem::new(frames, &ram).with_streamed_writes();
    let queue = RequestQueue::with_depth(device, depth as u16).unwrap();
    let mut queued = Queued::new(&queue, &ram, depth);
    let mut copied = Copied::new(&memory, COLD, depth);
    let pairs = ratios::alternate(
        report.scaled(600, 150),
        || queued.sample(Op::Write, 1024 / depth),
        || copied.sample(Op::Write, 1024 / depth, Besides::Nothing),
    );
    let line = Line {
        name: &format!(
            "write of 4 KiB past the caches, queued and completed, depth {depth}, cold (1 GiB)"
        ),
        against: "the bare memcpy",
        unit: "ns",
        figure: Figure::Added,
        target: Target::Informs,
    };
    report.add(&line, &pairs);
}

/// Criterion's own measurement of both sides on the hot device.
fn group(criterion: &mut Criterion, depth: usize) {
    let memory = Memory::new(HOT).unwrap();
    let ram = ram(depth);
    let queue = queue(&memory, &ram, depth);
    let mut queued = Queued::new(&queue, &ram, depth);
    let mut copied = Copied::new(&memory, HOT, depth);
    let mut group = criterion.benchmark_group(format!("4 KiB read, hot, depth {depth}"));
    group
        .throughput(Throughput::Bytes((depth * BLOCK) as u64))
        .warm_up_time(Duration::from_secs(1))
        .bench_function("queued and completed", |bencher| {
            bencher.iter(|| queued.sample(Op::Read, 1));
        })
        .bench_function("memcpy", |bencher| {
            bencher.iter(|| copied.sample(Op::Read, 1, Besides::Nothing));
        });
    group.finish();
}

fn main() -> io::Result<()> {
    let mut criterion = Criterion::default().configure_from_args();
    group(&mut criterion, 1);
    group(&mut criterion, 32);
    criterion.final_summary();
    let Some(mut report) = Report::of("block") else {
        return Ok(());
    };
    null::measure(&mut report);
    bandwidth(&mut report);
    for heat in [(HOT, "hot (512 KiB)"), (COLD, "cold (1 GiB)")] {
        measure(&mut report, heat, 1);
        measure(&mut report, heat, 32);
    }
    streamed(&mut report, 1);
    streamed(&mut report, 32);
    report.finish()
}
