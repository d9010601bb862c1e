//! Hazard: threads that put, get, flush, evict and compact at the same time hand each other's pages out, or lose memory.

use alloc::collections::BTreeMap;

use pageless::pfn::{ByteLen, PAGE_SIZE};
use pageless::vmap::compress::{Algorithm, PAGE};
use pageless::vmap::frames::Gfp;
use pageless::vmap::zcache::{PoolKind, ZcacheConfig};

use crate::pages::Random;
use crate::rig::{Host, Rig, Sim, ctx};
use crate::{cache, key};

const THREADS: u16 = 3;

fn each_thread_gets_back_what_it_put_or_nothing<R: Rig>(steps: u64) {
    R::run(2048, |frames| {
        let budget = ByteLen::new(60 * PAGE_SIZE);
        let config = ZcacheConfig {
            budget,
            ..ZcacheConfig::default()
        };
        let cache = cache(frames, Algorithm::Lz4, config);
        let pool = cache.create_pool(PoolKind::Ephemeral).unwrap();
        frames.crowd(THREADS, |thread| {
            let (ctx, mut random) = (ctx(), Random::new(thread.into()));
            let gfp = Gfp::kernel(&ctx);
            let mut last = BTreeMap::new();
            for step in 0..steps {
                // All threads share the objects, and each has pages of its own in them.
                let mut own = || {
                    let index = random.below(32) * u64::from(THREADS) + u64::from(thread);
                    key(pool, random.below(3), index)
                };
                let (put, get) = (own(), own());
                match step % 50 {
                    0 => {
                        cache.shrink(ByteLen::new(20 * PAGE_SIZE));
                    }
                    1 => {
                        cache.store().compact();
                    }
                    // Not right after the shrinker, which leaves little.
                    30..=34 => {
                        cache.flush_page(put);
                        last.remove(&put);
                    }
                    _ => {
                        let page = random.text(1500);
                        // One that finds no room is refused: others may be over the budget for a moment.
                        match cache.put_page(&gfp, put, &page) {
                            Ok(()) => last.insert(put, page),
                            Err(_) => last.remove(&put),
                        };
                        let mut got = [0; PAGE];
                        let there = cache.get_page(&ctx, get, &mut got).unwrap();
                        let expected = last.remove(&get);
                        // It may have gone, but if it is there it is what was put last.
                        let right = !there || expected == Some(got);
                        assert!(right, "thread {thread}, step {step}");
                    }
                }
            }
        });
        let stats = cache.stats();
        assert!(
            stats.gets > 0 && stats.evicted > 0 && stats.flushed > 0,
            "{stats:?}"
        );
        assert!(stats.store.reads.mapped > 0, "{stats:?}");
        cache.destroy_pool(pool);
        assert_eq!(cache.stats().store.pages, 0);
        assert!(cache.store().used().is_zero());
    });
}

#[test]
fn each_thread_gets_back_what_it_put_or_nothing_on_the_host() {
    each_thread_gets_back_what_it_put_or_nothing::<Host>(3000);
}

#[test]
fn each_thread_gets_back_what_it_put_or_nothing_on_the_modelled_machine() {
    each_thread_gets_back_what_it_put_or_nothing::<Sim>(400);
}
