//! Hazard: what a device does to the frames is not what is seen at the address, or the other way round.

use alloc::sync::Arc;

use pageless::block::{BlockDevice, Op};
use pageless::fault::FrameMemory;
use pageless::pfn::{ByteLen, PAGE_SIZE};
use pageless::vmap::buffer_pool::BufferPool;
use pageless::vmap::compress::{Algorithm, CompressedStore};
use pageless::vmap::frames::Fragmentation;
use pageless::zram::Zram;

use crate::rig::{DEVICE, Mm, OnePiece, Rig, Vmalloced, on_each_machine, order, pattern, seen};

/// Has a bio fill the memory from the device, and another one empty it to a second place.
fn there_and_back<R: Rig>(mm: &Mm<R>, device: &impl BlockDevice, memory: &impl OnePiece) {
    let len = memory.len();
    let (from, to) = (8, 8 + DEVICE / 2 / 512);
    let (first, second) = (pattern(1, len), pattern(2, len));
    mm.clear(device);
    mm.store(device, from, &first);
    memory.write(0, &vec![0xee; len]);
    Mm::<R>::transfer(device, Op::Read, from, memory.segments()).unwrap();
    assert!(seen(memory) == first, "what is seen is not what was read");
    // The same, frame by frame.
    let mut rest = &first[..];
    for segment in memory.segments() {
        let (here, behind) = rest.split_at(segment.len().get() as usize);
        let mut found = vec![0; here.len()];
        mm.ram().read(segment.phys(), &mut found).unwrap();
        assert!(found == here, "{segment} is not what was read");
        rest = behind;
    }
    assert!(rest.is_empty());

    for (n, piece) in second.chunks(5003).enumerate() {
        memory.write(n as u64 * 5003, piece);
    }
    Mm::<R>::transfer(device, Op::Write, to, memory.segments()).unwrap();
    assert!(mm.load(device, to, len) == second, "not what was written");
    // Not moved, and not anywhere else.
    assert!(seen(memory) == second, "a write has changed memory");
    assert!(mm.load(device, from, len) == first, "a write went astray");
    let between = (to - from) * 512 - len as u64;
    let gap = mm.load(device, from + len as u64 / 512, between as usize);
    assert!(gap.iter().all(|byte| *byte == 0), "a write went astray");
}

/// All kinds of memory, with and without a free block of order 4.
fn all_memory<R: Rig>(mm: &Mm<R>, device: &impl BlockDevice) {
    for is_fragmented in [false, true] {
        let how = Fragmentation {
            order: order(4),
            keep_free: 500,
            seed: 11,
        };
        // What others would give back has frames in a row: what waits for a shootdown, and what the device keeps there.
        mm.clear(device);
        mm.vmalloc.purge(&mm.ctx).unwrap();
        let taken = is_fragmented.then(|| mm.frames().fragment(how).unwrap());
        assert_eq!(mm.pages.alloc(&mm.gfp(), order(4)).is_err(), is_fragmented);
        let gfp = mm.gfp().virtual_fallback();

        let block = mm.pages.alloc(&gfp, order(4)).unwrap();
        assert_eq!(block.is_virtual(), is_fragmented);
        assert_eq!(block.segments().count() > 1, is_fragmented);
        there_and_back(mm, device, &block);
        drop(block);

        let pool = BufferPool::new(Arc::clone(&mm.pages), order(5), 1);
        let buffer = pool.get(&gfp).unwrap();
        assert_eq!(buffer.is_virtual(), is_fragmented);
        there_and_back(mm, device, &buffer);
        drop((buffer, pool));

        let len = 37 * PAGE_SIZE;
        let start = mm.vmalloc.vmalloc(&gfp, ByteLen::new(len), mm.frames());
        let start = start.unwrap();
        let area = Vmalloced { mm, start, len };
        assert!(area.segments().len() > 1 || !is_fragmented);
        there_and_back(mm, device, &area);
        mm.vmalloc.vfree(&mm.ctx, start).unwrap();
        drop(taken);
    }
}

fn the_pmem_driver_fills_and_empties_it<R: Rig>() {
    R::run(|mm| {
        all_memory(mm, &mm.pmem());
        all_memory(mm, &mm.pmem().with_streamed_writes());
        mm.nothing_remains();
    });
}

/// Its own pages are frames of the same memory.
fn zram_fills_and_empties_it<R: Rig>() {
    R::run(|mm| {
        for algorithm in Algorithm::ALL {
            let store = CompressedStore::new(Arc::clone(mm.frames()), algorithm);
            let zram = Zram::new(ByteLen::new(DEVICE), store, mm.memory()).unwrap();
            all_memory(mm, &zram);
        }
        mm.nothing_remains();
    });
}

/// Blocks of a device are smaller than pages, and so may be what is read.
fn it_may_begin_and_end_within_a_page<R: Rig>() {
    R::run(|mm| {
        let (device, len) = (mm.pmem(), 5 * PAGE_SIZE);
        let how = Fragmentation {
            order: order(1),
            keep_free: 300,
            seed: 3,
        };
        let taken = mm.frames().fragment(how).unwrap();
        let start = mm
            .vmalloc
            .vmalloc(&mm.gfp(), ByteLen::new(len), mm.frames());
        let start = start.unwrap();
        let whole = Vmalloced { mm, start, len };
        let kept = pattern(9, len as usize);
        // Within a page; up to its end; across one boundary, and across all of them.
        for (at, len) in [(700, 512), (3584, 512), (4095, 512), (1, 19968), (0, 4096)] {
            whole.write(0, &kept);
            let start = start.checked_add(at).unwrap();
            let part = Vmalloced { mm, start, len };
            there_and_back(mm, &device, &part);
            let mut left = seen(&whole);
            let part = at as usize..(at + len) as usize;
            left[part.clone()].copy_from_slice(&kept[part]);
            assert!(left == kept, "{len} bytes from {at} on changed others");
        }
        mm.vmalloc.vfree(&mm.ctx, whole.start).unwrap();
        drop(taken);
        mm.nothing_remains();
    });
}

on_each_machine! {
    the_pmem_driver_fills_and_empties_it
    zram_fills_and_empties_it
    it_may_begin_and_end_within_a_page
}
