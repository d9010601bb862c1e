//! Hazard: threads that write, read, discard and compact at the same time see pages that nobody wrote; and a program that writes to the
//! memory of its own bio breaks what is stored.

use core::sync::atomic::{AtomicBool, Ordering};

use pageless::block::{Bio, FrameAccess, Op, Sector, submit_sync};
use pageless::pfn::{ByteLen, PAGE_SIZE};
use pageless::vmap::compress::{Algorithm, PAGE, Page};

use crate::disk::{Disk, memory};
use crate::pages::Random;
use crate::rig::{Host, Rig, Sim};

const THREADS: u16 = 3;
/// Few, so that they meet.
const PAGES: u64 = 24;

/// A page that says what it is, so that it can be told whether it is whole.
fn marked(thread: u64, step: u64, random: &mut Random) -> Page {
    let mut page = random.text(1200);
    let mark = (thread << 32 | step).to_le_bytes();
    for at in [0, 1000, PAGE - 8] {
        page[at..at + 8].copy_from_slice(&mark);
    }
    page
}

fn is_whole(page: &Page) -> bool {
    page[..8] == page[1000..1008] && page[..8] == page[PAGE - 8..]
}

fn pages_are_whole_whoever_wrote_them<R: Rig>(steps: u64) {
    R::run(2048, |frames| {
        let memory = memory();
        let disk = Disk::new(frames, &memory, Algorithm::Lz4, PAGES);
        let device = &disk.zram;
        frames.crowd(THREADS, |thread| {
            let thread = u64::from(thread);
            let mut random = Random::new(thread);
            let len = ByteLen::new(PAGE_SIZE);
            let buffer = memory.segment(thread * 4 * PAGE_SIZE, len).unwrap();
            for step in 0..steps {
                let sector = Sector::new(random.below(PAGES) * 8);
                match random.below(8) {
                    0 => {
                        let bio = Bio::with_range(Op::Discard, sector, len);
                        submit_sync(device, bio).unwrap().result().unwrap();
                    }
                    1 => {
                        device.compact();
                    }
                    2..=4 => {
                        let page = marked(thread, step, &mut random);
                        memory.write_bytes(buffer, &page).unwrap();
                        let bio = Bio::write(sector, buffer);
                        submit_sync(device, bio).unwrap().result().unwrap();
                    }
                    _ => {
                        let bio = Bio::read(sector, buffer);
                        submit_sync(device, bio).unwrap().result().unwrap();
                        let mut page = [0; PAGE];
                        memory.read_bytes(buffer, &mut page).unwrap();
                        assert!(is_whole(&page), "thread {thread}, step {step}");
                    }
                }
            }
        });
        disk.run(Op::Discard, 0, PAGES).unwrap();
        assert_eq!(disk.zram.mm_stat().orig_data_size, ByteLen::ZERO);
        assert!(disk.zram.mm_stat().mem_used_total.is_zero());
    });
}

#[test]
fn pages_are_whole_whoever_wrote_them_on_the_host() {
    pages_are_whole_whoever_wrote_them::<Host>(4000);
}

#[test]
fn pages_are_whole_whoever_wrote_them_on_the_modelled_machine() {
    pages_are_whole_whoever_wrote_them::<Sim>(300);
}

#[test]
fn memory_that_changes_while_it_is_written_is_stored_torn_and_reads_back() {
    Host::run(2048, |frames| {
        let memory = memory();
        let (bio_at, read_at) = (0, 8 * PAGE_SIZE);
        let page = |at| memory.segment(at, ByteLen::new(PAGE_SIZE)).unwrap();
        for algorithm in Algorithm::ALL {
            let disk = Disk::new(frames, &memory, algorithm, 8);
            let done = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut random = Random::new(1);
                    while !done.load(Ordering::Relaxed) {
                        memory.write_bytes(page(bio_at), &random.page()).unwrap();
                    }
                });
                for _ in 0..500 {
                    let write = Bio::write(Sector::new(0), page(bio_at));
                    submit_sync(&disk.zram, write).unwrap().result().unwrap();
                    let read = Bio::read(Sector::new(0), page(read_at));
                    submit_sync(&disk.zram, read).unwrap().result().unwrap();
                }
                done.store(true, Ordering::Relaxed);
            });
            assert_eq!(disk.zram.io_stat(), Default::default());
        }
    });
}
