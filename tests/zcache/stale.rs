//! Hazard: a page that was put again comes back as it was before. That is how a cache loses a file system's data: the newer page has been
//! written out, and the older one is read.

use pageless::fault::FrameMemory;
use pageless::pfn::{ByteLen, PAGE_SIZE};
use pageless::vmap::compress::{Algorithm, Compressor, Incompressible, LoadError, PAGE, PutError};
use pageless::vmap::frames::Gfp;
use pageless::vmap::zcache::{PoolKind, ZcacheConfig, ZcachePutError};
use pageless::vmap::zsmalloc::FrameSource;

use crate::pages::Random;
use crate::rig::{Host, Rig, ctx};
use crate::{cache, key};

const KINDS: [PoolKind; 2] = [PoolKind::Ephemeral, PoolKind::Persistent];

#[test]
fn a_page_put_again_is_the_new_one() {
    Host::run(256, |frames| {
        let (ctx, mut random) = (ctx(), Random::new(1));
        let cache = cache(frames, Algorithm::Lz4, ZcacheConfig::default());
        for kind in KINDS {
            let pool = cache.create_pool(kind).unwrap();
            let mut last = [0; PAGE];
            for _ in 0..20 {
                last = random.text(700);
                cache
                    .put_page(&Gfp::kernel(&ctx), key(pool, 1, 1), &last)
                    .unwrap();
            }
            assert_eq!(cache.stats().store.pages, 1);
            let mut got = [0; PAGE];
            assert!(cache.get_page(&ctx, key(pool, 1, 1), &mut got).unwrap());
            assert!(got == last);
            cache.destroy_pool(pool);
        }
    });
}

#[test]
fn a_page_put_again_that_is_refused_takes_the_old_one_out() {
    Host::run(256, |frames| {
        let (ctx, mut random) = (ctx(), Random::new(2));
        let cache = cache(frames, Algorithm::Lzo, ZcacheConfig::default());
        for kind in KINDS {
            let pool = cache.create_pool(kind).unwrap();
            let key = key(pool, 1, 1);
            let gfp = Gfp::kernel(&ctx);
            cache.put_page(&gfp, key, &random.text(700)).unwrap();
            let refused = cache.put_page(&gfp, key, &random.noise());
            assert!(matches!(
                refused,
                Err(ZcachePutError::Store(PutError::Incompressible { .. }))
            ));
            assert!(!cache.get_page(&ctx, key, &mut [0; PAGE]).unwrap());
        }
        assert!(cache.store().used().is_zero());
    });
}

#[test]
fn a_page_put_again_that_finds_no_frame_takes_the_old_one_out() {
    Host::run(256, |frames| {
        let (ctx, mut random) = (ctx(), Random::new(3));
        let cache = cache(frames, Algorithm::Lz4, ZcacheConfig::default());
        let pool = cache.create_pool(PoolKind::Persistent).unwrap();
        let key = key(pool, 1, 1);
        let gfp = Gfp::kernel(&ctx);
        cache.put_page(&gfp, key, &random.text(700)).unwrap();
        frames.leave(0);
        // Of another class, so that it needs frames.
        let refused = cache.put_page(&gfp, key, &random.text(2000));
        frames.leave(u64::MAX);
        assert!(matches!(
            refused,
            Err(ZcachePutError::Store(PutError::NoMemory { .. }))
        ));
        assert!(!cache.get_page(&ctx, key, &mut [0; PAGE]).unwrap());
        assert_eq!(cache.stats().store.pages, 0);
    });
}

#[test]
fn a_page_put_again_over_the_budget_takes_the_old_one_out() {
    Host::run(256, |frames| {
        let (ctx, mut random) = (ctx(), Random::new(4));
        let budget = ByteLen::new(10 * PAGE_SIZE);
        let config = ZcacheConfig {
            budget,
            incompressible: Incompressible::StoreRaw,
            ..ZcacheConfig::default()
        };
        let cache = cache(frames, Algorithm::Lz4, config);
        let pool = cache.create_pool(PoolKind::Persistent).unwrap();
        let gfp = Gfp::kernel(&ctx);
        let mut old = Vec::new();
        // Those of a frame each fill what is left.
        for noise in [false, true] {
            let refused = loop {
                let index = old.len() as u64;
                let page = if noise {
                    random.noise()
                } else {
                    random.text(2600)
                };
                match cache.put_page(&gfp, key(pool, 0, index), &page) {
                    Ok(()) => old.push(page),
                    Err(error) => break error,
                }
                assert!(cache.store().used() <= budget);
            };
            assert!(matches!(
                refused,
                ZcachePutError::Store(PutError::OverLimit { .. })
            ));
        }
        assert!(old.len() > 8, "{}", old.len());
        // One that is there, with a page of another class.
        let put = cache.put_page(&gfp, key(pool, 0, 3), &random.text(1200));
        assert!(put.is_err());
        for (page, index) in old.iter().zip(0..) {
            let mut got = [0; PAGE];
            let there = cache.get_page(&ctx, key(pool, 0, index), &mut got).unwrap();
            assert!(there == (index != 3) && (!there || got == *page), "{index}");
        }
    });
}

#[test]
fn a_spoilt_page_is_an_error_once_and_then_not_there() {
    Host::run(256, |frames| {
        for algorithm in Algorithm::ALL {
            let (ctx, mut random) = (ctx(), Random::new(5));
            let cache = cache(frames, algorithm, ZcacheConfig::default());
            for kind in KINDS {
                let pool = cache.create_pool(kind).unwrap();
                let page = random.text(700);
                cache
                    .put_page(&Gfp::kernel(&ctx), key(pool, 1, 1), &page)
                    .unwrap();

                let mut room = [0; 2 * PAGE];
                let len = algorithm.compress(&mut algorithm.work(), &page, &mut room);
                let bytes = &room[..len.unwrap()];
                for pfn in frames.memory().frames().iter() {
                    let mut frame = [0; PAGE];
                    frames.memory().read(pfn.phys(), &mut frame).unwrap();
                    if let Some(at) = frame.windows(64).position(|here| here == &bytes[..64]) {
                        let at = pfn.phys().checked_add(ByteLen::new(at as u64)).unwrap();
                        frames.memory().write(at, &vec![0xFF; bytes.len()]).unwrap();
                    }
                }
                let spoilt = cache.get_page(&ctx, key(pool, 1, 1), &mut [0; PAGE]);
                assert!(matches!(spoilt, Err(LoadError::Spoilt(_))), "{kind:?}");
                let again = cache.get_page(&ctx, key(pool, 1, 1), &mut [0; PAGE]);
                assert_eq!(again, Ok(false));
            }
            assert!(cache.store().used().is_zero());
        }
    });
}
