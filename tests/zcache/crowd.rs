//! Hazard: threads that put, get, flush, evict and compact at the same time hand each other's pages out, or lose memory.

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
        let budget = ByteLen::new(150 * PAGE_SIZE);
        let config = ZcacheConfig {
            budget,
            ..ZcacheConfig::default()
        };
        let cache = cache(frames, Algorithm::Lz4, config);
        let pool = cache.create_pool(PoolKind::Ephemeral).unwrap();
        frames.crowd(THREADS, |thread| {
            let (ctx, mut random) = (ctx(), Random::new(thread.into()));
            for step in 0..steps {
                // All threads share the objects, and each has pages of its own in them.
                let index = random.below(64) * u64::from(THREADS) + u64::from(thread);
                let key = key(pool, random.below(3), index);
                match step % 50 {
                    0 => {
                        cache.shrink(ByteLen::new(100 * PAGE_SIZE));
                    }
                    1 => {
                        cache.store().compact();
                    }
                    2 => {
                        cache.flush_page(key);
                    }
                    _ => {
                        let mut page = random.text(1500);
                        page[..8].copy_from_slice(&index.to_le_bytes());
                        // One that finds no room is refused: others may be over the budget for a moment.
                        let put = cache.put_page(&Gfp::kernel(&ctx), key, &page).is_ok();
                        let mut got = [0; PAGE];
                        if cache.get_page(&ctx, key, &mut got).unwrap() {
                            assert!(put && got == page, "thread {thread}, step {step}");
                        }
                    }
                }
            }
        });
        let stats = cache.stats();
        assert!(stats.gets > u64::from(THREADS) * steps / 4, "{stats:?}");
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
