//! Hazard: a sparse walk over a huge window leaves memory behind that the books do not know: descriptor
//! pages, or the page tables under them. So the kernel is asked, not the books alone. The only test of
//! its process: `VmPTE` is the whole process's.
#![cfg(all(not(loom), target_os = "linux", target_arch = "x86_64"))]

use pageless_fault::host::HostMachine;
use pageless_fault::{LEAF_TABLE_BYTES, MaySleep};
use pageless_memmap::{Budget, ChunkSize, Config, Memmap};
use pageless_pfn::{FrameCount, PagedPfn, Pfn, PfnFlags, PfnRange, PfnT};
use std::io::Write as _;

/// 1 PiB of 4 KiB frames: 16 TiB of descriptors.
const FRAMES: u64 = 1 << 38;
/// Touched per sweep, one descriptor each, spread evenly: each in a gigabyte of window of its own.
const TOUCHES: u64 = 1000;
/// Whole gigabytes of window, in pfns.
const APART: u64 = (FRAMES / TOUCHES) & !((1 << 24) - 1);
const SWEEPS: u64 = 10;
const BUDGET: u64 = 64 * (4096 + LEAF_TABLE_BYTES);

fn pfn(index: u64) -> PagedPfn {
    PfnT::new(Pfn::try_new(index).unwrap(), PfnFlags::DEV | PfnFlags::MAP)
        .paged()
        .unwrap()
}

/// Bytes of page tables of this process.
fn page_tables() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmPTE:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}

/// Bytes of the window that are in memory: of the one mapping that is terabytes long. Also how many
/// mappings of that size there are.
fn window_resident() -> (u64, u64) {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut inside, mut resident, mut windows) = (false, 0, 0);
    for line in maps.lines() {
        let first = line.split_whitespace().next().unwrap_or("");
        if let Some((start, end)) = first.split_once('-')
            && let (Ok(start), Ok(end)) =
                (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16))
        {
            inside = end - start >= 1 << 40;
            windows += u64::from(inside);
        } else if inside && first == "Rss:" {
            resident += line
                .split_whitespace()
                .nth(1)
                .unwrap()
                .parse::<u64>()
                .unwrap()
                * 1024;
        }
    }
    (resident, windows)
}

#[test]
fn ten_sweeps_over_a_petabyte_leave_what_the_books_say_and_no_more() {
    let ctx = MaySleep::claim();
    let chunk = ChunkSize::MIN;
    let device = PfnRange::try_new(Pfn::try_new(0).unwrap(), FrameCount::new(FRAMES)).unwrap();
    let config = Config {
        chunk,
        budget: Budget::new(BUDGET, chunk).unwrap(),
        reserve_chunks: 0,
        fill_ahead: 1,
    };
    let memmap = Memmap::attach(&HostMachine::new().unwrap(), device, config).unwrap();
    if !memmap.frees_leaf_tables() {
        // Not `eprintln!`: what a passing test prints is not shown.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: this kernel does not give leaf page tables back (Linux 6.14 does); \
             the page-table half of this test needs it"
        );
        return;
    }
    let mut after_sweep = Vec::new();
    for sweep in 0..SWEEPS {
        for touch in 0..TOUCHES {
            // Another chunk and another leaf table of the same gigabyte each time.
            let index = touch * APART + sweep * 40_000;
            let page = memmap.get(&ctx, pfn(index)).unwrap();
            assert_eq!(page.references(), 1);
        }
        let counters = memmap.counters();
        assert!(counters.used_bytes_peak <= BUDGET, "{counters:?}");
        assert_eq!(counters.limbo_bytes, 0);
        let (resident, windows) = window_resident();
        assert_eq!(windows, 1, "the window fell apart");
        assert_eq!(
            resident, counters.live_bytes,
            "resident descriptors, sweep {sweep}"
        );
        after_sweep.push(page_tables() - counters.page_table_bytes);
    }
    memmap.self_check().unwrap();

    // The tables one level up stay: one for each gigabyte of window touched. They come with the first
    // sweep; after it nothing may grow but by the noise of the process itself (its heap, its stacks).
    let (first, last) = (after_sweep[0], after_sweep[SWEEPS as usize - 1]);
    assert!(
        last <= first + 4 * LEAF_TABLE_BYTES,
        "page tables outside the books grew from {first} to {last} bytes: {after_sweep:?}"
    );
    assert!(
        first <= (TOUCHES + 64) * LEAF_TABLE_BYTES,
        "{first} bytes of page tables above the leaves for {TOUCHES} places"
    );

    // Taking everything away gives back exactly the tables that the books say exist.
    let (tables_before, booked) = (page_tables(), memmap.counters().page_table_bytes);
    assert!(booked > 0);
    memmap.reclaim(&ctx, 0).unwrap();
    assert_eq!(memmap.counters().used_bytes(), 0);
    assert_eq!(window_resident().0, 0);
    assert_eq!(
        tables_before - page_tables(),
        booked,
        "leaf tables given back"
    );
}
