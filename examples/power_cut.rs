//! A device with a volatile write cache, before and after the power goes.
//!
//! `cargo run --release --example power_cut`

use clap::Parser;
use pageless_block::{
    Bio, BioFlags, FrameAccess, PowerCut, QueueId, Ram, RamFrames, RequestQueue, Sector,
    WriteCache, WriteCacheConfig,
};
use pageless_pfn::{ByteLen, FrameCount, Pfn, PhysSegment};

/// Writes in four ways to a disk with a volatile cache, cuts its power, and looks what is left.
#[derive(Debug, Parser)]
struct Arguments {
    /// Instead of losing all that was not flushed, let some of it reach the disk before: which follows from N.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

const BLOCK: ByteLen = ByteLen::new(4096);

/// What is written where, and how.
const WRITES: [(u64, &[u8; 14], BioFlags); 4] = [
    (0, b"before a flush", BioFlags::empty()),
    (8, b"with FUA      ", BioFlags::FUA),
    (16, b"with PREFLUSH ", BioFlags::PREFLUSH),
    (24, b"and no more   ", BioFlags::empty()),
];

fn main() -> Result<(), Box<dyn core::error::Error>> {
    let accident = match Arguments::parse().seed {
        Some(seed) => PowerCut::Some { seed },
        None => PowerCut::AllLost,
    };
    let ram = RamFrames::new(Pfn::try_new(0x100)?, FrameCount::new(16))?;
    let part = |at| ram.segment(at, BLOCK).ok_or("not in RAM");
    let (buffer, staging): (PhysSegment, _) = (part(0)?, part(4096)?);
    let mut disk = Ram::new(ByteLen::new(1 << 30), &ram);
    disk = disk.with_limits(|limits| limits.set_logical_block(BLOCK))?;
    let config = WriteCacheConfig {
        fua: true,
        ..WriteCacheConfig::default()
    };
    let device = WriteCache::try_new(disk, &ram, staging, config)?;

    let queue = RequestQueue::with_depth(&device, 8)?;
    let mut context = queue.context(QueueId::new(0))?;
    for (sector, text, flags) in WRITES {
        ram.write_bytes(buffer, text)?;
        context.submit(Bio::write(Sector::new(sector), buffer).with_flags(flags))?;
        let done = context.reap().ok_or("this device is done at once")?;
        done.result()?;
        println!("{}, then {} to lose", done.bio(), device.dirty());
        if sector == 0 {
            context.submit(Bio::flush())?;
            context.reap().ok_or("at once")?.result()?;
            println!("flush, then {} to lose", device.dirty());
        }
    }

    let report = device.power_cut(accident);
    println!(
        "\npower cut: {} blocks lost, {} had reached the disk\n",
        report.lost, report.reached
    );

    for (sector, written, _) in WRITES {
        context.submit(Bio::read(Sector::new(sector), buffer))?;
        context.reap().ok_or("at once")?.result()?;
        let mut found = [0; 14];
        ram.read_bytes(buffer, &mut found)?;
        let text = String::from_utf8_lossy(written);
        let fate = if found == *written { "there" } else { "lost" };
        println!("sector {sector:>2}, {text}: {fate}");
    }
    Ok(())
}
