//! What the cache does, on both machines.

use pageless::vmap::compress::{Access, Algorithm, Incompressible, PAGE, PutError};
use pageless::vmap::frames::Gfp;
use pageless::vmap::zcache::{PoolKind, ZcacheConfig, ZcachePutError};

use crate::pages::Random;
use crate::rig::{Frames, Host, Rig, Sim, ctx};
use crate::{cache, key};

/// Runs a test on both machines, with both compressors.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod host {
            use super::*;
            $(#[test] fn $name() { Host::run(1024, |frames| Algorithm::ALL.map(|a| super::$name(frames, a)).into_iter().collect()); })*
        }
        mod sim {
            use super::*;
            $(#[test] fn $name() { Sim::run(1024, |frames| Algorithm::ALL.map(|a| super::$name(frames, a)).into_iter().collect()); })*
        }
    };
}

on_both! {
    an_ephemeral_page_is_got_once
    a_persistent_page_stays_until_it_is_flushed
    every_access_gets_the_same
    objects_and_pools_go_as_a_whole
    what_does_not_get_smaller_is_refused_or_kept_by_rule
}

fn an_ephemeral_page_is_got_once<R: Rig>(frames: &Frames<'_, R>, algorithm: Algorithm) {
    let (ctx, mut random) = (ctx(), Random::new(1));
    let cache = cache(frames, algorithm, ZcacheConfig::default());
    let pool = cache.create_pool(PoolKind::Ephemeral).unwrap();
    let page = random.text(900);
    cache
        .put_page(&Gfp::kernel(&ctx), key(pool, 1, 1), &page)
        .unwrap();
    let mut got = [0; PAGE];
    assert!(cache.get_page(&ctx, key(pool, 1, 1), &mut got).unwrap());
    assert!(got == page);
    assert!(!cache.get_page(&ctx, key(pool, 1, 1), &mut got).unwrap());
    assert!(!cache.get_page(&ctx, key(pool, 1, 2), &mut got).unwrap());
    let stats = cache.stats();
    assert_eq!((stats.puts, stats.gets, stats.misses), (1, 1, 2));
    assert!(cache.store().used().is_zero());
}

fn a_persistent_page_stays_until_it_is_flushed<R: Rig>(
    frames: &Frames<'_, R>,
    algorithm: Algorithm,
) {
    let (ctx, mut random) = (ctx(), Random::new(2));
    let cache = cache(frames, algorithm, ZcacheConfig::default());
    let pool = cache.create_pool(PoolKind::Persistent).unwrap();
    let pages = [random.text(900), random.filled(), random.text(3000)];
    for (page, index) in pages.iter().zip(0..) {
        let key = key(pool, 7, index);
        cache.put_page(&Gfp::kernel(&ctx), key, page).unwrap();
    }
    for _ in 0..3 {
        for (page, index) in pages.iter().zip(0..) {
            let mut got = [0; PAGE];
            assert!(cache.get_page(&ctx, key(pool, 7, index), &mut got).unwrap());
            assert!(got == *page);
        }
    }
    assert_eq!(cache.stats().store.filled, 1);
    assert!(cache.flush_page(key(pool, 7, 0)));
    assert!(!cache.flush_page(key(pool, 7, 0)));
    assert!(
        !cache
            .get_page(&ctx, key(pool, 7, 0), &mut [0; PAGE])
            .unwrap()
    );
    assert_eq!(cache.flush_object(pool, key(pool, 7, 0).object), 2);
    assert!(cache.store().used().is_zero());
    assert_eq!(cache.stats().flushed, 3);
}

fn every_access_gets_the_same<R: Rig>(frames: &Frames<'_, R>, algorithm: Algorithm) {
    let (ctx, mut random) = (ctx(), Random::new(3));
    // Of a few sizes, so that zspages are filled, and many cross a boundary in them.
    let pages: Vec<_> = (0..64)
        .map(|nth| random.text(500 + nth % 4 * 700))
        .collect();
    for access in [Access::Mapped, Access::Copied, Access::Segments] {
        let config = ZcacheConfig {
            access,
            ..ZcacheConfig::default()
        };
        let cache = cache(frames, algorithm, config);
        let pool = cache.create_pool(PoolKind::Persistent).unwrap();
        for (page, index) in pages.iter().zip(0..) {
            let key = key(pool, 0, index);
            cache.put_page(&Gfp::kernel(&ctx), key, page).unwrap();
        }
        for (page, index) in pages.iter().zip(0..) {
            let mut got = [0; PAGE];
            assert!(cache.get_page(&ctx, key(pool, 0, index), &mut got).unwrap());
            assert!(got == *page, "{access:?}");
        }
        let reads = cache.stats().store.reads;
        match access {
            Access::Mapped => assert!(reads.mapped > 5 && reads.copied == 0, "{reads:?}"),
            _ => assert!(
                reads.mapped == 0 && reads.copied > 5,
                "{access:?}, {reads:?}"
            ),
        }
    }
}

fn objects_and_pools_go_as_a_whole<R: Rig>(frames: &Frames<'_, R>, algorithm: Algorithm) {
    let (ctx, mut random) = (ctx(), Random::new(4));
    let cache = cache(frames, algorithm, ZcacheConfig::default());
    let kinds = [PoolKind::Ephemeral, PoolKind::Persistent];
    let pools = kinds.map(|kind| cache.create_pool(kind).unwrap());
    let page = random.text(300);
    let gfp = Gfp::kernel(&ctx);
    let objects = [0, 1, 2, u64::MAX];
    let indices = [0, 1, u64::MAX];
    for pool in pools {
        for object in objects {
            for index in indices {
                cache
                    .put_page(&gfp, key(pool, object, index), &page)
                    .unwrap();
            }
        }
    }
    assert_eq!(cache.flush_object(pools[0], key(pools[0], 1, 0).object), 3);
    assert_eq!(cache.flush_object(pools[0], key(pools[0], 1, 0).object), 0);
    assert_eq!(cache.stats().store.pages, 21);
    assert_eq!(cache.destroy_pool(pools[1]), 12);
    assert_eq!(cache.destroy_pool(pools[1]), 0);
    let refused = cache.put_page(&gfp, key(pools[1], 0, 0), &page);
    assert_eq!(refused, Err(ZcachePutError::NoPool { pool: pools[1] }));
    for object in objects {
        for index in indices {
            let there = cache.get_page(&ctx, key(pools[0], object, index), &mut [0; PAGE]);
            assert_eq!(there.unwrap(), object != 1, "{object} {index}");
        }
    }
    assert!(cache.store().used().is_zero());
}

fn what_does_not_get_smaller_is_refused_or_kept_by_rule<R: Rig>(
    frames: &Frames<'_, R>,
    algorithm: Algorithm,
) {
    let (ctx, mut random) = (ctx(), Random::new(5));
    let noise = random.noise();
    for incompressible in [Incompressible::Refuse, Incompressible::StoreRaw] {
        let config = ZcacheConfig {
            incompressible,
            ..ZcacheConfig::default()
        };
        let cache = cache(frames, algorithm, config);
        let pool = cache.create_pool(PoolKind::Ephemeral).unwrap();
        let put = cache.put_page(&Gfp::kernel(&ctx), key(pool, 0, 0), &noise);
        let mut got = [0; PAGE];
        let there = cache.get_page(&ctx, key(pool, 0, 0), &mut got).unwrap();
        match incompressible {
            Incompressible::Refuse => {
                let worth_it = cache.store().worth_it();
                assert_eq!(put, Err(PutError::Incompressible { worth_it }.into()));
                assert!(!there);
                assert_eq!(cache.stats().failed_puts, 1);
            }
            Incompressible::StoreRaw => assert!(put.is_ok() && there && got == noise),
        }
    }
}
