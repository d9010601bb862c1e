//! The kernel's limit of mappings: what has been unmapped can be shot down there, or nothing would ever become free again.
#![cfg(all(not(loom), target_os = "linux", target_arch = "x86_64"))]

extern crate alloc;

use alloc::sync::Arc;

use pageless_fault::host::{HostFrames, HostRam, HostVspace};
use pageless_fault::{
    MapError, MaySleep, Protection, Vspace, WindowLen, WindowOffset, WindowRange,
};
use pageless_pfn::{FrameCount, Pfn, PfnRange};

/// More pages than the usual limit of mappings, `vm.max_map_count`.
const PAGES: u64 = 1 << 20;

fn page(n: u64) -> WindowRange {
    WindowRange::try_new(WindowOffset::new(n * 4096), 4096).unwrap()
}

#[test]
fn what_is_unmapped_at_the_limit_can_be_shot_down() {
    let one = PfnRange::try_new(Pfn::try_new(0x100).unwrap(), FrameCount::new(1)).unwrap();
    let ram = HostRam::new(one).unwrap();
    let frames = HostFrames::of_ram(&ram).unwrap();
    // A mapping in the middle of the reservation is two more for the kernel, one at its beginning is one more. So by one of these the
    // limit is met, and by the other it is passed by one.
    for first in [0, 1] {
        let len = WindowLen::covering(PAGES * 4096).unwrap();
        let space = HostVspace::reserve(Arc::clone(&frames), len).unwrap();
        fill_up(&space, one, first);
    }
}

fn fill_up(space: &HostVspace, one: PfnRange, first: u64) {
    let ctx = MaySleep::claim();
    let map = |n: u64| space.map(page(n).start(), one, Protection::Read);
    let full = (first..PAGES).step_by(2).find(|n| map(*n).is_err());
    let Some(full) = full else {
        // The limit is higher here than what this test can reach.
        return;
    };
    assert!(matches!(map(full), Err(MapError::NoRoom { .. })));
    for n in [first, first + full / 4 * 2, full - 2] {
        let down = space.take_down(page(n), n).unwrap();
        let debt = space.shoot_down(vec![down]).map_err(|(_, error)| error);
        let flushed = debt.unwrap().settle(&ctx).unwrap();
        assert_eq!(flushed.into_inner(), [n]);
        assert!(space.read(page(n).start(), &mut [0]).is_err(), "page {n}");
    }
    // There is room again.
    map(full).unwrap();
}
