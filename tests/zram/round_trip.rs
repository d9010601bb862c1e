//! Real files, byte for byte, through the device and through the cache.

use pageless::vmap::compress::{Algorithm, CompressedStore, Incompressible, PAGE};
use pageless::vmap::frames::Gfp;
use pageless::vmap::zcache::{Key, ObjectId, PageIndex, PoolKind, Zcache, ZcacheConfig};

use crate::corpus::{self, File};
use crate::disk::{Disk, MOST, memory};
use crate::rig::{Frames, Host, Rig, Sim, ctx};

fn through_the_device<R: Rig>(frames: &Frames<'_, R>, algorithm: Algorithm, files: &[File]) {
    let total: usize = files.iter().map(|file| file.pages.len()).sum();
    let memory = memory();
    let disk = Disk::new(frames, &memory, algorithm, total as u64);
    let mut at = 0;
    for file in files {
        for pages in file.pages.chunks(MOST) {
            disk.write(at, pages).unwrap();
            at += pages.len() as u64;
        }
    }
    let stat = disk.zram.mm_stat();
    assert_eq!(stat.orig_data_size.get(), (total * PAGE) as u64);
    let mut at = 0;
    for file in files {
        for pages in file.pages.chunks(MOST) {
            let read = disk.read(at, pages.len()).unwrap();
            assert!(read == pages, "{} at page {at}", file.path.display());
            at += pages.len() as u64;
        }
    }
    println!("{algorithm}, {total} pages, mm_stat {stat}");
}

fn through_the_cache<R: Rig>(frames: &Frames<'_, R>, algorithm: Algorithm, files: &[File]) {
    let store = CompressedStore::new(frames, algorithm).with_windows(frames.windows(1 << 16));
    let config = ZcacheConfig {
        incompressible: Incompressible::StoreRaw,
        ..ZcacheConfig::default()
    };
    let cache = Zcache::new(store, config);
    let ctx = ctx();
    for kind in [PoolKind::Ephemeral, PoolKind::Persistent] {
        let pool = cache.create_pool(kind).unwrap();
        let pages = || {
            files.iter().zip(0..).flat_map(move |(file, number)| {
                let object = ObjectId::new(number);
                let pages = file.pages.iter().zip(0..);
                pages.map(move |(page, index)| {
                    let index = PageIndex::new(index);
                    let key = Key {
                        pool,
                        object,
                        index,
                    };
                    (file, key, page)
                })
            })
        };
        for (_, key, page) in pages() {
            cache.put_page(&Gfp::kernel(&ctx), key, page).unwrap();
        }
        for (file, key, page) in pages() {
            let mut got = [0; PAGE];
            assert!(cache.get_page(&ctx, key, &mut got).unwrap());
            assert!(got == *page, "{}, {key:?}", file.path.display());
        }
        let left = match kind {
            PoolKind::Ephemeral => 0,
            PoolKind::Persistent => pages().count() as u64,
        };
        assert_eq!(cache.stats().store.pages, left);
        assert_eq!(cache.destroy_pool(pool), left);
        assert!(cache.store().used().is_zero());
    }
}

#[test]
fn every_file_comes_back_on_the_host() {
    let Some(files) = corpus::files(3 << 20) else {
        return;
    };
    for algorithm in Algorithm::ALL {
        Host::run(1 << 13, |frames| {
            through_the_device(frames, algorithm, &files);
            through_the_cache(frames, algorithm, &files);
        });
    }
}

#[test]
fn every_file_comes_back_on_the_modelled_machine() {
    let Some(files) = corpus::files(128 << 10) else {
        return;
    };
    for algorithm in Algorithm::ALL {
        Sim::run(1 << 11, |frames| {
            through_the_device(frames, algorithm, &files);
            through_the_cache(frames, algorithm, &files);
        });
    }
}
