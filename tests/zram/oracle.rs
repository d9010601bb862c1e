//! Hazard: the statistics drift away from what is stored. Random requests beside a map of pages, which says what the device must hold, and
//! what it must say of it.

use alloc::collections::BTreeMap;

use pageless::block::Op;
use pageless::pfn::{ByteLen, PAGE_SIZE};
use pageless::vmap::compress::{Algorithm, PAGE, Page};
use pageless::zram::MmStat;

use crate::disk::{Disk, memory};
use crate::pages::{Random, stored_as};
use crate::rig::{Frames, Host, Rig, Sim};

const PAGES: u64 = 600;

/// What is stored where.
struct Oracle {
    /// Each with the bytes that it is stored as; none for one word over and over.
    pages: BTreeMap<u64, (Page, Option<usize>)>,
    huge_since: u64,
    notify_free: u64,
}

fn run<R: Rig>(frames: &Frames<'_, R>, algorithm: Algorithm, seed: u64, steps: u32) {
    let memory = memory();
    let disk = Disk::new(frames, &memory, algorithm, PAGES);
    let worth_it = disk.zram.store().worth_it();
    let size_of = |page: &Page| stored_as(algorithm, page, worth_it);
    let mut random = Random::new(seed);
    let mut oracle = Oracle {
        pages: BTreeMap::new(),
        huge_since: 0,
        notify_free: 0,
    };
    for step in 0..steps {
        let count = 1 + random.below(8);
        let first = random.below(PAGES - count);
        let range = first..first + count;
        match random.below(8) {
            0 => {
                disk.run(Op::Discard, first, count).unwrap();
                oracle.pages.retain(|page, _| !range.contains(page));
                oracle.notify_free += count;
            }
            1 => {
                disk.zram.compact();
            }
            2..=4 => {
                let expected: Vec<Page> = range
                    .map(|page| oracle.pages.get(&page).map_or([0; PAGE], |(page, _)| *page))
                    .collect();
                assert!(disk.read(first, count as usize).unwrap() == expected);
            }
            _ => {
                let pages: Vec<_> = range.clone().map(|_| random.page()).collect();
                disk.write(first, &pages).unwrap();
                let sized = pages.iter().map(|page| (*page, size_of(page)));
                let sized: Vec<_> = sized.collect();
                let huge = sized.iter().filter(|(_, size)| *size == Some(PAGE));
                oracle.huge_since += huge.count() as u64;
                oracle.pages.extend(range.zip(sized));
            }
        }
        let sizes: Vec<_> = oracle.pages.values().map(|(_, size)| size).collect();
        let stat = disk.zram.mm_stat();
        let expected = MmStat {
            orig_data_size: ByteLen::new(oracle.pages.len() as u64 * PAGE_SIZE),
            compr_data_size: ByteLen::new(sizes.iter().copied().flatten().sum::<usize>() as u64),
            same_pages: sizes.iter().filter(|size| size.is_none()).count() as u64,
            huge_pages: sizes.iter().filter(|size| ***size == Some(PAGE)).count() as u64,
            huge_pages_since: oracle.huge_since,
            ..stat
        };
        assert_eq!(stat, expected, "step {step} of seed {seed}, {algorithm}");
        assert!(stat.mem_used_total.get() >= stat.compr_data_size.get());
        assert!(stat.mem_used_max >= stat.mem_used_total);
        assert_eq!(disk.zram.io_stat().notify_free, oracle.notify_free);
    }
    for (page, (expected, _)) in &oracle.pages {
        assert!(disk.read(*page, 1).unwrap() == [*expected]);
    }
}

#[test]
fn random_requests_leave_what_an_array_would_have_on_the_host() {
    for seed in 0..4 {
        for algorithm in Algorithm::ALL {
            Host::run(4096, |frames| run(frames, algorithm, seed, 150));
        }
    }
}

#[test]
fn random_requests_leave_what_an_array_would_have_on_the_modelled_machine() {
    for algorithm in Algorithm::ALL {
        Sim::run(4096, |frames| run(frames, algorithm, 5, 100));
    }
}
