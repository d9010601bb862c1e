//! Hazard: a bio names frames that are not there, and somebody panics, or reaches what lies beside the memory.

use alloc::sync::Arc;

use pageless::block::{BlkError, FrameAccess, Op};
use pageless::fault::FrameMemory;
use pageless::pfn::{ByteLen, FrameCount, FrameOffset, PAGE_SIZE, Pfn, PfnT, PhysSegment};
use pageless::vmap::compress::{Algorithm, CompressedStore};
use pageless::zram::Zram;

use crate::rig::{DEVICE, Mm, Rig, on_each_machine, pattern};

fn segment(frame: Pfn, offset: u64, len: u64) -> PhysSegment {
    let offset = FrameOffset::try_new(offset).unwrap();
    PhysSegment::try_new(PfnT::from(frame), offset, ByteLen::new(len)).unwrap()
}

fn frames_that_are_not_there_fail_the_bio<R: Rig>() {
    R::run(|mm| {
        let (device, memory) = (mm.pmem(), mm.memory().0);
        let frames = mm.ram().frames();
        let last = frames.last().unwrap();
        let behind = last.checked_add(FrameCount::new(1)).unwrap();
        let far = Pfn::try_new((1 << 52) - 1).unwrap();
        assert!(memory.covers(last) && memory.covers(frames.start()));
        assert!(!memory.covers(behind) && !memory.covers(far));
        let mut nowhere = vec![segment(behind, 0, 512), segment(far, 3584, 512)];
        if let Some(before) = frames.start().checked_sub(FrameCount::new(1)) {
            assert!(!memory.covers(before));
            nowhere.push(segment(before, 0, 512));
            // It ends in the memory, and does not begin there.
            nowhere.push(segment(before, 512, 4096));
        }
        let there = segment(last, 0, 512);
        let bytes = pattern(4, PAGE_SIZE as usize);
        mm.store(&device, 0, &bytes);
        for nowhere in nowhere {
            for op in [Op::Read, Op::Write] {
                let done = Mm::<R>::transfer(&device, op, 0, [nowhere]);
                assert_eq!(done, Err((BlkError::Io, 0)), "{op} of {nowhere}");
                // What comes before it is done.
                let done = Mm::<R>::transfer(&device, op, 0, [there, nowhere]);
                assert_eq!(done, Err((BlkError::Io, 512)), "{op} of {nowhere}");
            }
            let refused = memory.with(nowhere, |_| panic!("a span of nothing"));
            assert!(refused.is_err());
        }
        // The other way: it begins there, and ends behind.
        let over = segment(last, 3584, 1024);
        for op in [Op::Read, Op::Write] {
            let done = Mm::<R>::transfer(&device, op, 0, [over]);
            assert_eq!(done, Err((BlkError::Io, 0)));
        }
        let reached = memory.with(over, |span| span.len()).unwrap();
        assert_eq!(reached, 512);
        assert!(mm.load(&device, 1, 3584) == bytes[512..]);
        mm.nothing_remains();
    });
}

/// A page that cannot be read from memory is not stored, and what was there stays.
fn a_compressed_page_stays_when_its_bio_fails<R: Rig>() {
    R::run(|mm| {
        let store = CompressedStore::new(Arc::clone(mm.frames()), Algorithm::Lz4);
        let zram = Zram::new(ByteLen::new(DEVICE), store, mm.memory()).unwrap();
        let bytes = [&pattern(5, 2048)[..], &[7; 2048]].concat();
        mm.store(&zram, 8, &bytes);
        let last = mm.ram().frames().last().unwrap();
        let behind = last.checked_add(FrameCount::new(1)).unwrap();
        for nowhere in [segment(behind, 0, PAGE_SIZE), segment(last, 1, PAGE_SIZE)] {
            for op in [Op::Read, Op::Write] {
                let done = Mm::<R>::transfer(&zram, op, 8, [nowhere]);
                assert_eq!(done, Err((BlkError::Io, 0)), "{op} of {nowhere}");
            }
            assert!(mm.load(&zram, 8, bytes.len()) == bytes);
        }
        let failed = zram.io_stat();
        assert_eq!((failed.failed_reads, failed.failed_writes), (2, 2));
        drop(zram);
        mm.nothing_remains();
    });
}

on_each_machine! {
    a_compressed_page_stays_when_its_bio_fails
    frames_that_are_not_there_fail_the_bio
}
