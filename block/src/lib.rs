//! Block I/O over typed frame numbers: bios, queues and drivers, and no page descriptors.
//!
//! A bio says which bytes of a device go to or come from which frames of memory, and names the
//! frames by number alone. From submission to completion nothing asks for a descriptor: splits, merges
//! and bounds are arithmetic, and bytes are reached through a scoped accessor. The crate
//! depends on `pageless-pfn` and on nothing that knows what a descriptor is.
//!
//! # Who owns what
//!
//! ```text
//!   caller        Context (one thread, &mut)       RequestQueue (shared)      BlockDevice (shared)
//!     |  submit(Bio)   |                                |                          |
//!     +--------------->| legal? within the limits?      |                          |
//!     |                |   (or split: pieces in a Chain)|                          |
//!     |                | merge: plug, elevator -------->|                          |
//!     |                | tag <--------------------------|                          |
//!     |                | Request { Bio, Bio, ... } -- flush sequence, elevator --->| submit(Request)
//!     |                |                                |                          |   Data: copied through
//!     |                |<--------------------- Done { Request } -------------------|   a FrameAccess
//!     |                | tag ------------------------->|                           |
//!     |<- Completion --| reap(), callback or Ticket     |                          |
//! ```
//!
//! * A [`Bio`] owns the *list* of its segments. The frames themselves belong to a provider
//!   ([`FrameAccess`]) that outlives the device which reaches them.
//! * [`Context::submit`] takes the bio and gives it back: at once ([`Rejected`]), or with
//!   its [`Completion`]. In between it travels inside a [`Request`], which cannot be dropped
//!   quietly: a driver that loses one hears about it. Bios and requests are handles; what they point to
//!   is used again, so that in steady state nothing is allocated.
//! * A [`Context`] belongs to one thread, which its `&mut self` methods say. The [`RequestQueue`] is what
//!   the contexts share: tags, an [`Elevator`], requests the device had no room for, the flush sequence, and the
//!   gate that freezes or quiesces it all. Devices are shared by reference.
//! * Devices may stand on devices ([`Linear`], [`Stripe`], [`WriteCache`], ...): they send the same request on to
//!   another place, or make [nested](Request::nested) ones.
//!
//! # Limits
//!
//! * Two bios that touch the same bytes at the same time leave either's bytes there, mixed in any
//!   way. Order them by waiting for the first.
//! * Bios of different contexts are never merged with each other.
//! * A device of more than 32 TiB is reached through windows. Touching more of them at a time
//!   than there are means mapping and unmapping on the way.
//!
//! # A queue in a few lines
//!
//! ```
//! use pageless_block::{Bio, Limits, NullDevice, QueueId, RequestQueue, Sector};
//! use pageless_pfn::{ByteLen, FrameOffset, Pfn, PfnFlags, PfnT, PhysSegment};
//!
//! // A frame of device memory: no descriptor can exist for it.
//! let frame = PfnT::new(Pfn::try_new(0x1_0000)?, PfnFlags::DEV);
//! let segment = PhysSegment::try_new(frame, FrameOffset::ZERO, ByteLen::new(4096))?;
//!
//! let device = NullDevice::new(Limits::new(ByteLen::new(1 << 30)));
//! let queue = RequestQueue::with_depth(device, 32)?;
//! let mut context = queue.context(QueueId::new(0))?;
//! context.submit(Bio::read(Sector::new(8), segment))?;
//! let done = context.reap().expect("a null device completes at once");
//! assert!(done.result().is_ok());
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
mod failpoint;
mod flags;
mod frames;
mod limits;
mod mutant;
mod observe;
mod op;
mod position;
mod priority;
mod queue;
mod request;
mod sched;
mod status;
mod submit;
mod sync;
mod throttle;
mod zoned;

pub use access::{AccessError, FrameAccess, copy_frames, stream_frames};
pub use badblocks::{
    BadBlocks, BadBlocksEdit, BadBlocksEditError, BadBlocksError, BadRange, MAX_BAD_ENTRIES,
    MAX_BAD_LEN, SectorRange,
};
pub use bio::completion::{Completion, Ticket};
pub use bio::direction::{AnyDirection, CarriesData, FromDevice, NoData, ToDevice};
pub use bio::pool::BioPool;
pub use bio::{AdvanceError, Bio, INLINE_SEGMENTS};
#[cfg(feature = "std")]
pub use clock::MonotonicClock;
pub use clock::{Clock, ManualClock, Nanos};
pub use copy::Span;
pub use counters::QueueCounters;
pub use dev::bounce::{Bounce, BounceCounters, BounceError};
pub use dev::delay::{Delay, Latencies, Latency};
pub use dev::flakey::{Effect, Fault, Flakey, FlakeyCounters, NoFrames};
pub use dev::linear::{Linear, LinearError};
pub use dev::null::NullDevice;
pub use dev::null::blk::{NullBlk, NullCounters};
pub use dev::null::config::{CompletionMode, NullConfig, NullConfigError};
pub use dev::null::inject::{FaultAttr, FaultAttrError};
pub use dev::partition::{Partition, PartitionError};
#[cfg(feature = "std")]
pub use dev::pmem::{BeyondDevice, Pmem};
pub use dev::ram::Ram;
pub use dev::stripe::{Stripe, StripeError};
pub use dev::write_cache::{
    PowerCut, PowerCutReport, WriteBack, WriteCache, WriteCacheConfig, WriteCacheError,
};
pub use device::{Abort, BlockDevice, Submitted};
pub use failpoint::Failpoint;
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
pub use limits::segments::{DeviceSegments, device_segments};
pub use limits::stack::StackError;
pub use limits::{AtomicLimits, Features, LimitError, Limits, ZoneLimits};
#[cfg(feature = "std")]
pub use observe::blktrace::file::{BlkTrace, BlkTraceCreateError, BlkTraceWriteError};
pub use observe::blktrace::{
    DeviceNumber, DeviceNumberError, TraceReadError, TraceRecord, TraceRecords, TraceSource,
};
pub use observe::counts::EventCounts;
pub use observe::event::{Action, Event, Probe};
#[cfg(feature = "tracing")]
pub use observe::events::TracingProbe;
pub use observe::histogram::{Bucket, Histogram, OpHistograms};
pub use observe::rwbs::Rwbs;
pub use observe::stat::{DiskStat, StatCounters};
pub use op::{Op, UnknownOp};
pub use position::{BytePos, SECTOR_SIZE, Sector};
pub use priority::{Priority, PriorityClass, PriorityError};
pub use queue::admission::RejectReason;
pub use queue::context::{Context, Plug, Rejected};
pub use queue::stop::{Frozen, Quiesced};
pub use queue::{MAX_DEPTH, QueueConfig, QueueError, RequestQueue};
pub use request::data::{Data, Memory, MemorySegment, Segments};
pub use request::merge::{Incoming, Merge};
pub use request::nested::carry_out;
pub use request::{Done, QueueId, Request, Tag};
pub use sched::Elevator;
pub use sched::mq_deadline::{DeadlineSettings, MqDeadline};
pub use status::{BlkError, Failure};
pub use submit::{SubmitError, submit_sync};
pub use throttle::Throttle;
pub use zoned::{
    Zone, ZoneCond, ZoneConfig, ZoneConfigError, ZoneFault, ZoneFaultError, ZoneType, Zones,
};
