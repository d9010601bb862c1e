//! Hazard: a buffer that is in pieces is used as if it were in one, or memory that nobody uses is kept from those who need it.

use alloc::sync::Arc;

use pageless_fault::FrameMemory;
use pageless_pfn::PAGE_SIZE;
use pageless_vmap::buffer_pool::BufferPool;
use pageless_vmap::frames::{Fragmentation, Gfp};

use super::present::all_descriptors;
use super::rig::{Rig, Size, World, on_each_machine, order};

/// Everything that somebody sees who uses a pool and looks neither at addresses nor at frames.
fn transcript<R: Rig>(world: &World<R>) -> Vec<String> {
    let pool = BufferPool::new(Arc::clone(&world.pages), order(4), 3);
    let gfp = Gfp::kernel(&world.ctx);
    let mut seen = Vec::new();
    for round in 0..4_u8 {
        let buffers: Vec<_> = (0..5).map(|_| pool.get(&gfp).unwrap()).collect();
        for (n, buffer) in (0..).zip(&buffers) {
            assert_eq!(buffer.len().get(), 16 * PAGE_SIZE);
            // Bytes on both sides of every boundary.
            for page in 1..16 {
                buffer
                    .write(page * PAGE_SIZE - 2, &[round, n, page as u8, 0xee])
                    .unwrap();
            }
            let beyond = buffer.write(16 * PAGE_SIZE - 1, &[0; 2]);
            seen.push(format!("{}", beyond.is_err()));
        }
        for (n, buffer) in (0..).zip(&buffers) {
            for page in 1..16 {
                let mut found = [0; 4];
                buffer.read(page * PAGE_SIZE - 2, &mut found).unwrap();
                assert_eq!(found, [round, n, page as u8, 0xee]);
            }
        }
        seen.push(format!("{:?}", pool.statistics()));
        drop(buffers);
        seen.push(format!("{:?}", pool.statistics()));
    }
    seen.push(format!("{:?}", pool.drain(&world.ctx)));
    seen.push(format!("{:?}", pool.statistics()));
    drop(pool);
    world.nothing_remains();
    seen
}

fn nobody_can_tell_which_kind_buffers_are<R: Rig>() {
    R::run(Size::default(), |world| {
        let physical = transcript(&world);
        assert_eq!(world.pages.counters().fallbacks, 0);
        world.pages.always_fall_back(true);
        let virtually = transcript(&world);
        let counters = world.pages.counters();
        assert_eq!(counters.fallbacks, counters.contiguous);
        assert_eq!(physical, virtually);
    });
}

fn what_a_device_does_to_the_frames_is_seen_at_the_address<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        let gfp = Gfp::kernel(&world.ctx);
        let how = Fragmentation {
            order: order(4),
            keep_free: 700,
            seed: 3,
        };
        for is_fragmented in [false, true] {
            let fragmented = is_fragmented.then(|| pages.frames().fragment(how).unwrap());
            let pool = BufferPool::new(Arc::clone(pages), order(4), 1);
            let buffer = pool.get(&gfp).unwrap();
            assert_eq!(buffer.is_virtual(), is_fragmented);
            let segments: Vec<_> = buffer.segments().collect();
            assert_eq!(segments.len() > 1, is_fragmented);
            let bytes: u64 = segments.iter().map(|segment| segment.len().get()).sum();
            assert_eq!(bytes, buffer.len().get());
            // No two that could have been one.
            let mut pairs = segments.windows(2);
            assert!(pairs.all(|pair| pair[0].try_merge(pair[1]).is_none()));
            // A device fills the frames, in the order in which it was given them; somebody reads the buffer in one piece.
            let memory = pages.frames().memory();
            let contents: Vec<u8> = (0..bytes).map(|at| (at * 31 / 7) as u8).collect();
            let mut at = 0;
            for piece in segments.iter().flat_map(|segment| segment.pieces()) {
                let len = piece.len().get() as usize;
                memory.write(piece.phys(), &contents[at..at + len]).unwrap();
                at += len;
            }
            let mut found = vec![0; contents.len()];
            pages.read(buffer.address(), &mut found).unwrap();
            assert_eq!(found, contents);
            // And the other way round.
            buffer.write(PAGE_SIZE - 3, b"sector").unwrap();
            let mut frames = Vec::new();
            for segment in &segments {
                let mut bytes = vec![0; segment.len().get() as usize];
                memory.read(segment.phys(), &mut bytes).unwrap();
                frames.extend(bytes);
            }
            assert_eq!(&frames[PAGE_SIZE as usize - 3..][..6], b"sector");
            drop(buffer);
            drop(pool);
            drop(fragmented);
            world.nothing_remains();
        }
    });
}

fn zeroes_are_had_where_something_else_was<R: Rig>() {
    R::run(Size::default(), |world| {
        for is_virtual in [false, true] {
            world.pages.always_fall_back(is_virtual);
            let pool = BufferPool::new(Arc::clone(&world.pages), order(2), 1);
            let gfp = Gfp::kernel(&world.ctx);
            let buffer = pool.get(&gfp).unwrap();
            buffer.write(0, &[0xff; 16384]).unwrap();
            drop(buffer);
            let again = pool.get(&gfp.zeroed()).unwrap();
            assert_eq!(pool.statistics().reused, 1);
            let mut found = [1; 16384];
            again.read(0, &mut found).unwrap();
            assert_eq!(found, [0; 16384]);
        }
        world.nothing_remains();
    });
}

fn what_is_kept_comes_back_when_memory_is_short<R: Rig>() {
    R::run(
        Size {
            frames: 256,
            ..Size::default()
        },
        |world| {
            let pages = &world.pages;
            let gfp = Gfp::kernel(&world.ctx).virtual_fallback();
            for is_virtual in [false, true] {
                pages.always_fall_back(is_virtual);
                let pool = BufferPool::new(Arc::clone(pages), order(4), 64);
                let buffers: Vec<_> = (0..16).map(|_| pool.get(&gfp).unwrap()).collect();
                drop(buffers);
                assert_eq!(pool.statistics().parked, 16);
                // Somebody else needs a page, and does not have to ask twice.
                let asked = pages.frames().statistics().events.reclaims;
                let one = pages.alloc(&gfp, order(0)).unwrap();
                let statistics = pages.frames().statistics();
                assert_eq!(statistics.events.reclaims, asked + 1);
                assert!(pool.statistics().parked >= 14);
                // And then most of it.
                let others: Vec<_> = (0..239)
                    .map(|_| pages.alloc(&gfp, order(0)).unwrap())
                    .collect();
                let statistics = pool.statistics();
                assert!(statistics.reclaimed >= 15, "{statistics:?}");
                assert_eq!(statistics.reclaimed + statistics.parked, 16);
                drop((one, others));
                drop(pool);
                world.nothing_remains();
            }
        },
    );
}

fn buffers_come_and_go_with_interrupts_off<R: Rig>() {
    R::run(Size::default(), |world| {
        let pages = &world.pages;
        for is_virtual in [false, true] {
            pages.always_fall_back(is_virtual);
            let present = all_descriptors(&world);
            let pool = BufferPool::new(Arc::clone(pages), order(4), 1);
            let shootdowns = world.rig.shootdowns();
            world.rig.with_interrupts_off(|| {
                let buffers: Vec<_> = (0..3).map(|_| pool.get(&Gfp::atomic()).unwrap()).collect();
                drop(buffers);
            });
            let statistics = pool.statistics();
            assert_eq!((statistics.parked, statistics.spilled), (1, 2));
            assert_eq!(world.rig.shootdowns(), shootdowns);
            drop(pool);
            drop(present);
            world.nothing_remains();
        }
    });
}

fn a_buffer_outlives_its_pool<R: Rig>() {
    R::run(Size::default(), |world| {
        world.pages.always_fall_back(true);
        let pool = BufferPool::new(Arc::clone(&world.pages), order(5), 2);
        let gfp = Gfp::kernel(&world.ctx);
        let buffer = pool.get(&gfp).unwrap();
        drop(pool);
        buffer.write(123_456 % (32 * PAGE_SIZE), b"here").unwrap();
        drop(buffer);
        world.nothing_remains();
    });
}

on_each_machine! {
    nobody_can_tell_which_kind_buffers_are
    what_a_device_does_to_the_frames_is_seen_at_the_address
    zeroes_are_had_where_something_else_was
    what_is_kept_comes_back_when_memory_is_short
    buffers_come_and_go_with_interrupts_off
    a_buffer_outlives_its_pool
}
