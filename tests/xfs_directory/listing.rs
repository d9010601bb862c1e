//! What is listed and what is found is what `xfs_db` lists.

use alloc::collections::BTreeMap;
use std::path::Path;

use pageless_block::BytePos;
use pageless_fault::Protection;
use pageless_pfn::ByteLen;
use tempfile::tempdir;

use crate::disk::Image;
use crate::mapped::Mapper;
use crate::patched::Patched;
use crate::scattered::scatter;
use crate::tool::{Listed, assert_sound, listed};
use crate::volumes::{Blocks, LARGE, names, volume, volume_with};
use crate::xfs::directory::block::Entry;
use crate::xfs::directory::{Directory, Stood, hash};
use crate::xfs::error::{Place, XfsError};
use crate::xfs::inode::{Fork, Piece};
use crate::xfs::log::State;
use crate::xfs::object::{Object as _, Objects};
use crate::xfs::volume::{Source, Volume};

/// A directory in all ways it can be read, which have to agree.
fn read<S: Source, O: Objects>(directory: &mut Directory<'_, S, O>) -> (Vec<Listed>, Stood) {
    let by_place = directory.entries().unwrap();
    let by_hash = directory.entries_by_hash().unwrap();
    let hashes: Vec<u32> = by_hash.iter().map(|entry| hash(&entry.name)).collect();
    assert!(hashes.is_sorted());
    directory.check_rooms().unwrap();
    let some = by_place.len() / 5000 + 1;
    for Entry { name, inode } in by_place.iter().step_by(some) {
        assert_eq!(directory.lookup(name).unwrap(), Some(*inode), "{name:?}");
    }
    assert_eq!(directory.lookup(b"no such name").unwrap(), None);
    let stood = directory.stood();
    let sorted = |mut all: Vec<Entry>| {
        all.sort();
        all
    };
    let (by_place, by_hash) = (sorted(by_place), sorted(by_hash));
    assert_eq!(by_place, by_hash);
    let entry = |entry: Entry| (entry.name.to_vec(), entry.inode, hash(&entry.name));
    (by_place.into_iter().map(entry).collect(), stood)
}

fn read_mapped(image: &Path, path: &str) -> (Vec<Listed>, Stood) {
    let image = Image::open(image).unwrap();
    let disk = image.disk().unwrap();
    let mut volume = Volume::open(&disk).unwrap();
    let mapper = Mapper::new(image.frames(), Protection::Read).unwrap();
    let objects = &mapper;
    let mut directory = Directory::open(&mut volume, &objects, path).unwrap();
    let (all, stood) = read(&mut directory);
    // Not with what lies above it on the path.
    assert!(mapper.mapped() >= stood.frames);
    (all, stood)
}

fn read_copied(image: &Path, path: &str) -> (Vec<Listed>, Stood) {
    let patched = Patched::open(image);
    let objects = &patched;
    let mut volume = Volume::open(&patched).unwrap();
    read(&mut Directory::open(&mut volume, &objects, path).unwrap())
}

/// `xfs_db` does not list what is in an inode with `.` and `..`, which it lists of all others.
fn assert_names(listed: &[Listed], names: &[String]) {
    let mut expected: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
    expected.sort_unstable();
    let dots: [&[u8]; 2] = [b".", b".."];
    let found = listed.iter().map(|(name, ..)| name.as_slice());
    let found: Vec<&[u8]> = found.filter(|name| !dots.contains(name)).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_directory_in_scattered_pieces_is_read_as_one_object_for_each_block() {
    let at = tempdir().unwrap();
    let names = names(20_000);
    let Some(image) = volume(at.path(), LARGE, &names) else {
        return;
    };
    let before = listed(&image, "/big").unwrap();
    let (all, whole) = read_mapped(&image, "/big");
    assert_eq!(all, before);
    assert_eq!(whole.most, 1);

    scatter(&image, "/big", &[2, 3, 7, 11, 12, 13]);
    assert_sound(&image, State::Clean);
    assert_eq!(listed(&image, "/big").unwrap(), before);

    let (all, stood) = read_mapped(&image, "/big");
    assert_eq!(all, before);
    assert_names(&all, &names);
    assert_eq!(stood.objects, whole.objects);
    assert_eq!(stood.frames, 16 * stood.objects);
    assert!(
        stood.most >= 6 && stood.pieces > 6 * (stood.objects - 1),
        "{stood:?}"
    );
    assert_eq!(read_copied(&image, "/big"), (all, stood));
}

#[test]
fn large_inodes_and_wide_counters_are_read() {
    for inodes in [
        "size=1024",
        "size=512,nrext64=1",
        "size=2048,nrext64=1,sparse=0",
    ] {
        let at = tempdir().unwrap();
        let names = names(30_000);
        let Some(image) = volume_with(at.path(), LARGE, &names, inodes) else {
            return;
        };
        // The list of extents is in large inodes, and in a tree elsewhere.
        if inodes.contains("512") {
            scatter(&image, "/big", &[8]);
            assert_sound(&image, State::Clean);
        }
        let (all, _) = read_mapped(&image, "/big");
        assert_eq!(all, listed(&image, "/big").unwrap());
        assert_names(&all, &names);
    }
}

#[test]
fn what_is_mapped_is_what_is_copied_together() {
    let at = tempdir().unwrap();
    let Some(path) = volume(at.path(), LARGE, &names(20_000)) else {
        return;
    };
    scatter(&path, "/big", &[1, 3, 6, 10]);
    let image = Image::open(&path).unwrap();
    let disk = image.disk().unwrap();
    let mut volume = Volume::open(&disk).unwrap();
    let mapper = Mapper::new(image.frames(), Protection::Read).unwrap();
    let patched = Patched::open(&path);
    let (objects, copies) = (&mapper, &patched);
    let directory = Directory::open(&mut volume, &objects, "/big").unwrap();
    let blocks = directory.blocks();
    assert!(blocks.len() > 10);
    let inode = directory.inode();
    assert!(
        matches!(inode.fork, Fork::Extents { levels: 1, .. }),
        "{inode:?}"
    );
    for block in blocks {
        let (pieces, place) = (directory.pieces(block).unwrap(), directory.place(block));
        let mapped = objects.object(&pieces, place).unwrap();
        let copied = copies.object(&pieces, place).unwrap();
        let same = mapped.look(|bytes| *bytes == *copied).unwrap();
        assert!(same, "{place}");
    }
}

#[test]
fn every_form_of_directory_is_read() {
    for directory in [4096, 16_384, 65_536] {
        let mut levels = Vec::new();
        // In the inode; in one block; hashes in one block; in a tree.
        for count in [1, 40, 300, 1200, 20_000] {
            let at = tempdir().unwrap();
            let names = names(count);
            let blocks = Blocks {
                block: 4096,
                directory,
            };
            let Some(image) = volume(at.path(), blocks, &names) else {
                return;
            };
            let (all, stood) = read_mapped(&image, "/big");
            assert_names(&all, &names);
            let expected = listed(&image, "/big").unwrap();
            let expected: BTreeMap<_, _> =
                expected.into_iter().map(|e| (e.0, (e.1, e.2))).collect();
            for (name, inode, hash) in &all {
                assert_eq!(expected.get(name), Some(&(*inode, *hash)));
            }
            levels.push(stood.objects);
        }
        assert!(levels.is_sorted() && levels[0] == 0, "{levels:?}");
        assert!(levels[4] > levels[1] && levels[1] == 1, "{levels:?}");
    }
}

/// All names of 46 bytes in which some pairs of bytes are changed in a way that the hash does not see: it rotates by 63 bits, so by one less
/// than twice 32, from a byte to the ninth behind it.
fn names_of_one_hash(pairs: u32) -> Vec<String> {
    let name = |choice: u32| {
        let mut name = [b'd'; 46];
        for pair in 0..pairs {
            if choice & 1 << pair != 0 {
                let at = (pair / 9 * 18 + pair % 9) as usize;
                name[at] ^= 2;
                name[at + 9] ^= 1;
            }
        }
        String::from_utf8(name.to_vec()).unwrap()
    };
    (0..1 << pairs).map(name).collect()
}

#[test]
fn names_that_share_a_hash_are_found_across_leaves() {
    let at = tempdir().unwrap();
    let names = names_of_one_hash(10);
    assert!(
        names
            .iter()
            .all(|name| hash(name.as_bytes()) == hash(names[0].as_bytes()))
    );
    let blocks = Blocks {
        block: 4096,
        directory: 4096,
    };
    let Some(image) = volume(at.path(), blocks, &names) else {
        return;
    };
    let (all, _) = read_mapped(&image, "/big");
    assert_names(&all, &names);
}

#[test]
fn a_tree_of_three_levels_is_walked() {
    let at = tempdir().unwrap();
    let names: Vec<String> = (0..180_000).map(|nth| format!("{nth:x}")).collect();
    let blocks = Blocks {
        block: 4096,
        directory: 4096,
    };
    let Some(image) = volume(at.path(), blocks, &names) else {
        return;
    };
    let (all, stood) = read_mapped(&image, "/big");
    assert_names(&all, &names);
    // More leaves than a node has children.
    assert!(stood.objects > 1500, "{stood:?}");
}

#[test]
fn pieces_that_are_no_whole_frames_can_be_copied_and_not_mapped() {
    let at = tempdir().unwrap();
    let names = names(2000);
    let blocks = Blocks {
        block: 1024,
        directory: 4096,
    };
    let Some(path) = volume(at.path(), blocks, &names) else {
        return;
    };
    let (all, _) = read_copied(&path, "/big");
    assert_names(&all, &names);

    let image = Image::open(&path).unwrap();
    let mapper = Mapper::new(image.frames(), Protection::Read).unwrap();
    let place = Place::Directory { inode: 1, block: 0 };
    let frame = |at| Piece {
        at: BytePos::new(at),
        len: ByteLen::new(4096),
    };
    (&mapper).object(&[frame(8192), frame(0)], place).unwrap();
    let refused = (&mapper).object(&[frame(8192), frame(1024)], place);
    let refused = refused.map(drop);
    assert!(
        matches!(refused, Err(XfsError::Unsupported { value: 1024, .. })),
        "{refused:?}"
    );
}
