//! The same pages through the kernel's zram and through ours: what each needs to keep them.

use alloc::collections::BTreeSet;

use pageless::pfn::{ByteLen, PAGE_SIZE};
use pageless::vmap::compress::{Algorithm, Page};
use pageless::vmap::zsmalloc::{ChainSize, ClassTable};
use pageless::zram::MmStat;

use crate::corpus;
use crate::disk::{Disk, MOST, memory};
use crate::kernel_zram::KernelZram;
use crate::pages::Random;
use crate::rig::{Host, Rig};

/// Our memory for each stored byte is at most this much of the kernel's.
const AT_MOST: f64 = 1.02;

/// From each tree of the corpus, in bytes: below some MiB in all, what counts is how many size classes have a zspage that is hardly used.
/// `PAGELESS_CORPUS_MIB` asks for more.
fn most() -> usize {
    let asked = std::env::var("PAGELESS_CORPUS_MIB").ok();
    let mib = asked.map_or(8, |asked| {
        asked
            .parse()
            .expect("PAGELESS_CORPUS_MIB: MiB of each tree")
    });
    mib << 20
}

/// What we need for them, and the bytes of books beside it, which the kernel has as well and does not tell.
fn ours(algorithm: Algorithm, pages: &[Page]) -> (MmStat, ByteLen) {
    let mut needed = (MmStat::default(), ByteLen::ZERO);
    Host::run(pages.len() as u64 + 1024, |frames| {
        let memory = memory();
        let disk = Disk::new(frames, &memory, algorithm, pages.len() as u64);
        for (nth, pages) in pages.chunks(MOST).enumerate() {
            disk.write((nth * MOST) as u64, pages).unwrap();
        }
        let books = disk.zram.store().objects().metadata();
        needed = (disk.zram.mm_stat(), books);
    });
    needed
}

#[test]
fn we_need_at_most_a_fiftieth_more_memory_than_the_kernel() {
    let Some(mut kernel) = KernelZram::claim() else {
        return;
    };
    let Some(files) = corpus::files(most()) else {
        return;
    };
    let pages: Vec<Page> = files.into_iter().flat_map(|file| file.pages).collect();
    println!(
        "{:>11} {:>9} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "", "orig", "compr", "used", "limit", "max", "same", "compact", "huge", "since"
    );
    for algorithm in Algorithm::ALL {
        let (ours, books) = ours(algorithm, &pages);
        let Some(theirs) = kernel.store(algorithm, pages.iter()) else {
            continue;
        };
        let per_byte =
            |stat: MmStat| stat.mem_used_total.get() as f64 / stat.orig_data_size.get() as f64;
        let ratio = per_byte(ours) / per_byte(theirs);
        println!("{algorithm:>4} ours   {ours}");
        println!("{algorithm:>4} kernel {theirs}");
        println!(
            "{algorithm:>4} memory for each stored byte: {ratio:.4} of the kernel's; our books beside it: {books}"
        );
        assert_eq!(ours.orig_data_size, theirs.orig_data_size);
        assert_eq!(ours.same_pages, theirs.same_pages);
        assert!(ratio <= AT_MOST, "{algorithm}: {ratio:.4}");
    }
}

/// One page of each compressed size: as many frames as the size's class has in ours.
#[test]
fn an_object_of_each_size_takes_the_frames_that_it_takes_in_the_kernel() {
    let Some(mut kernel) = KernelZram::claim() else {
        return;
    };
    let classes = ClassTable::new(ChainSize::DEFAULT);
    let mut random = Random::new(1);
    let mut seen = BTreeSet::new();
    for noise in (0..3700).step_by(41) {
        let page = random.text(noise);
        let Some(stat) = kernel.store(Algorithm::Lz4, [page].iter()) else {
            return;
        };
        let size = stat.compr_data_size.get() as usize;
        let class = classes.shapes()[classes.index_of(size).unwrap()];
        assert_eq!(
            stat.mem_used_total.get(),
            u64::from(class.pages) * PAGE_SIZE,
            "{size} bytes: a kernel built for other zspages than of at most {} frames?",
            ChainSize::DEFAULT.get()
        );
        seen.insert(class.number);
    }
    assert!(seen.len() > 40, "{seen:?}");
}
