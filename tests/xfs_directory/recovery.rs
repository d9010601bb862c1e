//! What the log says about a directory block that lies in pieces is put back where it belongs, and the block is whole afterwards.

use alloc::collections::BTreeMap;
use std::fs;
use std::path::Path;

use pageless_block::BytePos;
use pageless_fault::shootdown::CpuId;
use pageless_fault::sim::{SimConfig, SimMachine, SimRam};
use pageless_fault::{FrameMemory as _, Protection, WindowLen};
use pageless_pfn::{ByteLen, FrameCount, PAGE_SIZE, Pfn, PfnFlags, PfnT};
use tempfile::tempdir;

use crate::disk::Image;
use crate::interrupted::{interrupted, names, names_before};
use crate::mapped::{DeviceFrames, Mapper};
use crate::patched::Patched;
use crate::scattered::scatter;
use crate::tool::{assert_sound, listed, told};
use crate::volumes::{LARGE, volume};
use crate::written::{self, COMMIT, CONTINUED, CONTINUES, Operations, Writer, buffer};
use crate::xfs::directory::Directory;
use crate::xfs::directory::block::{Entry, Kind, entry_at};
use crate::xfs::error::{Place, XfsError};
use crate::xfs::fields::Fields;
use crate::xfs::inode::Piece;
use crate::xfs::log::{Log, Recovered, State, recover};
use crate::xfs::object::{Object as _, Objects as _};
use crate::xfs::volume::Volume;

const PATH: &str = "/scattered";

/// Puts back what the log of the image has to say about the directory.
fn put_back(image: &Path, path: &str) -> Recovered {
    let image = Image::open(image).unwrap();
    let disk = image.disk().unwrap();
    let mut volume = Volume::open(&disk).unwrap();
    let log = Log::open(&mut volume).unwrap();
    assert_eq!(log.state(), State::Dirty);
    let records = log.records(&mut volume).unwrap();
    let mapper = Mapper::new(image.frames(), Protection::ReadWrite).unwrap();
    let objects = &mapper;
    let directory = Directory::open(&mut volume, &objects, path).unwrap();
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

    let done = put_back(&image, PATH);
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
    let first = put_back(&image, PATH);
    let bytes = fs::read(&image).unwrap();
    let again = put_back(&image, PATH);
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
    let Some(image) = volume(at.path(), LARGE, &names) else {
        return;
    };
    let patched = Patched::open(&image);
    let mut volume = Volume::open(&patched).unwrap();
    let log = Log::open(&mut volume).unwrap();
    assert_eq!(log.state(), State::Clean);
    assert_eq!(log.records(&mut volume).unwrap().len(), 0);
}

/// Three entries that lie whole in one chunk each, in the last piece of a directory's first block: where the chunk is on the device,
/// where in it the entry is, and what it is.
fn entries_of_the_last_piece(image: &Path, path: &str) -> (Piece, Vec<(usize, usize, Entry)>) {
    let patched = Patched::open(image);
    let objects = &patched;
    let mut volume = Volume::open(&patched).unwrap();
    let directory = Directory::open(&mut volume, &objects, path).unwrap();
    let pieces = directory.pieces(0).unwrap();
    assert!(pieces.len() > 2);
    let last = *pieces.last().unwrap();
    let bytes = objects.object(&pieces, directory.place(0)).unwrap();
    let fields = Fields::new(&bytes, directory.place(0));
    let start = bytes.len() - last.len.get() as usize;
    let mut found: Vec<(usize, usize, Entry)> = Vec::new();
    for at in (start..start + 2048).step_by(8) {
        let Ok((entry, size)) = entry_at(&fields, at) else {
            continue;
        };
        let (chunk, within) = ((at - start) / 128, (at - start) % 128);
        let new = found.last().is_none_or(|(last, ..)| *last + 1 < chunk);
        if new && within + size <= 128 && found.len() < 3 {
            found.push((chunk, within, entry));
        }
    }
    assert_eq!(found.len(), 3);
    (last, found)
}

#[test]
fn only_what_was_committed_and_not_cancelled_is_put_back() {
    let at = tempdir().unwrap();
    let Some(image) = volume(at.path(), LARGE, &crate::volumes::names(20_000)) else {
        return;
    };
    scatter(&image, "/big", &[3, 4, 15]);
    let (piece, entries) = entries_of_the_last_piece(&image, "/big");
    let (sector, sectors) = (piece.at.get() / 512, (piece.len.get() / 512) as u16);
    let mut patched = Patched::open(&image);
    let (mut writer, _) = Writer::new(&patched);

    // Each entry is to get another inode.
    let changed: Vec<(usize, [u8; 128])> = entries
        .iter()
        .map(|(chunk, within, entry)| {
            let mut bytes = written::chunk(&patched, piece.at.get() + *chunk as u64 * 128);
            bytes[*within..within + 8].copy_from_slice(&(entry.inode + 1).to_be_bytes());
            (*chunk, bytes)
        })
        .collect();
    let [(first, one), (second, two), (third, three)] = changed[..] else {
        panic!("{changed:?}");
    };

    // 7 is committed, across two records, with a region that begins in one and ends in the other.
    // 8 is not committed. The buffer of 9 is another one, of half the length, and 10 cancels that.
    let mut operations = Operations::default();
    operations.begin(7, 1);
    operations.push(7, 0, &buffer(2, 0, sector, sectors, &[first]));
    operations.push(7, CONTINUES, &one[..52]);
    operations.begin(8, 1);
    operations.push(8, 0, &buffer(2, 0, sector, sectors, &[second]));
    operations.push(8, 0, &two);
    operations.begin(9, 1);
    operations.push(9, 0, &buffer(2, 0, sector, sectors / 2, &[third]));
    operations.push(9, 0, &three);
    operations.push(9, COMMIT, &[]);
    writer.write(&mut patched, operations);
    let mut operations = Operations::default();
    operations.begin(10, 1);
    operations.push(10, 0, &buffer(1, 2, sector, sectors / 2, &[]));
    operations.push(10, COMMIT, &[]);
    let committed = writer.next();
    operations.push(7, CONTINUED, &one[52..]);
    operations.push(7, COMMIT, &[]);
    writer.write(&mut patched, operations);
    patched.save(&image);
    let head = writer.next() & 0xffff_ffff;
    if let Some(ends) = log_ends(&image) {
        assert_eq!(ends.1, head);
    }

    let done = put_back(&image, "/big");
    let expected = Recovered {
        cancelled: 2,
        items: 1,
        bytes: 128,
        blocks: 1,
        most: done.most,
        ..Recovered::default()
    };
    assert_eq!(done, expected);
    assert!(done.most > 2);
    for (nth, (_, _, entry)) in entries.iter().enumerate() {
        let patched = Patched::open(&image);
        let objects = &patched;
        let mut volume = Volume::open(&patched).unwrap();
        let mut directory = Directory::open(&mut volume, &objects, "/big").unwrap();
        let expected = entry.inode + u64::from(nth == 0);
        assert_eq!(directory.lookup(&entry.name).unwrap(), Some(expected));
        // It says what change it has seen last.
        let (pieces, place) = (directory.pieces(0).unwrap(), directory.place(0));
        let bytes = objects.object(&pieces, place).unwrap();
        let seen = Fields::new(&bytes, place).u64(Kind::Data.sequence_at());
        assert_eq!(seen.unwrap(), committed);
    }
}

/// The directory blocks of an image, in the memory of the modelled machine: which frame of the device is which of its.
struct Loaded<'r> {
    ram: &'r SimRam,
    frames: BTreeMap<u64, Pfn>,
}

impl DeviceFrames for Loaded<'_> {
    fn capacity(&self) -> ByteLen {
        ByteLen::new(u64::MAX)
    }

    fn frame(&self, at: BytePos) -> Option<PfnT> {
        let pfn = self.frames.get(&(at.get() / PAGE_SIZE))?;
        Some(PfnT::new(*pfn, PfnFlags::DEV))
    }
}

impl<'r> Loaded<'r> {
    /// Copies the frames of `pieces` into memory, the last one of the image first.
    fn new(ram: &'r SimRam, patched: &Patched, pieces: &[Piece]) -> Self {
        let pages = pieces.iter().flat_map(|piece| {
            let first = piece.at.get() / PAGE_SIZE;
            first..first + piece.len.get() / PAGE_SIZE
        });
        let mut pages: Vec<u64> = pages.collect();
        pages.sort_unstable();
        let frames: BTreeMap<u64, Pfn> = pages.into_iter().rev().zip(ram.frames().iter()).collect();
        for (page, pfn) in &frames {
            let mut bytes = [0; PAGE_SIZE as usize];
            patched
                .get(BytePos::new(page * PAGE_SIZE), &mut bytes)
                .unwrap();
            ram.write(pfn.phys(), &bytes).unwrap();
        }
        Loaded { ram, frames }
    }

    /// Makes the image what memory is now.
    fn store(&self, patched: &mut Patched) {
        for (page, pfn) in &self.frames {
            let mut bytes = [0; PAGE_SIZE as usize];
            self.ram.read(pfn.phys(), &mut bytes).unwrap();
            patched.put(page * PAGE_SIZE, &bytes);
        }
    }
}

#[test]
fn the_modelled_machine_puts_back_the_same_and_sees_no_stale_translation() {
    let at = tempdir().unwrap();
    let Some(image) = interrupted(at.path()) else {
        return;
    };
    let patched = Patched::open(&image);
    let pieces: Vec<Piece> = {
        let objects = &patched;
        let mut volume = Volume::open(&patched).unwrap();
        let directory = Directory::open(&mut volume, &objects, PATH).unwrap();
        let blocks = directory.blocks().into_iter();
        blocks
            .flat_map(|block| directory.pieces(block).unwrap())
            .collect()
    };
    let config = SimConfig {
        frames: 512,
        ..SimConfig::default()
    };
    let machine = SimMachine::new(config).unwrap();
    let ram = machine.ram(FrameCount::new(256)).unwrap();
    let len = WindowLen::covering(16 << 20).unwrap();
    let space = machine.reserve_vspace(len).unwrap();
    let mut result = Patched::open(&image);
    let done = machine
        .run_on(CpuId::new(0), |_| {
            let loaded = Loaded::new(&ram, &patched, &pieces);
            let mapper = Mapper::within(space, &loaded, Protection::ReadWrite);
            let objects = &mapper;
            let mut volume = Volume::open(&patched).unwrap();
            let records = Log::open(&mut volume)
                .unwrap()
                .records(&mut volume)
                .unwrap();
            let directory = Directory::open(&mut volume, &objects, PATH).unwrap();
            let done = recover(records, &directory, &objects).unwrap();
            loaded.store(&mut result);
            done
        })
        .unwrap();
    assert_eq!(machine.stale_hits(), 0, "{:?}", machine.incidents());
    result.save(&image);
    assert!(found(&image) == names());

    // The host's machine does the same to the same bytes.
    let other = tempdir().unwrap();
    let second = interrupted(other.path()).unwrap();
    assert_eq!(put_back(&second, PATH), done);
    let (one, other) = (Patched::open(&image), Patched::open(&second));
    for piece in &pieces {
        let bytes = |patched: &Patched| {
            let mut bytes = vec![0; piece.len.get() as usize];
            patched.get(piece.at, &mut bytes).unwrap();
            bytes
        };
        assert!(bytes(&one) == bytes(&other));
    }
}
