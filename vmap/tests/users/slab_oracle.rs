//! Hazard: some sequence of calls that nobody thought of gives an object to two, or loses one.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use pageless_fault::VirtAddr;
use pageless_pfn::ByteLen;
use pageless_vmap::frames::Gfp;
use pageless_vmap::slab::{SlabCache, SlabConfig, SlabFreeError};
use proptest::prelude::*;

use super::rig::{Host, Rig, Sim, Size, order};

#[derive(Debug, Clone)]
enum Step {
    Alloc { zeroed: bool, fill: u8 },
    Free(prop::sample::Index),
    FreeAgain(prop::sample::Index),
    Write(prop::sample::Index, u8),
    Shrink,
    FallBack(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (any::<bool>(), any::<u8>())
            .prop_map(|(zeroed, fill)| Step::Alloc { zeroed, fill }),
        6 => any::<prop::sample::Index>().prop_map(Step::Free),
        1 => any::<prop::sample::Index>().prop_map(Step::FreeAgain),
        2 => (any::<prop::sample::Index>(), any::<u8>())
            .prop_map(|(which, fill)| Step::Write(which, fill)),
        1 => Just(Step::Shrink),
        1 => any::<bool>().prop_map(Step::FallBack),
    ];
    prop::collection::vec(step, 1..120)
}

fn cache_config() -> impl Strategy<Value = SlabConfig> {
    (1..3000_u64, 0..4_u8, 0..3_usize, any::<bool>()).prop_map(|(object, of, min, debug)| {
        SlabConfig {
            min_partial: min,
            debug,
            ..SlabConfig::new("oracle", ByteLen::new(object), order(of))
        }
    })
}

fn run<R: Rig>(config: SlabConfig, steps: Vec<Step>) {
    let size = Size {
        frames: 256,
        pages: 4096,
        ..Size::default()
    };
    R::run(size, |world| {
        let pages = &world.pages;
        let len = config.object.get() as usize;
        let cache = SlabCache::new(Arc::clone(pages), config).unwrap();
        // What is out: address, and with what it was filled.
        let mut out: BTreeMap<VirtAddr, u8> = BTreeMap::new();
        let mut freed = Vec::new();
        let (mut allocated, mut given) = (0, 0);
        let read = |object: VirtAddr| {
            let mut found = vec![0; len];
            pages.read(object, &mut found).unwrap();
            found
        };
        let nth = |out: &BTreeMap<VirtAddr, u8>, which: prop::sample::Index| {
            let at = (!out.is_empty()).then(|| which.index(out.len()))?;
            out.iter().nth(at).map(|(&object, &fill)| (object, fill))
        };
        for step in steps {
            match step {
                Step::Alloc { zeroed, fill } => {
                    let gfp = Gfp::kernel(&world.ctx);
                    let gfp = if zeroed { gfp.zeroed() } else { gfp };
                    // Memory may be short; what is there must be right all the same.
                    let Ok(object) = cache.alloc(&gfp) else {
                        continue;
                    };
                    allocated += 1;
                    if zeroed {
                        assert_eq!(read(object), vec![0; len]);
                    }
                    let before = out.range(..=object).next_back();
                    let after = out.range(object..).next();
                    let end = object.checked_add(len as u64).unwrap();
                    assert!(before.is_none_or(|(&b, _)| b.get() + len as u64 <= object.get()));
                    assert!(after.is_none_or(|(&a, _)| end <= a));
                    pages.write(object, &vec![fill; len]).unwrap();
                    out.insert(object, fill);
                    freed.retain(|&other| other != object);
                }
                Step::Free(which) => {
                    let Some((object, fill)) = nth(&out, which) else {
                        continue;
                    };
                    assert_eq!(read(object), vec![fill; len]);
                    cache.free(object).unwrap();
                    out.remove(&object);
                    freed.push(object);
                    given += 1;
                }
                Step::FreeAgain(which) => {
                    if freed.is_empty() {
                        continue;
                    }
                    let object = *which.get(&freed);
                    let refused = cache.free(object).unwrap_err();
                    let address = object;
                    assert!(
                        refused == SlabFreeError::AlreadyFree { address }
                            || refused == SlabFreeError::NotAnObject { address },
                        "{refused}"
                    );
                }
                Step::Write(which, fill) => {
                    if let Some((object, _)) = nth(&out, which) {
                        pages.write(object, &vec![fill; len]).unwrap();
                        out.insert(object, fill);
                    }
                }
                Step::Shrink => {
                    cache.shrink(&world.ctx);
                    let statistics = cache.statistics();
                    assert!(statistics.slabs <= out.len() as u64, "{statistics:?}");
                }
                Step::FallBack(always) => pages.always_fall_back(always),
            }
            cache.self_check().unwrap();
            let statistics = cache.statistics();
            assert_eq!(statistics.out, out.len() as u64);
            assert_eq!((statistics.allocated, statistics.freed), (allocated, given));
            assert_eq!(statistics.damaged, 0);
            let blocks = pages.self_check().unwrap().0;
            assert_eq!(blocks, statistics.slabs);
        }
        for (object, fill) in out {
            assert_eq!(read(object), vec![fill; len]);
            cache.free(object).unwrap();
        }
        drop(cache);
        world.nothing_remains();
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_cache_does_what_a_list_would_on_the_host(config in cache_config(), steps in steps()) {
        run::<Host>(config, steps);
    }

    #[test]
    fn a_cache_does_what_a_list_would_on_the_model(config in cache_config(), steps in steps()) {
        run::<Sim>(config, steps);
    }
}
