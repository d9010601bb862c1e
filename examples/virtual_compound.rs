//! Memory is half free and in pieces: nobody gets 64 KiB in one piece, and everybody gets 64 KiB.
//!
//! `cargo run --release --example virtual_compound`

extern crate alloc;

mod stdout;

use alloc::sync::Arc;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use pageless::DirectMap;
use pageless::block::{Bio, Op, Pmem, PmemFrames, Sector, submit_sync};
use pageless::fault::host::{HostFrames, HostMachine, HostRam, HostVspace};
use pageless::fault::{FrameMemory, MaySleep, VirtAddr, Vspace, Window, WindowLen};
use pageless::memmap::{Config, Memmap};
use pageless::pfn::{ByteLen, FrameCount, PAGE_SIZE, Pfn, PfnRange};
use pageless::vmap::area::{AreaSpace, VmallocConfig};
use pageless::vmap::buffer_pool::BufferPool;
use pageless::vmap::compound::Pages;
use pageless::vmap::frames::{Fragmentation, FrameAllocator, FrameConfig, Gfp, Order, PerCpuPlan};
use pageless::vmap::slab::{SlabCache, SlabConfig};

/// Breaks memory into pieces, and shows who still gets 64 KiB of it: nobody in one piece, everybody through a mapping.
///
/// All of it happens in 16 MiB of this process, and is the same in every run.
#[derive(Debug, Parser)]
#[command(after_help = "Exit status: 0 done; 1 failed, for want of memory for one; 2 wrong usage.")]
struct Arguments {}

fn main() -> ExitCode {
    let Arguments {} = Arguments::parse();
    stdout::speaking(run)
}

fn run(out: &mut dyn Write) -> Result<(), Box<dyn core::error::Error>> {
    let ctx = MaySleep::claim();

    // 16 MiB of memory whose frames can appear at several addresses, and 1 GiB of addresses for them to appear at.
    let pfns = PfnRange::try_new(Pfn::try_new(0x10_0000)?, FrameCount::new(4096))?;
    let ram = HostRam::new(pfns)?;
    let addresses = WindowLen::covering(1 << 30).ok_or("1 GiB of addresses")?;
    let space = HostVspace::reserve(HostFrames::of_ram(&ram)?, addresses)?;
    let memmap = Memmap::attach(&HostMachine::new()?, pfns, Config::default())?;
    let config = FrameConfig {
        dma_frames: FrameCount::ZERO,
        // Lists for each CPU would make this output depend on the machine.
        percpu: PerCpuPlan::None,
        ..FrameConfig::default()
    };
    let frames = Arc::new(FrameAllocator::new(Arc::new(ram), config)?);
    let areas = Arc::new(AreaSpace::new(space, VmallocConfig::for_cpus(1)));
    let pages = Arc::new(Pages::new(frames, Arc::new(memmap), areas));
    writeln!(out, "free blocks of 4 KiB, 8 KiB, ... 4 MiB:")?;
    write!(out, "{}", pages.frames().statistics())?;

    // One frame of each 64 KiB stays taken, and some more: half of memory is free.
    let order = Order::try_new(4)?;
    let how = Fragmentation {
        order,
        keep_free: 533,
        seed: 2007,
    };
    let taken = pages.frames().fragment(how)?;
    let free = pages.frames().statistics();
    writeln!(out, "\nfragmented: {} of 4096 are free:", free.free())?;
    write!(out, "{free}")?;
    let unusable = free.blocks().unusable_index(order);
    writeln!(out, "of them, no use for 64 KiB: {unusable}")?;

    // In one piece: never.
    let contiguous = Gfp::kernel(&ctx);
    let failed = (0..100).filter(|_| pages.alloc(&contiguous, order).is_err());
    writeln!(
        out,
        "\n64 KiB in one piece: {} of 100 failed",
        failed.count()
    )?;

    // The same with the fallback: the frames are anywhere, the addresses are not.
    let gfp = contiguous.virtual_fallback();
    let block = pages.alloc(&gfp, order)?;
    block.write(PAGE_SIZE - 6, b"across a boundary")?;
    let mut found = [0; 17];
    pages.read(in_it(block.address(), PAGE_SIZE - 6)?, &mut found)?;
    let found = core::str::from_utf8(&found)?;
    writeln!(out, "with the fallback: one block, which reads {found:?}")?;
    for n in 0..3 {
        let page = block.nth(n).ok_or("16 pages")?;
        writeln!(
            out,
            "  page {n} is frame {page}, whose head is {}",
            pages.compound_head(page).ok_or("a page of a block")?
        )?;
    }

    // Whoever uses a block does not ask which kind it is. Inodes, in slabs of 32 KiB:
    let config = SlabConfig::new("inode", ByteLen::new(600), Order::try_new(3)?);
    let cache = SlabCache::new(Arc::clone(&pages), config)?;
    let inodes: Result<Vec<_>, _> = (0..100).map(|_| cache.alloc(&gfp)).collect();
    let inodes = inodes?;
    // Which slab an inode lies in is found by its address, across all boundaries within.
    pages.write(inodes[99], &[1; 600])?;
    writeln!(out, "\n{}", cache.statistics())?;

    // And a buffer of 256 KiB for I/O: one address for who computes, frames for the device.
    let pool = BufferPool::new(Arc::clone(&pages), Order::try_new(6)?, 2);
    let buffer = pool.get(&gfp)?;
    writeln!(
        out,
        "a buffer of {} in {} pieces of memory",
        buffer.len(),
        buffer.segments().count()
    )?;
    // A bio takes those pieces as they are, from the one and into the other.
    let memory = DirectMap::new(Arc::clone(pages.frames().memory()));
    let device = PmemFrames::memfd(Pfn::try_new(1 << 30)?, ByteLen::new(1 << 20))?;
    let device = Pmem::new(device, memory);
    buffer.write(PAGE_SIZE - 6, b"through a device!")?;
    let mut write = Bio::new(Op::Write, Sector::new(0));
    write.extend(buffer.segments());
    submit_sync(&device, write)?.result()?;
    let mut read = Bio::new(Op::Read, Sector::new(0));
    read.extend(block.segments());
    let segments = read.segments().len();
    submit_sync(&device, read)?.result()?;
    let mut found = [0; 17];
    block.read(PAGE_SIZE - 6, &mut found)?;
    let found = core::str::from_utf8(&found)?;
    writeln!(
        out,
        "written by a bio, and read by one of {segments} segments into the block: {found:?}"
    )?;

    writeln!(
        out,
        "\nwhat is mapped (addresses from where the space begins):"
    )?;
    list(out, &pages)?;
    writeln!(out, "\n{:#?}", pages.counters())?;

    // Everything back. Mappings wait for a shootdown, and their frames with them, until somebody purges, or is short of memory.
    drop(block);
    drop(buffer);
    drop(pool);
    for inode in inodes {
        cache.free(inode)?;
    }
    drop(cache);
    let waiting = pages.frames().statistics().owned();
    let purged = pages.areas().purge(&ctx)?;
    let still = pages.frames().statistics().owned();
    writeln!(
        out,
        "\nafter the last drop {waiting} are out; one purge of {} areas later {still}, those of the fragmentation",
        purged.areas
    )?;
    drop(taken);
    write!(out, "{}", pages.frames().statistics())?;
    Ok(())
}

/// So many bytes behind the beginning of a block.
fn in_it(start: VirtAddr, at: u64) -> Result<VirtAddr, &'static str> {
    start.checked_add(at).ok_or("no such address")
}

/// As `/proc/vmallocinfo` has it.
fn list<M, S, W>(out: &mut dyn Write, pages: &Pages<M, S, W>) -> io::Result<()>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    let base = pages.areas().space().base();
    // The kernel puts a space where it likes, every time elsewhere.
    let from_base = |address: VirtAddr| {
        let offset = address.checked_offset_from(base);
        offset.map_or(address, VirtAddr::new)
    };
    for mut area in pages.areas().areas() {
        area.start = from_base(area.start);
        area.end = from_base(area.end);
        writeln!(out, "  {area}")?;
    }
    Ok(())
}
