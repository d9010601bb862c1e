//! How the zones of a device are laid out and how many may be written at a time.

use pageless_pfn::ByteLen;
use thiserror::Error;

use crate::limits::ZoneLimits;
use crate::position::{SECTOR_SIZE, Sector};

/// The layout of a zoned device and its limits, as null_blk's `zone_*` parameters have them
/// (drivers/block/null_blk/zoned.c). Change fields, then make [`Zones`](super::Zones) of it.
///
/// ```
/// use pageless_block::{ZoneConfig, Zones};
/// use pageless_pfn::ByteLen;
/// let mut config = ZoneConfig::new(ByteLen::new(1 << 30), ByteLen::new(64 << 20));
/// config.zone_capacity = ByteLen::new(48 << 20);
/// config.nr_conv = 2;
/// config.max_open = 4;
/// assert_eq!(Zones::new(config)?.count(), 16);
/// config.zone_size = ByteLen::new(3 << 20);
/// assert!(Zones::new(config).is_err());
/// # Ok::<(), pageless_block::ZoneConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneConfig {
    /// The size of the device, a multiple of a sector. The last zone is shorter if it has to be.
    pub capacity: ByteLen,
    /// Bytes from the start of one zone to that of the next: a power of two.
    pub zone_size: ByteLen,
    /// How much of a sequential zone can be written, from its start on.
    pub zone_capacity: ByteLen,
    /// How many zones, from the first on, are conventional. At least one zone is not.
    pub nr_conv: u32,
    /// How many zones may be open at a time; 0 for no limit.
    pub max_open: u32,
    /// How many zones may be open or closed at a time; 0 for no limit.
    pub max_active: u32,
    /// The longest append, cut to a zone's capacity; zero for a device without.
    pub append_max: ByteLen,
    /// Whether sequential zones are full at first, and not empty.
    pub full: bool,
}

impl ZoneConfig {
    /// Sequential zones only, writable to their ends, with appends and without limits.
    pub const fn new(capacity: ByteLen, zone_size: ByteLen) -> Self {
        Self {
            capacity,
            zone_size,
            zone_capacity: zone_size,
            nr_conv: 0,
            max_open: 0,
            max_active: 0,
            append_max: zone_size,
            full: false,
        }
    }

    /// What a queue has to know of such zones.
    pub fn limits(&self) -> ZoneLimits {
        let longest = self.append_max.min(self.zone_capacity).get();
        ZoneLimits {
            size: self.zone_size,
            max_append: ByteLen::new(longest - longest % SECTOR_SIZE),
            max_open: self.max_open,
            max_active: self.max_active,
        }
    }

    /// Looks whether it all goes together, and says how many zones that makes.
    pub(crate) fn validate(&self) -> Result<u32, ZoneConfigError> {
        let size = self.zone_size.get();
        if !size.is_power_of_two() || size < SECTOR_SIZE {
            return Err(ZoneConfigError::Size {
                zone_size: self.zone_size,
            });
        }
        for (what, len) in [
            ("capacity", self.capacity),
            ("zone_capacity", self.zone_capacity),
        ] {
            if len.is_zero() || !len.get().is_multiple_of(SECTOR_SIZE) {
                return Err(ZoneConfigError::Sectors { what, len });
            }
        }
        if size > self.capacity.get() {
            return Err(ZoneConfigError::LargerThanDevice {
                zone_size: self.zone_size,
                capacity: self.capacity,
            });
        }
        if self.zone_capacity > self.zone_size {
            return Err(ZoneConfigError::Capacity {
                zone_capacity: self.zone_capacity,
                zone_size: self.zone_size,
            });
        }
        let short = self.capacity.get() % size;
        if short != 0 && self.zone_capacity != self.zone_size {
            return Err(ZoneConfigError::ShortLastZone {
                last: ByteLen::new(short),
                zone_capacity: self.zone_capacity,
            });
        }
        let zones = self.capacity.get().div_ceil(size);
        let Ok(count) = u32::try_from(zones) else {
            return Err(ZoneConfigError::TooMany { zones });
        };
        if self.nr_conv >= count {
            return Err(ZoneConfigError::Conventional {
                nr_conv: self.nr_conv,
                zones: count,
            });
        }
        if self.max_active != 0 && self.max_open > self.max_active {
            return Err(ZoneConfigError::OpenAboveActive {
                max_open: self.max_open,
                max_active: self.max_active,
            });
        }
        Ok(count)
    }
}

/// Zones that make no sense, or that there is no memory for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ZoneConfigError {
    /// The size is no power of two, or less than a sector.
    #[error("zones of {zone_size}: must be a power of two and at least {SECTOR_SIZE} bytes")]
    Size {
        /// What it is.
        zone_size: ByteLen,
    },
    /// Must be a whole number of sectors, and at least one.
    #[error("{what} is {len}: must be a multiple of {SECTOR_SIZE} bytes, and not 0")]
    Sectors {
        /// Which field.
        what: &'static str,
        /// What it is.
        len: ByteLen,
    },
    /// Not even one zone fits.
    #[error("zones of {zone_size} on a device of {capacity}")]
    LargerThanDevice {
        /// The size of a zone.
        zone_size: ByteLen,
        /// The size of the device.
        capacity: ByteLen,
    },
    /// More can be written to a zone than it is long.
    #[error("zones of {zone_size} that hold {zone_capacity}")]
    Capacity {
        /// How much of a zone can be written.
        zone_capacity: ByteLen,
        /// How long it is.
        zone_size: ByteLen,
    },
    /// A short last zone and zones that cannot be written to their ends: no such device exists.
    #[error("a last zone of {last}, and zones that hold {zone_capacity}, less than their size")]
    ShortLastZone {
        /// How long the last zone would be.
        last: ByteLen,
        /// How much of a zone can be written.
        zone_capacity: ByteLen,
    },
    /// More zones than have a number.
    #[error("{zones} zones: at most {} are numbered", u32::MAX)]
    TooMany {
        /// How many.
        zones: u64,
    },
    /// No sequential zone is left.
    #[error("{nr_conv} of {zones} zones are conventional: at least one must be sequential")]
    Conventional {
        /// How many are conventional.
        nr_conv: u32,
        /// How many zones there are.
        zones: u32,
    },
    /// An open zone is active, too.
    #[error("{max_open} zones may be open, but only {max_active} active")]
    OpenAboveActive {
        /// The limit on open zones.
        max_open: u32,
        /// The limit on active ones.
        max_active: u32,
    },
    /// No memory for the states of so many.
    #[error("no memory for the states of {zones} zones")]
    Memory {
        /// How many.
        zones: u32,
    },
}

/// Why a zone cannot be made read-only or taken offline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ZoneFaultError {
    /// No zone is there.
    #[error("{at} is past the end of a device of {capacity}")]
    PastEnd {
        /// The sector asked for.
        at: Sector,
        /// The size of the device.
        capacity: ByteLen,
    },
    /// Conventional zones have no condition.
    #[error("{at} is in a conventional zone, which has no condition")]
    Conventional {
        /// The sector asked for.
        at: Sector,
    },
}
