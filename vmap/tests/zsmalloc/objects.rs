//! What is stored is read, by every way there is; what is freed gives its frames back.

use pageless_fault::MaySleep;
use pageless_vmap::frames::Gfp;
use pageless_vmap::zsmalloc::{AccessError, FreeRefused, MAX_OBJECT, MallocError, Zsmalloc};

use super::on_each_machine;
use super::rig::{Frames, Rig, store, text};

fn all_ways_give_the_same_bytes<R: Rig>() {
    R::run(1200, |memory, _| {
        let frames = Frames::new(memory);
        let pool = Zsmalloc::new(&frames);
        let mut handles = Vec::new();
        let mut copied = 0;
        // Seven of each class, so that every class with crossing objects has some.
        for shape in pool.class_table().shapes().to_vec() {
            for nth in 0..7_u64 {
                let len = shape.capacity() - nth as usize % 3;
                let bytes = text(u64::from(shape.size) << 8 | nth, len);
                handles.push((store(&pool, &bytes), bytes));
            }
        }
        assert_eq!(pool.self_check(), Ok(()));
        for (handle, bytes) in &handles {
            assert_eq!(pool.size_of(handle), Ok(bytes.len()));
            let mut local = vec![0; bytes.len()];
            pool.with_copy(handle, &mut local, |seen| assert_eq!(seen, bytes))
                .unwrap();
            if local.iter().any(|b| *b != 0) {
                copied += 1;
            }
            let joined = pool.segments(handle, |first, second| [first, second].concat());
            assert_eq!(joined.as_deref(), Ok(&**bytes));
            let mut read = vec![0; bytes.len() + 1];
            assert_eq!(pool.read(handle, &mut read), Ok(bytes.len()));
            assert_eq!(read[..bytes.len()], **bytes);
        }
        assert!(copied > 100, "{copied} of {} cross", handles.len());
        assert!(frames.out() > 0);
        for (handle, _) in handles {
            pool.free(handle).unwrap();
        }
        assert_eq!(pool.self_check(), Ok(()));
        assert_eq!((frames.out(), pool.pages_used().get()), (0, 0));
    });
}

fn what_cannot_be_is_refused<R: Rig>() {
    R::run(40, |memory, _| {
        let frames = Frames::new(memory);
        let (pool, other) = (Zsmalloc::new(&frames), Zsmalloc::new(&frames));
        let ctx = MaySleep::claim();
        let gfp = Gfp::kernel(&ctx);
        assert_eq!(pool.malloc(&gfp, 0), Err(MallocError::Invalid));
        let too_large = MallocError::TooLarge { size: 4097 };
        assert_eq!(pool.malloc(&gfp, MAX_OBJECT + 1), Err(too_large));

        let handle = store(&pool, &text(1, 3000));
        let out_of_bounds = AccessError::OutOfBounds {
            offset: 0,
            len: 3001,
            object: 3000,
        };
        assert_eq!(pool.write(&handle, &[0; 3001]), Err(out_of_bounds));
        assert!(matches!(
            other.read(&handle, &mut [0; 3000]),
            Err(AccessError::ForeignHandle { .. })
        ));
        let refused = other.free(handle).unwrap_err();
        assert!(matches!(refused.why, FreeRefused::ForeignHandle { .. }));

        // The second of them begins in the first frame and ends in the second.
        let crossing = store(&pool, &text(2, 3000));
        let short = AccessError::LocalTooShort {
            object: 3000,
            local: 2999,
        };
        let seen = pool.with_copy(&crossing, &mut [0; 2999], |_| ());
        assert_eq!(seen, Err(short));
        pool.free(refused.handle).unwrap();
        pool.free(crossing).unwrap();
        assert_eq!(frames.out(), 0);
    });
}

fn a_write_replaces_the_start_and_leaves_the_rest<R: Rig>() {
    R::run(40, |memory, _| {
        let frames = Frames::new(memory);
        let pool = Zsmalloc::new(&frames);
        let mut bytes = text(3, 3000);
        let handles = [store(&pool, &bytes), store(&pool, &bytes)];
        bytes[..2000].fill(7);
        for handle in handles {
            pool.write(&handle, &[7; 2000]).unwrap();
            let mut seen = vec![0; 3000];
            pool.read(&handle, &mut seen).unwrap();
            assert_eq!(seen, bytes);
            pool.free(handle).unwrap();
        }
    });
}

on_each_machine! {
    all_ways_give_the_same_bytes
    what_cannot_be_is_refused
    a_write_replaces_the_start_and_leaves_the_rest
}
