//! Small mappings from the blocks of a CPU.

use pageless_fault::{FrameMemory, Protection};
use pageless_vmap::area::{MapRamError, RAM_MOST};

use crate::rig::{Rig, cpu, fill, one, paged, references, small, special, tag_at};

pub(crate) fn a_mapping_shows_its_frames_and_its_owner_gets_them_after_a_purge<R: Rig>(rig: &R) {
    let regions = rig.regions();
    let vm = pageless_vmap::area::Vmalloc::new(rig.space(2048), regions.clone(), small(64));
    let numbers = [4, 5, 99, 6];
    for n in numbers {
        fill(rig, rig.frame(n), n);
    }
    let frames: Vec<_> = numbers.iter().map(|&n| paged(rig.frame(n))).collect();
    let mapping = rig.on_cpu(|ctx| vm.vm_map_ram(ctx, &frames, Protection::ReadWrite).unwrap());
    let at = mapping.address();
    assert_eq!(mapping.pages().get(), 4);
    // Every CPU has it cached.
    rig.cpus(
        (0..3)
            .map(|_| {
                cpu(|_| {
                    for (page, n) in (0..).zip(numbers) {
                        assert_eq!(tag_at(vm.space(), at, page), Some(n));
                    }
                })
            })
            .collect(),
    );
    let frames_back = rig.on_cpu(|ctx| {
        // The contract: no references here.
        assert_eq!(references(&regions, ctx, rig.frame(4)), 0);
        let aliased = vm.vm_unmap_ram(mapping, numbers).unwrap();
        let aliased = vm.unaliased(aliased).unwrap_err();
        assert_eq!(vm.counters().lazy_pages, 4);
        let purged = vm.vm_unmap_aliases(ctx).unwrap();
        assert_eq!((purged.areas, purged.pages, purged.ranges), (0, 4, 1));
        vm.unaliased(aliased).unwrap()
    });
    // They are nobody's now, and nobody sees them any more.
    for n in frames_back {
        rig.memory().retire(one(rig.frame(n)));
    }
    rig.cpus(
        (0..3)
            .map(|_| cpu(|_| assert_eq!(tag_at(vm.space(), at, 2), None)))
            .collect(),
    );
    rig.on_cpu(|_| {
        vm.self_check().unwrap();
        drop(vm);
    });
}

pub(crate) fn blocks_are_filled_and_used_again_without_taking_addresses<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let vm = rig.vmalloc(2048, small(1024));
        let frames: Vec<_> = (0..64).map(|n| special(rig.frame(n))).collect();
        let mut kept = Vec::new();
        for round in 0..4 {
            // 128 pages: 64, 40, and 24 ones.
            let sizes = [64, 40].into_iter().chain([1; 24]);
            for pages in sizes {
                kept.push(
                    vm.vm_map_ram(ctx, &frames[..pages], Protection::Read)
                        .unwrap(),
                );
            }
            assert_eq!(vm.counters().ram_blocks, 1, "round {round}");
            vm.self_check().unwrap();
            let mut seen: Vec<_> = kept.iter().map(|one| one.address()).collect();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), 26);
            for mapping in kept.drain(..) {
                let _aliased = vm.vm_unmap_ram(mapping, ()).unwrap();
            }
            vm.vm_unmap_aliases(ctx).unwrap();
            vm.self_check().unwrap();
        }
        assert_eq!(vm.counters().allocated, 1);
        // Unmapped is not free: before a purge there is no room here.
        let full = vm.vm_map_ram(ctx, &frames, Protection::Read).unwrap();
        let _aliased = vm.vm_unmap_ram(full, ()).unwrap();
        let full = vm.vm_map_ram(ctx, &frames, Protection::Read).unwrap();
        let _aliased = vm.vm_unmap_ram(full, ()).unwrap();
        let other = vm.vm_map_ram(ctx, &frames, Protection::Read).unwrap();
        assert_eq!(vm.counters().ram_blocks, 2);
        let _aliased = vm.vm_unmap_ram(other, ()).unwrap();
        vm.self_check().unwrap();
    });
}

pub(crate) fn a_block_is_given_back_when_nothing_is_in_it<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let vm = rig.vmalloc(512, small(4096));
        let frames: Vec<_> = (0..64).map(|n| special(rig.frame(n))).collect();
        // Three blocks of 129 pages: there is no room for a fourth.
        let mut kept: Vec<_> = (0..6)
            .map(|_| vm.vm_map_ram(ctx, &frames, Protection::Read).unwrap())
            .collect();
        let full = vm.vm_map_ram(ctx, &frames, Protection::Read);
        assert!(matches!(full, Err(MapRamError::Alloc(_))), "{full:?}");
        let last = kept.remove(0);
        for mapping in kept {
            let _aliased = vm.vm_unmap_ram(mapping, ()).unwrap();
        }
        vm.vm_unmap_aliases(ctx).unwrap();
        vm.self_check().unwrap();
        // Want of addresses takes the last empty one as well.
        let large: Vec<_> = (0..380).map(|n| special(rig.frame(n))).collect();
        vm.vmap(ctx, &large, Protection::Read).unwrap();
        assert_eq!(vm.areas().len(), 2);
        let _aliased = vm.vm_unmap_ram(last, ()).unwrap();
        vm.self_check().unwrap();
    });
}

pub(crate) fn more_than_64_pages_are_refused<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let vm = rig.vmalloc(2048, small(64));
        let frames: Vec<_> = (0..65).map(|n| special(rig.frame(n))).collect();
        let asked = RAM_MOST + 1;
        assert_eq!(
            vm.vm_map_ram(ctx, &frames, Protection::Read).map(drop),
            Err(MapRamError::TooMany { asked })
        );
        assert_eq!(
            vm.vm_map_ram(ctx, &[], Protection::Read).map(drop),
            Err(MapRamError::Empty)
        );
        vm.self_check().unwrap();
    });
}
