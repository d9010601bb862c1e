//! Hazard: whoever gets a page waits for a shootdown with a lock in his hands, and somebody who must not wait waits for the lock.

use alloc::sync::{Arc, Weak};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;

use pageless::fault::MaySleep;
use pageless::fault::host::HostRam;
use pageless::fault::sync::set_waiting;
use pageless::pfn::{FrameCount, Pfn, PfnRange};
use pageless::vmap::compress::{CompressedStore, Lz4, PAGE, Windows};
use pageless::vmap::frames::{FrameAllocator, FrameConfig, Gfp};
use pageless::vmap::zcache::{PoolKind, Zcache, ZcacheConfig};
use pageless::vmap::zsmalloc::{FrameSource, Handle, Zsmalloc};

use crate::key;
use crate::pages::Random;
use crate::rig::ctx;

type Cache = Zcache<FrameAllocator<HostRam>, Lz4, Meanwhile>;

/// Where others would wait for a shootdown it does something, and has no window.
#[derive(Default)]
struct Meanwhile(Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>);

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meanwhile").finish_non_exhaustive()
    }
}

impl Windows for Meanwhile {
    fn show<F: FrameSource, R, L: FnOnce(&[u8]) -> R>(
        &self,
        _: &MaySleep,
        _: &Zsmalloc<F>,
        _: &Handle,
        look: L,
    ) -> Result<R, L> {
        if let Some(meanwhile) = self.0.get() {
            meanwhile();
        }
        Err(look)
    }
}

#[test]
fn pages_come_and_go_while_another_page_of_their_object_is_mapped() {
    let start = Pfn::try_new(0x1_0000).unwrap();
    let frames = PfnRange::try_new(start, FrameCount::new(256)).unwrap();
    let ram = Arc::new(HostRam::new(frames).unwrap());
    let frames = FrameAllocator::new(ram, FrameConfig::default()).unwrap();
    let meanwhile = Meanwhile::default();
    let hook = Arc::clone(&meanwhile.0);
    let store = CompressedStore::new(frames, Lz4).with_windows(meanwhile);
    let cache: Arc<Cache> = Arc::new(Zcache::new(store, ZcacheConfig::default()));
    let pool = cache.create_pool(PoolKind::Persistent).unwrap();

    let (ctx, mut random) = (ctx(), Random::new(8));
    let pages: Vec<_> = (0..64)
        .map(|nth| random.text(500 + nth % 4 * 700))
        .collect();
    for (page, index) in pages.iter().zip(0..) {
        let key = key(pool, 0, index);
        cache.put_page(&Gfp::kernel(&ctx), key, page).unwrap();
    }
    let times = Arc::new(AtomicU64::new(0));
    let (counted, other) = (Arc::clone(&times), random.text(100));
    let weak: Weak<Cache> = Arc::downgrade(&cache);
    let set = hook.set(Box::new(move || {
        let cache = weak.upgrade().unwrap();
        let before = set_waiting(Some(|_| panic!("waits for a lock")));
        // Another page of the object, and the one that is being read: it is there all the same for who reads it.
        let nth = counted.fetch_add(1, Ordering::Relaxed);
        cache
            .put_page(&Gfp::atomic(), key(pool, 0, 100 + nth), &other)
            .unwrap();
        for index in 0..64 {
            cache.flush_page(key(pool, 0, index));
        }
        set_waiting(before);
    }));
    assert!(set.is_ok());
    let mut got = [0; PAGE];
    let mut there = 0;
    for (page, index) in pages.iter().zip(0..) {
        if cache.get_page(&ctx, key(pool, 0, index), &mut got).unwrap() {
            assert!(got == *page);
            there += 1;
        }
    }
    assert_eq!(
        times.load(Ordering::Relaxed),
        1,
        "the others went meanwhile"
    );
    assert!(there > 0);
    cache.destroy_pool(pool);
    assert!(cache.store().used().is_zero());
    assert_eq!(cache.stats().store.pages, 0);
}
