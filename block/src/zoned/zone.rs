//! What is known of one zone.

use crate::position::Sector;

/// What kind of zone, numbered as in Linux (`enum blk_zone_type`, include/uapi/linux/blkzoned.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ZoneType {
    /// Written anywhere, as a device without zones is.
    Conventional = 1,
    /// Written at its write pointer and nowhere else.
    SequentialRequired = 2,
    /// Better written at its write pointer.
    SequentialPreferred = 3,
}

/// The condition of a zone, numbered as in Linux (`enum blk_zone_cond`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ZoneCond {
    /// Has no write pointer: it is conventional.
    NotWp = 0,
    /// Nothing was written since the last reset.
    Empty = 1,
    /// Opened by a write.
    ImplicitOpen = 2,
    /// Opened by request.
    ExplicitOpen = 3,
    /// Written in part, and not open.
    Closed = 4,
    /// Can be read for ever, and never be written or reset.
    ReadOnly = 0xD,
    /// Written to its end, or finished.
    Full = 0xE,
    /// Gone, with what was in it.
    Offline = 0xF,
}

impl ZoneCond {
    /// Every condition, by number.
    pub const ALL: [Self; 8] = [
        Self::NotWp,
        Self::Empty,
        Self::ImplicitOpen,
        Self::ExplicitOpen,
        Self::Closed,
        Self::ReadOnly,
        Self::Full,
        Self::Offline,
    ];

    /// Whether it counts against the limit on open zones.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::ImplicitOpen | Self::ExplicitOpen)
    }

    /// Whether it counts against the limit on active zones.
    pub const fn is_active(self) -> bool {
        matches!(self, Self::ImplicitOpen | Self::ExplicitOpen | Self::Closed)
    }
}

/// What can befall a zone, and be mended by saying it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ZoneFault {
    /// Cannot be written any more.
    ReadOnly,
    /// Cannot be reached any more.
    Offline,
}

impl ZoneFault {
    /// The condition of a zone that it has befallen.
    pub const fn cond(self) -> ZoneCond {
        match self {
            Self::ReadOnly => ZoneCond::ReadOnly,
            Self::Offline => ZoneCond::Offline,
        }
    }
}

/// One zone in a report (`struct blk_zone`). Lengths are in sectors, as all of the report is.
///
/// ```
/// use pageless_block::{Sector, ZoneConfig, Zones};
/// use pageless_pfn::ByteLen;
/// let zones = Zones::new(ZoneConfig::new(ByteLen::new(4 << 20), ByteLen::new(1 << 20)))?;
/// let third = zones.report(Sector::new(4096), 1).next().unwrap();
/// assert_eq!(third.to_bytes()[..8], 4096_u64.to_le_bytes());
/// # Ok::<(), pageless_block::ZoneConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Where it begins.
    pub start: Sector,
    /// How long it is, in sectors.
    pub len: u64,
    /// How much of it can be written, in sectors from its start on.
    pub capacity: u64,
    /// Where the next write goes; `None` if that cannot be said, in a zone that is read-only or
    /// offline.
    pub wp: Option<Sector>,
    /// What kind it is.
    pub kind: ZoneType,
    /// Its condition.
    pub cond: ZoneCond,
}

/// Bytes of a `struct blk_zone`.
pub(super) const BLK_ZONE_BYTES: usize = 64;

impl Zone {
    /// The 64 bytes of a `struct blk_zone`, little-endian; the write pointer of a zone without one
    /// is all ones.
    ///
    /// | bytes | field |
    /// |---|---|
    /// | 0..8 | start |
    /// | 8..16 | len |
    /// | 16..24 | wp |
    /// | 24 | type |
    /// | 25 | cond |
    /// | 26, 27 | non_seq, reset: hints this device never gives |
    /// | 28..32 | reserved |
    /// | 32..40 | capacity |
    /// | 40..64 | reserved |
    pub fn to_bytes(&self) -> [u8; BLK_ZONE_BYTES] {
        let mut bytes = [0; BLK_ZONE_BYTES];
        let wp = self.wp.map_or(u64::MAX, Sector::get);
        bytes[..8].copy_from_slice(&self.start.get().to_le_bytes());
        bytes[8..16].copy_from_slice(&self.len.to_le_bytes());
        bytes[16..24].copy_from_slice(&wp.to_le_bytes());
        bytes[24] = self.kind as u8;
        bytes[25] = self.cond as u8;
        bytes[32..40].copy_from_slice(&self.capacity.to_le_bytes());
        bytes
    }
}
