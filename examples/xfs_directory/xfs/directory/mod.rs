//! Directories: data blocks with the entries, a btree by hash, an index of room.
//!
//! The three lie in one file, each in a space of its own:
//!
//! ```text
//!   block 0                      32 GiB                          64 GiB
//!   data data data ...           root node leaf leaf ...         free ...
//! ```
//!
//! A directory block is 1 to 128 file-system blocks. They need not lie one behind the other on the device, but its entries, hashes and
//! checksum run across them: so it is looked at as one [object](super::object).

pub(crate) mod block;
mod hash;

use alloc::collections::{BTreeMap, BTreeSet};

use super::error::{Place, XfsError};
use super::fields::Fields;
use super::inode::{Fork, Inode, Piece};
use super::object::{Object, Objects};
use super::volume::{Source, Volume};
use block::{Entry, Hashed, Kind, Leaf};

pub(crate) use hash::hash;

/// Where the hashes begin, in bytes of the directory's own space.
const LEAVES: u64 = 32 << 30;
/// Where the index of room begins.
const ROOMS: u64 = 64 << 30;
/// Objects that are kept; then all are given back.
const KEPT: usize = 256;
/// Levels of a tree of hashes; more than any can have.
const MAX_LEVEL: u16 = 16;

const LEAVES_OF_ALL_KINDS: [Kind; 3] = [Kind::Leaf, Kind::LeafAlone, Kind::Only];

/// What has been read as one object each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stood {
    /// Directory blocks.
    pub(crate) objects: u64,
    /// Pieces that lie apart on the device.
    pub(crate) pieces: u64,
    /// The most pieces of one.
    pub(crate) most: u64,
    /// 4 KiB each.
    pub(crate) frames: u64,
}

struct Opened<O> {
    object: O,
    kind: Kind,
    place: Place,
}

/// A directory, opened.
pub(crate) struct Directory<'v, S, O: Objects> {
    volume: &'v Volume<S>,
    objects: &'v O,
    inode: Inode,
    opened: BTreeMap<u32, Opened<O::Object>>,
    stood: Stood,
}

impl<'v, S: Source, O: Objects> Directory<'v, S, O> {
    /// The directory at `path` from the root on.
    pub(crate) fn open(
        volume: &'v mut Volume<S>,
        objects: &'v O,
        path: &str,
    ) -> Result<Self, XfsError> {
        let mut inode = volume.directory_inode(volume.geometry.root)?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let mut directory = Directory::new(volume, objects, inode);
            let number = directory.lookup(name.as_bytes())?;
            let parent = directory.inode.number;
            let number = number.ok_or_else(|| XfsError::NotFound {
                inode: parent,
                name: name.into(),
            })?;
            inode = volume.directory_inode(number)?;
        }
        Ok(Directory::new(volume, objects, inode))
    }

    fn new(volume: &'v Volume<S>, objects: &'v O, inode: Inode) -> Self {
        Directory {
            volume,
            objects,
            inode,
            opened: BTreeMap::new(),
            stood: Stood::default(),
        }
    }

    /// Its inode.
    pub(crate) fn inode(&self) -> &Inode {
        &self.inode
    }

    /// What its blocks are signed with.
    pub(crate) fn uuid(&self) -> [u8; 16] {
        self.volume.geometry.uuid
    }

    /// What has been stood together so far.
    pub(crate) fn stood(&self) -> Stood {
        self.stood
    }

    /// File-system blocks of a directory block.
    fn step(&self) -> u32 {
        1 << self.volume.geometry.directory_log
    }

    fn leaves(&self) -> u32 {
        (LEAVES >> self.volume.geometry.block_log) as u32
    }

    fn rooms(&self) -> u32 {
        (ROOMS >> self.volume.geometry.block_log) as u32
    }

    pub(crate) fn place(&self, block: u32) -> Place {
        Place::Directory {
            inode: self.inode.number,
            block,
        }
    }

    /// The pieces of the directory block that begins with `block`.
    pub(crate) fn pieces(&self, block: u32) -> Result<Vec<Piece>, XfsError> {
        let place = self.place(block);
        if !block.is_multiple_of(self.step()) {
            return Err(XfsError::Value {
                place,
                field: "number",
                value: block.into(),
                rule: "no directory block begins there",
            });
        }
        let count = self.step().into();
        self.inode
            .pieces(&self.volume.geometry, block.into(), count, place)
    }

    /// All directory blocks that have a place on the device: the first block of each.
    pub(crate) fn blocks(&self) -> Vec<u32> {
        let step = u64::from(self.step());
        let mut all = BTreeSet::new();
        for extent in self.inode.extents() {
            let (first, end) = (extent.offset / step, extent.offset + extent.count);
            all.extend((first..end.div_ceil(step)).map_while(|n| u32::try_from(n * step).ok()));
        }
        all.into_iter().collect()
    }

    /// The object of a directory block; found sound when it is opened.
    fn opened(&mut self, block: u32) -> Result<&Opened<O::Object>, XfsError> {
        if !self.opened.contains_key(&block) {
            let place = self.place(block);
            let pieces = self.pieces(block)?;
            let object = self.objects.object(&pieces, place)?;
            let (owner, uuid) = (self.inode.number, self.volume.geometry.uuid);
            let kind = object
                .look(|bytes| block::verify(&Fields::new(bytes, place), &pieces, owner, uuid))??;
            let count = pieces.len() as u64;
            self.stood.objects += 1;
            self.stood.pieces += count;
            self.stood.most = self.stood.most.max(count);
            self.stood.frames += self.volume.geometry.directory_block() as u64 / 4096;
            if self.opened.len() >= KEPT {
                self.opened.clear();
            }
            self.opened.insert(
                block,
                Opened {
                    object,
                    kind,
                    place,
                },
            );
        }
        Ok(&self.opened[&block])
    }

    /// Looks at a directory block of one of `kinds`.
    fn look<R>(
        &mut self,
        block: u32,
        kinds: &[Kind],
        look: impl FnOnce(&Fields<'_>, Kind) -> Result<R, XfsError>,
    ) -> Result<R, XfsError> {
        let Opened {
            object,
            kind,
            place,
        } = self.opened(block)?;
        object.look(|bytes| {
            let fields = Fields::new(bytes, *place);
            if !kinds.contains(kind) {
                let rule = "no such block belongs in that part of a directory";
                return Err(fields.bad("kind", *kind as u64, rule));
            }
            look(&fields, *kind)
        })?
    }

    /// All entries in the order they lie in, block after block.
    pub(crate) fn entries(&mut self) -> Result<Vec<Entry>, XfsError> {
        if let Some(entries) = self.inline()? {
            return Ok(entries);
        }
        let mut all = Vec::new();
        for block in self.blocks() {
            if block < self.leaves() {
                all.extend(self.look(block, &[Kind::Data, Kind::Only], block::entries)?);
            }
        }
        Ok(all)
    }

    fn inline(&self) -> Result<Option<Vec<Entry>>, XfsError> {
        match &self.inode.fork {
            Fork::Local(bytes) => {
                let place = Place::Inode {
                    inode: self.inode.number,
                    at: self.volume.geometry.inode(self.inode.number)?,
                };
                block::inline_entries(&Fields::new(bytes, place)).map(Some)
            }
            Fork::Extents { .. } => Ok(None),
        }
    }

    /// The block where looking for a hash begins.
    fn root(&mut self) -> Result<u32, XfsError> {
        let first = self.opened(0)?.kind;
        Ok(if first == Kind::Only {
            0
        } else {
            self.leaves()
        })
    }

    fn is_node(&mut self, block: u32) -> Result<bool, XfsError> {
        Ok(self.opened(block)?.kind == Kind::Node)
    }

    fn leaf(&mut self, block: u32) -> Result<Leaf, XfsError> {
        self.look(block, &LEAVES_OF_ALL_KINDS, block::leaf)
    }

    /// The entry at a place that a leaf names; its name has to have the hash.
    fn entry(&mut self, hashed: Hashed) -> Result<Entry, XfsError> {
        let (size, log) = (
            self.volume.geometry.directory_block() as u64,
            self.volume.geometry.block_log,
        );
        let at = u64::from(hashed.at) * 8;
        let block = ((at - at % size) >> log) as u32;
        self.look(block, &[Kind::Data, Kind::Only], |fields, _| {
            let (entry, _) = block::entry_at(fields, (at % size) as usize)?;
            block::check_hash(fields, &entry, hashed)?;
            Ok(entry)
        })
    }

    /// All entries in the order of their hashes, from the root of the btree down to every leaf.
    pub(crate) fn entries_by_hash(&mut self) -> Result<Vec<Entry>, XfsError> {
        if let Some(mut entries) = self.inline()? {
            entries.sort_by_key(|entry| hash(&entry.name));
            return Ok(entries);
        }
        let mut all = Vec::new();
        for hashed in self.hashes()? {
            all.push(self.entry(hashed)?);
        }
        Ok(all)
    }

    /// All hashes. Leaves have to be chained in the order that the nodes have them in.
    fn hashes(&mut self) -> Result<Vec<Hashed>, XfsError> {
        let mut all: Vec<Hashed> = Vec::new();
        let root = self.root()?;
        let mut seen = BTreeSet::new();
        // What is still to be visited: the block, its level if a node told, the highest hash it may have, who told.
        let mut left = vec![(root, None, u32::MAX, root)];
        let (mut previous, mut expected) = (0, None);
        while let Some((block, level, bound, from)) = left.pop() {
            let place = self.place(block);
            if !seen.insert(block) {
                return Err(XfsError::Cycle { place, from });
            }
            let bad = |field, value: u32, rule| XfsError::Value {
                place,
                field,
                value: value.into(),
                rule,
            };
            if self.is_node(block)? {
                let (own, children) =
                    self.look(block, &[Kind::Node], |fields, _| block::node(fields))?;
                if own == 0 || own > MAX_LEVEL || level.is_some_and(|level| level != own) {
                    return Err(bad("level", own.into(), "levels go down by one, to 0"));
                }
                if children.last().is_some_and(|child| child.last > bound) {
                    return Err(bad("hash", bound, "a child of the node has a higher one"));
                }
                let below = children.iter().rev();
                left.extend(below.map(|child| (child.block, Some(own - 1), child.last, block)));
                continue;
            }
            if level.is_some_and(|level| level > 0) {
                return Err(bad("level", 0, "a leaf where a node should be"));
            }
            let leaf = self.leaf(block)?;
            if leaf.last.is_some_and(|last| last > bound) {
                return Err(bad("hash", bound, "the leaf has a higher one"));
            }
            if leaf.previous != previous || expected.is_some_and(|expected| expected != block) {
                return Err(bad(
                    "neighbour",
                    leaf.previous,
                    "the nodes have another one there",
                ));
            }
            if let (Some(last), Some(first)) = (all.last(), leaf.hashes.first())
                && last.hash > first.hash
            {
                return Err(bad(
                    "hash",
                    first.hash,
                    "the leaf before it has a higher one",
                ));
            }
            (previous, expected) = (block, Some(leaf.next));
            all.extend(leaf.hashes);
        }
        match expected {
            None | Some(0) => Ok(all),
            Some(next) => Err(XfsError::Value {
                place: self.place(previous),
                field: "next leaf",
                value: next.into(),
                rule: "the nodes do not have it",
            }),
        }
    }

    /// The inode that a name stands for: from the root of the btree down to one leaf, and on to its neighbours if names share a hash.
    pub(crate) fn lookup(&mut self, name: &[u8]) -> Result<Option<u64>, XfsError> {
        if let Some(entries) = self.inline()? {
            let found = entries.into_iter().find(|entry| *entry.name == *name);
            return Ok(found.map(|entry| entry.inode));
        }
        let wanted = hash(name);
        let mut seen = BTreeSet::new();
        let mut block = self.root()?;
        let mut from = block;
        let mut enter = |this: &Self, block: u32, from: u32| match seen.insert(block) {
            true => Ok(()),
            false => Err(XfsError::Cycle {
                place: this.place(block),
                from,
            }),
        };
        while self.is_node(block)? {
            enter(self, block, from)?;
            let child = self.look(block, &[Kind::Node], |fields, _| {
                block::child(fields, wanted)
            })?;
            let Some(child) = child else {
                return Ok(None);
            };
            (from, block) = (block, child);
        }
        loop {
            enter(self, block, from)?;
            let (found, next) = self.look(block, &LEAVES_OF_ALL_KINDS, |fields, kind| {
                block::find(fields, kind, wanted)
            })?;
            for hashed in found {
                let entry = self.entry(hashed)?;
                if *entry.name == *name {
                    return Ok(Some(entry.inode));
                }
            }
            let Some(next) = next else {
                return Ok(None);
            };
            (from, block) = (block, next);
        }
    }

    /// Holds what the index of room says against what each data block says of itself; answers how many blocks that are.
    pub(crate) fn check_rooms(&mut self) -> Result<usize, XfsError> {
        let mut checked = 0;
        for block in self.blocks() {
            if block < self.rooms() {
                continue;
            }
            let (first, rooms) =
                self.look(block, &[Kind::Free], |fields, _| block::free(fields))?;
            for (nth, room) in rooms.into_iter().enumerate() {
                // A data block that is not there has no room.
                if room == u16::MAX {
                    continue;
                }
                let data = u64::from(first) + nth as u64;
                let data = data.checked_mul(self.step().into());
                let data = data.and_then(|data| u32::try_from(data).ok());
                let data = data.filter(|data| *data < self.leaves());
                let data = data.ok_or(XfsError::Value {
                    place: self.place(block),
                    field: "first data block",
                    value: first.into(),
                    rule: "there are no data blocks that far",
                })?;
                let own = self.look(data, &[Kind::Data], |fields, _| block::most_room(fields))?;
                if own != room {
                    return Err(XfsError::Value {
                        place: self.place(data),
                        field: "room",
                        value: own.into(),
                        rule: "the index says another",
                    });
                }
                checked += 1;
            }
        }
        Ok(checked)
    }
}
