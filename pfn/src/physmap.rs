//! The physical map: which frames exist, and what they are.

use core::fmt;

use thiserror::Error;

use crate::frame::{FrameCount, Pfn, PfnRange};
use crate::tagged::{PfnFlags, PfnT};

/// What a region of frames is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RegionKind {
    /// Ordinary memory, covered by the system's memmap.
    Ram,
    /// Persistent memory on a device, covered by no memmap.
    Pmem,
    /// Persistent memory on a device for which a driver keeps a memmap.
    PmemMapped,
}

impl RegionKind {
    /// The flags of a frame in such a region.
    pub const fn flags(self) -> PfnFlags {
        match self {
            Self::Ram => PfnFlags::empty(),
            Self::Pmem => PfnFlags::DEV,
            Self::PmemMapped => PfnFlags::DEV.union(PfnFlags::MAP),
        }
    }
}

impl fmt::Display for RegionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ram => "RAM",
            Self::Pmem => "PMEM",
            Self::PmemMapped => "PMEM with a memmap",
        })
    }
}

/// Consecutive frames of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    /// Which frames.
    pub frames: PfnRange,
    /// What they are.
    pub kind: RegionKind,
}

/// Up to `N` regions that do not overlap, ordered by frame number. No allocation.
///
/// ```
/// use pageless_pfn::{FrameCount, Pfn, PfnRange, PhysMap, RegionKind};
/// let frames = |start, count| {
///     PfnRange::try_new(Pfn::try_new(start).unwrap(), FrameCount::new(count)).unwrap()
/// };
/// let mut map = PhysMap::<4>::new();
/// map.insert(frames(0x100, 16), RegionKind::Ram)?;
/// map.insert(frames(0x1000, 1 << 40), RegionKind::Pmem)?;
/// assert!(map.insert(frames(0x10f, 1), RegionKind::Pmem).is_err());
/// let pfn = map.pfn_t(Pfn::try_new(0x2000).unwrap()).unwrap();
/// assert!(!pfn.has_page());
/// # Ok::<(), pageless_pfn::PhysMapInsertError>(())
/// ```
#[derive(Clone, Debug)]
pub struct PhysMap<const N: usize> {
    /// The first `used` are `Some`, sorted by start and disjoint.
    regions: [Option<Region>; N],
    used: usize,
}

impl<const N: usize> Default for PhysMap<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> PhysMap<N> {
    /// A map without regions.
    pub const fn new() -> Self {
        Self {
            regions: [None; N],
            used: 0,
        }
    }

    /// Adds a region.
    ///
    /// # Errors
    /// [`PhysMapInsertError`] if it is empty, shares a frame with one that is there, or if there
    /// are `N` already. The map is then unchanged.
    pub fn insert(&mut self, frames: PfnRange, kind: RegionKind) -> Result<(), PhysMapInsertError> {
        if frames.is_empty() {
            return Err(PhysMapInsertError::Empty {
                start: frames.start(),
            });
        }
        if let Some(&present) = self.iter().find(|r| r.frames.intersects(frames)) {
            return Err(PhysMapInsertError::Overlap {
                new: frames,
                present,
            });
        }
        if self.used == N {
            return Err(PhysMapInsertError::Full { capacity: N });
        }
        let at = self
            .iter()
            .take_while(|r| r.frames.start() < frames.start())
            .count();
        self.regions[at..=self.used].rotate_right(1);
        self.regions[at] = Some(Region { frames, kind });
        self.used += 1;
        Ok(())
    }

    /// Takes out the region that consists of exactly these frames and returns it, or `None`
    /// if there is none.
    pub fn remove(&mut self, frames: PfnRange) -> Option<Region> {
        let at = self.iter().position(|r| r.frames == frames)?;
        let region = self.regions[at].take();
        self.regions[at..self.used].rotate_left(1);
        self.used -= 1;
        region
    }

    /// The region that holds `pfn`.
    pub fn lookup(&self, pfn: Pfn) -> Option<&Region> {
        let after = self.regions[..self.used]
            .partition_point(|r| r.as_ref().is_some_and(|r| r.frames.start() <= pfn));
        let region = self.regions[after.checked_sub(1)?].as_ref()?;
        region.frames.contains(pfn).then_some(region)
    }

    /// `pfn` with the flags of the region that holds it, or `None` if no region does.
    pub fn pfn_t(&self, pfn: Pfn) -> Option<PfnT> {
        self.lookup(pfn)
            .map(|region| PfnT::new(pfn, region.kind.flags()))
    }

    /// The regions, by rising frame number.
    pub fn iter(&self) -> impl Iterator<Item = &Region> {
        self.regions[..self.used].iter().flatten()
    }

    /// How many regions there are.
    pub const fn len(&self) -> usize {
        self.used
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// How many frames of one kind there are. At most 2^52, since regions do not overlap.
    pub fn frames_of(&self, kind: RegionKind) -> FrameCount {
        let total = self
            .iter()
            .filter(|r| r.kind == kind)
            .map(|r| r.frames.count().get())
            .sum();
        FrameCount::new(total)
    }
}

/// Why a region cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PhysMapInsertError {
    /// It has no frames.
    #[error("a region at frame {start} without frames")]
    Empty {
        /// Where it would have begun.
        start: Pfn,
    },
    /// It shares a frame with one that is there.
    #[error("frames {new} overlap {}, which is {}", present.frames, present.kind)]
    Overlap {
        /// The frames asked for.
        new: PfnRange,
        /// The region that is there.
        present: Region,
    },
    /// There is no room for a further region.
    #[error("the map holds {capacity} regions already, all it can")]
    Full {
        /// The most it can hold.
        capacity: usize,
    },
}
