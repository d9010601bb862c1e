//! What a null device is told: null_blk's parameters.

use core::time::Duration;

use pageless_pfn::{ByteLen, PAGE_SIZE};
use thiserror::Error;

use super::inject::{FaultAttr, FaultAttrError};
use crate::badblocks::BadBlocks;
use crate::limits::{Features, LimitError, Limits};
use crate::position::SECTOR_SIZE;
use crate::zoned::{ZoneConfig, ZoneConfigError};

/// When a request that has been carried out is completed (`irqmode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CompletionMode {
    /// At once, in the call that submits it (`irqmode=0`).
    None,
    /// By the next poll (`irqmode=1`, null_blk's default).
    #[default]
    Softirq,
    /// By the first poll after so much time (`irqmode=2` and `completion_nsec`).
    Timer(Duration),
}

impl CompletionMode {
    /// null_blk's `completion_nsec` where nothing is said.
    pub const DEFAULT_TIMER: Self = Self::Timer(Duration::from_nanos(10_000));
}

/// The knobs of null_blk (drivers/block/null_blk), with its defaults but for the size. Change
/// fields, then make a [`NullBlk`](super::blk::NullBlk) of it.
///
/// | null_blk | here |
/// |---|---|
/// | `irqmode`, `completion_nsec` | [`completion`](Self::completion) |
/// | `gb` | [`capacity`](Self::capacity) |
/// | `bs`, `max_sectors`, `virt_boundary` | the same |
/// | `submit_queues`, `hw_queue_depth` | the same |
/// | `memory_backed`, `discard`, `blocking` | the same |
/// | `cache_size`, `fua` | [`write_cache`](Self::write_cache), `fua` |
/// | `mbps` | the same |
/// | `badblocks`, `badblocks_once`, `badblocks_partial_io` | the same |
/// | `timeout`, `requeue` | [`timeouts`](Self::timeouts), [`requeues`](Self::requeues), and a seed |
/// | `zoned`, `zone_*` | [`zoned`](Self::zoned) |
/// | `zone_readonly`, `zone_offline` | [`NullBlk::set_zone_condition`](super::blk::NullBlk::set_zone_condition) |
/// | `queue_mode`, `no_sched`, `shared_tags`, `poll_queues` | the queue's, see `QueueConfig` |
/// | `home_node`, `use_per_node_hctx`, `init_hctx` | nothing: there are no nodes, and queues need nothing of the device |
#[derive(Clone, Debug)]
pub struct NullConfig {
    /// Its size.
    pub capacity: ByteLen,
    /// Its logical block, from 512 to 4096 bytes.
    pub bs: ByteLen,
    /// The longest request in sectors; 0 for no limit.
    pub max_sectors: u32,
    /// Whether segments meet at multiples of the frame size only.
    pub virt_boundary: bool,
    /// Hardware queues with faults of their own. Further ones share one more.
    pub submit_queues: u16,
    /// How many requests of a hardware queue it keeps at a time; more are told that it is busy.
    pub hw_queue_depth: u16,
    /// When requests are completed.
    pub completion: CompletionMode,
    /// Whether what was written is read back. Otherwise no bytes move.
    pub memory_backed: bool,
    /// Whether it can discard. Needs memory, and no zones.
    pub discard: bool,
    /// Whether submitting may wait: a throttled request then does so instead of coming back, and
    /// `NOWAIT` is refused.
    pub blocking: bool,
    /// Whether it has a volatile write cache, by its own account: what was written is never lost.
    pub write_cache: bool,
    /// Whether it takes FUA, if it has a cache.
    pub fua: bool,
    /// MiB in a second; 0 for no limit.
    pub mbps: u32,
    /// The sectors that are bad at first.
    pub badblocks: BadBlocks,
    /// Whether bad sectors become good as soon as something has failed on them.
    pub badblocks_once: bool,
    /// Whether the blocks before the first bad sector are carried out all the same.
    pub badblocks_partial_io: bool,
    /// Requests that are never completed until they are aborted.
    pub timeouts: FaultAttr,
    /// Requests that come back as if the device were busy.
    pub requeues: FaultAttr,
    /// What the faults follow from. Each hardware queue has a stream of its own: the same requests
    /// in the same order get the same faults, whatever other threads do.
    pub seed: u64,
    /// Its zones. Their capacity is taken to be the device's.
    pub zoned: Option<ZoneConfig>,
}

impl NullConfig {
    /// A device of this size, as null_blk makes it where nothing else is said.
    pub const fn new(capacity: ByteLen) -> Self {
        Self {
            capacity,
            bs: ByteLen::new(SECTOR_SIZE),
            max_sectors: 0,
            virt_boundary: false,
            submit_queues: 1,
            hw_queue_depth: 64,
            completion: CompletionMode::Softirq,
            memory_backed: false,
            discard: false,
            blocking: false,
            write_cache: false,
            fua: true,
            mbps: 0,
            badblocks: BadBlocks::new(),
            badblocks_once: false,
            badblocks_partial_io: false,
            timeouts: FaultAttr::NEVER,
            requeues: FaultAttr::NEVER,
            seed: 0,
            zoned: None,
        }
    }

    /// The limits of such a device.
    ///
    /// # Errors
    /// [`NullConfigError`] if the fields do not go together.
    pub fn limits(&self) -> Result<Limits, NullConfigError> {
        if self.submit_queues == 0 || self.hw_queue_depth == 0 {
            return Err(NullConfigError::NoQueues {
                submit_queues: self.submit_queues,
                hw_queue_depth: self.hw_queue_depth,
            });
        }
        if self.bs.get() > PAGE_SIZE {
            return Err(NullConfigError::Block { bs: self.bs });
        }
        for (what, attr) in [("timeouts", &self.timeouts), ("requeues", &self.requeues)] {
            attr.validate()
                .map_err(|error| NullConfigError::Fault { what, error })?;
        }
        let mut limits = Limits::new(self.capacity);
        limits.logical_block = self.bs;
        limits.physical_block = self.bs;
        limits.io_min = self.bs;
        limits.discard_granularity = self.bs;
        limits.max_request = match self.max_sectors {
            0 => ByteLen::new(Limits::UNLIMITED.get() / PAGE_SIZE * PAGE_SIZE),
            sectors => ByteLen::new(u64::from(sectors) * SECTOR_SIZE),
        };
        if self.virt_boundary {
            limits.virt_boundary = Some(ByteLen::new(PAGE_SIZE));
        }
        limits.features |= Features::POLL;
        if !self.blocking {
            limits.features |= Features::NOWAIT;
        }
        if self.write_cache {
            limits.features |= Features::WRITE_CACHE;
            limits.features.set(Features::FUA, self.fua);
        }
        if self.discard {
            if !self.memory_backed || self.zoned.is_some() {
                return Err(NullConfigError::Discard {
                    memory_backed: self.memory_backed,
                    zoned: self.zoned.is_some(),
                });
            }
            limits.max_discard = Limits::UNLIMITED;
        }
        if let Some(zones) = self.zones() {
            zones.validate()?;
            if !zones
                .zone_capacity
                .get()
                .is_multiple_of(self.bs.get().max(1))
            {
                return Err(NullConfigError::ZoneCapacity {
                    zone_capacity: zones.zone_capacity,
                    bs: self.bs,
                });
            }
            limits.zones = Some(zones.limits());
            limits.chunk = Some(zones.zone_size);
            limits.features |= Features::ZONED;
        }
        limits.validate()?;
        Ok(limits)
    }

    /// The zones, with the device's capacity.
    pub(super) fn zones(&self) -> Option<ZoneConfig> {
        self.zoned.map(|zones| ZoneConfig {
            capacity: self.capacity,
            ..zones
        })
    }
}

/// Knobs that do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NullConfigError {
    /// Nothing could be submitted.
    #[error("{submit_queues} queues of depth {hw_queue_depth}: must be at least one of one")]
    NoQueues {
        /// The number of queues.
        submit_queues: u16,
        /// Their depth.
        hw_queue_depth: u16,
    },
    /// A block longer than a frame.
    #[error("bs is {bs}: must be at most {PAGE_SIZE} bytes")]
    Block {
        /// What it is.
        bs: ByteLen,
    },
    /// There is nothing to discard, or zones are emptied instead. null_blk says so and goes on
    /// without.
    #[error("discard needs memory_backed ({memory_backed}), and no zones ({zoned})")]
    Discard {
        /// Whether there is memory.
        memory_backed: bool,
        /// Whether there are zones.
        zoned: bool,
    },
    /// Zones that could never be filled.
    #[error("zones that hold {zone_capacity}: must be a multiple of the block of {bs}")]
    ZoneCapacity {
        /// How much of a zone can be written.
        zone_capacity: ByteLen,
        /// The logical block.
        bs: ByteLen,
    },
    /// A fault's attribute makes no sense.
    #[error("{what}: {error}")]
    Fault {
        /// Which one.
        what: &'static str,
        /// What is wrong with it.
        error: FaultAttrError,
    },
    /// The zones make no sense.
    #[error(transparent)]
    Zones(#[from] ZoneConfigError),
    /// The limits make no sense.
    #[error(transparent)]
    Limits(#[from] LimitError),
}
