//! Files through a block device that keeps them compressed in memory, and what that takes.
//!
//! `cargo run --release --example zram -- /usr/bin`

extern crate alloc;

mod stdout;

use alloc::sync::Arc;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use pageless::block::{Bio, FrameAccess, HeapFrames, QueueId, RequestQueue, Sector};
use pageless::fault::WindowLen;
use pageless::fault::host::{HostFrames, HostRam, HostVspace};
use pageless::fault::{WindowOffset, WindowRange};
use pageless::job::command_line_size;
use pageless::pfn::{ByteLen, FrameCount, Pfn, PfnRange};
use pageless::vmap::compress::{Access, Algorithm, CompressedStore};
use pageless::vmap::frames::{FrameAllocator, FrameConfig};
use pageless::vmap::zsmalloc::PairWindows;
use pageless::zram::{IoStat, MmStat, Zram};
use serde_json::{Value, json};

/// Writes files to a compressed block device, reads them back and compares, and prints its statistics as the kernel's zram does.
#[derive(Debug, Parser)]
#[command(after_help = "\
Units: bytes, but for same_pages, pages_compacted, huge_pages and huge_pages_since, which are pages of 4096 bytes. Their meaning is the kernel's \
(Documentation/admin-guide/blockdev/zram.rst).

Exit status: 0 every file came back; 1 a file could not be read, or did not fit; 2 wrong usage.")]
struct Arguments {
    /// lzo or lz4; lzo is smaller, and more than ten times slower.
    #[arg(long, value_name = "NAME", default_value = "lz4")]
    algorithm: Algorithm,
    /// The most memory that compressed pages may take, rounded up to pages. Units as in 64MiB, 1GB.
    #[arg(long, value_name = "SIZE", value_parser = limit)]
    limit: Option<ByteLen>,
    /// How a compressed page is reached that crosses into another frame: mapped, copied, or in two segments.
    #[arg(long, value_name = "WAY", default_value = "mapped", value_parser = access)]
    access: Access,
    /// Compact, and print the statistics again, after every other page has been discarded.
    #[arg(long)]
    compact: bool,
    /// The statistics as JSON.
    #[arg(long)]
    json: bool,
    /// Files, and trees of files; symbolic links in trees are passed over.
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

fn limit(text: &str) -> Result<ByteLen, String> {
    match command_line_size(text) {
        Ok(bytes) if bytes.get() == 0 => Err("must be at least one byte".to_owned()),
        Ok(bytes) => Ok(ByteLen::new(bytes.get())),
        Err(error) => Err(error.to_string()),
    }
}

const PAGE: usize = 4096;
/// Bytes of a bio.
const BUFFER: usize = 64 * PAGE;
const SECTORS_OF_A_PAGE: u64 = 8;

/// What was asked for by name: a file, or all of a tree.
fn named(path: &Path, into: &mut Vec<PathBuf>) -> Result<(), String> {
    let kind = fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    if kind.is_dir() {
        // As `path/.`, which is no link.
        return files(&path.join("."), into);
    }
    if !kind.is_file() {
        return Err(format!(
            "{}: neither a file nor a directory",
            path.display()
        ));
    }
    into.push(path.to_owned());
    Ok(())
}

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

/// How far it is, for who waits at a terminal.
fn progress(pages: u64) -> ProgressBar {
    // As many steps for compressing as for reading back, which is faster.
    let bar = ProgressBar::new(2 * pages);
    if let Ok(style) = ProgressStyle::with_template("[{bar:30}] {percent:>3}% {elapsed} {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message("compressing");
    bar
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    stdout::speaking(|out| run(&arguments, out))
}

fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<(), Box<dyn core::error::Error>> {
    let mut found = Vec::new();
    for path in &arguments.paths {
        named(path, &mut found)?;
    }
    // Each file in whole pages, one behind the other.
    let mut content = Vec::new();
    for path in &found {
        content.extend(fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?);
        content.resize(content.len().next_multiple_of(PAGE), 0);
    }
    if content.is_empty() {
        let what = match found.len() {
            0 => "no files there".to_owned(),
            files => format!("nothing in {files} file(s)"),
        };
        return Err(format!("{what}: give files with content, or trees of them").into());
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
    if let Some(limit) = arguments.limit {
        device.set_mem_limit(limit);
    }
    let bar = progress(pages);

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
            done.result().map_err(|error| {
                let hint = match arguments.limit {
                    Some(limit) => format!(" within --limit, {limit}"),
                    None => String::new(),
                };
                format!("byte {at} of {}: {error}{hint}", content.len())
            })?;
        }
        bar.inc((bytes.len() / PAGE) as u64);
    }
    bar.set_message("reading back");
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
        bar.inc((bytes.len() / PAGE) as u64);
    }
    bar.finish_and_clear();

    let stat = device.mm_stat();
    let reads = device.store().stats().reads;
    let books = device.store().objects().metadata();
    let mut stats = vec![("all written", stat)];
    if arguments.compact {
        let page = ByteLen::new(PAGE as u64);
        for nth in (0..pages).step_by(2) {
            let sector = Sector::new(nth * SECTORS_OF_A_PAGE);
            context.submit(Bio::discard(sector, page))?;
            while let Some(done) = context.reap() {
                done.result()?;
            }
        }
        stats.push(("every other page discarded", device.mm_stat()));
        device.compact();
        stats.push(("compacted", device.mm_stat()));
    }

    if arguments.json {
        let report = json!({
            "files": found.len(),
            "pages": pages,
            "mm_stat": stats.iter().map(|(when, stat)| mm_json(when, stat)).collect::<Vec<_>>(),
            "io_stat": io_json(&device.io_stat()),
            "books_bytes": books.get(),
            "reads": { "in_place": reads.in_place, "mapped": reads.mapped, "copied": reads.copied },
        });
        writeln!(out, "{report:#}")?;
        return Ok(());
    }
    writeln!(
        out,
        "{} files, {pages} pages, all back as they were",
        found.len()
    )?;
    writeln!(
        out,
        "mm_stat: orig_data_size compr_data_size mem_used_total mem_limit mem_used_max same_pages pages_compacted huge_pages huge_pages_since"
    )?;
    for (when, stat) in stats {
        writeln!(out, "{when}:")?;
        writeln!(out, "mm_stat {stat}")?;
    }
    writeln!(
        out,
        "io_stat: failed_reads failed_writes invalid_io notify_free"
    )?;
    writeln!(out, "io_stat {}", device.io_stat())?;
    let ratio = stat.mem_used_total.get() as f64 / stat.orig_data_size.get() as f64;
    writeln!(
        out,
        "{ratio:.3} bytes of memory for each byte, and {books} of books beside it"
    )?;
    if ratio > 1.0 {
        writeln!(
            out,
            "more than without compression: bytes that do not get smaller, or so few that sizes share no frames"
        )?;
    }
    writeln!(
        out,
        "objects reached in place {}, through a pair mapping {}, by a copy {}",
        reads.in_place, reads.mapped, reads.copied
    )?;
    Ok(())
}

fn mm_json(when: &str, stat: &MmStat) -> Value {
    json!({
        "when": when,
        "orig_data_size": stat.orig_data_size.get(),
        "compr_data_size": stat.compr_data_size.get(),
        "mem_used_total": stat.mem_used_total.get(),
        "mem_limit": stat.mem_limit.get(),
        "mem_used_max": stat.mem_used_max.get(),
        "same_pages": stat.same_pages,
        "pages_compacted": stat.pages_compacted,
        "huge_pages": stat.huge_pages,
        "huge_pages_since": stat.huge_pages_since,
    })
}

fn io_json(stat: &IoStat) -> Value {
    json!({
        "failed_reads": stat.failed_reads,
        "failed_writes": stat.failed_writes,
        "invalid_io": stat.invalid_io,
        "notify_free": stat.notify_free,
    })
}
