//! Hazard: a page comes back under another key, or at another time, than it should. Random calls beside a plain map.

use alloc::collections::BTreeMap;

use pageless::vmap::compress::{Algorithm, Incompressible, PAGE, Page};
use pageless::vmap::frames::Gfp;
use pageless::vmap::zcache::{Key, PoolKind, ZcacheConfig};

use crate::pages::{Random, stored_as};
use crate::rig::{Host, Rig, Sim, ctx};
use crate::{cache, key};

fn run<R: Rig>(algorithm: Algorithm, seed: u64, steps: u32) {
    R::run(4096, |frames| {
        let (ctx, mut random) = (ctx(), Random::new(seed));
        let config = ZcacheConfig {
            incompressible: Incompressible::StoreRaw,
            ..ZcacheConfig::default()
        };
        let cache = cache(frames, algorithm, config);
        let kinds = [PoolKind::Ephemeral, PoolKind::Persistent];
        let mut pools = kinds.map(|kind| cache.create_pool(kind).unwrap());
        let mut oracle: BTreeMap<Key, Page> = BTreeMap::new();
        for step in 0..steps {
            let which = random.below(2) as usize;
            let pool = pools[which];
            let key = key(pool, random.below(5), random.below(12));
            match random.below(100) {
                0 => {
                    let before = oracle.len();
                    oracle.retain(|other, _| other.pool != pool);
                    let flushed = (before - oracle.len()) as u64;
                    assert_eq!(cache.destroy_pool(pool), flushed, "step {step}");
                    pools[which] = cache.create_pool(kinds[which]).unwrap();
                }
                1..=4 => {
                    let before = oracle.len();
                    oracle.retain(|other, _| (other.pool, other.object) != (pool, key.object));
                    let flushed = (before - oracle.len()) as u64;
                    assert_eq!(cache.flush_object(pool, key.object), flushed, "step {step}");
                }
                5..=14 => assert_eq!(cache.flush_page(key), oracle.remove(&key).is_some()),
                15..=49 => {
                    let expected = match kinds[which] {
                        PoolKind::Ephemeral => oracle.remove(&key),
                        PoolKind::Persistent => oracle.get(&key).copied(),
                    };
                    let mut got = [0; PAGE];
                    let there = cache.get_page(&ctx, key, &mut got).unwrap();
                    assert!(
                        there.then_some(got) == expected,
                        "step {step} of seed {seed}"
                    );
                }
                50 => {
                    cache.store().compact();
                }
                _ => {
                    let page = random.page();
                    cache.put_page(&Gfp::kernel(&ctx), key, &page).unwrap();
                    oracle.insert(key, page);
                }
            }
            let stats = cache.stats().store;
            assert_eq!(
                stats.pages,
                oracle.len() as u64,
                "step {step} of seed {seed}"
            );
        }
        let worth_it = cache.store().worth_it();
        let sizes = oracle
            .values()
            .map(|page| stored_as(algorithm, page, worth_it));
        let compressed: usize = sizes.flatten().sum();
        assert_eq!(cache.stats().store.compressed.get(), compressed as u64);
    });
}

#[test]
fn random_calls_answer_what_a_map_would_on_the_host() {
    for seed in 0..4 {
        for algorithm in Algorithm::ALL {
            run::<Host>(algorithm, seed, 2000);
        }
    }
}

#[test]
fn random_calls_answer_what_a_map_would_on_the_modelled_machine() {
    for algorithm in Algorithm::ALL {
        run::<Sim>(algorithm, 9, 500);
    }
}
