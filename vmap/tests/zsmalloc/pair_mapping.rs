//! Pair mapping: objects in one piece, where they lie; and everything that a window refuses.

use pageless_fault::shootdown::CpuId;
use pageless_fault::sim::{SimConfig, SimMachine};
use pageless_fault::{
    Cpus, MaySleep, Protection, UnmapError, Vspace, WindowLen, WindowOffset, WindowRange,
};
use pageless_pfn::FrameCount;
use pageless_vmap::zsmalloc::{
    ClaimError, FreeRefused, MapPolicy, PairError, PairWindows, Zsmalloc,
};

use super::on_each_machine;
use super::rig::{Frames, Rig, store, text};

/// Room for `windows` windows.
fn range(windows: u64) -> WindowRange {
    WindowRange::try_new(WindowOffset::new(64 * 4096), windows * 3 * 4096).unwrap()
}

fn a_mapping_shows_what_the_other_ways_show<R: Rig>() {
    R::run(1200, |memory, space| {
        let frames = Frames::new(memory);
        let pool = Zsmalloc::new(&frames);
        let ctx = MaySleep::claim();
        let windows = PairWindows::new(space, range(2));
        for policy in [MapPolicy::Crossing, MapPolicy::Always] {
            let mut window = windows.claim(&ctx).unwrap().with_policy(policy);
            let mut mapped = 0;
            let mut handles = Vec::new();
            for shape in pool.class_table().shapes().to_vec() {
                for nth in 0..5_u64 {
                    let bytes = text(u64::from(shape.size) << 8 | nth, shape.capacity());
                    let handle = store(&pool, &bytes);
                    let crosses = pool.segments(&handle, |_, second| !second.is_empty());
                    let mapping = window.map(&pool, &handle, Protection::Read).unwrap();
                    assert_eq!(mapping.len(), bytes.len());
                    let direct = mapping.offset().is_none();
                    assert_eq!(
                        direct,
                        policy == MapPolicy::Crossing && crosses == Ok(false)
                    );
                    mapped += u32::from(!direct);
                    assert_eq!(mapping.with(<[u8]>::to_vec).as_ref(), Ok(&bytes));
                    let mut part = [0; 9];
                    mapping.read(bytes.len() - 9, &mut part).unwrap();
                    assert_eq!(part, bytes[bytes.len() - 9..]);
                    mapping.unmap().unwrap();
                    handles.push(handle);
                }
            }
            assert!(mapped > 90, "{mapped} of {} mapped", handles.len());
            for handle in handles {
                pool.free(handle).unwrap();
            }
        }
        assert_eq!(frames.out(), 0);
    });
}

fn what_is_written_through_a_mapping_is_in_the_object<R: Rig>() {
    R::run(40, |memory, space| {
        let frames = Frames::new(memory);
        let pool = Zsmalloc::new(&frames);
        let ctx = MaySleep::claim();
        let windows = PairWindows::new(space, range(1));
        let mut window = windows.claim(&ctx).unwrap();
        // Four in three frames: two of them cross.
        let handles: Vec<_> = (0..4).map(|_| store(&pool, &[0; 3000])).collect();
        let mut mapped = 0;
        for (seed, handle) in handles.iter().enumerate() {
            let bytes = text(seed as u64, 3000);
            let mut mapping = window.map(&pool, handle, Protection::ReadWrite).unwrap();
            mapping.write(0, &bytes[..1999]).unwrap();
            mapping.write(1999, &bytes[1999..]).unwrap();
            mapped += u32::from(mapping.offset().is_some());
            let beyond = mapping.write(1, &bytes);
            assert!(matches!(beyond, Err(PairError::Access(_))));
            drop(mapping);
            let mut seen = [0; 3000];
            pool.read(handle, &mut seen).unwrap();
            assert_eq!(seen, *bytes);
            let mut mapping = window.map(&pool, handle, Protection::Read).unwrap();
            assert_eq!(mapping.write(0, b"no"), Err(PairError::ReadOnly));
        }
        assert_eq!(mapped, 2);
        for handle in handles {
            pool.free(handle).unwrap();
        }
    });
}

fn nothing_is_mapped_when_the_mapping_is_gone_nor_ever_behind_the_window<R: Rig>() {
    R::run(40, |memory, space| {
        let frames = Frames::new(memory);
        let pool = Zsmalloc::new(&frames);
        let ctx = MaySleep::claim();
        let windows = PairWindows::new(space, range(2));
        let (mut one, mut two) = (windows.claim(&ctx).unwrap(), windows.claim(&ctx).unwrap());
        assert!(matches!(
            windows.claim(&ctx),
            Err(ClaimError::AllTaken {
                windows: 2,
                lost: 0
            })
        ));
        let handles = [store(&pool, &[1; 3000]), store(&pool, &[2; 3000])];
        let seen = {
            let first = one.map(&pool, &handles[1], Protection::Read).unwrap();
            let second = two.map(&pool, &handles[1], Protection::Read).unwrap();
            let pages = |at: WindowOffset| {
                let page = at.get() / 4096 * 4096;
                [0, 4096, 8192].map(|skip| space.translate(WindowOffset::new(page + skip)))
            };
            let (first, second) = (first.offset().unwrap(), second.offset().unwrap());
            assert_ne!(first, second);
            assert_eq!(pages(first), pages(second));
            assert!(pages(first)[1].is_some() && pages(first)[2].is_none());
            let guard = WindowOffset::new(first.get() / 4096 * 4096 + 8192);
            assert!(space.read(guard, &mut [0]).is_err());
            first
        };
        assert_eq!(space.translate(seen), None);
        assert!(space.read(seen, &mut [0]).is_err());
        let range = one.range();
        drop(one);
        assert_eq!(windows.claim(&ctx).unwrap().range(), range);
        for handle in handles {
            pool.free(handle).unwrap();
        }
    });
}

fn a_forgotten_mapping_costs_its_window_and_keeps_its_object<R: Rig>() {
    R::run(40, |memory, space| {
        let frames = Frames::new(memory);
        let pool = Zsmalloc::new(&frames);
        let ctx = MaySleep::claim();
        let windows = PairWindows::new(space, range(1));
        let mut window = windows.claim(&ctx).unwrap().with_policy(MapPolicy::Always);
        let handle = store(&pool, b"forgotten");
        core::mem::forget(window.map(&pool, &handle, Protection::Read).unwrap());
        let again = window.map(&pool, &handle, Protection::Read);
        assert_eq!(again.unwrap_err(), PairError::Lost);
        drop(window);
        assert!(matches!(
            windows.claim(&ctx),
            Err(ClaimError::AllTaken {
                windows: 1,
                lost: 1
            })
        ));
        let refused = pool.free(handle).unwrap_err();
        assert_eq!(refused.why, FreeRefused::Held);
        // It can still be read.
        let mut seen = [0; 9];
        pool.read(&refused.handle, &mut seen).unwrap();
        assert_eq!(&seen, b"forgotten");
        let out = frames.out();
        drop(pool);
        assert_eq!(frames.out(), out, "frames that are still mapped went back");
    });
}

#[test]
fn another_cpu_can_neither_map_in_a_window_nor_take_away_what_is_mapped_there() {
    let machine = SimMachine::new(SimConfig::default()).unwrap();
    let ram = machine.ram(FrameCount::new(16)).unwrap();
    let space = machine
        .reserve_vspace(WindowLen::covering(1).unwrap())
        .unwrap();
    let frames = Frames::new(&ram);
    let pool = Zsmalloc::new(&frames);
    let windows = PairWindows::new(&space, range(2));
    let ctx = MaySleep::claim();
    let on = |cpu, f: &mut dyn FnMut()| machine.run_on(CpuId::new(cpu), |_| f()).unwrap();
    let not_own = UnmapError::NotOwn {
        owner: CpuId::new(0),
        caller: CpuId::new(1),
    };

    let mut handle = None;
    on(0, &mut || handle = Some(store(&pool, &[7; 100])));
    let handle = handle.unwrap();
    let mut window = None;
    on(0, &mut || window = windows.claim(&ctx).ok());
    let mut window = window.unwrap().with_policy(MapPolicy::Always);
    on(1, &mut || {
        assert_eq!(space.current(), CpuId::new(1));
        let refused = window.map(&pool, &handle, Protection::Read).unwrap_err();
        assert_eq!(refused, PairError::Unmap(not_own));
    });
    on(0, &mut || {
        let mapping = window.map(&pool, &handle, Protection::Read).unwrap();
        assert_eq!(mapping.with(|bytes| bytes.len()), Ok(100));
    });
    // Mapped on CPU 0, taken away on CPU 1: refused, and all of it is lost.
    machine
        .run_on(CpuId::new(0), |_| {
            let mapping = window.map(&pool, &handle, Protection::Read).unwrap();
            machine
                .run_on(CpuId::new(1), |_| assert_eq!(mapping.unmap(), Err(not_own)))
                .unwrap();
            assert_eq!(
                window.map(&pool, &handle, Protection::Read).unwrap_err(),
                PairError::Lost
            );
            let refused = pool.free(handle).unwrap_err();
            assert_eq!(refused.why, FreeRefused::Held);
        })
        .unwrap();
    assert_eq!(machine.stale_hits(), 0, "{:?}", machine.incidents());
}

/// A thread that moves takes a mapping along: what it read through it on another CPU that CPU would have cached, and nobody would tell it.
#[test]
fn another_cpu_reads_nothing_through_a_mapping() {
    let machine = SimMachine::new(SimConfig::default()).unwrap();
    let ram = machine.ram(FrameCount::new(16)).unwrap();
    let space = machine
        .reserve_vspace(WindowLen::covering(1).unwrap())
        .unwrap();
    let frames = Frames::new(&ram);
    let pool = Zsmalloc::new(&frames);
    let windows = PairWindows::new(&space, range(1));
    let ctx = MaySleep::claim();
    let not_own = PairError::Unmap(UnmapError::NotOwn {
        owner: CpuId::new(0),
        caller: CpuId::new(1),
    });
    let moved = |f: &mut dyn FnMut()| machine.run_on(CpuId::new(1), |_| f()).unwrap();
    machine
        .run_on(CpuId::new(0), |_| {
            let mut window = windows.claim(&ctx).unwrap().with_policy(MapPolicy::Always);
            for stored in 1..4 {
                let handle = store(&pool, &[stored; 100]);
                let mut mapping = window.map(&pool, &handle, Protection::ReadWrite).unwrap();
                moved(&mut || {
                    let mut seen = [0];
                    assert_eq!(mapping.read(0, &mut seen), Err(not_own), "{seen:?}");
                    assert_eq!(mapping.with(|bytes| bytes[0]), Err(not_own));
                    assert_eq!(mapping.write(0, &[9]), Err(not_own));
                });
                assert_eq!(mapping.with(|bytes| bytes[0]), Ok(stored));
                mapping.unmap().unwrap();
                // Its frame goes with it.
                pool.free(handle).unwrap();
            }
        })
        .unwrap();
    assert_eq!(machine.stale_hits(), 0, "{:?}", machine.incidents());
}

on_each_machine! {
    a_mapping_shows_what_the_other_ways_show
    what_is_written_through_a_mapping_is_in_the_object
    nothing_is_mapped_when_the_mapping_is_gone_nor_ever_behind_the_window
    a_forgotten_mapping_costs_its_window_and_keeps_its_object
}
