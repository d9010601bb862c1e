//! Who goes when there is no room, and who stays.

use pageless::pfn::{ByteLen, PAGE_SIZE};
use pageless::vmap::compress::{Algorithm, PAGE};
use pageless::vmap::frames::Gfp;
use pageless::vmap::zcache::{PoolKind, ZcacheConfig};

use crate::pages::Random;
use crate::rig::{Host, Rig, Sim, ctx};
use crate::{cache, key};

/// Over the budget the oldest ephemeral pages go, whichever object they are of, and no persistent one ever does.
fn the_oldest_go_first<R: Rig>() {
    R::run(1024, |frames| {
        let (ctx, mut random) = (ctx(), Random::new(1));
        let budget = ByteLen::new(100 * PAGE_SIZE);
        let config = ZcacheConfig {
            budget,
            ..ZcacheConfig::default()
        };
        let cache = cache(frames, Algorithm::Lz4, config);
        let kept = cache.create_pool(PoolKind::Persistent).unwrap();
        let pool = cache.create_pool(PoolKind::Ephemeral).unwrap();
        let gfp = Gfp::kernel(&ctx);
        for index in 0..20 {
            let page = random.text(1000);
            cache.put_page(&gfp, key(kept, 0, index), &page).unwrap();
        }
        // Of one size, so that what is freed can be used.
        for nth in 0..1000 {
            let page = random.text(1000);
            let key = key(pool, nth % 37, nth);
            cache.put_page(&gfp, key, &page).unwrap();
            assert!(cache.store().used() <= budget);
        }
        let stats = cache.stats();
        assert_eq!(stats.store.pages, 1020 - stats.evicted);
        assert!(stats.evicted > 500, "{stats:?}");
        for nth in 0..1000 {
            let there = cache.get_page(&ctx, key(pool, nth % 37, nth), &mut [0; PAGE]);
            assert_eq!(there, Ok(nth >= stats.evicted), "page {nth}, {stats:?}");
        }
        for index in 0..20 {
            let there = cache.get_page(&ctx, key(kept, 0, index), &mut [0; PAGE]);
            assert_eq!(there, Ok(true));
        }
    });
}

#[test]
fn the_oldest_go_first_on_the_host() {
    the_oldest_go_first::<Host>();
}

#[test]
fn the_oldest_go_first_on_the_modelled_machine() {
    the_oldest_go_first::<Sim>();
}

#[test]
fn a_shrinker_stops_where_it_is_told() {
    Host::run(1024, |frames| {
        let (ctx, mut random) = (ctx(), Random::new(2));
        let cache = cache(frames, Algorithm::Lzo, ZcacheConfig::default());
        let kept = cache.create_pool(PoolKind::Persistent).unwrap();
        let pool = cache.create_pool(PoolKind::Ephemeral).unwrap();
        let gfp = Gfp::kernel(&ctx);
        for index in 0..600 {
            let page = random.text(1000);
            let pool = if index % 10 == 0 { kept } else { pool };
            cache
                .put_page(&gfp, key(pool, index / 50, index), &page)
                .unwrap();
        }
        let full = cache.store().used();
        assert_eq!(cache.shrink(full), full);
        assert_eq!(cache.stats().evicted, 0);

        let half = ByteLen::new(full.get() / 2);
        assert!(cache.shrink(half) <= half);
        let stats = cache.stats();
        // A batch at a time; not all.
        assert!((200..400).contains(&stats.evicted), "{stats:?}");

        let least = cache.shrink(ByteLen::ZERO);
        assert_eq!(cache.stats().store.pages, 60);
        assert!(least.get() >= cache.stats().store.compressed.get());
        assert!(least.get() < full.get() / 5);
    });
}

#[test]
fn without_frames_the_oldest_make_room() {
    Host::run(64, |frames| {
        let (ctx, mut random) = (ctx(), Random::new(3));
        let cache = cache(frames, Algorithm::Lz4, ZcacheConfig::default());
        let pool = cache.create_pool(PoolKind::Ephemeral).unwrap();
        let gfp = Gfp::kernel(&ctx);
        for index in 0..2000 {
            let page = random.text(1000);
            cache.put_page(&gfp, key(pool, index, 0), &page).unwrap();
            let mut got = [0; PAGE];
            if index % 3 == 0 {
                assert!(cache.get_page(&ctx, key(pool, index, 0), &mut got).unwrap());
                assert!(got == page);
            }
        }
        let stats = cache.stats();
        assert!(stats.evicted > 500 && stats.failed_puts == 0, "{stats:?}");
    });
}
