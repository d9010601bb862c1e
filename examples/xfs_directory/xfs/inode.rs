//! Inodes, and their lists of extents.

use alloc::collections::BTreeSet;

use pageless_block::BytePos;
use pageless_pfn::ByteLen;

use super::error::{Place, XfsError};
use super::fields::Fields;
use super::volume::{FsBlock, Geometry, Source, Volume};

const INODE_MAGIC: u16 = u16::from_be_bytes(*b"IN");
const BMAP_MAGIC: u32 = u32::from_be_bytes(*b"BMA3");
const INODE_CRC: usize = 100;
const BMAP_CRC: usize = 64;
/// Where an inode's forks begin.
const FORKS: usize = 176;
/// Where the records of a tree block begin.
const BMAP_HEADER: usize = 72;
const RECORD: usize = 16;
const TYPE_MASK: u16 = 0o170_000;
const DIRECTORY: u16 = 0o040_000;
const FLAG2_LARGE_COUNTS: u64 = 1 << 4;
/// Levels of a tree of extents; more than any can have.
const MAX_LEVEL: u16 = 16;

/// Blocks of a file that lie one behind the other on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The first one, counted in the file.
    pub(crate) offset: u64,
    /// The first one, on the device.
    pub(crate) start: FsBlock,
    /// How many.
    pub(crate) count: u64,
}

/// What an inode's data fork is.
#[derive(Debug)]
pub(crate) enum Fork {
    /// The data itself, in the inode.
    Local(Box<[u8]>),
    /// A list of extents, in ascending order; read from the inode or from a tree.
    Extents {
        /// The list.
        list: Vec<Extent>,
        /// Levels of the tree below the inode: 0 if the list is in the inode itself.
        levels: u16,
    },
}

/// A directory's inode.
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) number: u64,
    pub(crate) fork: Fork,
}

/// A piece of a file on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) at: BytePos,
    pub(crate) len: ByteLen,
}

impl<S: Source> Volume<S> {
    /// Reads a directory's inode, with all of its extents.
    pub(crate) fn directory_inode(&mut self, number: u64) -> Result<Inode, XfsError> {
        let at = self.geometry.inode(number)?;
        let place = Place::Inode { inode: number, at };
        let size = self.geometry.inode_size;
        // A record may be shorter than what the device reads at a time.
        let block = BytePos::new(at.get() & !(self.geometry.block() as u64 - 1));
        let bytes = self.block(block)?;
        let within = (at.get() - block.get()) as usize;
        let record = Fields::new(&bytes, place).slice(within, size.into())?;
        let fields = Fields::new(record, place);
        let magic = fields.u16(0)?;
        if magic != INODE_MAGIC {
            return Err(XfsError::Magic {
                place,
                expected: INODE_MAGIC.into(),
                found: magic.into(),
            });
        }
        fields.checksum(INODE_CRC)?;
        fields.same(
            "version",
            fields.u8(4)?.into(),
            3,
            "checksums came with version 3",
        )?;
        fields.same(
            "own number",
            fields.u64(152)?,
            number,
            "it is another inode's",
        )?;
        let signed = fields.uuid(160)? == self.geometry.uuid;
        fields.same("UUID", signed.into(), 1, "it is another volume's")?;
        let mode = fields.u16(2)?;
        if mode & TYPE_MASK != DIRECTORY {
            return Err(XfsError::NotADirectory {
                inode: number,
                mode,
            });
        }
        let extents = match fields.u64(120)? & FLAG2_LARGE_COUNTS {
            0 => fields.u32(76)?.into(),
            _ => fields.u64(24)?,
        };
        let end = match fields.u8(82)? {
            0 => size.into(),
            forkoff => FORKS + usize::from(forkoff) * 8,
        };
        let fork = Fields::new(fields.slice(FORKS, end.saturating_sub(FORKS))?, place);
        let data = fields.u64(56)?;
        let mut reader = ExtentReader {
            volume: self,
            inode: number,
            expected: extents,
            list: Vec::new(),
            seen: BTreeSet::new(),
        };
        let fork = match fields.u8(5)? {
            1 => {
                let len = usize::try_from(data).unwrap_or(usize::MAX);
                Fork::Local(fork.slice(0, len)?.into())
            }
            2 => {
                let len = usize::try_from(extents)
                    .ok()
                    .and_then(|n| n.checked_mul(RECORD));
                reader.records(Fields::new(
                    fork.slice(0, len.unwrap_or(usize::MAX))?,
                    place,
                ))?;
                reader.finish(place, 0)?
            }
            3 => {
                let level = reader.root(fork)?;
                reader.finish(place, level)?
            }
            format => {
                return Err(fields.bad("format", format.into(), "a directory's is 1, 2 or 3"));
            }
        };
        Ok(Inode { number, fork })
    }
}

/// Collects the extents of one inode.
struct ExtentReader<'v, S> {
    volume: &'v mut Volume<S>,
    inode: u64,
    /// How many the inode says there are.
    expected: u64,
    list: Vec<Extent>,
    seen: BTreeSet<FsBlock>,
}

impl<S: Source> ExtentReader<'_, S> {
    /// The root of a tree is in the inode: level and count, then keys, then pointers.
    fn root(&mut self, fork: Fields<'_>) -> Result<u16, XfsError> {
        let (level, count) = (fork.u16(0)?, fork.u16(2)?);
        if level == 0 || level > MAX_LEVEL {
            return Err(fork.bad("level", level.into(), "a root has 1 to 16 levels below it"));
        }
        let room = fork.len().saturating_sub(4) / RECORD;
        if count == 0 || usize::from(count) > room {
            return Err(fork.bad(
                "records",
                count.into(),
                "none, or more than the root has room for",
            ));
        }
        for nth in 0..usize::from(count) {
            self.tree(
                FsBlock(fork.u64(4 + room * 8 + nth * 8)?),
                level - 1,
                fork.place(),
            )?;
        }
        Ok(level)
    }

    fn tree(&mut self, block: FsBlock, level: u16, from: Place) -> Result<(), XfsError> {
        let at = self.volume.geometry.position(block, 1, from)?;
        let place = Place::ExtentTree {
            inode: self.inode,
            at,
        };
        if !self.seen.insert(block) {
            return Err(XfsError::Cycle {
                place,
                from: level.into(),
            });
        }
        let bytes = self.volume.block(at)?;
        let fields = Fields::new(&bytes, place);
        fields.magic(0, BMAP_MAGIC)?;
        fields.checksum(BMAP_CRC)?;
        let own = fields.u64(24)?;
        fields.same("own position", own, at.get() / 512, "it belongs elsewhere")?;
        fields.same(
            "owner",
            fields.u64(56)?,
            self.inode,
            "it is another inode's",
        )?;
        let found = fields.u16(4)?;
        fields.same("level", found.into(), level.into(), "levels go down by one")?;
        let count = usize::from(fields.u16(6)?);
        let room = (fields.len() - BMAP_HEADER) / RECORD;
        if count == 0 || count > room {
            return Err(fields.bad(
                "records",
                count as u64,
                "none, or more than there is room for",
            ));
        }
        if level == 0 {
            let records = fields.slice(BMAP_HEADER, count * RECORD)?;
            return self.records(Fields::new(records, place));
        }
        for nth in 0..count {
            let child = fields.u64(BMAP_HEADER + room * 8 + nth * 8)?;
            self.tree(FsBlock(child), level - 1, place)?;
        }
        Ok(())
    }

    fn records(&mut self, records: Fields<'_>) -> Result<(), XfsError> {
        for at in (0..records.len()).step_by(RECORD) {
            let extent = unpack(records.u64(at)?, records.u64(at + 8)?);
            let free = self.list.last().map_or(0, |last| last.offset + last.count);
            if extent.count == 0 || extent.offset < free {
                let rule = "an extent is empty, or begins before the one ahead of it ends";
                return Err(records.bad("extent's offset", extent.offset, rule));
            }
            self.volume
                .geometry
                .position(extent.start, extent.count, records.place())?;
            self.list.push(extent);
        }
        Ok(())
    }

    fn finish(self, place: Place, levels: u16) -> Result<Fork, XfsError> {
        if self.list.len() as u64 != self.expected {
            return Err(XfsError::Value {
                place,
                field: "number of extents",
                value: self.expected,
                rule: "there are more or fewer",
            });
        }
        Ok(Fork::Extents {
            list: self.list,
            levels,
        })
    }
}

/// 128 bits: 1 of state, 54 of offset, 52 of block, 21 of length.
pub(crate) fn unpack(high: u64, low: u64) -> Extent {
    Extent {
        offset: (high & (u64::MAX >> 1)) >> 9,
        start: FsBlock((high & 0x1ff) << 43 | low >> 21),
        count: low & 0x1f_ffff,
    }
}

impl Inode {
    /// Where `count` blocks from `offset` of the file on are: neighbours on the device as one piece. `place` is what they are.
    pub(crate) fn pieces(
        &self,
        geometry: &Geometry,
        offset: u64,
        count: u64,
        place: Place,
    ) -> Result<Vec<Piece>, XfsError> {
        let list = match &self.fork {
            Fork::Extents { list, .. } => list.as_slice(),
            Fork::Local(_) => &[],
        };
        let mut pieces: Vec<Piece> = Vec::new();
        let (mut at, end) = (offset, offset.saturating_add(count));
        let mut nth = list.partition_point(|extent| extent.offset + extent.count <= at);
        while at < end {
            let missing = XfsError::Hole { place, missing: at };
            let Some(extent) = list.get(nth).filter(|extent| extent.offset <= at) else {
                return Err(missing);
            };
            let skip = at - extent.offset;
            let taken = (extent.count - skip).min(end - at);
            let start = geometry.position(FsBlock(extent.start.0 + skip), taken, place)?;
            let len = ByteLen::new(taken << geometry.block_log);
            match pieces.last_mut() {
                Some(last) if last.at.checked_add(last.len) == Some(start) => {
                    last.len = ByteLen::new(last.len.get() + len.get());
                }
                _ => pieces.push(Piece { at: start, len }),
            }
            at += taken;
            nth += 1;
        }
        Ok(pieces)
    }

    /// All extents.
    pub(crate) fn extents(&self) -> &[Extent] {
        match &self.fork {
            Fork::Extents { list, .. } => list,
            Fork::Local(_) => &[],
        }
    }
}
