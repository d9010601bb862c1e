//! Memory of one's own, contiguous only virtually.

use alloc::sync::Arc;

use pageless_fault::{MaySleep, Protection, VirtAddr, Vspace};
use pageless_pfn::ByteLen;
use pageless_vmap::area::{AreaKind, VmallocError};
use pageless_vmap::frames::{Fragmentation, FrameAllocator, FrameConfig, Gfp, Injection, Order};

use crate::rig::{Rig, TestVmalloc, small, special};

type Frames<R> = Arc<FrameAllocator<<R as Rig>::Memory>>;

fn world<R: Rig>(rig: &R) -> (TestVmalloc<R>, Frames<R>) {
    let frames = FrameAllocator::new(Arc::clone(rig.memory()), FrameConfig::default()).unwrap();
    (rig.vmalloc(2048, small(600)), Arc::new(frames))
}

pub(crate) fn memory_is_zeroed_written_in_one_piece_and_back_after_the_flush<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let (vm, frames) = world(rig);
        let free = frames.statistics().free();
        for round in 0..3_u8 {
            let gfp = Gfp::kernel(ctx).zeroed();
            let bytes = ByteLen::new(37 * 4096 - 1);
            let at = vm.vmalloc(&gfp, bytes, &frames).unwrap();
            let info = vm.find_area(at).unwrap();
            assert_eq!((info.kind, info.pages.get()), (AreaKind::Alloc, 37));
            let start = vm.space().offset_of(at).unwrap();
            let mut all = vec![9; 37 * 4096];
            vm.space().read(start, &mut all).unwrap();
            assert!(all.iter().all(|byte| *byte == 0));
            all.iter_mut()
                .zip(0..)
                .for_each(|(byte, n): (_, u32)| *byte = n as u8 ^ round);
            vm.space().write(start, &all).unwrap();
            let mut found = vec![0; 37 * 4096];
            assert_eq!(vm.vread(at, &mut found).read, found.len());
            assert_eq!(found, all);
            if round == 1 {
                let _backlog = vm.vfree_atomic(at).unwrap();
            } else {
                vm.vfree(ctx, at).unwrap();
            }
            assert_eq!(frames.statistics().owned().get(), 37);
            vm.purge(ctx).unwrap();
            assert_eq!(frames.statistics().free(), free);
            vm.self_check().unwrap();
            frames.self_check().unwrap();
        }
    });
}

pub(crate) fn without_frames_nothing_is_left_behind_whichever_is_missing<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let (vm, frames) = world(rig);
        let free = frames.statistics().free();
        let bytes = ByteLen::new(13 * 4096);
        let attempt = |ctx: &MaySleep| vm.vmalloc(&Gfp::kernel(ctx), bytes, &frames);
        let mut failed = 0;
        // 8 + 4 + 1: a block that is not to be had is made up for by smaller ones, but for the smallest.
        for nth in 0..4 {
            frames.inject(Some(Injection::Nth(nth)));
            match attempt(ctx) {
                Ok(at) => vm.vfree(ctx, at).unwrap(),
                Err(VmallocError::NoFrames { got, wanted, .. }) => {
                    assert_eq!((got, wanted), (12, 13));
                    failed += 1;
                }
                Err(other) => panic!("{other:?}"),
            }
            frames.inject(None);
            vm.purge(ctx).unwrap();
            assert_eq!(frames.statistics().free(), free);
            vm.self_check().unwrap();
        }
        assert_eq!(failed, 1);
        // More than there are.
        let too_much = ByteLen::new(2000 * 4096);
        let refused = vm.vmalloc(&Gfp::kernel(ctx), too_much, &frames);
        assert!(
            matches!(refused, Err(VmallocError::NoFrames { .. })),
            "{refused:?}"
        );
        let refused = vm.vmalloc(&Gfp::kernel(ctx), ByteLen::new(0), &frames);
        assert!(matches!(refused, Err(VmallocError::Map(_))), "{refused:?}");
        vm.purge(ctx).unwrap();
        assert_eq!(frames.statistics().free(), free);
        assert!(vm.areas().is_empty());
        vm.self_check().unwrap();
        frames.self_check().unwrap();
    });
}

pub(crate) fn its_frames_are_told_in_order_whatever_bytes_are_asked_for<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let (vm, frames) = world(rig);
        let order = Order::try_new(2).unwrap();
        let how = Fragmentation {
            order,
            keep_free: 400,
            seed: 17,
        };
        let taken = frames.fragment(how).unwrap();
        let pages = 19;
        let len = ByteLen::new(pages * 4096);
        let start = vm.vmalloc(&Gfp::kernel(ctx), len, &frames).unwrap();
        for (from, len) in [
            (0, pages * 4096),
            (0, 1),
            (4095, 2),
            (700, 5 * 4096),
            (3 * 4096, 4096),
            (pages * 4096 - 1, 1),
            (pages * 4096, 0),
        ] {
            let at = start.checked_add(from).unwrap();
            let segments = vm.vmalloc_to_segments(at, ByteLen::new(len)).unwrap();
            let told = segments.iter().flat_map(|segment| segment.pieces());
            let mut from = from;
            for piece in told {
                let at = start.checked_add(from).unwrap();
                assert_eq!(vm.vmalloc_to_pfn(at), Some(piece.frame().pfn()));
                assert_eq!(piece.offset().get(), from % 4096);
                from += piece.len().get();
            }
            assert_eq!(start.checked_add(from), at.checked_add(len));
            // No two that could have been one.
            let mut pairs = segments.windows(2);
            assert!(pairs.all(|pair| pair[0].try_merge(pair[1]).is_none()));
        }
        vm.vfree(ctx, start).unwrap();
        vm.purge(ctx).unwrap();
        drop(taken);
    });
}

pub(crate) fn what_is_not_its_memory_has_no_segments<R: Rig>(rig: &R) {
    rig.on_cpu(|ctx| {
        let (vm, frames) = world(rig);
        let segments = |at: VirtAddr, from: u64, len| {
            let at = at.checked_add(from).unwrap();
            let told = vm.vmalloc_to_segments(at, ByteLen::new(len));
            if let Err(refused) = told {
                assert_eq!((refused.address, refused.len.get()), (at, len));
            }
            told.map_err(|_| ())
        };
        let memory = |pages: u64| {
            let len = ByteLen::new(pages * 4096);
            vm.vmalloc(&Gfp::kernel(ctx), len, &frames).unwrap()
        };
        let (start, next) = (memory(3), memory(3));
        assert!(segments(start, 0, 3 * 4096).is_ok());
        // Into the guard page, in it, beyond; and so much that there is no such address.
        for (from, len) in [(0, 3 * 4096 + 1), (3 * 4096, 1), (4 * 4096 - 1, 1)] {
            assert_eq!(segments(start, from, len), Err(()), "{len} from {from} on");
        }
        for len in [1 << 40, u64::MAX - 1, u64::MAX] {
            assert_eq!(segments(start, 700, len), Err(()), "{len}");
        }
        let outside = vm.space().base().get().checked_sub(4096).unwrap();
        assert_eq!(segments(VirtAddr::new(outside), 0, 1), Err(()));
        // Frames of others, whose list says what they are.
        let list = [special(rig.frame(0))];
        let shown = vm.vmap(ctx, &list, Protection::ReadWrite).unwrap();
        assert_eq!(segments(shown, 0, 4096), Err(()));
        vm.vunmap(ctx, shown).unwrap();
        // Freed, waiting and gone.
        vm.vfree(ctx, start).unwrap();
        assert_eq!(segments(start, 0, 1), Err(()));
        vm.purge(ctx).unwrap();
        assert_eq!(segments(start, 0, 1), Err(()));
        assert!(segments(next, 0, 3 * 4096).is_ok());
        vm.vfree(ctx, next).unwrap();
        vm.purge(ctx).unwrap();
    });
}
