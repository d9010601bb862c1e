//! Hazard: many threads have bios into blocks that end and begin meanwhile, of frames and at addresses that were others' before, and one sees what is another's.

use core::sync::atomic::{AtomicU64, Ordering};

use pageless::block::{BlockDevice, Op};
use pageless::fault::{Cpus, MaySleep};
use pageless::vmap::frames::{Fragmentation, Gfp};

use crate::rig::{AllPages, Mm, Rig, on_each_machine, order, pattern, seen};

/// Threads, each with blocks of its own and a part of the device for itself.
const THREADS: u16 = 3;
const ROUNDS: u64 = 60;
/// Bytes of a block.
const LEN: usize = 16 * 4096;

/// Sector of the `n`-th place of a thread.
fn place(thread: u16, n: u64) -> u64 {
    (u64::from(thread) * 2 + n) * LEN as u64 / 512
}

/// Has bios fill new blocks, looks at them at their addresses, and has others write them elsewhere.
fn one_of_a_crowd<R: Rig>(pages: &AllPages<R>, device: &impl BlockDevice, thread: u16) {
    let ctx = MaySleep::claim();
    let gfp = Gfp::kernel(&ctx).virtual_fallback();
    let ours = pattern(thread.into(), LEN);
    for round in 0..ROUNDS {
        let (from, to) = (place(thread, round % 2), place(thread, (round + 1) % 2));
        let block = pages.alloc(&gfp, order(4)).unwrap();
        assert!(block.is_virtual());
        Mm::<R>::transfer(device, Op::Read, from, block.segments()).unwrap();
        assert!(seen(&block) == ours, "thread {thread}, round {round}");
        Mm::<R>::transfer(device, Op::Write, to, block.segments()).unwrap();
        block.write(0, &[0xee; LEN]).unwrap();
        Mm::<R>::transfer(device, Op::Read, to, block.segments()).unwrap();
        assert!(seen(&block) == ours, "thread {thread}, round {round}");
        block.put(&ctx);
        if round % 8 == u64::from(thread) {
            pages.areas().purge(&ctx).unwrap();
        }
    }
}

fn each_sees_what_its_own_bios_have_read<R: Rig>() {
    R::run(|mm| {
        let device = mm.pmem();
        for thread in 0..THREADS {
            let ours = pattern(thread.into(), LEN);
            mm.store(&device, place(thread, 0), &ours);
            mm.store(&device, place(thread, 1), &[0; LEN]);
        }
        // Little enough that every frame is used by every thread.
        let how = Fragmentation {
            order: order(4),
            keep_free: 100,
            seed: 23,
        };
        let taken = mm.frames().fragment(how).unwrap();
        let (pages, device) = (&mm.pages, &device);
        let left = AtomicU64::new(THREADS.into());
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let left = &left;
                scope.spawn(move || {
                    // Also if it panics: nobody would end otherwise.
                    let _last = OnDrop(|| {
                        // Release pairs with the Acquire of who waits.
                        left.fetch_sub(1, Ordering::Release);
                    });
                    let space = pages.areas().space();
                    R::on_cpu(space, thread + 1, || {
                        one_of_a_crowd::<R>(pages, device, thread);
                    });
                });
            }
            // As a CPU waits, that serves the others' shootdowns.
            let mut turn = 0_u32;
            while left.load(Ordering::Acquire) != 0 {
                pages.areas().space().relax(turn);
                turn = turn.saturating_add(1);
            }
        });
        drop(taken);
        mm.nothing_remains();
    });
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

on_each_machine! {
    each_sees_what_its_own_bios_have_read
}
