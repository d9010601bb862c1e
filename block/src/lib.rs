//! Block I/O over typed frame numbers: bios, queues and drivers, and no page descriptors.
//!
//! A bio says which bytes of a device go to or come from which frames of memory, and names the
//! frames by number alone. From submission to completion nothing asks for a descriptor: lengths,
//! splits and bounds are arithmetic, and bytes are reached through a scoped accessor. The crate
//! depends on `pageless-pfn` and on nothing that knows what a descriptor is.
//!
//! # Who owns what
//!
//! ```text
//!   caller            Queue (one thread, &mut)        BlockDevice (shared, &)      FrameAccess
//!     |  submit(Bio)     |                                |                            |
//!     +----------------->| Request { Bio, piece, tag } -->| execute(&Request)          |
//!     |                  |   (splits at the limit)        |   with(segment, |span|) -->|
//!     |                  |                                |   copy, while the span lives
//!     |  Rejected{Bio}   |<------- Done { Request } ------|                            |
//!     |<-----------------|                                                             |
//!     |  reap() -> Completion { Bio, result }                                          |
//!     |<-----------------|
//! ```
//!
//! * A [`Bio`] owns the *list* of its segments. The frames themselves belong to a provider
//!   ([`FrameAccess`]) that outlives the device which reaches them.
//! * [`Queue::submit`] takes the bio and gives it back, either at once ([`Rejected`]) or with
//!   its [`Completion`]. In between it travels inside a [`Request`], which cannot be dropped
//!   quietly: a driver that loses one hears about it.
//! * A [`Queue`] belongs to one thread, which its `&mut self` methods say. Devices are shared by
//!   reference. Once a queue stands, submitting and completing allocates nothing and takes no
//!   lock.
//!
//! # Limits
//!
//! * A bio is split at the device's limit and never merged with another; its pieces go to the
//!   device one after the other.
//! * There is no scheduler and no plug: a submitted bio goes to the device at once.
//! * Two bios that touch the same bytes at the same time leave either's bytes there, mixed in any
//!   way. Order them by waiting for the first.
//! * A device of more than 32 TiB is reached through windows. Touching more of them at a time
//!   than there are means mapping and unmapping on the way.
//!
//! # A queue in a few lines
//!
//! ```
//! use pageless_block::{Bio, DeviceInfo, NullDevice, Queue, QueueId, Sector};
//! use pageless_pfn::{ByteLen, FrameOffset, Pfn, PfnFlags, PfnT, PhysSegment};
//!
//! // A frame of device memory: no descriptor can exist for it.
//! let frame = PfnT::new(Pfn::try_new(0x1_0000)?, PfnFlags::DEV);
//! let segment = PhysSegment::try_new(frame, FrameOffset::ZERO, ByteLen::new(4096))?;
//!
//! let device = NullDevice::new(DeviceInfo::new(ByteLen::new(1 << 30)));
//! let mut queue = Queue::try_new(&device, QueueId::new(0), 32)?;
//! queue.submit(Bio::read(Sector::new(8), segment))?;
//! let done = queue.reap().expect("a null device completes at once");
//! assert!(done.result.is_ok());
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_code)]

extern crate alloc;

mod access;
mod badblocks;
mod bio;
mod clock;
mod copy;
mod counters;
mod dev;
mod device;
mod flags;
mod frames;
mod limits;
mod observe;
mod op;
mod position;
mod priority;
mod queue;
mod request;
mod status;
mod submit;
mod throttle;
mod zoned;

pub use access::{AccessError, FrameAccess, copy_frames};
pub use badblocks::{
    BadBlocks, BadBlocksEdit, BadBlocksEditError, BadBlocksError, BadRange, MAX_BAD_ENTRIES,
    MAX_BAD_LEN, SectorRange,
};
pub use bio::Bio;
#[cfg(feature = "std")]
pub use clock::MonotonicClock;
pub use clock::{Clock, ManualClock, Nanos};
pub use copy::Span;
pub use counters::QueueCounters;
pub use dev::null::NullDevice;
#[cfg(feature = "std")]
pub use dev::pmem::{BeyondDevice, Pmem};
pub use device::{BlockDevice, DeviceInfo};
pub use flags::BioFlags;
pub use frames::{
    heap::{HeapError, HeapFrames},
    sparse::{SparseError, SparseFrames},
};
#[cfg(feature = "std")]
pub use frames::{
    mapping::MapError,
    pmem::{LayoutError, MapPolicy, PmemFrames, PmemOpenError},
    ram::{RamError, RamFrames},
};
pub use limits::{AtomicLimits, Features, LimitError, Limits, ZoneLimits};
pub use observe::event::{Action, Event, Probe};
pub use op::{Op, UnknownOp};
pub use position::{BytePos, SECTOR_SIZE, Sector};
pub use priority::{Priority, PriorityClass, PriorityError};
pub use queue::{MAX_DEPTH, Queue, QueueError};
pub use request::{Done, QueueId, Request, Segments, Tag};
pub use status::BlkError;
pub use submit::{Completion, RejectReason, Rejected, submit_sync};
pub use throttle::Throttle;
pub use zoned::{
    Zone, ZoneCond, ZoneConfig, ZoneConfigError, ZoneFault, ZoneFaultError, ZoneType, Zones,
};
