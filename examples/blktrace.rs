//! A trace of a queue at work that Debian's `blkparse`, `btt` and `iowatcher` read.
//!
//! `mkdir trace && cargo run --release --example blktrace -- trace`

extern crate alloc;

mod stdout;

use alloc::sync::Arc;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use pageless_block::{
    Action, Bio, BioFlags, BlkTrace, CompletionMode, DeviceNumber, EventCounts, HeapFrames,
    MonotonicClock, MqDeadline, NullBlk, NullConfig, QueueConfig, QueueId, RequestQueue, Sector,
};
use pageless_pfn::{ByteLen, FrameCount, Pfn};

/// Runs a few bios through a queue with mq-deadline to a device with a write cache, and writes a trace of it.
#[derive(Debug, Parser)]
#[command(after_help = "Exit status: 0 done; 1 the trace cannot be written; 2 wrong usage.")]
struct Arguments {
    /// The directory for `null0.blktrace.0`. Must exist.
    directory: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    stdout::speaking(|out| run(&arguments, out))
}

fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<(), Box<dyn core::error::Error>> {
    let trace = BlkTrace::create(
        &arguments.directory,
        "null0",
        DeviceNumber::try_new(250, 0)?,
        1,
    )?;
    let trace = Arc::new(trace);
    let counts = Arc::new(EventCounts::new());
    let clock = Arc::new(MonotonicClock::new());

    // At most 64 KiB in a request, and a cache that has to be flushed.
    let ram = HeapFrames::new(Pfn::try_new(0x100)?, FrameCount::new(64))?;
    let device = NullConfig {
        max_sectors: 128,
        write_cache: true,
        fua: false,
        completion: CompletionMode::Softirq,
        ..NullConfig::new(ByteLen::new(1 << 30))
    };
    let config = QueueConfig {
        elevator: Some(Box::new(MqDeadline::default())),
        clock: Some(clock.clone()),
        probe: Some(Arc::new((Arc::clone(&trace), Arc::clone(&counts)))),
        ..QueueConfig::default()
    };
    let queue = RequestQueue::try_new(NullBlk::try_new(device, &ram, clock)?, config)?;
    let mut context = queue.context(QueueId::new(0))?;
    let buffer = |at, len| ram.segment(at, ByteLen::new(len)).ok_or("not in memory");

    // Held back by a plug: three neighbours become one request, whatever their order.
    let mut plugged = context.plug();
    for (sector, at) in [(1008, 8192), (1000, 4096), (1016, 12288), (8, 0)] {
        plugged.submit(Bio::write(Sector::new(sector), buffer(at, 4096)?))?;
    }
    drop(plugged);
    context.drain(drop);
    // Too long: two requests.
    context.submit(Bio::read(Sector::new(4096), buffer(0, 100 << 10)?))?;
    context.drain(drop);
    // Durable, on a device without FUA: a flush before it, and one after.
    let journal = Bio::write(Sector::new(2048), buffer(0, 4096)?);
    context.submit(journal.with_flags(BioFlags::FLUSHES | BioFlags::SYNC))?;
    context.drain(drop);

    drop(context);
    drop(queue);
    Arc::into_inner(trace)
        .ok_or("somebody looks on")?
        .finish()?;
    for action in Action::ALL {
        if counts.get(action) != 0 {
            writeln!(out, "{:>12}: {}", format!("{action:?}"), counts.get(action))?;
        }
    }
    // As a shell takes it, whatever its name.
    let directory = arguments.directory.display().to_string();
    let directory = directory.replace('\'', r"'\''");
    writeln!(out, "now: blkparse -D '{directory}' -i null0")?;
    Ok(())
}
