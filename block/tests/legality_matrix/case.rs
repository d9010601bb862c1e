//! What is submitted to what: the axes of the matrix.

use pageless_block::{AtomicLimits, BioFlags, Features, Limits, Op, SECTOR_SIZE, ZoneLimits};
use pageless_pfn::{ByteLen, FrameOffset, Pfn, PfnFlags, PfnT, PhysSegment};

/// A logical block.
pub(crate) const BLOCK: u64 = 4096;
/// The longest request of any kind, and the longest atomic write; so most shapes are one request.
pub(crate) const MAX: u64 = 2 * BLOCK;
pub(crate) const ZONE: u64 = 16 * BLOCK;
pub(crate) const CAPACITY: u64 = 16 * ZONE;

/// Which bytes of the device, and of which memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// No bytes, at the start of a zone.
    Empty,
    /// No bytes, in the middle of a zone.
    EmptyInZone,
    /// No bytes, off the logical blocks.
    EmptyMisaligned,
    /// No bytes, right behind the last one.
    EmptyAtEnd,
    /// No bytes, far from the device.
    EmptyPastEnd,
    /// A block at the start of a zone.
    Block,
    /// A block at the start of a zone, in frames that have no descriptors.
    Pageless,
    /// Two blocks in the middle of a zone, not aligned to their length.
    InZone,
    /// A block behind the last one.
    PastEnd,
    /// The last block, and one more.
    AcrossEnd,
    /// A block's length, off the blocks.
    Misplaced,
    /// Less than a block.
    PartOfBlock,
    /// Twice as long as a request.
    Long,
    /// As long as a request, in more segments than one may have.
    Scattered,
}

impl Shape {
    const ALL: [Self; 14] = [
        Self::Empty,
        Self::EmptyInZone,
        Self::EmptyMisaligned,
        Self::EmptyAtEnd,
        Self::EmptyPastEnd,
        Self::Block,
        Self::Pageless,
        Self::InZone,
        Self::PastEnd,
        Self::AcrossEnd,
        Self::Misplaced,
        Self::PartOfBlock,
        Self::Long,
        Self::Scattered,
    ];

    /// The shapes that a bio of this kind can have.
    pub(crate) fn of(op: Op) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |shape| match shape {
            _ if shape.len() == 0 => true,
            Self::Pageless | Self::Scattered => op.carries_data(),
            _ => op.has_range(),
        })
    }

    /// The first byte.
    pub(crate) fn start(self) -> u64 {
        match self {
            Self::Empty | Self::Block | Self::Pageless | Self::PartOfBlock => ZONE,
            Self::Long | Self::Scattered => ZONE,
            Self::EmptyInZone | Self::InZone => ZONE + BLOCK,
            Self::EmptyMisaligned | Self::Misplaced => ZONE + SECTOR_SIZE,
            Self::PastEnd | Self::EmptyAtEnd => CAPACITY,
            Self::EmptyPastEnd => CAPACITY + ZONE,
            Self::AcrossEnd => CAPACITY - BLOCK,
        }
    }

    /// How many bytes.
    pub(crate) fn len(self) -> u64 {
        match self {
            Self::Empty | Self::EmptyInZone | Self::EmptyMisaligned => 0,
            Self::EmptyAtEnd | Self::EmptyPastEnd => 0,
            Self::Block | Self::Pageless | Self::PastEnd | Self::Misplaced => BLOCK,
            Self::InZone | Self::AcrossEnd | Self::Scattered => 2 * BLOCK,
            Self::PartOfBlock => SECTOR_SIZE,
            Self::Long => 2 * MAX,
        }
    }

    /// The memory, for an operation that moves bytes.
    pub(crate) fn segments(self) -> impl Iterator<Item = PhysSegment> {
        let (parts, flags) = match self {
            Self::Scattered => (2, PfnFlags::empty()),
            Self::Pageless => (1, PfnFlags::DEV),
            _ => (1, PfnFlags::empty()),
        };
        let len = ByteLen::new(self.len() / parts);
        // Far apart, so that they are not one.
        let frames = (0..parts).map(move |n| PfnT::new(Pfn::try_new(16 + 64 * n).unwrap(), flags));
        frames
            .filter(move |_| !len.is_zero())
            .map(move |frame| PhysSegment::try_new(frame, FrameOffset::ZERO, len).unwrap())
    }
}

/// What a device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) features: Features,
    pub(crate) discard: bool,
    pub(crate) secure_erase: bool,
    pub(crate) write_zeroes: bool,
    pub(crate) append: bool,
    pub(crate) atomic: bool,
}

/// The features that have rules.
pub(crate) const FEATURES: [Features; 7] = [
    Features::WRITE_CACHE,
    Features::FUA,
    Features::NOWAIT,
    Features::POLL,
    Features::ZONED,
    Features::READ_ONLY,
    Features::PAGELESS,
];

impl Device {
    /// With these features, and every limit or none.
    pub(crate) fn with(features: Features, limits: bool) -> Self {
        Self {
            features,
            discard: limits,
            secure_erase: limits,
            write_zeroes: limits,
            append: limits,
            atomic: limits,
        }
    }

    /// All that a device can have, and nothing that forbids anything.
    pub(crate) fn everything() -> Self {
        let all = FEATURES.into_iter().collect::<Features>();
        Self::with(all - Features::READ_ONLY, true)
    }

    /// The device with the limit that `op` looks at changed; `None` if it looks at none.
    fn with_own_limit(mut self, op: Op) -> Option<Self> {
        let limit = match op {
            Op::Write => &mut self.atomic,
            Op::Discard => &mut self.discard,
            Op::SecureErase => &mut self.secure_erase,
            Op::WriteZeroes => &mut self.write_zeroes,
            Op::ZoneAppend => &mut self.append,
            _ => return None,
        };
        *limit = !*limit;
        Some(self)
    }

    /// With these features: every limit, none, only the one that counts, all but that one.
    fn each(features: Features, op: Op) -> impl Iterator<Item = Self> {
        [true, false].into_iter().flat_map(move |limits| {
            let device = Self::with(features, limits);
            [Some(device), device.with_own_limit(op)]
                .into_iter()
                .flatten()
        })
    }

    pub(crate) fn limits(&self) -> Limits {
        let mut limits = Limits::new(ByteLen::new(CAPACITY));
        let max = |there: bool| ByteLen::new(if there { MAX } else { 0 });
        limits.set_logical_block(ByteLen::new(BLOCK));
        limits.max_request = ByteLen::new(MAX);
        limits.max_segments = 1;
        limits.max_discard = max(self.discard);
        limits.max_secure_erase = max(self.secure_erase);
        limits.max_write_zeroes = max(self.write_zeroes);
        limits.features = self.features;
        limits.zones = self.features.contains(Features::ZONED).then(|| ZoneLimits {
            size: ByteLen::new(ZONE),
            max_append: max(self.append),
            max_open: 0,
            max_active: 0,
        });
        limits.atomic = self.atomic.then(|| AtomicLimits {
            unit_min: ByteLen::new(BLOCK),
            unit_max: ByteLen::new(MAX),
            boundary: None,
        });
        limits
    }
}

/// One cell of the matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) op: Op,
    pub(crate) flags: BioFlags,
    pub(crate) shape: Shape,
    pub(crate) device: Device,
}

/// The flags that have rules, and two that have none.
const RULED: [BioFlags; 7] = [
    BioFlags::FUA,
    BioFlags::PREFLUSH,
    BioFlags::NOWAIT,
    BioFlags::POLLED,
    BioFlags::ATOMIC,
    BioFlags::SYNC,
    BioFlags::RAHEAD,
];

/// All subsets.
fn subsets<T: Copy + FromIterator<T>>(of: &[T]) -> impl Iterator<Item = T> {
    (0..1_u32 << of.len()).map(|bits| {
        let chosen = of.iter().enumerate().filter(|(n, _)| bits & 1 << n != 0);
        chosen.map(|(_, &one)| one).collect()
    })
}

/// Every subset of the features that have rules; every limit there and not.
pub(crate) fn every_device(op: Op) -> impl Iterator<Item = Device> {
    subsets(&FEATURES).flat_map(move |features| Device::each(features, op))
}

/// Everything, nothing, everything but one feature, and one feature alone; every limit there and not.
pub(crate) fn corner_devices(op: Op) -> impl Iterator<Item = Device> {
    let all: Features = FEATURES.into_iter().collect();
    let sets = [all, Features::empty()].into_iter();
    let sets = sets.chain(FEATURES).chain(FEATURES.map(|one| all - one));
    sets.flat_map(move |features| Device::each(features, op))
}

/// Every subset of the flags that have rules.
pub(crate) fn every_rule() -> Vec<BioFlags> {
    subsets(&RULED).collect()
}

/// Every flag alone, and every pair of flags.
pub(crate) fn every_pair() -> Vec<BioFlags> {
    let flags: Vec<BioFlags> = BioFlags::all().iter().collect();
    let all = (0..flags.len()).flat_map(|a| (0..=a).map(move |b| (a, b)));
    all.map(|(a, b)| flags[a] | flags[b]).collect()
}
