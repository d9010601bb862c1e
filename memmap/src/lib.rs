//! Page descriptors on demand: a memmap that costs nothing until somebody asks, and a fixed budget
//! afterwards.
//!
//! # Ownership
//!
//! The descriptor of a pfn is 64 bytes of a window, at `(pfn - first) * 64`. Nobody owns it: it is
//! *referenced*. [`Memmap::get`] takes a reference with one instruction; the [`PageRef`] it returns
//! gives it back. A descriptor without references is all there is to know about it, and fresh zeroed
//! memory says exactly that, so no constructor ever runs.
//!
//! Memory comes and goes in *chunks* of 4 KiB to 2 MiB of descriptors. The MMU arbitrates: a lookup
//! that finds no memory has had no effect, makes the chunk present and runs again. Reclaim *freezes*
//! every descriptor of a chunk (only an unreferenced one can be frozen), takes the chunk's
//! translations away, waits for the shootdown, and only then are its bytes free to be used again.
//!
//! ```text
//!             get: fetch_add(1)                                put: fetch_sub(1)
//!   PagedPfn ------------------> [ state word | owner | ... ] <------------------ PageRef
//!                   |                     ^
//!     no memory     |                     | freeze: 0 -> FROZEN, every word of the chunk
//!                   v                     |
//!   fault path: Absent -> Filling -> Present(generation) -> Frozen -> Unmapped -> Absent
//!                  ^                      |  ^                 |          |
//!                  |     allocated first, |  +--- thaw --------+          | FlushDebt
//!                  |     considered first |     (one was referenced)      v
//!                budget <----------------------------------------- settled, bytes returned
//! ```
//!
//! # Who may call what
//!
//! * [`Memmap::get`] may fault and so may sleep: it asks for a [`MaySleep`](pageless_fault::MaySleep).
//! * [`Memmap::try_get`] neither sleeps nor fills: under a spin lock, with interrupts off, in a signal
//!   handler. Where no memory is present it answers [`TryGetError::WouldBlock`], or draws on a
//!   reserve of chunks filled beforehand.
//! * Only a [`PagedPfn`](pageless_pfn::PagedPfn) can be looked up. A pfn that has no page does not
//!   become one by asking.
//!
//! # Example
//!
//! ```
//! # #[cfg(all(feature = "std", target_os = "linux", target_arch = "x86_64"))] {
//! use pageless_fault::{MaySleep, host::HostMachine};
//! use pageless_memmap::{Config, Memmap};
//! use pageless_pfn::{FrameCount, Pfn, PfnFlags, PfnRange, PfnT};
//!
//! let ctx = MaySleep::claim();
//! // A device of 1 PiB: its descriptors would be 16 TiB.
//! let device = PfnRange::try_new(Pfn::try_new(1 << 30)?, FrameCount::new(1 << 38))?;
//! let memmap = Memmap::attach(&HostMachine::new()?, device, Config::default())?;
//!
//! let pfn = PfnT::new(Pfn::try_new((1 << 30) + 12345)?, PfnFlags::DEV | PfnFlags::MAP);
//! let page = memmap.get(&ctx, pfn.paged()?)?;
//! assert_eq!(page.references(), 1);
//! assert_eq!(memmap.counters().chunks_populated, 1);
//! # }
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
#![cfg_attr(not(feature = "std"), no_std)]
// Only `directory::index` is excepted, where readers follow pointers that an epoch keeps alive.
#![deny(unsafe_code)]

extern crate alloc;

#[cfg(feature = "std")]
mod background;
mod budget;
mod counters;
mod detach;
mod directory;
#[cfg(all(
    feature = "std",
    not(loom),
    target_os = "linux",
    target_arch = "x86_64"
))]
mod eager;
mod fill;
mod geometry;
mod memmap;
mod page;
mod reclaim;
mod refcount;
#[cfg(feature = "std")]
mod regions;

#[cfg(feature = "std")]
pub use background::BackgroundReclaimer;
pub use budget::{Budget, BudgetError};
pub use counters::Counters;
pub use detach::{DetachError, Holder};
pub use directory::{ChunkInfo, ChunkState, Generation};
#[cfg(all(
    feature = "std",
    not(loom),
    target_os = "linux",
    target_arch = "x86_64"
))]
pub use eager::{EagerLookup, EagerMemmap, EagerPageRef};
pub use geometry::{ChunkSize, ChunkSizeError, DESCRIPTOR_BYTES, eager_bytes};
pub use memmap::{AttachError, Config, GetError, Lookup, Memmap, TryGetError};
pub use page::{Owner, PageRef, Pinned};
pub use reclaim::{RECLAIM_BATCH, ReclaimError, Reclaimed};
pub use refcount::{FROZEN, MAX_REFERENCES};
#[cfg(feature = "std")]
pub use regions::{Region, RegionDetachError, RegionError, RegionGetError, RegionPage, Regions};

/// The memmap of this process's own MMU.
#[cfg(all(
    feature = "std",
    not(loom),
    target_os = "linux",
    target_arch = "x86_64"
))]
pub type HostMemmap = Memmap<pageless_fault::host::HostWindow>;
