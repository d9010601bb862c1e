//! Hazard: somebody who must not wait, or be interrupted, makes others wait for him.

use pageless_fault::FrameMemory;
use pageless_vmap::frames::Gfp;

use super::rig::{Rig, Size, on_each_machine, order};

fn a_block_ends_with_interrupts_off_and_nobody_is_told<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        pages.always_fall_back(true);
        let gfp = Gfp::kernel(&world.ctx).virtual_fallback();
        let all = pages.frames().memory().frames().count().get();
        let block = pages.alloc(&gfp, order(4)).unwrap();
        block.write(0, &[1; 4096]).unwrap();
        let before = world.rig.shootdowns();
        world.rig.with_interrupts_off(|| drop(block));
        assert_eq!(
            world.rig.shootdowns(),
            before,
            "a shootdown with interrupts off"
        );
        // Its frames wait: nobody has them before the shootdown.
        assert_eq!(pages.frames().statistics().free().get(), all - 16);
        assert_eq!(pages.areas().counters().lazy_pages, 17);
        pages.areas().purge(&world.ctx).unwrap();
        assert_eq!(world.rig.shootdowns(), before.map(|before| before + 1));
        world.nothing_remains();
    });
}

fn a_block_is_had_with_interrupts_off<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        let gfp = Gfp::kernel(&world.ctx).virtual_fallback();
        pages.always_fall_back(true);
        // The chunks of these descriptors stay: who must not wait finds them there.
        let before = pages.alloc(&gfp, order(5)).unwrap();
        let kept = pages.alloc(&gfp, order(0)).unwrap();
        drop(before);
        pages.areas().purge(&world.ctx).unwrap();
        let shootdowns = world.rig.shootdowns();
        world.rig.with_interrupts_off(|| {
            let block = pages
                .alloc(&Gfp::atomic().virtual_fallback(), order(4))
                .unwrap();
            assert!(block.is_virtual());
            block.write(4090, b"across the boundary").unwrap();
            let mut seen = [0; 19];
            block.read(4090, &mut seen).unwrap();
            assert_eq!(&seen, b"across the boundary");
        });
        assert_eq!(world.rig.shootdowns(), shootdowns);
        drop(kept);
        world.nothing_remains();
    });
}

on_each_machine! {
    a_block_ends_with_interrupts_off_and_nobody_is_told
    a_block_is_had_with_interrupts_off
}
