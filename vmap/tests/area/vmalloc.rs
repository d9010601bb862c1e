//! Memory of one's own, contiguous only virtually.

use alloc::sync::Arc;

use pageless_fault::{MaySleep, Vspace};
use pageless_pfn::ByteLen;
use pageless_vmap::area::{AreaKind, VmallocError};
use pageless_vmap::frames::{FrameAllocator, FrameConfig, Gfp, Injection};

use crate::rig::{Rig, TestVmalloc, small};

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
