//! Nothing that a volume says may end in anything but an answer, or an error that says where and what.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use pageless_block::BytePos;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};
use tempfile::{TempDir, tempdir};

use crate::disk::Image;
use crate::patched::Patched;
use crate::scattered::{INODE_CRC, TREE_CRC, position, scatter, sign, sites, write_extents};
use crate::volumes::{LARGE, names, volume};
use crate::xfs::directory::Directory;
use crate::xfs::directory::block::Kind;
use crate::xfs::error::{Place, XfsError};
use crate::xfs::fields::Fields;
use crate::xfs::inode::{Extent, Piece};
use crate::xfs::log::Log;
use crate::xfs::object::Objects as _;
use crate::xfs::volume::{FsBlock, Volume};

const SUPERBLOCK_CRC: usize = 224;
const HEAD_CRC: usize = 312;

/// A volume with a directory that has everything: a tree of extents, nodes, leaves, an index of room, all of it in pieces.
fn scattered() -> Option<(TempDir, PathBuf)> {
    let at = tempdir().unwrap();
    let image = volume(at.path(), LARGE, &names(20_000))?;
    scatter(&image, "/big", &[4, 5, 9]);
    Some((at, image))
}

/// Everything that can be asked of a volume.
fn ask(patched: &Patched) -> Result<usize, XfsError> {
    let objects = &patched;
    let mut volume = Volume::open(patched)?;
    let mut directory = Directory::open(&mut volume, objects, "/big")?;
    directory.lookup(b"entry-00017-of-a-directory-that-is-large")?;
    let rooms = directory.check_rooms();
    let entries = directory.entries();
    let by_hash = directory.entries_by_hash()?;
    rooms?;
    entries?;
    Ok(by_hash.len())
}

/// A directory block's pieces, and its bytes.
fn object(image: &Path, block: u32) -> (Vec<Piece>, Box<[u8]>) {
    let patched = Patched::open(image);
    let objects = &patched;
    let mut volume = Volume::open(&patched).unwrap();
    let directory = Directory::open(&mut volume, &objects, "/big").unwrap();
    let pieces = directory.pieces(block).unwrap();
    let bytes = objects.object(&pieces, directory.place(block)).unwrap();
    (pieces, bytes)
}

/// Puts a directory block back, with its checksum made right.
fn put_object(patched: &mut Patched, pieces: &[Piece], bytes: &mut [u8]) {
    let place = Place::Log { at: 0 };
    let kind = Kind::of(&Fields::new(bytes, place)).unwrap();
    sign(bytes, kind.checksum_at());
    let mut rest = &*bytes;
    for piece in pieces {
        let (here, behind) = rest.split_at(piece.len.get() as usize);
        patched.put(piece.at.get(), here);
        rest = behind;
    }
}

/// Where the hashes begin, in blocks.
const ROOT: u32 = 8 << 20;

#[test]
fn a_truncated_image_is_too_short_before_anything_is_read_from_it() {
    let Some((_at, path)) = scattered() else {
        return;
    };
    let len = path.metadata().unwrap().len();
    for len in [0, 512, 4096, 1 << 20, len / 2, len - 4096] {
        let mut patched = Patched::open(&path);
        patched.cut(len);
        let asked = ask(&patched);
        let short = matches!(
            asked,
            Err(XfsError::BeyondDevice { capacity, .. }) if capacity.get() == len
        );
        assert!(short, "{asked:?}");
    }
    // The same behind bios.
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(len / 2).unwrap();
    let image = Image::open(&path).unwrap();
    let disk = image.disk().unwrap();
    let opened = Volume::open(&disk).map(drop);
    assert!(
        matches!(opened, Err(XfsError::BeyondDevice { .. })),
        "{opened:?}"
    );
}

#[test]
fn another_magic_number_is_told_with_its_place() {
    let Some((_at, path)) = scattered() else {
        return;
    };
    let mut patched = Patched::open(&path);
    patched.put(0, b"YFSB");
    let asked = ask(&patched);
    assert!(
        matches!(
            asked,
            Err(XfsError::Magic {
                found: 0x5946_5342,
                ..
            })
        ),
        "{asked:?}"
    );

    patched.restore();
    let (sites, ..) = sites(&path, "/big");
    patched.put(sites.inode, b"NI");
    let asked = ask(&patched).unwrap_err();
    assert!(
        matches!(asked, XfsError::Magic { found: 0x4e49, .. }),
        "{asked}"
    );
    let text = asked.to_string();
    assert!(
        text.contains("inode ") && text.contains(&format!("{:#x}", sites.inode)),
        "{text}"
    );
}

#[test]
fn one_wrong_bit_in_the_last_piece_of_a_block_is_a_wrong_checksum_of_the_block() {
    let Some((_at, path)) = scattered() else {
        return;
    };
    for block in [0, 16, ROOT, ROOT + 16] {
        let (pieces, bytes) = object(&path, block);
        assert!(pieces.len() > 2);
        let last = pieces.last().unwrap();
        let at = last.at.get() + last.len.get() - 1;
        let mut patched = Patched::open(&path);
        patched.put(at, &[bytes[bytes.len() - 1] ^ 0x10]);
        let asked = ask(&patched).unwrap_err();
        let expected = matches!(
            asked,
            XfsError::Checksum { place: Place::Directory { block: found, .. }, .. } if found == block
        );
        assert!(expected, "{asked}");
    }
}

#[test]
fn pieces_in_another_order_are_a_wrong_checksum() {
    let Some((_at, path)) = scattered() else {
        return;
    };
    let (sites, geometry, mut extents) = sites(&path, "/big");
    // Two pieces of the first directory block that are of one length, neither of them the first.
    let block = extents.iter().position(|e| e.offset == 4).unwrap();
    let other = extents.iter().position(|e| e.offset == 6).unwrap();
    let (one, two) = (extents[block], extents[other]);
    assert!(one.count == 2 && two.count > 2);
    // Cut the longer one, and trade.
    extents[block].start = two.start;
    extents[other] = Extent {
        offset: 6,
        start: one.start,
        count: 2,
    };
    extents.insert(
        other + 1,
        Extent {
            offset: 8,
            start: FsBlock(two.start.0 + 2),
            count: two.count - 2,
        },
    );
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    write_extents(&file, sites, geometry.inode_size, &extents);
    let asked = ask(&Patched::open(&path)).unwrap_err();
    let expected = matches!(
        asked,
        XfsError::Checksum {
            place: Place::Directory { block: 0, .. },
            ..
        }
    );
    assert!(expected, "{asked}");
}

#[test]
fn extents_beyond_the_volume_and_holes_are_told_apart() {
    let Some((_at, path)) = scattered() else {
        return;
    };
    let (sites, geometry, extents) = sites(&path, "/big");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();

    let mut beyond = extents.clone();
    let number = 1 << 51 | 12_345;
    beyond[3].start = FsBlock(number);
    write_extents(&file, sites, geometry.inode_size, &beyond);
    let asked = ask(&Patched::open(&path)).unwrap_err();
    assert!(
        matches!(asked, XfsError::Value { value, .. } if value == number),
        "{asked}"
    );
    assert!(asked.to_string().contains("allocation group"), "{asked}");

    let mut hole = extents;
    let gone = hole.remove(2);
    write_extents(&file, sites, geometry.inode_size, &hole);
    let asked = ask(&Patched::open(&path)).unwrap_err();
    assert!(
        matches!(asked, XfsError::Hole { missing, .. } if missing == gone.offset),
        "{asked}"
    );
}

#[test]
fn a_btree_that_leads_back_to_itself_is_a_cycle() {
    let Some((_at, path)) = scattered() else {
        return;
    };
    let (pieces, mut root) = object(&path, ROOT);
    // The second child is the root again; and, in its place, the first child once more.
    for child in [ROOT, u32::from_be_bytes(root[68..72].try_into().unwrap())] {
        root[76..80].copy_from_slice(&child.to_be_bytes());
        let mut patched = Patched::open(&path);
        put_object(&mut patched, &pieces, &mut root);
        let asked = ask(&patched).unwrap_err();
        let expected = matches!(
            asked,
            XfsError::Cycle { place: Place::Directory { block, .. }, from: ROOT } if block == child
        );
        assert!(expected, "{asked}");
    }
}

#[test]
fn a_lookup_does_not_go_round_in_a_cycle() {
    let Some((_at, path)) = scattered() else {
        return;
    };
    let (pieces, mut root) = object(&path, ROOT);
    let count = usize::from(u16::from_be_bytes([root[56], root[57]]));
    for nth in 0..count {
        root[64 + nth * 8 + 4..][..4].copy_from_slice(&ROOT.to_be_bytes());
    }
    let mut patched = Patched::open(&path);
    put_object(&mut patched, &pieces, &mut root);
    let objects = &patched;
    let mut volume = Volume::open(&patched).unwrap();
    let mut directory = Directory::open(&mut volume, &objects, "/big").unwrap();
    let looked = directory.lookup(b"entry-00017-of-a-directory-that-is-large");
    assert!(
        matches!(looked, Err(XfsError::Cycle { from: ROOT, .. })),
        "{looked:?}"
    );
}

#[test]
fn a_tree_of_extents_that_leads_twice_to_a_block_is_a_cycle() {
    let Some((_at, path)) = scattered() else {
        return;
    };
    let (sites, geometry, _) = sites(&path, "/big");
    let mut inode = vec![0; geometry.inode_size.into()];
    let mut patched = Patched::open(&path);
    patched.get(BytePos::new(sites.inode), &mut inode).unwrap();
    let room = (inode.len() - 176 - 4) / 16;
    let first = 176 + 4 + room * 8;
    inode[179] = 2;
    inode.copy_within(first..first + 8, first + 8);
    sign(&mut inode, INODE_CRC);
    patched.put(sites.inode, &inode);
    let asked = ask(&patched).unwrap_err();
    let expected = matches!(
        asked,
        XfsError::Cycle { place: Place::ExtentTree { at, .. }, .. } if at.get() == sites.tree
    );
    assert!(expected, "{asked}");
}

/// Which of these is the log's first record.
const LOG: usize = 5;

/// Metadata that is all in one place, and where its checksum is.
fn places(path: &Path) -> Vec<(u64, usize, usize)> {
    let (sites, geometry, _) = sites(path, "/big");
    let root = geometry.inode(geometry.root).unwrap().get();
    let inode = geometry.inode_size.into();
    vec![
        (0, 512, SUPERBLOCK_CRC),
        (1024, 512, HEAD_CRC),
        (root, inode, INODE_CRC),
        (sites.inode, inode, INODE_CRC),
        (sites.tree, 4096, TREE_CRC),
        (position(&geometry, geometry.log.0.0), 512, usize::MAX),
    ]
}

/// Values are made wrong anywhere, with checksums that are right, so that what lies behind the checksums is met as well.
#[test]
fn no_wrong_value_ends_in_a_panic() {
    let Some((_at, path)) = scattered() else {
        return;
    };
    let places = places(&path);
    let blocks = [0, 16, ROOT, ROOT + 16, ROOT + 32, 2 * ROOT];
    let objects: Vec<(Vec<Piece>, Box<[u8]>)> =
        blocks.iter().map(|block| object(&path, *block)).collect();
    let (mut wrong, mut fine) = (0, 0);
    let mut patched = Patched::open(&path);
    assert_eq!(ask(&patched).unwrap(), 20_002);
    for seed in 0..100 {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut below = |most: usize| (random.next_u64() % most as u64) as usize;
        patched.restore();
        let (which, width) = (below(places.len() + objects.len()), 1 << below(4));
        let value = match below(4) {
            0 => 0,
            1 => u64::MAX,
            2 => below(70_000) as u64,
            _ => below(usize::MAX) as u64,
        };
        let value = &value.to_be_bytes()[8 - width..];
        // Headers and what follows them, more often than the rest.
        let mut somewhere = |len: usize| match below(3) {
            0 => below(len - 8),
            _ => below(128.min(len - 8)),
        };
        if let Some((at, len, crc)) = places.get(which) {
            let mut bytes = vec![0; *len];
            patched.get(BytePos::new(*at), &mut bytes).unwrap();
            let site = somewhere(*len);
            bytes[site..site + width].copy_from_slice(value);
            if *crc < *len {
                sign(&mut bytes, *crc);
            }
            patched.put(*at, &bytes);
        } else {
            let (pieces, bytes) = &objects[which - places.len()];
            let mut bytes = bytes.clone();
            let site = somewhere(bytes.len());
            bytes[site..site + width].copy_from_slice(value);
            if Kind::of(&Fields::new(&bytes, Place::Log { at: 0 })).is_ok() {
                put_object(&mut patched, pieces, &mut bytes);
            }
        }
        // Looking for the end of a log takes a while.
        let asked = match which {
            0 | LOG => Volume::open(&patched).and_then(|mut volume| {
                let log = Log::open(&mut volume)?;
                log.records(&mut volume).map(|records| records.len())
            }),
            _ => ask(&patched),
        };
        match asked {
            Ok(_) => fine += 1,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                wrong += 1;
            }
        }
    }
    // Both happen, or nothing was tried.
    assert!(wrong > 25 && fine > 10, "{wrong} wrong, {fine} fine");
}
