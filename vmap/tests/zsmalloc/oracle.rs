//! Random sequences of everything that a pool does, against a list of what was stored.

use std::collections::HashMap;

use pageless_fault::{FrameMemory, MaySleep, Protection, WindowOffset, WindowRange};
use pageless_vmap::frames::Gfp;
use pageless_vmap::zsmalloc::{
    ChainSize, FrameSource, Handle, MallocError, MapPolicy, PairWindows, PoolStats, Zsmalloc,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::rig::{Frames, Host, Rig, Sim, text};

#[derive(Debug, Clone)]
enum Step {
    Malloc {
        size: usize,
        seed: u64,
    },
    /// Each takes the object at this place of the list, modulo its length.
    Free {
        which: usize,
    },
    Write {
        which: usize,
        seed: u64,
        len: usize,
    },
    Copy {
        which: usize,
    },
    Segments {
        which: usize,
    },
    Map {
        which: usize,
        always: bool,
    },
    WriteMapped {
        which: usize,
        seed: u64,
        from: usize,
        len: usize,
    },
    Compact,
    /// Frees three of four.
    Thin {
        seed: u64,
    },
    /// So many more frames can be had.
    Limit {
        frames: u64,
    },
}

/// Sizes in few classes, so that zspages become full, sparse and empty.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        4 => prop_oneof![Just(1200_usize), Just(2000), Just(2700)].prop_flat_map(|s| s..s + 9),
        2 => 1_usize..=64,
        1 => 1_usize..=4096,
        1 => 3600_usize..3650,
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let which = any::<usize>();
    prop_oneof![
        12 => (size(), any::<u64>()).prop_map(|(size, seed)| Step::Malloc { size, seed }),
        6 => which.prop_map(|which| Step::Free { which }),
        3 => (which, any::<u64>(), any::<usize>())
            .prop_map(|(which, seed, len)| Step::Write { which, seed, len }),
        2 => which.prop_map(|which| Step::Copy { which }),
        2 => which.prop_map(|which| Step::Segments { which }),
        2 => (which, any::<bool>()).prop_map(|(which, always)| Step::Map { which, always }),
        2 => (which, any::<u64>(), any::<usize>(), any::<usize>())
            .prop_map(|(which, seed, from, len)| Step::WriteMapped { which, seed, from, len }),
        2 => Just(Step::Compact),
        1 => any::<u64>().prop_map(|seed| Step::Thin { seed }),
        1 => (0_u64..30).prop_map(|frames| Step::Limit { frames }),
    ]
}

/// What is stored, kept naively.
struct Oracle {
    stored: Vec<(Handle, Vec<u8>)>,
    compacted: u64,
}

impl Oracle {
    fn nth(&self, which: usize) -> Option<&(Handle, Vec<u8>)> {
        self.stored.get(which.checked_rem(self.stored.len())?)
    }

    /// Every number of the statistics that follows from what is stored.
    fn check<F: FrameSource>(&self, pool: &Zsmalloc<F>, stats: &PoolStats, out: u64) {
        let bytes: usize = self.stored.iter().map(|(_, bytes)| bytes.len()).sum();
        assert_eq!(stats.bytes_stored.get(), bytes as u64);
        assert_eq!(stats.objects_used, self.stored.len() as u64);
        assert_eq!(stats.pages_used.get(), out);
        assert_eq!(stats.pages_compacted.get(), self.compacted);
        let mut by_class: HashMap<usize, u64> = HashMap::new();
        for (_, bytes) in &self.stored {
            let class = pool.class_table().index_of(bytes.len()).unwrap();
            *by_class.entry(class).or_default() += 1;
        }
        for (index, class) in stats.classes.iter().enumerate() {
            let objects = by_class.get(&index).copied().unwrap_or(0);
            assert_eq!(class.objects_used, objects);
            let zspages: u64 = class.groups.iter().sum();
            assert_eq!(
                class.objects_allocated,
                zspages * u64::from(class.shape.objects)
            );
            assert_eq!(
                class.pages_used.get(),
                zspages * u64::from(class.shape.pages)
            );
            let unused = class.objects_allocated - objects;
            let freeable = unused / u64::from(class.shape.objects) * u64::from(class.shape.pages);
            assert_eq!(class.freeable.get(), freeable);
        }
    }
}

fn run_steps<M: FrameMemory, S: pageless_fault::Vspace>(
    memory: &M,
    space: &S,
    chain: u8,
    steps: &[Step],
) {
    let frames = Frames::new(memory);
    let pool = Zsmalloc::with_chain(&frames, ChainSize::try_new(chain).unwrap());
    let ctx = MaySleep::claim();
    let range = WindowRange::try_new(WindowOffset::new(0), 3 * 4096).unwrap();
    let windows = PairWindows::new(space, range);
    let mut oracle = Oracle {
        stored: Vec::new(),
        compacted: 0,
    };
    for step in steps {
        match *step {
            Step::Malloc { size, seed } => match pool.malloc(&Gfp::kernel(&ctx), size) {
                Ok(handle) => {
                    let bytes = text(seed, size);
                    pool.write(&handle, &bytes).unwrap();
                    oracle.stored.push((handle, bytes));
                }
                Err(error) => {
                    assert!(matches!(error, MallocError::NoFrame { .. }), "{error}");
                    frames.fail_after(u64::MAX);
                }
            },
            Step::Free { which } => {
                if let Some(which) = which.checked_rem(oracle.stored.len()) {
                    pool.free(oracle.stored.swap_remove(which).0).unwrap();
                }
            }
            Step::Write { which, seed, len } => {
                if let Some(which) = which.checked_rem(oracle.stored.len()) {
                    let (handle, bytes) = &mut oracle.stored[which];
                    let len = len % (bytes.len() + 1);
                    bytes[..len].copy_from_slice(&text(seed, len));
                    pool.write(handle, &bytes[..len]).unwrap();
                }
            }
            Step::Copy { which } => {
                if let Some((handle, bytes)) = oracle.nth(which) {
                    let mut local = vec![0; bytes.len()];
                    let same = pool.with_copy(handle, &mut local, |seen| seen == bytes);
                    assert_eq!(same, Ok(true));
                }
            }
            Step::Segments { which } => {
                if let Some((handle, bytes)) = oracle.nth(which) {
                    let seen = pool.segments(handle, |first, second| [first, second].concat());
                    assert_eq!(seen.as_ref(), Ok(bytes));
                }
            }
            Step::Map { which, always } => {
                if let Some((handle, bytes)) = oracle.nth(which) {
                    let policy = if always {
                        MapPolicy::Always
                    } else {
                        MapPolicy::Crossing
                    };
                    let mut window = windows.claim(&ctx).unwrap().with_policy(policy);
                    let mapping = window.map(&pool, handle, Protection::Read).unwrap();
                    assert_eq!(mapping.with(|seen| seen == bytes), Ok(true));
                }
            }
            Step::WriteMapped {
                which,
                seed,
                from,
                len,
            } => {
                if let Some(which) = which.checked_rem(oracle.stored.len()) {
                    let (handle, bytes) = &mut oracle.stored[which];
                    let from = from % bytes.len();
                    let len = len % (bytes.len() - from + 1);
                    let new = text(seed, len);
                    bytes[from..from + len].copy_from_slice(&new);
                    let mut window = windows.claim(&ctx).unwrap();
                    let mut mapping = window.map(&pool, handle, Protection::ReadWrite).unwrap();
                    mapping.write(from, &new).unwrap();
                }
            }
            Step::Compact => {
                let (before, possible) = (frames.out(), pool.can_compact());
                let freed = pool.compact();
                // Nobody holds anything: all that could be freed has been.
                assert_eq!(freed, possible);
                assert_eq!(frames.out(), before - freed);
                assert_eq!(pool.can_compact(), 0);
                oracle.compacted += freed;
            }
            Step::Thin { seed } => {
                let mut rng = fastrand::Rng::with_seed(seed);
                let stored = core::mem::take(&mut oracle.stored);
                for (handle, bytes) in stored {
                    if rng.u8(..4) == 0 {
                        oracle.stored.push((handle, bytes));
                    } else {
                        pool.free(handle).unwrap();
                    }
                }
            }
            Step::Limit { frames: left } => frames.fail_after(left),
        }
        assert_eq!(pool.self_check(), Ok(()), "after {step:?}");
        oracle.check(&pool, &pool.stats(), frames.out());
    }
    for (handle, bytes) in oracle.stored {
        let mut seen = vec![0; bytes.len()];
        pool.read(&handle, &mut seen).unwrap();
        assert_eq!(seen, bytes);
        pool.free(handle).unwrap();
    }
    assert_eq!(pool.self_check(), Ok(()));
    assert_eq!(frames.out(), 0);
}

fn against_the_oracle<R: Rig>(cases: u32) {
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let steps = prop::collection::vec(step(), 1..120);
    let chain = prop_oneof![Just(4_u8), Just(8), Just(16)];
    TestRunner::new(config)
        .run(&(chain, steps), |(chain, steps)| {
            R::run(400, |memory, space| run_steps(memory, space, chain, &steps));
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_pool_on_the_host_is_as_a_list_of_what_was_stored() {
    against_the_oracle::<Host>(96);
}

#[test]
fn a_pool_in_the_model_is_as_a_list_of_what_was_stored() {
    against_the_oracle::<Sim>(48);
}
