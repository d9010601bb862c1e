//! Hazard: a program runs over the end of what it has mapped and is in somebody else's memory. Behind each area lies a page that is
//! never mapped: on the host the program's own instruction faults there, and ends the process.
#![cfg(all(not(loom), not(miri), target_os = "linux", target_arch = "x86_64"))]

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use pageless_fault::host::{HostFrames, HostRam, HostVspace};
use pageless_fault::{FrameMemory, MaySleep, Protection, VirtAddr, WindowLen};
use pageless_pfn::{FrameCount, Pfn, PfnFlags, PfnRange, PfnT};
use pageless_vmap::area::{NoDescriptors, Vmalloc, VmallocConfig};

const ROLE: &str = "PAGELESS_OVERRUN";
/// SIGSEGV.
const SEGMENTATION_FAULT: i32 = 11;
/// Pages of each area.
const PAGES: u64 = 3;

/// The child: reads the last byte of an area that has another one right behind it, says so, and reads on until something is there.
fn run_over() {
    let start = Pfn::try_new(0x1_0000).unwrap();
    let ram = HostRam::new(PfnRange::try_new(start, FrameCount::new(64)).unwrap()).unwrap();
    let len = WindowLen::covering(64 * 4096).unwrap();
    let space = HostVspace::reserve(HostFrames::of_ram(&ram).unwrap(), len).unwrap();
    let vmalloc = Vmalloc::new(space, NoDescriptors, VmallocConfig::for_cpus(1));
    let ctx = MaySleep::claim();
    let mut areas = Vec::new();
    for (n, frames) in (1_u8..=8).zip(
        ram.frames()
            .iter()
            .collect::<Vec<_>>()
            .chunks(PAGES as usize),
    ) {
        for frame in frames {
            ram.write(frame.phys(), &[n; 4096]).unwrap();
        }
        let of_nobody = |frame: &Pfn| PfnT::new(*frame, PfnFlags::DEV);
        let list: Vec<_> = frames.iter().map(of_nobody).collect();
        let address = vmalloc.vmap(&ctx, &list, Protection::ReadWrite).unwrap();
        areas.push((address, n));
    }
    // Addresses are handed out close together: somewhere two areas have no more than the guard page between them.
    areas.sort_unstable();
    let gap = |from: VirtAddr, to: VirtAddr| {
        let end = from.checked_add(PAGES * 4096).unwrap();
        to.checked_offset_from(end).unwrap()
    };
    let (address, n) = areas
        .windows(2)
        .find(|pair| gap(pair[0].0, pair[1].0) <= 4096)
        .expect("two areas side by side")[0];
    println!("area {n}");
    let end = address.get() as usize + (PAGES * 4096) as usize;
    for at in [end - 1, end] {
        let at = core::ptr::with_exposed_provenance::<u8>(at);
        #[expect(unsafe_code, reason = "the overrun itself")]
        // SAFETY: the first byte is mapped; the second one ends the process, which is what is looked at.
        let byte = unsafe { at.read_volatile() };
        println!("read {byte}");
    }
}

#[test]
fn whoever_reads_on_behind_an_area_is_ended_by_sigsegv_and_sees_nothing_of_the_next_one() {
    if std::env::var_os(ROLE).is_some() {
        return run_over();
    }
    let me = std::env::current_exe().unwrap();
    let name =
        "whoever_reads_on_behind_an_area_is_ended_by_sigsegv_and_sees_nothing_of_the_next_one";
    let child = Command::new(me)
        .args([name, "--exact", "--nocapture"])
        .env(ROLE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(
        said.contains("area "),
        "{said}\n{}",
        String::from_utf8_lossy(&child.stderr)
    );
    assert_eq!(said.matches("read ").count(), 1, "read on:\n{said}");
    assert_eq!(
        child.status.signal(),
        Some(SEGMENTATION_FAULT),
        "{:?}",
        child.status
    );
}
