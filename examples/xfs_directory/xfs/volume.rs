//! The volume: superblock, allocation groups, and where a block or an inode lies.

use pageless_block::BytePos;
use pageless_pfn::ByteLen;

use super::error::{Place, XfsError};
use super::fields::Fields;

/// Where the bytes of a volume come from.
pub(crate) trait Source {
    /// How many bytes there are.
    fn capacity(&self) -> ByteLen;

    /// Reads `into.len()` bytes from `at` on.
    fn read(&mut self, at: BytePos, into: &mut [u8]) -> Result<(), XfsError>;
}

impl<S: Source> Source for &mut S {
    fn capacity(&self) -> ByteLen {
        (**self).capacity()
    }

    fn read(&mut self, at: BytePos, into: &mut [u8]) -> Result<(), XfsError> {
        (**self).read(at, into)
    }
}

const SB_MAGIC: u32 = u32::from_be_bytes(*b"XFSB");
const AGI_MAGIC: u32 = u32::from_be_bytes(*b"XAGI");
const SB_CRC: usize = 224;
const AGI_CRC: usize = 312;
/// What may be set of the features without which a volume cannot be understood: entries with file types, sparse inode chunks, a UUID
/// of its own for metadata, timestamps of 64 bits, extent counters of 64 bits, files that trade contents, attributes that name the parent.
/// Not that it needs repair.
const INCOMPAT_META_UUID: u32 = 1 << 2;
const INCOMPAT_KNOWN: u32 = 0b1110_1111;
/// A directory block is at most 64 KiB long, and a file-system block too.
const LARGEST_BLOCK_LOG: u8 = 16;

/// A block by its number in the volume: allocation group in the high bits, block of the group in the low ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FsBlock(pub(crate) u64);

/// The sizes of everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Binary logarithm of the bytes in a block.
    pub(crate) block_log: u8,
    /// The same of the blocks in a directory block.
    pub(crate) directory_log: u8,
    /// Bytes of a sector.
    pub(crate) sector: u32,
    /// Blocks of the volume.
    pub(crate) blocks: u64,
    /// Blocks of each group but the last.
    pub(crate) group_blocks: u32,
    /// Groups.
    pub(crate) groups: u32,
    group_log: u8,
    /// Bytes of an inode's record.
    pub(crate) inode_size: u16,
    inodes_log: u8,
    /// The root directory.
    pub(crate) root: u64,
    /// The first block of the log, and how many it has.
    pub(crate) log: (FsBlock, u32),
    /// What all metadata is signed with.
    pub(crate) uuid: [u8; 16],
    /// What the log is signed with: another one if the volume was given a new identity later.
    pub(crate) log_uuid: [u8; 16],
    /// How many bytes the device has.
    capacity: ByteLen,
}

impl Geometry {
    pub(crate) fn block(&self) -> usize {
        1 << self.block_log
    }

    pub(crate) fn directory_block(&self) -> usize {
        1 << (self.block_log + self.directory_log)
    }

    /// Blocks of a group; the last one may be shorter.
    fn blocks_of(&self, group: u32) -> u64 {
        let before = u64::from(group) * u64::from(self.group_blocks);
        u64::from(self.group_blocks).min(self.blocks.saturating_sub(before))
    }

    /// Where `count` blocks from `start` on lie, if they all lie in one group and on the device.
    pub(crate) fn position(
        &self,
        start: FsBlock,
        count: u64,
        place: Place,
    ) -> Result<BytePos, XfsError> {
        let (group, block) = (
            start.0 >> self.group_log,
            start.0 & ((1 << self.group_log) - 1),
        );
        let bad = |rule| XfsError::Value {
            place,
            field: "block",
            value: start.0,
            rule,
        };
        let group = u32::try_from(group).map_err(|_| bad("it lies in no allocation group"))?;
        if group >= self.groups {
            return Err(bad("it lies in no allocation group"));
        }
        let end = block.checked_add(count);
        if end.is_none_or(|end| end > self.blocks_of(group)) {
            return Err(bad(
                "it, or what follows it, lies past the end of its allocation group",
            ));
        }
        let at = (u64::from(group) * u64::from(self.group_blocks) + block) << self.block_log;
        self.on_device(BytePos::new(at), count << self.block_log, place)
    }

    fn on_device(&self, at: BytePos, len: u64, place: Place) -> Result<BytePos, XfsError> {
        let len = ByteLen::new(len);
        match at.checked_add(len) {
            Some(end) if end.get() <= self.capacity.get() => Ok(at),
            _ => Err(XfsError::BeyondDevice {
                place,
                at,
                len,
                capacity: self.capacity,
            }),
        }
    }

    /// Where an inode's record is.
    pub(crate) fn inode(&self, inode: u64) -> Result<BytePos, XfsError> {
        let within = inode & ((1 << self.inodes_log) - 1);
        let place = Place::Device {
            what: "inode",
            at: BytePos::new(0),
        };
        let block = FsBlock(inode >> self.inodes_log);
        let at = self
            .position(block, 1, place)
            .map_err(|error| match error {
                XfsError::Value { rule, .. } => XfsError::Value {
                    place,
                    field: "number",
                    value: inode,
                    rule,
                },
                other => other,
            })?;
        Ok(BytePos::new(at.get() + within * u64::from(self.inode_size)))
    }
}

/// A volume, opened.
#[derive(Debug)]
pub(crate) struct Volume<S> {
    pub(crate) source: S,
    pub(crate) geometry: Geometry,
}

impl<S: Source> Volume<S> {
    /// Reads the superblock and the head of each group's inodes.
    pub(crate) fn open(mut source: S) -> Result<Self, XfsError> {
        let geometry = superblock(&mut source)?;
        for group in 0..geometry.groups {
            inode_head(&mut source, &geometry, group)?;
        }
        Ok(Volume { source, geometry })
    }

    /// Reads a whole block of metadata.
    pub(crate) fn block(&mut self, at: BytePos) -> Result<Box<[u8]>, XfsError> {
        let mut block = vec![0; self.geometry.block()].into_boxed_slice();
        self.source.read(at, &mut block)?;
        Ok(block)
    }
}

fn superblock(source: &mut impl Source) -> Result<Geometry, XfsError> {
    let at = BytePos::new(0);
    let place = Place::Device {
        what: "XFS superblock",
        at,
    };
    let capacity = source.capacity();
    if capacity.get() < 4096 {
        return Err(XfsError::BeyondDevice {
            place,
            at,
            len: ByteLen::new(4096),
            capacity,
        });
    }
    let mut bytes = [0; 4096];
    source.read(at, &mut bytes)?;
    let fields = Fields::new(&bytes, place);
    fields.magic(0, SB_MAGIC)?;
    let (sector, sector_log) = (fields.u16(102)?, fields.u8(121)?);
    if !(9..=12).contains(&sector_log) || sector != 1 << sector_log {
        return Err(fields.bad(
            "sector size",
            sector.into(),
            "it is a power of two, 512 to 4096",
        ));
    }
    let fields = Fields::new(fields.slice(0, sector.into())?, place);
    let version = fields.u16(100)?;
    if version & 0xf != 5 {
        return Err(XfsError::Unsupported {
            place,
            field: "version",
            value: (version & 0xf).into(),
            why: "only version 5 has checksums (mkfs.xfs -m crc=1)",
        });
    }
    fields.checksum(SB_CRC)?;
    let incompatible = fields.u32(216)?;
    if incompatible & !INCOMPAT_KNOWN != 0 || incompatible & 1 == 0 {
        return Err(XfsError::Unsupported {
            place,
            field: "incompatible features",
            value: incompatible.into(),
            why: "entries have to have file types (1), and 0xef is all that is known",
        });
    }
    let uuid = match incompatible & INCOMPAT_META_UUID {
        0 => fields.uuid(32)?,
        _ => fields.uuid(248)?,
    };
    let log_of = |field, offset, least: u8, most: u8| match fields.u8(offset)? {
        log if (least..=most).contains(&log) => Ok(log),
        log => Err(fields.bad(field, log.into(), "out of range")),
    };
    let block_log = log_of("block size (log 2)", 120, 9, LARGEST_BLOCK_LOG)?;
    let geometry = Geometry {
        block_log,
        directory_log: log_of(
            "directory block (log 2)",
            192,
            0,
            LARGEST_BLOCK_LOG - block_log,
        )?,
        sector: sector.into(),
        blocks: fields.u64(8)?,
        group_blocks: fields.u32(84)?,
        groups: fields.u32(88)?,
        group_log: log_of("blocks of a group (log 2)", 124, 1, 31)?,
        inode_size: fields.u16(104)?,
        inodes_log: log_of("inodes of a block (log 2)", 123, 1, 8)?,
        root: fields.u64(56)?,
        log: (FsBlock(fields.u64(48)?), fields.u32(96)?),
        uuid,
        log_uuid: fields.uuid(32)?,
        capacity,
    };
    fields.same(
        "block size",
        fields.u32(4)?.into(),
        1 << block_log,
        "it is not the power of two that the superblock names besides",
    )?;
    let inode = u64::from(geometry.inode_size) << geometry.inodes_log;
    fields.same(
        "inode size",
        inode,
        1 << block_log,
        "inodes do not fill a block",
    )?;
    if !(256..=2048).contains(&geometry.inode_size) {
        return Err(fields.bad("inode size", inode, "it is 256 to 2048"));
    }
    let last = geometry.group_blocks.checked_next_power_of_two();
    if geometry.group_blocks < 64 || last != Some(1 << geometry.group_log) {
        let value = geometry.group_blocks.into();
        return Err(fields.bad("blocks of a group", value, "its logarithm is another one"));
    }
    let groups = geometry.blocks.div_ceil(geometry.group_blocks.into());
    if groups != u64::from(geometry.groups) {
        let value = geometry.groups.into();
        return Err(fields.bad("groups", value, "they do not cover the volume"));
    }
    let len = geometry.blocks.checked_mul(1 << block_log);
    geometry.on_device(at, len.unwrap_or(u64::MAX), place)?;
    Ok(geometry)
}

/// The head of the inodes of a group says which group it is of, and how long that is.
fn inode_head(source: &mut impl Source, geometry: &Geometry, group: u32) -> Result<(), XfsError> {
    let first = (u64::from(group) * u64::from(geometry.group_blocks)) << geometry.block_log;
    let at = BytePos::new(first + 2 * u64::from(geometry.sector));
    let place = Place::Device {
        what: "head of a group's inodes",
        at,
    };
    geometry.on_device(at, geometry.sector.into(), place)?;
    let mut bytes = vec![0; geometry.sector as usize];
    source.read(at, &mut bytes)?;
    let fields = Fields::new(&bytes, place);
    fields.magic(0, AGI_MAGIC)?;
    fields.checksum(AGI_CRC)?;
    fields.same(
        "group",
        fields.u32(8)?.into(),
        group.into(),
        "it is another group's",
    )?;
    let blocks = geometry.blocks_of(group);
    fields.same(
        "length",
        fields.u32(12)?.into(),
        blocks,
        "the superblock says another",
    )
}
