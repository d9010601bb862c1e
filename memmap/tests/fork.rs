//! Hazard: a forked child shares its parent's window and corrupts it. The only test of its process:
//! it forks.
#![cfg(all(not(loom), target_os = "linux", target_arch = "x86_64"))]
#![expect(unsafe_code, reason = "fork, and what a forked child may do")]

use pageless_fault::host::HostMachine;
use pageless_fault::{MaySleep, UnmapError};
use pageless_memmap::{Budget, ChunkSize, Config, DetachError, GetError, Memmap, TryGetError};
use pageless_pfn::{FrameCount, PagedPfn, Pfn, PfnFlags, PfnRange, PfnT};

fn pfn(index: u64) -> PagedPfn {
    PfnT::new(Pfn::try_new(index).unwrap(), PfnFlags::DEV | PfnFlags::MAP)
        .paged()
        .unwrap()
}

/// Runs `child` in a forked child and returns its exit status; 0 if all it claimed is true.
fn in_child(child: impl FnOnce() -> Result<(), i32>) -> i32 {
    // SAFETY: the child makes lookups and system calls, and ends without running anything else of the
    // parent's; the parent waits for it.
    unsafe {
        let pid = libc::fork();
        assert!(pid >= 0, "fork");
        if pid == 0 {
            libc::_exit(child().err().unwrap_or(0));
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
        if libc::WIFEXITED(status) {
            libc::WEXITSTATUS(status)
        } else {
            -libc::WTERMSIG(status)
        }
    }
}

/// A page of the calling process's own, filled with 0x5a.
fn fresh_page() -> *mut u8 {
    // SAFETY: a new private mapping, written before anybody else knows of it.
    unsafe {
        let page = libc::mmap(
            core::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        assert_ne!(page, libc::MAP_FAILED);
        page.cast::<u8>().write_bytes(0x5a, 4096);
        page.cast()
    }
}

fn claim(holds: bool, otherwise: i32) -> Result<(), i32> {
    if holds { Ok(()) } else { Err(otherwise) }
}

#[test]
fn a_forked_child_is_refused_and_the_parent_does_not_notice() {
    let ctx = MaySleep::claim();
    let chunk = ChunkSize::MIN;
    let config = Config {
        chunk,
        budget: Budget::new(1 << 20, chunk).unwrap(),
        reserve_chunks: 0,
        fill_ahead: 1,
    };
    let device = PfnRange::try_new(Pfn::try_new(0).unwrap(), FrameCount::new(1 << 30)).unwrap();
    let memmap = Memmap::attach(&HostMachine::new().unwrap(), device, config).unwrap();
    let held = memmap.get(&ctx, pfn(7)).unwrap();
    held.set_private(0, 77);
    let inherited = memmap.get(&ctx, pfn(7)).unwrap();
    let before = memmap.counters();

    let mut inherited = Some(inherited);
    let status = in_child(|| {
        // Present in the parent; absent in the parent; and from an atomic context.
        claim(memmap.get(&ctx, pfn(7)).err() == Some(GetError::Foreign), 1)?;
        claim(
            memmap.get(&ctx, pfn(999_999)).err() == Some(GetError::Foreign),
            2,
        )?;
        claim(
            memmap.try_get(pfn(7)).err() == Some(TryGetError::Foreign),
            3,
        )?;
        // Giving an inherited reference back goes nowhere.
        drop(inherited.take());
        // Reclaiming must not reach into the parent either.
        claim(memmap.reclaim(&ctx, 0) == Err(UnmapError::Foreign), 4)
    });
    assert_eq!(status, 0, "what the child found");

    assert_eq!(
        held.references(),
        2,
        "the child changed a count of its parent"
    );
    assert_eq!(held.private(0), 77);
    assert_eq!(memmap.counters(), before);
    // The chunk that the child asked for is still absent here.
    assert_eq!(memmap.chunk(pfn(999_999).pfn()), None);
    drop(memmap.get(&ctx, pfn(999_999)).unwrap());
    assert_eq!(
        memmap.counters().chunks_populated,
        before.chunks_populated + 1
    );
    drop((held, inherited));
    memmap.detach(&ctx, || true).unwrap();

    // Giving an inherited memmap up touches nothing that the child has mapped since, wherever it is.
    let config_with_reserve = Config {
        reserve_chunks: 16,
        ..config
    };
    let mut with_reserve =
        Some(Memmap::attach(&HostMachine::new().unwrap(), device, config_with_reserve).unwrap());
    let status = in_child(|| {
        let own: Vec<*mut u8> = (0..64).map(|_| fresh_page()).collect();
        let inherited = with_reserve.take().ok_or(20)?;
        let refused = inherited.detach(&MaySleep::claim(), || true);
        claim(refused == Err(DetachError::Unmap(UnmapError::Foreign)), 21)?;
        drop(inherited);
        // SAFETY: pages that `fresh_page` mapped, and nobody has unmapped if all is well.
        claim(own.iter().all(|page| unsafe { **page } == 0x5a), 22)
    });
    assert_eq!(status, 0, "a child that drops an inherited memmap");
    drop(with_reserve);

    // A memmap of the child's own works.
    let status = in_child(|| {
        let own =
            Memmap::attach(&HostMachine::new().map_err(|_| 10)?, device, config).map_err(|_| 11)?;
        let page = own.get(&ctx, pfn(3)).map_err(|_| 12)?;
        claim(page.references() == 1, 13)
    });
    assert_eq!(status, 0, "a memmap attached by the child");
}
