//! Hazard: threads that put, get, flush, evict and compact at the same time hand each other's pages out, or lose memory.

use pageless::pfn::{ByteLen, PAGE_SIZE};
use pageless::vmap::compress::{Algorithm, PAGE};
use pageless::vmap::frames::Gfp;
use pageless::vmap::zcache::{PoolKind, ZcacheConfig};

use crate::pages::Random;
use crate::rig::{Host, Rig, ctx};
use crate::{cache, key};

const THREADS: u64 = 4;
const STEPS: u64 = 3000;

#[test]
fn each_thread_gets_back_what_it_put_or_nothing() {
    Host::run(4096, |frames| {
        let budget = ByteLen::new(150 * PAGE_SIZE);
        let config = ZcacheConfig {
            budget,
            ..ZcacheConfig::default()
        };
        let cache = cache(frames, Algorithm::Lz4, config);
        let pool = cache.create_pool(PoolKind::Ephemeral).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let cache = &cache;
                scope.spawn(move || {
                    let (ctx, mut random) = (ctx(), Random::new(thread));
                    for step in 0..STEPS {
                        // All threads share the objects, and each has pages of its own in them.
                        let index = random.below(64) * THREADS + thread;
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
                                // A put that finds no room is refused: others may be over the budget for a moment.
                                let put = cache.put_page(&Gfp::kernel(&ctx), key, &page).is_ok();
                                let mut got = [0; PAGE];
                                if cache.get_page(&ctx, key, &mut got).unwrap() {
                                    assert!(put && got == page, "thread {thread}, step {step}");
                                }
                            }
                        }
                    }
                });
            }
        });
        let stats = cache.stats();
        assert!(stats.gets > THREADS * STEPS / 4, "{stats:?}");
        cache.destroy_pool(pool);
        assert_eq!(cache.stats().store.pages, 0);
        assert!(cache.store().used().is_zero());
    });
}
