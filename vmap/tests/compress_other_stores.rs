//! A page that is taken out of a store that it is not in costs that store nothing.
#![cfg(all(not(loom), target_os = "linux", target_arch = "x86_64"))]

extern crate alloc;

use alloc::sync::Arc;

use pageless_fault::MaySleep;
use pageless_fault::host::HostRam;
use pageless_pfn::{FrameCount, Pfn, PfnRange};
use pageless_vmap::compress::{Access, CompressedStore, Incompressible, LoadError, Lz4, PAGE};
use pageless_vmap::frames::{FrameAllocator, FrameConfig, Gfp};

type Store = CompressedStore<FrameAllocator<HostRam>, Lz4>;

fn store() -> Store {
    let start = Pfn::try_new(0x1_0000).unwrap();
    let frames = PfnRange::try_new(start, FrameCount::new(256)).unwrap();
    let ram = Arc::new(HostRam::new(frames).unwrap());
    CompressedStore::new(
        FrameAllocator::new(ram, FrameConfig::default()).unwrap(),
        Lz4,
    )
}

#[test]
fn its_counts_and_its_own_pages_stay() {
    let (one, other) = (store(), store());
    let ctx = MaySleep::claim();
    let gfp = Gfp::kernel(&ctx);
    let mut small = [0; PAGE];
    small[..8].copy_from_slice(b"a little");
    let mut random = fastrand::Rng::with_seed(1);
    let raw: [u8; PAGE] = core::array::from_fn(|_| random.u8(..));
    for page in [small, raw] {
        let mine = one.put(&gfp, &page, Incompressible::StoreRaw).unwrap();
        let theirs = other.put(&gfp, &page, Incompressible::StoreRaw).unwrap();
        let before = one.stats();
        let mut seen = [0; PAGE];
        let foreign = one.load(&ctx, &theirs, Access::Copied, &mut seen);
        assert!(matches!(foreign, Err(LoadError::Unreachable(_))));
        one.remove(theirs);
        assert_eq!(one.stats().pages, before.pages);
        assert_eq!(one.stats().compressed, before.compressed);
        assert_eq!(one.stats().raw, before.raw);
        one.load(&ctx, &mine, Access::Copied, &mut seen).unwrap();
        assert_eq!(seen, page);
        one.remove(mine);
        let stats = one.stats();
        assert_eq!((stats.pages, stats.compressed.get(), stats.raw), (0, 0, 0));
    }
    assert!(one.used().is_zero());
}
