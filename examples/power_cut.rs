//! A disk with a volatile write cache, before and after the power goes.
//!
//! `cargo run --release --example power_cut`

mod stdout;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use pageless_block::{
    Bio, BioFlags, FrameAccess, PowerCut, QueueId, Ram, RamFrames, RequestQueue, Sector,
    WriteCache, WriteCacheConfig,
};
use pageless_pfn::{ByteLen, FrameCount, Pfn};

/// Writes to a disk with a volatile cache, with and without a flush, cuts its power, and looks what is left.
#[derive(Debug, Parser)]
struct Arguments {
    /// Do not lose all that was not flushed: some of it has reached the disk before, which follows from N.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

const BLOCK: ByteLen = ByteLen::new(4096);

/// What is written where, how, and whether a flush comes after it.
const WRITES: [(u64, &str, BioFlags, bool); 4] = [
    (0, "then flush", BioFlags::empty(), true),
    (8, "with FUA", BioFlags::FUA, false),
    (16, "and no more", BioFlags::empty(), false),
    (24, "and no more", BioFlags::empty(), false),
];

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    stdout::speaking(|out| run(&arguments, out))
}

fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<(), Box<dyn core::error::Error>> {
    let accident = match arguments.seed {
        Some(seed) => PowerCut::Some { seed },
        None => PowerCut::AllLost,
    };
    let ram = RamFrames::new(Pfn::try_new(0x100)?, FrameCount::new(2))?;
    let frame = |at| ram.segment(at, BLOCK).ok_or("not in RAM");
    let (buffer, staging) = (frame(0)?, frame(4096)?);
    let disk = Ram::new(ByteLen::new(1 << 30), &ram);
    let disk = disk.with_limits(|limits| limits.set_logical_block(BLOCK))?;
    let config = WriteCacheConfig {
        fua: true,
        ..WriteCacheConfig::default()
    };
    let device = WriteCache::try_new(disk, &ram, staging, config)?;

    let queue = RequestQueue::with_depth(&device, 8)?;
    let mut context = queue.context(QueueId::new(0))?;
    for (sector, how, flags, flush) in WRITES {
        ram.write_bytes(buffer, b"new")?;
        context.submit(Bio::write(Sector::new(sector), buffer).with_flags(flags))?;
        if flush {
            context.submit(Bio::flush())?;
        }
        while let Some(done) = context.reap() {
            done.result()?;
        }
        let at_risk = device.dirty();
        writeln!(
            out,
            "write at sector {sector:>2} {how:<11}: {at_risk} to lose"
        )?;
    }

    let report = device.power_cut(accident);
    let (lost, reached) = (report.lost, report.reached);
    writeln!(
        out,
        "power cut: {lost} blocks lost, {reached} had reached the disk"
    )?;

    for (sector, how, ..) in WRITES {
        context.submit(Bio::read(Sector::new(sector), buffer))?;
        context.reap().ok_or("done at once")?.result()?;
        let mut found = [0; 3];
        ram.read_bytes(buffer, &mut found)?;
        let fate = if found == *b"new" { "there" } else { "lost" };
        writeln!(out, "write at sector {sector:>2} {how:<11}: {fate}")?;
    }
    Ok(())
}
