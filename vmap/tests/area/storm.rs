//! Everybody at once.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use pageless_fault::sync::Mutex;
use pageless_fault::{FrameMemory, MaySleep, Protection, VirtAddr};
use pageless_pfn::{FrameCount, Pfn, PfnRange};
use pageless_vmap::area::{AreaKind, Release, Unreachable, VunmapError};
use pageless_vmap::frames::Context;

use crate::rig::{Rig, cpu, fill, one, small, special, tag_at};

/// Frames that nobody uses.
type Free = Arc<Mutex<Vec<Pfn>>>;

/// Frames of an area: dead when they are released, and free then.
struct Lent<M> {
    memory: Arc<M>,
    frames: Vec<Pfn>,
    free: Free,
}

impl<M: FrameMemory> Release for Lent<M> {
    fn release(self: Box<Self>, _: &Unreachable<'_>, _: &MaySleep) {
        for pfn in &self.frames {
            self.memory.retire(one(*pfn));
        }
        self.free.lock().extend(&self.frames);
    }
}

pub(crate) fn many_cpus_map_touch_and_unmap_at_once<R: Rig>(rig: &R) {
    const CPUS: u64 = 4;
    let vm = rig.vmalloc(1024, small(60).nodes(2));
    let free: Free = Arc::new(Mutex::new((0..256).map(|n| rig.frame(n)).collect()));
    // Where others may look, whatever is there by then: the address, and nothing behind it.
    let rumours: Vec<AtomicU64> = (0..8).map(|_| AtomicU64::new(0)).collect();
    let rounds = R::rounds(3000);
    let body = |me: u64, ctx: &mut MaySleep| {
        let mut random = fastrand::Rng::with_seed(me);
        let mut mine: Vec<(VirtAddr, Vec<Pfn>)> = Vec::new();
        for round in 0..rounds {
            let count = random.usize(1..9);
            let frames: Vec<Pfn> = {
                let mut free = free.lock();
                let from = free.len().saturating_sub(count);
                free.split_off(from)
            };
            if frames.is_empty() {
                vm.purge(ctx).unwrap();
            } else if random.u8(..4) == 0 {
                for (n, pfn) in (0..).zip(&frames) {
                    fill(rig, *pfn, me << 32 | round << 8 | n);
                }
                let list: Vec<_> = frames.iter().map(|pfn| special(*pfn)).collect();
                let Ok(mapping) = vm.vm_map_ram(ctx, &list, Protection::ReadWrite) else {
                    free.lock().extend(frames);
                    continue;
                };
                for n in 0..frames.len() as u64 {
                    let tag = me << 32 | round << 8 | n;
                    assert_eq!(tag_at(vm.space(), mapping.address(), n), Some(tag));
                }
                rumours[random.usize(..8)].store(mapping.address().get(), Ordering::Relaxed);
                let aliased = vm.vm_unmap_ram(mapping, frames).unwrap();
                vm.vm_unmap_aliases(ctx).unwrap();
                let frames = vm.unaliased(aliased).unwrap();
                for pfn in &frames {
                    rig.memory().retire(one(*pfn));
                }
                free.lock().extend(frames);
            } else {
                for (n, pfn) in (0..).zip(&frames) {
                    fill(rig, *pfn, me << 32 | round << 8 | n);
                }
                let owned = Lent {
                    memory: Arc::clone(rig.memory()),
                    frames: frames.clone(),
                    free: Arc::clone(&free),
                };
                let at = vm
                    .map_owned(
                        Context::MaySleep(ctx),
                        FrameCount::new(frames.len() as u64),
                        frames
                            .iter()
                            .map(|pfn| one(*pfn))
                            .collect::<Vec<PfnRange>>(),
                        Protection::ReadWrite,
                        AreaKind::Map,
                        Box::new(owned),
                    )
                    .unwrap();
                for n in 0..frames.len() as u64 {
                    let tag = me << 32 | round << 8 | n;
                    assert_eq!(tag_at(vm.space(), at, n), Some(tag));
                }
                assert_eq!(tag_at(vm.space(), at, frames.len() as u64), None);
                rumours[random.usize(..8)].store(at.get(), Ordering::Relaxed);
                mine.push((at, frames));
            }
            if mine.len() > random.usize(..6) {
                let (at, frames) = mine.swap_remove(random.usize(..mine.len()));
                for (n, pfn) in (0..).zip(&frames) {
                    assert_eq!(
                        vm.vmalloc_to_pfn(at.checked_add(n * 4096).unwrap()),
                        Some(*pfn)
                    );
                }
                if random.bool() {
                    let _backlog = vm.vunmap_atomic(at).unwrap();
                } else {
                    vm.vunmap(ctx, at).unwrap();
                }
            }
            // Whoever looks at what may be gone sees what was there, or nothing; never a frame that is dead.
            let rumour = rumours[random.usize(..8)].load(Ordering::Relaxed);
            if rumour != 0 {
                let _seen = tag_at(vm.space(), VirtAddr::new(rumour), 0);
            }
            rig.pause();
        }
        for (at, _) in mine {
            vm.vunmap(ctx, at).unwrap();
        }
    };
    rig.cpus(
        (0..CPUS)
            .map(|me| {
                cpu({
                    let body = &body;
                    move |ctx| body(me, ctx)
                })
            })
            .collect(),
    );
    rig.on_cpu(|ctx| {
        vm.purge(ctx).unwrap();
        vm.self_check().unwrap();
        assert_eq!(vm.counters().lazy_pages, 0);
        let mut free = free.lock();
        free.sort_unstable();
        free.dedup();
        assert_eq!(free.len(), 256);
        drop(vm);
    });
}

pub(crate) fn of_those_who_unmap_one_area_at_once_one_succeeds<R: Rig>(rig: &R) {
    const CPUS: usize = 3;
    let vm = rig.vmalloc(512, small(40).nodes(2));
    let frames: Vec<_> = (0..4).map(|n| special(rig.frame(n))).collect();
    let areas: Vec<_> = rig.on_cpu(|ctx| {
        (0..R::rounds(300).min(40))
            .map(|_| vm.vmap(ctx, &frames, Protection::Read).unwrap())
            .collect()
    });
    let succeeded = AtomicU64::new(0);
    let body = |me: usize, ctx: &mut MaySleep| {
        for at in &areas {
            // Once in a while by those who must not wait: then it may be left to others, and is not refused here.
            let unmapped = match me {
                0 => vm.vunmap_atomic(*at).map(drop),
                _ => vm.vunmap(ctx, *at),
            };
            match unmapped {
                Ok(()) => {
                    succeeded.fetch_add(1, Ordering::Relaxed);
                }
                Err(VunmapError::NoSuchArea { .. } | VunmapError::AlreadyUnmapped { .. }) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
    };
    let body = &body;
    rig.cpus((0..CPUS).map(|me| cpu(move |ctx| body(me, ctx))).collect());
    rig.on_cpu(|ctx| {
        vm.purge(ctx).unwrap();
        vm.self_check().unwrap();
        let counters = vm.counters();
        let once = areas.len() as u64;
        assert_eq!((counters.unmapped, counters.purged_areas), (once, once));
        assert_eq!(succeeded.load(Ordering::Relaxed), once + counters.not_found);
        drop(vm);
    });
}
