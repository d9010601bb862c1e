//! What the log says about a directory block that lies in pieces is put back where it belongs, and the block is whole afterwards.

use std::fs;
use std::path::Path;

use pageless_fault::Protection;
use tempfile::tempdir;

use crate::disk::Image;
use crate::interrupted::{interrupted, names, names_before};
use crate::mapped::Mapper;
use crate::patched::Patched;
use crate::tool::{assert_sound, listed, told};
use crate::xfs::directory::Directory;
use crate::xfs::directory::block::Kind;
use crate::xfs::error::{Place, XfsError};
use crate::xfs::fields::Fields;
use crate::xfs::log::{Log, Recovered, State, recover};
use crate::xfs::object::{Object as _, Objects as _};
use crate::xfs::volume::Volume;

const PATH: &str = "/scattered";

/// Puts back what the log of the image has to say about the directory.
fn put_back(image: &Path) -> Recovered {
    let image = Image::open(image).unwrap();
    let disk = image.disk().unwrap();
    let mut volume = Volume::open(&disk).unwrap();
    let log = Log::open(&mut volume).unwrap();
    assert_eq!(log.state(), State::Dirty);
    let records = log.records(&mut volume).unwrap();
    let mapper = Mapper::new(image.frames(), Protection::ReadWrite).unwrap();
    let objects = &mapper;
    let directory = Directory::open(&mut volume, &objects, PATH).unwrap();
    let done = recover(records, &directory, &objects).unwrap();
    disk.flush().unwrap();
    done
}

/// All names but the two that every directory has, sorted; each is found by its hash, too.
fn found(image: &Path) -> Vec<String> {
    let image = Image::open(image).unwrap();
    let disk = image.disk().unwrap();
    let mut volume = Volume::open(&disk).unwrap();
    let mapper = Mapper::new(image.frames(), Protection::Read).unwrap();
    let objects = &mapper;
    let mut directory = Directory::open(&mut volume, &objects, PATH).unwrap();
    let (mut all, mut by_hash) = (
        directory.entries().unwrap(),
        directory.entries_by_hash().unwrap(),
    );
    all.sort();
    by_hash.sort();
    assert_eq!(all.len(), by_hash.len());
    assert!(all == by_hash);
    assert_eq!(directory.check_rooms().unwrap(), 5);
    let names = all
        .into_iter()
        .map(|e| String::from_utf8(e.name.into()).unwrap());
    names.filter(|name| name != "." && name != "..").collect()
}

#[test]
fn changes_that_are_only_in_the_log_are_put_back_across_the_pieces_of_a_block() {
    let at = tempdir().unwrap();
    let Some(image) = interrupted(at.path()) else {
        return;
    };
    assert!(found(&image) == names_before());

    let done = put_back(&image);
    // Data blocks, hashes and index: nine directory blocks, and more items than that, since each is about one piece.
    assert_eq!((done.blocks, done.most, done.seen), (9, 7, 0));
    assert!(
        done.items > 4 * done.blocks && done.bytes.is_multiple_of(128),
        "{done:?}"
    );
    assert!(found(&image) == names());

    if let Some(theirs) = listed(&image, PATH) {
        let theirs = theirs
            .into_iter()
            .map(|(name, ..)| String::from_utf8(name).unwrap());
        let theirs: Vec<String> = theirs.filter(|name| name != "." && name != "..").collect();
        assert!(theirs == names());
    }
    assert_sound(&image, State::Dirty);
}

#[test]
fn what_has_been_put_back_is_not_put_back_again() {
    let at = tempdir().unwrap();
    let Some(image) = interrupted(at.path()) else {
        return;
    };
    let first = put_back(&image);
    let bytes = fs::read(&image).unwrap();
    let again = put_back(&image);
    assert_eq!((again.items, again.seen), (0, first.items));
    assert!(fs::read(&image).unwrap() == bytes);
}

#[test]
fn only_the_first_piece_says_what_a_block_is() {
    let at = tempdir().unwrap();
    let Some(image) = interrupted(at.path()) else {
        return;
    };
    let patched = Patched::open(&image);
    let objects = &patched;
    let mut volume = Volume::open(&patched).unwrap();
    let directory = Directory::open(&mut volume, &objects, PATH).unwrap();
    for block in directory.blocks() {
        let (pieces, place) = (directory.pieces(block).unwrap(), directory.place(block));
        assert!(pieces.len() > 5);
        let kinds = pieces.iter().map(|piece| {
            let alone = objects.object(core::slice::from_ref(piece), place).unwrap();
            alone
                .look(|bytes| Kind::of(&Fields::new(bytes, place)).ok())
                .unwrap()
        });
        let known: Vec<bool> = kinds.map(|kind| kind.is_some()).collect();
        assert!(known[0], "{place}");
        assert!(known[1..].iter().all(|known| !known), "{place}");
    }
}

/// Bytes of the image where the log begins, and its head, in units of 512 bytes: as `xfs_logprint` says.
fn log_ends(image: &Path) -> Option<(u64, u64)> {
    let text = told("xfs_logprint", &[&"-t", &image])?;
    let word_after = |key: &str| {
        let (_, rest) = text.split_once(key)?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    };
    assert!(text.contains("<DIRTY>"), "{text}");
    Some((word_after("daddr: ")? * 512, word_after("head: ")?))
}

#[test]
fn a_record_that_was_not_finished_is_left_out() {
    let at = tempdir().unwrap();
    let Some(image) = interrupted(at.path()) else {
        return;
    };
    let Some((start, head)) = log_ends(&image) else {
        return;
    };
    let mut patched = Patched::open(&image);
    let records = |patched: &Patched| {
        let mut volume = Volume::open(patched).unwrap();
        let log = Log::open(&mut volume).unwrap();
        assert_eq!(log.state(), State::Dirty);
        log.records(&mut volume).unwrap().len()
    };
    let whole = records(&patched);
    // Its last block is what was there before: nothing.
    patched.put(start + (head - 1) * 512, &[0; 512]);
    assert_eq!(records(&patched), whole - 1);
    // All its blocks are there, and one of them is not as it was written.
    patched.restore();
    patched.put(start + (head - 1) * 512 + 100, b"torn");
    assert_eq!(records(&patched), whole - 1);
}

#[test]
fn a_record_that_was_damaged_later_is_an_error() {
    let at = tempdir().unwrap();
    let Some(image) = interrupted(at.path()) else {
        return;
    };
    let Some((start, head)) = log_ends(&image) else {
        return;
    };
    let mut patched = Patched::open(&image);
    // In the first of the records, far from the last one.
    patched.put(start + (head - 200) * 512 + 100, b"damaged");
    let mut volume = Volume::open(&patched).unwrap();
    let log = Log::open(&mut volume).unwrap();
    let records = log.records(&mut volume);
    let records = records.map(|records| records.len());
    let expected = matches!(
        records,
        Err(XfsError::Checksum {
            place: Place::Log { .. },
            ..
        })
    );
    assert!(expected, "{records:?}");
}

#[test]
fn a_volume_that_was_never_mounted_has_nothing_to_put_back() {
    let at = tempdir().unwrap();
    let names = crate::volumes::names(10);
    let Some(image) = crate::volumes::volume(at.path(), crate::volumes::LARGE, &names) else {
        return;
    };
    let patched = Patched::open(&image);
    let mut volume = Volume::open(&patched).unwrap();
    let log = Log::open(&mut volume).unwrap();
    assert_eq!(log.state(), State::Clean);
    assert_eq!(log.records(&mut volume).unwrap().len(), 0);
}
