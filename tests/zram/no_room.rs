//! Hazard: a page that finds no room takes the old one with it, or is half there, or is not counted.

use pageless::block::BlkError;
use pageless::pfn::{ByteLen, PAGE_SIZE};
use pageless::vmap::compress::Algorithm;

use crate::disk::{Disk, MOST, memory};
use crate::pages::Random;
use crate::rig::{Host, Rig};

#[test]
fn over_the_limit_a_write_fails_and_what_was_there_stays() {
    Host::run(1024, |frames| {
        let memory = memory();
        let disk = Disk::new(frames, &memory, Algorithm::Lz4, 64);
        let mut random = Random::new(1);
        let pages: Vec<_> = (0..12).map(|_| random.noise()).collect();
        // In bytes, rounded up to pages.
        disk.zram.set_mem_limit(ByteLen::new(8 * PAGE_SIZE - 100));
        assert_eq!(disk.write(0, &pages).unwrap_err(), (BlkError::NoSpace, 8));
        assert!(disk.read(0, 8).unwrap() == pages[..8]);
        let stat = disk.zram.mm_stat();
        assert_eq!(stat.mem_limit.get(), 8 * PAGE_SIZE);
        assert_eq!(stat.mem_used_total.get(), 8 * PAGE_SIZE);
        // The kernel looks after it has taken the memory.
        assert_eq!(stat.mem_used_max.get(), 9 * PAGE_SIZE);
        assert_eq!((stat.huge_pages, stat.huge_pages_since), (8, 8));
        assert_eq!(disk.zram.io_stat().failed_writes, 1);

        // Also in place of a page that is there: the new one comes first.
        assert_eq!(
            disk.write(3, &pages[11..]).unwrap_err(),
            (BlkError::NoSpace, 0)
        );
        assert!(disk.read(0, 8).unwrap() == pages[..8]);
        // A page of one word needs no room, and makes some.
        disk.write(5, &[random.filled()]).unwrap();
        disk.write(3, &pages[11..]).unwrap();
        assert!(disk.read(3, 1).unwrap() == pages[11..]);

        disk.zram.set_mem_limit(ByteLen::ZERO);
        disk.write(0, &pages).unwrap();
        assert!(disk.read(0, 12).unwrap() == pages);
        disk.zram.forget_mem_used_max();
        assert_eq!(disk.zram.mm_stat().mem_used_max.get(), 12 * PAGE_SIZE);
    });
}

#[test]
fn without_frames_a_write_fails_and_what_was_there_stays() {
    Host::run(1024, |frames| {
        for algorithm in Algorithm::ALL {
            let memory = memory();
            let disk = Disk::new(frames, &memory, algorithm, 64);
            let mut random = Random::new(2);
            let old: Vec<_> = (0..MOST).map(|_| random.page()).collect();
            disk.write(0, &old).unwrap();
            for left in 0..20 {
                let new: Vec<_> = (0..MOST).map(|_| random.noise()).collect();
                frames.leave(left);
                let (error, done) = disk.write(0, &new).unwrap_err();
                frames.leave(u64::MAX);
                assert_eq!((error, done), (BlkError::NoSpace, left), "{algorithm}");
                let read = disk.read(0, MOST).unwrap();
                let done = done as usize;
                assert!(read[..done] == new[..done] && read[done..] == old[done..]);
                disk.write(0, &old).unwrap();
            }
            assert_eq!(disk.zram.io_stat().failed_writes, 20);
            assert_eq!(
                disk.zram.mm_stat().orig_data_size.get(),
                MOST as u64 * PAGE_SIZE
            );
        }
    });
}

#[test]
fn a_zspage_that_lacks_its_last_frame_is_given_back() {
    Host::run(1024, |frames| {
        let memory = memory();
        let mut random = Random::new(3);
        for left in 0..8 {
            let disk = Disk::new(frames, &memory, Algorithm::Lzo, 64);
            frames.leave(left);
            // A class of zspages of several frames, or none is in want.
            let results: Vec<_> = (0..40)
                .map(|nth| disk.write(0, &[random.text(nth * 80)]))
                .collect();
            frames.leave(u64::MAX);
            assert!(results.contains(&Err((BlkError::NoSpace, 0))));
            let failed = results.iter().filter(|result| result.is_err()).count();
            assert_eq!(disk.zram.io_stat().failed_writes, failed as u64);
        }
    });
}
