//! Scatters the blocks of a directory: what lay in one piece lies in several afterwards, and the volume is as sound as before.
//!
//! Two directory blocks trade some of their blocks. No block is taken or given back by that, so nothing changes but the bytes' places and
//! the list of the directory's extents.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use pageless_block::BytePos;

use crate::patched::Patched;
use crate::xfs::directory::Directory;
use crate::xfs::error::Place;
use crate::xfs::fields::checksum;
use crate::xfs::inode::Extent;
use crate::xfs::volume::{FsBlock, Geometry, Volume};

const BLOCK: usize = 4096;

/// Where a directory's inode and the only leaf of its tree of extents are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sites {
    pub(crate) inode: u64,
    pub(crate) tree: u64,
}

pub(crate) const INODE_CRC: usize = 100;
pub(crate) const TREE_CRC: usize = 64;
const FORK: usize = 176;

/// Finds them; the tree has to have one leaf.
pub(crate) fn sites(image: &Path, path: &str) -> (Sites, Geometry, Vec<Extent>) {
    let patched = Patched::open(image);
    let mut volume = Volume::open(&patched).unwrap();
    let (number, extents) = {
        let objects = &patched;
        let directory = Directory::open(&mut volume, &objects, path).unwrap();
        let inode = directory.inode();
        (inode.number, inode.extents().to_vec())
    };
    let geometry = volume.geometry.clone();
    let inode = geometry.inode(number).unwrap().get();
    let mut record = vec![0; usize::from(geometry.inode_size)];
    patched.get(BytePos::new(inode), &mut record).unwrap();
    assert_eq!(record[5], 3, "the list of extents is no tree");
    let fork = &record[FORK..];
    assert_eq!(fork[..4], [0, 1, 0, 1], "the tree has more than one leaf");
    let room = (fork.len() - 4) / 16;
    let leaf = u64::from_be_bytes(fork[4 + room * 8..][..8].try_into().unwrap());
    let tree = position(&geometry, leaf);
    (Sites { inode, tree }, geometry, extents)
}

pub(crate) fn position(geometry: &Geometry, block: u64) -> u64 {
    let at = BytePos::new(0);
    let place = Place::Device { what: "block", at };
    geometry.position(FsBlock(block), 1, place).unwrap().get()
}

/// Writes a list of extents into the leaf of a tree, and their number into the inode.
pub(crate) fn write_extents(image: &File, sites: Sites, inode_size: u16, extents: &[Extent]) {
    assert!(
        extents.len() <= (BLOCK - 72) / 16,
        "{} extents",
        extents.len()
    );
    let mut leaf = vec![0; BLOCK];
    image.read_exact_at(&mut leaf, sites.tree).unwrap();
    leaf[6..8].copy_from_slice(&(extents.len() as u16).to_be_bytes());
    leaf[72..].fill(0);
    for (record, extent) in leaf[72..].chunks_exact_mut(16).zip(extents) {
        let high = extent.offset << 9 | extent.start.0 >> 43;
        let low = extent.start.0 << 21 | extent.count;
        record[..8].copy_from_slice(&high.to_be_bytes());
        record[8..].copy_from_slice(&low.to_be_bytes());
    }
    sign(&mut leaf, TREE_CRC);
    image.write_all_at(&leaf, sites.tree).unwrap();

    let mut inode = vec![0; inode_size.into()];
    image.read_exact_at(&mut inode, sites.inode).unwrap();
    // Counters of 64 bits have another place.
    if inode[127] & 1 << 4 == 0 {
        inode[76..80].copy_from_slice(&(extents.len() as u32).to_be_bytes());
    } else {
        inode[24..32].copy_from_slice(&(extents.len() as u64).to_be_bytes());
    }
    sign(&mut inode, INODE_CRC);
    image.write_all_at(&inode, sites.inode).unwrap();
}

/// Makes the checksum right.
pub(crate) fn sign(bytes: &mut [u8], at: usize) {
    let crc = checksum(bytes, at);
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Has neighbouring directory blocks trade each of their blocks that `traded` names.
pub(crate) fn scatter(image: &Path, path: &str, traded: &[usize]) {
    let (sites, geometry, extents) = sites(image, path);
    let step = 1 << geometry.directory_log;
    let mut blocks: Vec<(u64, u64)> = extents
        .iter()
        .flat_map(|extent| (0..extent.count).map(|n| (extent.offset + n, extent.start.0 + n)))
        .collect();
    assert_eq!(blocks.len() % step, 0);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(image)
        .unwrap();
    for pair in blocks.chunks_exact_mut(2 * step) {
        for nth in traded {
            let (one, other) = (pair[*nth].1, pair[step + nth].1);
            let (at, there) = (position(&geometry, one), position(&geometry, other));
            let (mut here, mut behind) = ([0; BLOCK], [0; BLOCK]);
            file.read_exact_at(&mut here, at).unwrap();
            file.read_exact_at(&mut behind, there).unwrap();
            file.write_all_at(&behind, at).unwrap();
            file.write_all_at(&here, there).unwrap();
            (pair[*nth].1, pair[step + nth].1) = (other, one);
        }
    }
    let mut list: Vec<Extent> = Vec::new();
    for (offset, block) in blocks {
        match list.last_mut() {
            Some(last)
                if last.offset + last.count == offset && last.start.0 + last.count == block =>
            {
                last.count += 1;
            }
            _ => list.push(Extent {
                offset,
                start: FsBlock(block),
                count: 1,
            }),
        }
    }
    write_extents(&file, sites, geometry.inode_size, &list);
}
