//! When frames run out in the middle of a zspage, nothing of it is left.

use pageless_vmap::frames::Gfp;
use pageless_vmap::zsmalloc::{ChainSize, MallocError, Zsmalloc};

use super::on_each_machine;
use super::rig::{Frames, Rig, store};

fn whichever_frame_is_missing_the_others_come_back<R: Rig>() {
    R::run(64, |memory, _| {
        for chain in [4, 8, 16] {
            let frames = Frames::new(memory);
            let pool = Zsmalloc::with_chain(&frames, ChainSize::try_new(chain).unwrap());
            let kept = store(&pool, b"kept");
            for shape in pool.class_table().shapes().to_vec() {
                let full = (shape.size == 32).then(|| {
                    (1..shape.objects)
                        .map(|_| store(&pool, b"4"))
                        .collect::<Vec<_>>()
                });
                let (out, before) = (frames.out(), pool.stats());
                for had in 0..shape.pages {
                    frames.fail_after(had.into());
                    let missing = MallocError::NoFrame {
                        had,
                        wanted: shape.pages,
                    };
                    let answer = pool.malloc(&Gfp::atomic(), shape.capacity());
                    assert_eq!(answer, Err(missing), "{shape:?}");
                    assert_eq!(frames.out(), out);
                    assert_eq!(pool.self_check(), Ok(()));
                    let mut after = pool.stats();
                    // Its record stays, to be used again.
                    after.metadata = before.metadata;
                    assert_eq!(after, before);
                }
                frames.fail_after(shape.pages.into());
                let handle = pool.malloc(&Gfp::atomic(), shape.capacity()).unwrap();
                assert_eq!(frames.out(), out + u64::from(shape.pages));
                pool.free(handle).unwrap();
                frames.fail_after(u64::MAX);
                for handle in full.into_iter().flatten() {
                    pool.free(handle).unwrap();
                }
            }
            pool.free(kept).unwrap();
            assert_eq!(frames.out(), 0);
        }
    });
}

fn a_pool_that_is_dropped_gives_all_frames_back<R: Rig>() {
    R::run(16, |memory, _| {
        let frames = Frames::new(memory);
        let pool = Zsmalloc::new(&frames);
        let lost = [store(&pool, &[1; 3000]), store(&pool, &[2; 4000])];
        assert!(frames.out() > 1);
        drop(pool);
        assert_eq!(frames.out(), 0);
        drop(lost);
    });
}

on_each_machine! {
    whichever_frame_is_missing_the_others_come_back
    a_pool_that_is_dropped_gives_all_frames_back
}
