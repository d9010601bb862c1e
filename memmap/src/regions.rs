//! The set of attached regions: whoever holds only a pfn finds the memmap that describes it.
//!
//! A system has several devices, and each range of pfns has a memmap of its own. The set changes when a
//! device comes or goes, and is read at every lookup. So it is an immutable, sorted table behind one
//! pointer ([`arc_swap`]): a change makes a new table, a lookup borrows whichever one it finds.
//!
//! ```text
//!   Regions --ArcSwap--> [ (pfns, Arc<Memmap>) | (pfns, Arc<Memmap>) | ... ]   sorted, immutable
//!      |                                 ^
//!      | leaving: [ pfns ]               | Region: the table, borrowed, and the place in it
//!      v                                 | RegionPage: an Arc<Memmap> and one reference in it
//!   ranges on their way out          lookups
//! ```

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::Deref;

use arc_swap::{ArcSwap, Guard};
use pageless_fault::sync::Mutex;
use pageless_fault::{MaySleep, Window};
use pageless_pfn::{PagedPfn, Pfn, PfnRange};

use crate::detach::DetachError;
use crate::memmap::{GetError, Memmap};
use crate::page::PageRef;

/// Why a memmap cannot join the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// Some of its pfns are described by another memmap, or by one that is still being detached.
    #[error("pfns {pfns} overlap pfns {attached}, which are attached already")]
    Overlap {
        /// What was to be attached.
        pfns: PfnRange,
        /// What is in the way.
        attached: PfnRange,
    },
}

/// Why a region has not left the set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegionDetachError {
    /// There is no region of exactly these pfns, or somebody else is detaching it.
    #[error("no region of exactly the pfns {pfns} is attached")]
    NotAttached {
        /// What was asked for.
        pfns: PfnRange,
    },
    /// The memmap could not be detached. If it works on, it is back in the set; if it was detached by
    /// somebody else, or only quarantined bytes are left of it, it has left.
    #[error(transparent)]
    Detach(#[from] DetachError),
}

/// Why the set has no reference to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RegionGetError {
    /// No attached memmap describes the pfn.
    #[error("no attached region has pfn {pfn}")]
    NotAttached {
        /// The pfn asked for.
        pfn: Pfn,
    },
    /// The memmap that describes it has none.
    #[error(transparent)]
    Get(#[from] GetError),
}

/// A memmap and, beside it, what it describes: a search touches the table only.
struct Entry<W: Window> {
    pfns: PfnRange,
    memmap: Arc<Memmap<W>>,
}

impl<W: Window> Clone for Entry<W> {
    fn clone(&self) -> Self {
        Entry {
            pfns: self.pfns,
            memmap: Arc::clone(&self.memmap),
        }
    }
}

/// Sorted by first pfn; no two share one. Never changed, only replaced.
struct Snapshot<W: Window>(Vec<Entry<W>>);

impl<W: Window> Snapshot<W> {
    /// The place of the entry that has `pfn`.
    fn place(&self, pfn: Pfn) -> Option<usize> {
        let behind = self.0.partition_point(|entry| entry.pfns.start() <= pfn);
        let place = behind.checked_sub(1)?;
        self.0[place].pfns.contains(pfn).then_some(place)
    }

    fn with(&self, entry: Entry<W>) -> Self {
        let mut entries = Vec::with_capacity(self.0.len() + 1);
        let (before, behind) = self.0.split_at(
            self.0
                .partition_point(|other| other.pfns.start() < entry.pfns.start()),
        );
        entries.extend_from_slice(before);
        entries.push(entry);
        entries.extend_from_slice(behind);
        Snapshot(entries)
    }

    fn without(&self, pfns: PfnRange) -> Self {
        let stays = self.0.iter().filter(|entry| entry.pfns != pfns);
        Snapshot(stays.cloned().collect())
    }
}

/// The attached memmaps of a system, by pfn.
///
/// Shared by reference. Lookups take no lock; attaching and detaching do.
///
/// ```
/// # #[cfg(all(feature = "std", target_os = "linux", target_arch = "x86_64"))] {
/// use std::sync::Arc;
/// use pageless_fault::{MaySleep, host::HostMachine};
/// use pageless_memmap::{Config, Memmap, Regions};
/// use pageless_pfn::{FrameCount, Pfn, PfnFlags, PfnRange, PfnT};
///
/// let ctx = MaySleep::claim();
/// let machine = HostMachine::new()?;
/// let regions = Regions::new();
/// for device in 1..=2_u64 {
///     let pfns = PfnRange::try_new(Pfn::try_new(device << 30)?, FrameCount::new(1 << 20))?;
///     regions.attach(Arc::new(Memmap::attach(&machine, pfns, Config::default())?))?;
/// }
/// let pfn = PfnT::new(Pfn::try_new((2 << 30) + 7)?, PfnFlags::DEV | PfnFlags::MAP).paged()?;
/// let page = regions.get(&ctx, pfn)?;
/// assert_eq!(page.page().references(), 1);
///
/// // As long as it is held, its region stays; the other one may go.
/// let (first, second) = (regions.ranges()[0], regions.ranges()[1]);
/// assert!(regions.detach(second, &ctx, || true).is_err());
/// regions.detach(first, &ctx, || true)?;
/// assert_eq!(regions.ranges(), [second]);
/// # }
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
///
/// # What the swap does not cover
///
/// * **A reader of the old table.** It may find a memmap that has left the set meanwhile. What keeps that
///   harmless is the memmap's own protocol: references taken before hold the detach up, later ones are
///   answered [`GetError::Detached`].
/// * **Address space.** Every `Arc<Memmap>` kept, every [`RegionPage`], and every table that a reader
///   still borrows keeps whole windows reserved. The last owner gives the window back, whoever that is:
///   it may be a reader, in the middle of its own work.
/// * **Signal handlers, and everything else that interrupts.** A load writes to a record of the thread
///   that the first load allocates; with more than eight borrowed tables in one thread it falls back to
///   counting; and dropping one may free. So a handler must not ask: look the memmap up beforehand, keep
///   the `Arc`, and use [`Memmap::try_get`]. Which addresses are ours, asked by the handler of SIGBUS
///   itself, is a fixed array in the host machine for the same reason. The fault path never comes here.
/// * **Memory of descriptors.** A borrowed table is no reference to a page: that is
///   [`Memmap::get`]'s business.
pub struct Regions<W: Window> {
    attached: ArcSwap<Snapshot<W>>,
    /// Serialises changes. Inside: the ranges that no lookup finds any more, although their memmap may
    /// yet come back.
    leaving: Mutex<Vec<PfnRange>>,
}

/// A detach under way. Unless the memmap is gone for good, dropping this puts it back.
struct Leaving<'r, W: Window> {
    regions: &'r Regions<W>,
    entry: Entry<W>,
    gone: bool,
}

impl<W: Window> Drop for Leaving<'_, W> {
    fn drop(&mut self) {
        let mut leaving = self.regions.leaving.lock();
        leaving.retain(|pfns| *pfns != self.entry.pfns);
        if !self.gone {
            // Nobody can have taken its place: `attach` looks at those leaving, too.
            let attached = self.regions.attached.load();
            let with = attached.with(self.entry.clone());
            self.regions.attached.store(Arc::new(with));
        }
    }
}

impl<W: Window> Regions<W> {
    /// No regions.
    #[must_use]
    pub fn new() -> Self {
        Regions {
            attached: ArcSwap::from_pointee(Snapshot(Vec::new())),
            leaving: Mutex::new(Vec::new()),
        }
    }

    /// Lets lookups find `memmap` by the pfns that it describes.
    ///
    /// # Errors
    ///
    /// See [`RegionError`].
    pub fn attach(&self, memmap: Arc<Memmap<W>>) -> Result<(), RegionError> {
        let pfns = memmap.pfns();
        let leaving = self.leaving.lock();
        let attached = self.attached.load();
        let taken = attached.0.iter().map(|entry| entry.pfns);
        if let Some(other) = taken
            .chain(leaving.iter().copied())
            .find(|other| other.intersects(pfns))
        {
            return Err(RegionError::Overlap {
                pfns,
                attached: other,
            });
        }
        let with = attached.with(Entry { pfns, memmap });
        self.attached.store(Arc::new(with));
        Ok(())
    }

    /// Takes the region of exactly `pfns` out of the set, then detaches its memmap, waiting for
    /// references until `expired()`. New lookups stop finding it first, whatever the outcome; meanwhile
    /// its pfns cannot be attached again. Those who found it before still have it, and are answered by
    /// the memmap itself: what they hold holds the detach up, what they ask for is refused.
    ///
    /// Returns the memmap: its address space goes with its last owner.
    ///
    /// # Errors
    ///
    /// See [`RegionDetachError`]. A memmap that works on is put back.
    pub fn detach(
        &self,
        pfns: PfnRange,
        ctx: &MaySleep,
        expired: impl FnMut() -> bool,
    ) -> Result<Arc<Memmap<W>>, RegionDetachError> {
        let mut region = {
            let mut leaving = self.leaving.lock();
            let attached = self.attached.load();
            let Some(entry) = attached.0.iter().find(|entry| entry.pfns == pfns) else {
                return Err(RegionDetachError::NotAttached { pfns });
            };
            leaving.push(pfns);
            self.attached.store(Arc::new(attached.without(pfns)));
            Leaving {
                regions: self,
                entry: entry.clone(),
                gone: false,
            }
        };
        let detached = region.entry.memmap.detach(ctx, expired);
        region.gone = match &detached {
            Ok(()) | Err(DetachError::Detached | DetachError::Quarantined { .. }) => true,
            Err(DetachError::Busy { .. } | DetachError::Unmap(_)) => false,
        };
        detached?;
        Ok(Arc::clone(&region.entry.memmap))
    }

    /// The memmap that describes `pfn`, borrowed with the table that names it: no count is touched, unless
    /// the thread borrows more than a handful of tables at once. Not for keeping: it keeps *all* memmaps
    /// of its table.
    #[must_use]
    pub fn find(&self, pfn: Pfn) -> Option<Region<W>> {
        let snapshot = self.attached.load();
        let place = snapshot.place(pfn)?;
        Some(Region { snapshot, place })
    }

    /// The memmap that describes `pfn`, to keep. Its address space stays as long as that.
    #[must_use]
    pub fn find_arc(&self, pfn: Pfn) -> Option<Arc<Memmap<W>>> {
        self.find(pfn).map(|region| region.to_arc())
    }

    /// Takes a reference to the descriptor of `pfn`, whichever memmap has it. See [`Memmap::get`].
    ///
    /// While a region is being detached, its pfns are not attached, even if that fails in the end.
    ///
    /// # Errors
    ///
    /// See [`RegionGetError`].
    pub fn get(&self, ctx: &MaySleep, pfn: PagedPfn) -> Result<RegionPage<W>, RegionGetError> {
        let mut refused: Option<Arc<Memmap<W>>> = None;
        loop {
            let Some(region) = self.find(pfn.pfn()) else {
                return Err(RegionGetError::NotAttached { pfn: pfn.pfn() });
            };
            match region.get(ctx, pfn) {
                Ok(page) => {
                    let index = page.leak();
                    let memmap = region.to_arc();
                    return Ok(RegionPage { memmap, index });
                }
                // Found in an old table: look again, unless the set itself still names it.
                Err(GetError::Detached)
                    if !refused
                        .as_ref()
                        .is_some_and(|memmap| Arc::ptr_eq(memmap, region.memmap())) =>
                {
                    refused = Some(region.to_arc());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The pfns of all regions, in order.
    #[must_use]
    pub fn ranges(&self) -> Vec<PfnRange> {
        let snapshot = self.attached.load();
        snapshot.0.iter().map(|entry| entry.pfns).collect()
    }
}

impl<W: Window> Default for Regions<W> {
    fn default() -> Self {
        Regions::new()
    }
}

impl<W: Window> fmt::Debug for Regions<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Regions")
            .field("attached", &self.ranges())
            .field("leaving", &*self.leaving.lock())
            .finish()
    }
}

/// A memmap, found by pfn and borrowed with the table that names it.
pub struct Region<W: Window> {
    snapshot: Guard<Arc<Snapshot<W>>>,
    place: usize,
}

impl<W: Window> Region<W> {
    fn memmap(&self) -> &Arc<Memmap<W>> {
        &self.snapshot.0[self.place].memmap
    }

    /// The memmap, to keep.
    #[must_use]
    pub fn to_arc(&self) -> Arc<Memmap<W>> {
        Arc::clone(self.memmap())
    }
}

impl<W: Window> Deref for Region<W> {
    type Target = Memmap<W>;

    fn deref(&self) -> &Memmap<W> {
        self.memmap()
    }
}

impl<W: Window> fmt::Debug for Region<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Region").field(self.memmap()).finish()
    }
}

/// A reference to the descriptor of one pfn that also keeps the memmap it is in. Dropping it gives the
/// reference back, and then the memmap.
pub struct RegionPage<W: Window> {
    memmap: Arc<Memmap<W>>,
    /// Which descriptor. One reference to it is ours.
    index: u64,
}

impl<W: Window> RegionPage<W> {
    /// The reference.
    #[must_use]
    pub fn page(&self) -> impl Deref<Target = PageRef<'_, W>> {
        // Not dropped: the reference is ours, not the borrower's.
        ManuallyDrop::new(self.memmap.assume_reference(self.index))
    }

    /// The memmap that it is in.
    #[must_use]
    pub fn memmap(&self) -> &Arc<Memmap<W>> {
        &self.memmap
    }
}

impl<W: Window> Drop for RegionPage<W> {
    fn drop(&mut self) {
        drop(self.memmap.assume_reference(self.index));
    }
}

impl<W: Window> fmt::Debug for RegionPage<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RegionPage").field(&*self.page()).finish()
    }
}
