//! Objects move while others are read, written, freed and allocated: whoever looks sees a whole object.

use pageless_fault::shootdown::CpuId;
use pageless_fault::sim::schedule::Schedule;
use pageless_fault::sim::{ScheduledBody, SimConfig, SimMachine};
use pageless_fault::{Cpus, FrameMemory, MaySleep, Protection, WindowOffset, WindowRange};
use pageless_pfn::{FrameCount, Pfn};
use pageless_vmap::zsmalloc::{FrameSource, Handle, MapPolicy, PairWindows, Zsmalloc};

use super::on_each_machine;
use super::rig::{Frames, Rig, host_ram, store, text};

/// Objects of 3000 bytes: four in three frames.
const LEN: usize = 3000;
const IN_ZSPAGE: usize = 4;

/// Handles of `zspages` zspages in each of which one object is left.
fn sparse<F: FrameSource>(pool: &Zsmalloc<F>, zspages: usize) -> Vec<(Handle, Vec<u8>)> {
    let all: Vec<_> = (0..zspages * IN_ZSPAGE)
        .map(|nth| {
            let bytes = text(nth as u64, LEN);
            (store(pool, &bytes), bytes)
        })
        .collect();
    let mut kept = Vec::new();
    for (nth, object) in all.into_iter().enumerate() {
        // Another place in each.
        if nth % IN_ZSPAGE == nth / IN_ZSPAGE % IN_ZSPAGE {
            kept.push(object);
        } else {
            pool.free(object.0).unwrap();
        }
    }
    kept
}

fn check<F: FrameSource>(pool: &Zsmalloc<F>, objects: &[(Handle, Vec<u8>)]) {
    for (handle, bytes) in objects {
        let seen = pool.segments(handle, |first, second| [first, second].concat());
        assert_eq!(seen.as_ref(), Ok(bytes));
    }
}

fn sparse_zspages_become_dense_ones<R: Rig>() {
    R::run(64, |memory, _| {
        let frames = Frames::new(memory);
        let pool = Zsmalloc::new(&frames);
        let kept = sparse(&pool, 8);
        assert_eq!((frames.out(), pool.can_compact()), (24, 18));
        assert_eq!(pool.compact(), 18);
        assert_eq!(frames.out(), 6);
        assert_eq!(pool.stats().pages_compacted.get(), 18);
        assert_eq!(pool.self_check(), Ok(()));
        check(&pool, &kept);
        assert_eq!(pool.compact(), 0);
    });
}

fn an_object_whose_header_was_overwritten_stays_and_misleads_nobody<R: Rig>() {
    R::run(64, |memory, _| {
        let frames = Frames::new(memory);
        let pool = Zsmalloc::new(&frames);
        let kept = sparse(&pool, 8);
        // Those at the beginning of a frame, with the header before them.
        let begins = |bytes: &[u8]| {
            memory.frames().iter().map(Pfn::phys).find(|at| {
                let mut found = [0; 64];
                memory.read(*at, &mut found).unwrap();
                found[8..] == bytes[..56]
            })
        };
        let headers: Vec<_> = kept.iter().filter_map(|(_, bytes)| begins(bytes)).collect();
        assert_eq!(headers.len(), 2);
        let mut other = [0; 8];
        memory.read(headers[1], &mut other).unwrap();
        let never_handed_out = u64::from(u32::MAX) << 1 | 1;
        for header in [never_handed_out.to_le_bytes(), other] {
            memory.write(headers[0], &header).unwrap();
            pool.compact();
            check(&pool, &kept);
        }
        assert!(pool.self_check().is_err());
    });
}

fn an_object_that_is_looked_at_stays_and_others_move<R: Rig>() {
    R::run(64, |memory, space| {
        let frames = Frames::new(memory);
        let pool = Zsmalloc::new(&frames);
        let ctx = MaySleep::claim();
        let range = WindowRange::try_new(WindowOffset::new(0), 3 * 4096).unwrap();
        let windows = PairWindows::new(space, range);
        let mut window = windows.claim(&ctx).unwrap().with_policy(MapPolicy::Always);
        let kept = sparse(&pool, 8);
        // One of them is read, one is mapped: two zspages cannot be emptied, but they can be filled.
        let mapping = window.map(&pool, &kept[6].0, Protection::Read).unwrap();
        let freed = pool.segments(&kept[7].0, |first, second| {
            let freed = pool.compact();
            assert_eq!([first, second].concat(), kept[7].1);
            freed
        });
        assert_eq!(mapping.with(|seen| seen == kept[6].1), Ok(true));
        assert_eq!(freed, Ok(18));
        drop(mapping);
        assert_eq!(pool.self_check(), Ok(()));
        check(&pool, &kept);
        assert_eq!(frames.out(), 6);
    });
}

fn all_held_nothing_moves<R: Rig>() {
    R::run(64, |memory, _| {
        let frames = Frames::new(memory);
        let pool = Zsmalloc::new(&frames);
        let kept = sparse(&pool, 3);
        let freed = pool.segments(&kept[0].0, |_, _| {
            pool.segments(&kept[1].0, |_, _| {
                pool.segments(&kept[2].0, |_, _| pool.compact())
            })
        });
        assert_eq!(freed, Ok(Ok(Ok(0))));
        assert_eq!(pool.self_check(), Ok(()), "zspages were put back");
        assert_eq!(pool.compact(), 6);
        check(&pool, &kept);
    });
}

on_each_machine! {
    an_object_whose_header_was_overwritten_stays_and_misleads_nobody
    sparse_zspages_become_dense_ones
    an_object_that_is_looked_at_stays_and_others_move
    all_held_nothing_moves
}

/// What one CPU does to objects of its own and to those that all share. `turns` many times.
fn work<F: FrameSource>(pool: &Zsmalloc<F>, shared: &[(Handle, usize)], seed: u64, turns: u32) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut own: Vec<(Handle, Vec<u8>)> = Vec::new();
    let mut local = vec![0; 4096];
    for turn in 0..turns {
        match rng.u8(..10) {
            // Objects of few classes come and go, so that zspages are sparse.
            0..4 => {
                let len = [1900, 2700, LEN][rng.usize(..3)] - rng.usize(..8);
                let bytes = text(rng.u64(..), len);
                own.push((store(pool, &bytes), bytes));
            }
            4..7 if !own.is_empty() => {
                let (handle, bytes) = own.swap_remove(rng.usize(..own.len()));
                let same = pool.with_copy(&handle, &mut local, |seen| seen == bytes);
                assert_eq!(same, Ok(true), "turn {turn}");
                pool.free(handle).unwrap();
            }
            7 if own.len() > 12 => {
                for (handle, _) in own.drain(4..) {
                    pool.free(handle).unwrap();
                }
            }
            8 => {
                let (handle, len) = &shared[rng.usize(..shared.len())];
                pool.write(handle, &vec![rng.u8(..); *len]).unwrap();
            }
            _ => {
                let (handle, _) = &shared[rng.usize(..shared.len())];
                let uniform = |first: &[u8], second: &[u8]| {
                    let all = first.iter().chain(second);
                    all.clone().all(|byte| *byte == first[0])
                };
                let seen = pool.segments(handle, uniform);
                assert_eq!(seen, Ok(true), "a mixture, turn {turn}");
                let seen = pool.with_copy(handle, &mut local, |seen| uniform(seen, &[]));
                assert_eq!(seen, Ok(true), "a mixture, turn {turn}");
            }
        }
    }
    for (handle, bytes) in own {
        let mut seen = vec![0; bytes.len()];
        pool.read(&handle, &mut seen).unwrap();
        assert_eq!(seen, bytes);
        pool.free(handle).unwrap();
    }
}

/// Objects that all CPUs read and write, among others that are freed, so that they have to move.
fn shared<F: FrameSource>(pool: &Zsmalloc<F>, count: usize) -> Vec<(Handle, usize)> {
    let mut shared = Vec::new();
    let mut between = Vec::new();
    for nth in 0..count {
        shared.push((store(pool, &[nth as u8; LEN]), LEN));
        between.extend((0..2).map(|_| store(pool, &[0; LEN])));
    }
    for handle in between {
        pool.free(handle).unwrap();
    }
    shared
}

fn nothing_is_left<M: FrameMemory>(
    pool: &Zsmalloc<&Frames<'_, M>>,
    frames: &Frames<'_, M>,
    shared: Vec<(Handle, usize)>,
) {
    assert_eq!(pool.self_check(), Ok(()));
    assert_eq!(pool.stats().objects_used, shared.len() as u64);
    for (handle, _) in shared {
        pool.free(handle).unwrap();
    }
    assert_eq!(pool.self_check(), Ok(()));
    assert_eq!((frames.out(), pool.pages_used().get()), (0, 0));
}

#[test]
fn threads_that_read_write_and_free_never_see_a_half_moved_object() {
    let ram = host_ram(1024);
    let frames = Frames::new(&ram);
    let pool = Zsmalloc::new(&frames);
    let shared = shared(&pool, 9);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|seed| {
                let (pool, shared) = (&pool, &shared);
                scope.spawn(move || work(pool, shared, seed, 4000))
            })
            .collect();
        let mut turn = 0;
        while workers.iter().any(|worker| !worker.is_finished()) {
            pool.compact();
            ram.relax(turn);
            turn += 1;
        }
    });
    assert!(pool.stats().pages_compacted.get() > 0, "nothing ever moved");
    nothing_is_left(&pool, &frames, shared);
}

/// The same, interleaved between any two words of a copy.
#[test]
fn under_any_schedule_no_half_moved_object_is_seen() {
    let mut compacted = 0;
    for seed in 0..24 {
        let machine = SimMachine::new(SimConfig::default()).unwrap();
        let ram = machine.ram(FrameCount::new(256)).unwrap();
        let frames = Frames::new(&ram);
        let pool = Zsmalloc::new(&frames);
        let mut objects = Vec::new();
        machine
            .run_on(CpuId::new(0), |_| objects = shared(&pool, 5))
            .unwrap();
        let worker = |n: u64| {
            let (pool, shared) = (&pool, &objects);
            let body: ScheduledBody<'_> = Box::new(move |_| work(pool, shared, seed << 8 | n, 30));
            body
        };
        let mut bodies: Vec<_> = (0..3).map(worker).collect();
        let compacting = &pool;
        bodies.push(Box::new(move |_| {
            for _ in 0..30 {
                compacting.compact();
            }
        }));
        let run = machine.run_scheduled(&Schedule::random(seed), bodies);
        run.unwrap_or_else(|failure| panic!("{failure}"));
        compacted += pool.stats().pages_compacted.get();
        machine
            .run_on(CpuId::new(0), |_| nothing_is_left(&pool, &frames, objects))
            .unwrap();
    }
    assert!(compacted > 0, "nothing ever moved");
}
