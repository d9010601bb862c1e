//! What the device does, on both machines.

use pageless::block::{BlkError, Op};
use pageless::fault::FrameMemory;
use pageless::pfn::{ByteLen, PAGE_SIZE, PhysAddr};
use pageless::vmap::compress::{Access, Algorithm, CompressedStore, Compressor, PAGE};
use pageless::vmap::zsmalloc::FrameSource;
use pageless::zram::{MmStat, Zram, ZramError};

use crate::disk::{Disk, MOST, memory};
use crate::pages::Random;
use crate::rig::{Frames, Host, Rig, Sim};

/// Runs a test on both machines, with both compressors.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod host {
            use super::*;
            $(#[test] fn $name() { Host::run(2048, |frames| Algorithm::ALL.map(|a| super::$name(frames, a)).into_iter().collect()); })*
        }
        mod sim {
            use super::*;
            $(#[test] fn $name() { Sim::run(2048, |frames| Algorithm::ALL.map(|a| super::$name(frames, a)).into_iter().collect()); })*
        }
    };
}

on_both! {
    what_was_never_written_reads_as_zeroes
    what_was_written_comes_back_wherever_segments_begin
    a_page_of_one_word_takes_no_memory
    a_page_of_noise_is_kept_as_it_is
    what_is_discarded_is_gone_and_counted
    what_is_written_over_gives_its_memory_back
    compaction_gives_frames_back_and_changes_no_byte
    every_access_reads_the_same
    a_device_that_was_reset_is_as_new
    a_bio_that_must_not_wait_is_refused
    a_spoilt_object_is_an_io_error
}

fn what_was_never_written_reads_as_zeroes<R: Rig>(frames: &Frames<'_, R>, algorithm: Algorithm) {
    let memory = memory();
    let disk = Disk::new(frames, &memory, algorithm, 1 << 28);
    for page in [0, 511, 512, (1 << 28) - 3] {
        assert!(disk.read(page, 3).unwrap() == [[0; PAGE]; 3]);
    }
    assert_eq!(disk.zram.mm_stat(), MmStat::default());
}

fn what_was_written_comes_back_wherever_segments_begin<R: Rig>(
    frames: &Frames<'_, R>,
    algorithm: Algorithm,
) {
    let memory = memory();
    let disk = Disk::new(frames, &memory, algorithm, 4096);
    let mut random = Random::new(1);
    // Across a group of the table, in bios of all lengths.
    for count in [1, 2, 3, 17, MOST] {
        let pages: Vec<_> = (0..count).map(|_| random.page()).collect();
        disk.write(500, &pages).unwrap();
        assert!(disk.read(500, count).unwrap() == pages, "{count} pages");
        assert!(disk.read(499, 2).unwrap() == [[0; PAGE], pages[0]]);
    }
}

fn a_page_of_one_word_takes_no_memory<R: Rig>(frames: &Frames<'_, R>, algorithm: Algorithm) {
    let memory = memory();
    let disk = Disk::new(frames, &memory, algorithm, 64);
    let mut random = Random::new(2);
    let pages: Vec<_> = (0..20).map(|_| random.filled()).collect();
    disk.write(3, &pages).unwrap();
    assert!(disk.read(3, 20).unwrap() == pages);
    let expected = MmStat {
        orig_data_size: ByteLen::new(20 * PAGE_SIZE),
        same_pages: 20,
        ..MmStat::default()
    };
    assert_eq!(disk.zram.mm_stat(), expected);
}

fn a_page_of_noise_is_kept_as_it_is<R: Rig>(frames: &Frames<'_, R>, algorithm: Algorithm) {
    let memory = memory();
    let disk = Disk::new(frames, &memory, algorithm, 64);
    let mut random = Random::new(3);
    let pages: Vec<_> = (0..9).map(|_| random.noise()).collect();
    disk.write(0, &pages).unwrap();
    disk.write(0, &pages[..2]).unwrap();
    assert!(disk.read(0, 9).unwrap() == pages);
    let bytes = ByteLen::new(9 * PAGE_SIZE);
    let expected = MmStat {
        orig_data_size: bytes,
        compr_data_size: bytes,
        mem_used_total: bytes,
        // The new page is there before the old one goes.
        mem_used_max: ByteLen::new(10 * PAGE_SIZE),
        huge_pages: 9,
        huge_pages_since: 11,
        ..MmStat::default()
    };
    assert_eq!(disk.zram.mm_stat(), expected);
}

fn what_is_discarded_is_gone_and_counted<R: Rig>(frames: &Frames<'_, R>, algorithm: Algorithm) {
    let memory = memory();
    let disk = Disk::new(frames, &memory, algorithm, 1 << 20);
    let mut random = Random::new(4);
    let mut pages: Vec<_> = (0..40).map(|_| random.page()).collect();
    disk.write(500, &pages).unwrap();
    disk.run(Op::Discard, 505, 20).unwrap();
    disk.run(Op::WriteZeroes, 530, 2).unwrap();
    disk.flush().unwrap();
    pages[5..25].fill([0; PAGE]);
    pages[30..32].fill([0; PAGE]);
    assert!(disk.read(500, 40).unwrap() == pages);
    assert_eq!(disk.zram.mm_stat().orig_data_size.get(), 18 * PAGE_SIZE);
    assert_eq!(disk.zram.io_stat().notify_free, 22);
    disk.run(Op::Discard, 0, 1 << 20).unwrap();
    let stat = disk.zram.mm_stat();
    assert_eq!(
        (
            stat.orig_data_size,
            stat.compr_data_size,
            stat.mem_used_total
        ),
        (ByteLen::ZERO, ByteLen::ZERO, ByteLen::ZERO)
    );
    assert_eq!((stat.same_pages, stat.huge_pages), (0, 0));
    assert!(disk.run(Op::SecureErase, 0, 1).is_err());
}

fn what_is_written_over_gives_its_memory_back<R: Rig>(
    frames: &Frames<'_, R>,
    algorithm: Algorithm,
) {
    let memory = memory();
    let disk = Disk::new(frames, &memory, algorithm, 1024);
    let mut random = Random::new(5);
    for _ in 0..5 {
        for page in (0..1024).step_by(MOST) {
            let pages: Vec<_> = (0..MOST).map(|_| random.text(200)).collect();
            disk.write(page, &pages).unwrap();
        }
    }
    let stat = disk.zram.mm_stat();
    assert_eq!(stat.orig_data_size.get(), 1024 * PAGE_SIZE);
    assert!(
        stat.mem_used_total.get() < 2 * stat.compr_data_size.get(),
        "{stat}"
    );
}

fn compaction_gives_frames_back_and_changes_no_byte<R: Rig>(
    frames: &Frames<'_, R>,
    algorithm: Algorithm,
) {
    let memory = memory();
    let disk = Disk::new(frames, &memory, algorithm, 1024);
    let mut random = Random::new(6);
    let mut all = Vec::new();
    for page in (0..1024).step_by(MOST) {
        let pages: Vec<_> = (0..MOST).map(|_| random.text(1500)).collect();
        disk.write(page, &pages).unwrap();
        all.extend(pages);
    }
    for page in (0..1024).filter(|page| page % 5 != 0) {
        disk.run(Op::Discard, page, 1).unwrap();
        all[page as usize] = [0; PAGE];
    }
    let before = disk.zram.mm_stat();
    let freed = disk.zram.compact();
    let after = disk.zram.mm_stat();
    assert!(freed > 50, "{freed} frames");
    assert_eq!(after.pages_compacted, freed);
    assert_eq!(
        after.mem_used_total.get(),
        before.mem_used_total.get() - freed * PAGE_SIZE
    );
    assert_eq!(after.mem_used_max, before.mem_used_max);
    for (page, expected) in all.chunks(MOST).enumerate() {
        assert!(disk.read((page * MOST) as u64, MOST).unwrap() == expected);
    }
}

fn every_access_reads_the_same<R: Rig>(frames: &Frames<'_, R>, algorithm: Algorithm) {
    let memory = memory();
    let mut random = Random::new(7);
    // Of a few sizes, so that zspages are filled, and many cross a boundary in them.
    let pages: Vec<_> = (0..MOST)
        .map(|nth| random.text(600 + nth % 4 * 700))
        .collect();
    for access in [Access::Mapped, Access::Copied, Access::Segments] {
        let mut disk = Disk::new(frames, &memory, algorithm, MOST as u64);
        disk.zram = disk.zram.with_access(access);
        disk.write(0, &pages).unwrap();
        assert!(disk.read(0, MOST).unwrap() == pages, "{access:?}");
        let reads = disk.zram.store().stats().reads;
        assert!(reads.in_place > 10, "{access:?}, {reads:?}");
        match access {
            Access::Mapped => assert!(reads.mapped > 5 && reads.copied == 0, "{reads:?}"),
            _ => assert!(
                reads.mapped == 0 && reads.copied > 5,
                "{access:?}, {reads:?}"
            ),
        }
    }
}

fn a_device_that_was_reset_is_as_new<R: Rig>(frames: &Frames<'_, R>, algorithm: Algorithm) {
    let memory = memory();
    let mut disk = Disk::new(frames, &memory, algorithm, 1024);
    let mut random = Random::new(8);
    let pages: Vec<_> = (0..MOST).map(|_| random.page()).collect();
    disk.write(500, &pages).unwrap();
    disk.run(Op::Discard, 500, 3).unwrap();
    disk.zram.set_mem_limit(ByteLen::new(1 << 30));
    disk.zram.reset();
    assert_eq!(disk.zram.mm_stat(), MmStat::default());
    assert_eq!(disk.zram.io_stat(), Default::default());
    assert!(disk.read(500, MOST).unwrap() == [[0; PAGE]; MOST]);
    disk.write(500, &pages).unwrap();
    assert!(disk.read(500, MOST).unwrap() == pages);
}

fn a_bio_that_must_not_wait_is_refused<R: Rig>(frames: &Frames<'_, R>, algorithm: Algorithm) {
    let memory = memory();
    let disk = Disk::new(frames, &memory, algorithm, 8);
    let (error, done) = disk.write_at_once(0).unwrap_err();
    assert_eq!((error, done), (BlkError::NotSupported, 0));
}

fn a_spoilt_object_is_an_io_error<R: Rig>(frames: &Frames<'_, R>, algorithm: Algorithm) {
    let memory = memory();
    let disk = Disk::new(frames, &memory, algorithm, 8);
    let pages = [Random::new(9).text(1000), Random::new(10).text(300)];
    disk.write(0, &pages).unwrap();

    let mut room = [0; 2 * PAGE];
    let len = algorithm.compress(&mut algorithm.work(), &pages[1], &mut room);
    let (at, len) = find(frames.memory(), &room[..len.unwrap()]);
    frames.memory().write(at, &vec![0xFF; len]).unwrap();

    assert_eq!(disk.read(0, 2).unwrap_err(), (BlkError::Io, 1));
    assert_eq!(disk.zram.io_stat().failed_reads, 1);
    assert!(disk.read(0, 1).unwrap() == pages[..1]);
    disk.write(1, &pages[1..]).unwrap();
    assert!(disk.read(0, 2).unwrap() == pages);
}

/// Where in the memory these bytes are, or as many of them as lie in one frame.
fn find(memory: &impl FrameMemory, bytes: &[u8]) -> (PhysAddr, usize) {
    for pfn in memory.frames().iter() {
        let mut frame = [0; PAGE];
        memory.read(pfn.phys(), &mut frame).unwrap();
        if let Some(at) = frame.windows(64).position(|here| here == &bytes[..64]) {
            let at_phys = pfn.phys().checked_add(ByteLen::new(at as u64)).unwrap();
            return (at_phys, bytes.len().min(PAGE - at));
        }
    }
    panic!("the object is nowhere");
}

#[test]
fn a_device_without_whole_pages_is_none() {
    Host::run(8, |frames| {
        for capacity in [0, 1, 4095, 4097, 6000] {
            let capacity = ByteLen::new(capacity);
            let store = CompressedStore::new(frames, Algorithm::Lz4);
            let device = Zram::new(capacity, store, memory());
            assert_eq!(device.unwrap_err(), ZramError::Capacity { capacity });
        }
        let capacity = ByteLen::new(u64::MAX - 4095);
        let store = CompressedStore::new(frames, Algorithm::Lz4);
        let device = Zram::new(capacity, store, memory());
        assert_eq!(device.unwrap_err(), ZramError::Memory { capacity });
    });
}
