//! Whoever looks at an object of a store may use the store: he does not wait for what he has in use himself.
#![cfg(all(not(loom), target_os = "linux", target_arch = "x86_64"))]

extern crate alloc;

use alloc::sync::Arc;

use pageless_fault::MaySleep;
use pageless_fault::host::HostRam;
use pageless_fault::sync::set_waiting;
use pageless_pfn::{FrameCount, Pfn, PfnRange};
use pageless_vmap::compress::{Access, CompressedStore, Incompressible, Lz4, PAGE, Page, Stored};
use pageless_vmap::frames::{FrameAllocator, FrameConfig, Gfp};

/// Of a few sizes, so that many objects cross a boundary.
fn page(seed: u64) -> Page {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut page = [0; PAGE];
    page[..500 + seed as usize % 4 * 700].fill_with(|| random.u8(..));
    page
}

#[test]
fn pages_are_put_and_loaded_while_an_object_is_looked_at() {
    let start = Pfn::try_new(0x1_0000).unwrap();
    let frames = PfnRange::try_new(start, FrameCount::new(256)).unwrap();
    let ram = Arc::new(HostRam::new(frames).unwrap());
    let frames = FrameAllocator::new(ram, FrameConfig::default()).unwrap();
    let store = CompressedStore::new(frames, Lz4);
    let ctx = MaySleep::claim();
    let put = |seed| {
        let gfp = Gfp::kernel(&ctx);
        store
            .put(&gfp, &page(seed), Incompressible::Refuse)
            .unwrap()
    };
    let stored: Vec<Stored> = (0..64).map(put).collect();
    set_waiting(Some(|_| panic!("waits for a lock")));
    for access in [Access::Copied, Access::Segments] {
        for (one, seed) in stored.iter().zip(100..) {
            let Stored::Compressed { handle, .. } = one else {
                panic!("{one:?}");
            };
            let shown = store.with_bytes(&ctx, handle, access, |bytes| {
                let shown = bytes.to_vec();
                let another = put(seed);
                let mut whole = [0; PAGE];
                store.load(&ctx, &another, access, &mut whole).unwrap();
                assert!(whole == page(seed));
                store.remove(another);
                assert!(bytes == shown, "what is looked at stays");
            });
            shown.unwrap();
        }
    }
    assert!(
        store.stats().reads.copied > 0,
        "no object crosses a boundary"
    );
    for one in stored {
        store.remove(one);
    }
    assert!(store.used().is_zero());
}
