//! Files through a block device that keeps them compressed in memory, and what that takes.
//!
//! `cargo run --release --example zram -- /usr/share/common-licenses`

extern crate alloc;

use alloc::sync::Arc;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use pageless::block::{Bio, FrameAccess, HeapFrames, QueueId, RequestQueue, Sector};
use pageless::fault::WindowLen;
use pageless::fault::host::{HostFrames, HostRam, HostVspace};
use pageless::fault::{WindowOffset, WindowRange};
use pageless::pfn::{ByteLen, FrameCount, Pfn, PfnRange};
use pageless::vmap::compress::{Access, Algorithm, CompressedStore};
use pageless::vmap::frames::{FrameAllocator, FrameConfig};
use pageless::vmap::zsmalloc::PairWindows;
use pageless::zram::Zram;

/// Writes files to a compressed block device, reads them back and compares, and prints its statistics as the kernel's zram does.
#[derive(Debug, Parser)]
#[command(
    after_help = "Exit status: 0 every file came back; 1 a file could not be read, or did not fit; 2 wrong usage."
)]
struct Arguments {
    /// lzo or lz4.
    #[arg(long, value_name = "NAME", default_value = "lz4")]
    algorithm: Algorithm,
    /// The most memory that compressed pages may take, in MiB.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    limit: Option<u64>,
    /// How a compressed page is reached that crosses into another frame: through a mapping, by a copy, or in two segments.
    #[arg(long, value_name = "WAY", default_value = "mapped", value_parser = access)]
    access: Access,
    /// Compact, and print the statistics again, after every other page has been discarded.
    #[arg(long)]
    compact: bool,
    /// Files, and trees of files; symbolic links are passed over.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

fn access(name: &str) -> Result<Access, &'static str> {
    match name {
        "mapped" => Ok(Access::Mapped),
        "copied" => Ok(Access::Copied),
        "segments" => Ok(Access::Segments),
        _ => Err("there are mapped, copied and segments"),
    }
}

const PAGE: usize = 4096;
/// Bytes of a bio.
const BUFFER: usize = 64 * PAGE;
const SECTORS_OF_A_PAGE: u64 = 8;

/// All files below `path`, by name.
fn files(path: &Path, into: &mut Vec<PathBuf>) -> Result<(), String> {
    let said = |error: std::io::Error| format!("{}: {error}", path.display());
    let kind = fs::symlink_metadata(path).map_err(said)?;
    if kind.is_dir() {
        let entries = fs::read_dir(path).map_err(said)?;
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        let mut paths: Vec<PathBuf> = paths.collect::<Result<_, _>>().map_err(said)?;
        paths.sort_unstable();
        paths.iter().try_for_each(|path| files(path, into))?;
    } else if kind.is_file() {
        into.push(path.to_owned());
    }
    Ok(())
}

fn main() -> Result<(), String> {
    let arguments = Arguments::parse();
    run(&arguments).map_err(|error| error.to_string())
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn core::error::Error>> {
    let mut found = Vec::new();
    for path in &arguments.paths {
        files(path, &mut found)?;
    }
    // Each file in whole pages, one behind the other.
    let mut content = Vec::new();
    for path in &found {
        content.extend(fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?);
        content.resize(content.len().next_multiple_of(PAGE), 0);
    }
    if content.is_empty() {
        return Err("there is nothing in these files".into());
    }
    let pages = (content.len() / PAGE) as u64;

    // Memory that is known by frame numbers alone: for compressed pages, and for the buffer of a bio. Untouched, it takes nothing.
    let range = PfnRange::try_new(Pfn::try_new(0x10_0000)?, FrameCount::new(pages + 16_384))?;
    let ram = Arc::new(HostRam::new(range)?);
    let space = WindowLen::covering(1 << 20).ok_or("no such length")?;
    let space = HostVspace::reserve(HostFrames::of_ram(&ram)?, space)?;
    let frames = FrameAllocator::new(Arc::clone(&ram), FrameConfig::default())?;
    let memory = HeapFrames::new(Pfn::try_new(0x100)?, FrameCount::new(64))?;

    let windows = WindowRange::try_new(WindowOffset::new(0), 1 << 20).ok_or("no such range")?;
    let windows = PairWindows::new(&space, windows);
    let store = CompressedStore::new(&frames, arguments.algorithm).with_windows(windows);
    let capacity = ByteLen::new(content.len() as u64);
    let device = Zram::new(capacity, store, &memory)?.with_access(arguments.access);
    if let Some(mib) = arguments.limit {
        device.set_mem_limit(ByteLen::new(mib << 20));
    }

    let queue = RequestQueue::with_depth(&device, 8)?;
    let mut context = queue.context(QueueId::new(0))?;
    let sector = |nth: usize| Sector::new((nth * BUFFER / PAGE) as u64 * SECTORS_OF_A_PAGE);
    let buffer = |len: usize| {
        memory
            .segment(0, ByteLen::new(len as u64))
            .ok_or("no buffer")
    };
    for (nth, bytes) in content.chunks(BUFFER).enumerate() {
        let buffer = buffer(bytes.len())?;
        memory.write_bytes(buffer, bytes)?;
        context.submit(Bio::write(sector(nth), buffer))?;
        while let Some(done) = context.reap() {
            let at = nth * BUFFER + done.done().get() as usize;
            done.result()
                .map_err(|error| format!("byte {at} of {}: {error}", content.len()))?;
        }
    }
    let mut read = vec![0; BUFFER];
    for (nth, bytes) in content.chunks(BUFFER).enumerate() {
        let buffer = buffer(bytes.len())?;
        context.submit(Bio::read(sector(nth), buffer))?;
        while let Some(done) = context.reap() {
            done.result()?;
        }
        memory.read_bytes(buffer, &mut read)?;
        if read[..bytes.len()] != *bytes {
            return Err(format!(
                "what was read is not what was written, near byte {}",
                nth * BUFFER
            )
            .into());
        }
    }

    let stat = device.mm_stat();
    let reads = device.store().stats().reads;
    let books = device.store().objects().metadata();
    let ratio = stat.mem_used_total.get() as f64 / stat.orig_data_size.get() as f64;
    println!(
        "{} files, {pages} pages, all back as they were",
        found.len()
    );
    println!("mm_stat {stat}");
    println!("io_stat {}", device.io_stat());
    println!("{ratio:.3} bytes of memory for each byte, and {books} of books beside it");
    println!(
        "objects reached in place {}, through a pair mapping {}, by a copy {}",
        reads.in_place, reads.mapped, reads.copied
    );
    if arguments.compact {
        let page = ByteLen::new(PAGE as u64);
        for nth in (0..pages).step_by(2) {
            let sector = Sector::new(nth * SECTORS_OF_A_PAGE);
            context.submit(Bio::discard(sector, page))?;
            while let Some(done) = context.reap() {
                done.result()?;
            }
        }
        println!("every other page discarded");
        println!("mm_stat {}", device.mm_stat());
        println!("compacted: {} pages", device.compact());
        println!("mm_stat {}", device.mm_stat());
    }
    Ok(())
}
