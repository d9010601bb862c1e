//! The ways with descriptors: a memmap that is faulted in, and one that is there from the start.

use core::time::Duration;
use std::time::Instant;

use pageless_fault::MaySleep;
use pageless_fault::host::HostMachine;
use pageless_memmap::{
    Budget, ChunkSize, ChunkSizeError, Config, DetachError, EagerMemmap, GetError, HostMemmap,
    Memmap, Pinned, eager_bytes,
};
use pageless_pfn::{PagedPfn, Pfn, PfnFlags, PfnRange, PfnT};
use thiserror::Error;

use super::pins::{DescriptorPins, MemmapCounters, NoPins, PinError};
use super::progress::Observe;
use super::report::WayReport;
use super::stage::{Control, RunError, Stage};
use super::way::{Way, Ways};
use crate::job::Bytes;

/// How the lazy memmap is attached.
#[derive(Debug, Clone, Copy, Default)]
pub struct MemmapOptions {
    /// Bytes of a chunk; none is 4 KiB.
    pub chunk: Option<Bytes>,
    /// The budget; none is a sixteenth of what the eager memmap would take, at most 64 MiB and at
    /// least 64 chunks.
    pub budget: Option<Bytes>,
}

impl MemmapOptions {
    /// The memmap's configuration for a device of so many frames.
    ///
    /// # Errors
    /// A chunk or a budget that a memmap cannot work with.
    pub fn config(&self, frames: u64) -> Result<Config, AttachWayError> {
        let chunk = match self.chunk {
            Some(bytes) => ChunkSize::try_new(bytes.get())?,
            None => ChunkSize::default(),
        };
        let default = (eager_bytes(frames).unwrap_or(u64::MAX) / 16)
            .clamp(64 * chunk.bytes(), (64 << 20).max(64 * chunk.bytes()));
        let bytes = self.budget.map_or(default, Bytes::get);
        let budget =
            Budget::new(bytes, chunk).map_err(|e| AttachWayError::Budget(e.to_string()))?;
        Ok(Config {
            chunk,
            budget,
            reserve_chunks: 0,
            // A walk fills 32 KiB of descriptors at a time: those of 2 MiB of device.
            fill_ahead: (32 << 10) / chunk.bytes(),
        })
    }
}

/// Why a way cannot be taken.
#[derive(Debug, Error)]
pub enum AttachWayError {
    /// `--chunk`.
    #[error(transparent)]
    Chunk(#[from] ChunkSizeError),
    /// `--budget`.
    #[error("{0}")]
    Budget(String),
    /// The machine.
    #[error("the {way} memmap cannot be attached: {why}")]
    Machine {
        /// Which.
        way: Way,
        /// What the machine says.
        why: String,
    },
    /// All descriptors together do not fit into memory.
    #[error(
        "the eager memmap of this device would take {}, and {} of memory are available",
        Bytes::new(*.needed),
        Bytes::new(*.available)
    )]
    EagerTooLarge {
        /// What it would take.
        needed: u64,
        /// What there is.
        available: u64,
    },
    /// Somebody still holds descriptors after the run.
    #[error("the {way} memmap cannot be detached: {why}")]
    Detach {
        /// Which.
        way: Way,
        /// Who holds what.
        why: DetachError,
    },
    /// The run itself.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// What the kernel says can be had without swapping, in bytes.
#[must_use]
pub fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace()
        .next()?
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

/// The flags of a device frame that a memmap covers.
const COVERED: PfnFlags = PfnFlags::DEV.union(PfnFlags::MAP);

fn paged(pfn: Pfn) -> Result<PagedPfn, PinError> {
    PfnT::new(pfn, COVERED)
        .paged()
        .map_err(|e| PinError::Broken(e.to_string()))
}

/// Pins through a memmap whose descriptors are faulted in and reclaimed.
#[derive(Debug)]
pub struct LazyPins {
    memmap: HostMemmap,
}

impl LazyPins {
    /// Attaches a memmap to `frames`.
    ///
    /// # Errors
    /// What the machine lacks.
    pub fn attach(frames: PfnRange, config: Config) -> Result<Self, AttachWayError> {
        let machine = |why: &dyn core::fmt::Display| AttachWayError::Machine {
            way: Way::Lazy,
            why: why.to_string(),
        };
        let host = HostMachine::new().map_err(|e| machine(&e))?;
        let memmap = Memmap::attach(&host, frames, config).map_err(|e| machine(&e))?;
        Ok(Self { memmap })
    }

    /// The memmap.
    #[must_use]
    pub const fn memmap(&self) -> &HostMemmap {
        &self.memmap
    }

    /// Takes all descriptors away.
    ///
    /// # Errors
    /// Who still holds some.
    pub fn detach(self) -> Result<(), AttachWayError> {
        self.memmap
            .detach_within(&MaySleep::claim(), Duration::from_secs(5))
            .map_err(|why| AttachWayError::Detach {
                way: Way::Lazy,
                why,
            })
    }
}

impl DescriptorPins for LazyPins {
    type Held = Vec<Pinned>;
    type Context = MaySleep;

    const PINS: bool = true;

    fn enter(&self) -> MaySleep {
        MaySleep::claim()
    }

    #[inline]
    fn pin(
        &self,
        context: &MaySleep,
        frames: PfnRange,
        held: &mut Vec<Pinned>,
    ) -> Result<(), PinError> {
        let lookup = self.memmap.lookup();
        for pfn in frames.iter() {
            match lookup.get(context, paged(pfn)?) {
                Ok(page) => held.push(page.into_pinned()),
                Err(error) => {
                    self.unpin(held);
                    return Err(match error {
                        GetError::BudgetPinned { .. } => PinError::Full(error.to_string()),
                        other => PinError::Broken(other.to_string()),
                    });
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn unpin(&self, held: &mut Vec<Pinned>) {
        for pinned in held.drain(..) {
            self.memmap.unpin(pinned);
        }
    }

    fn counters(&self) -> MemmapCounters {
        let books = self.memmap.counters();
        MemmapCounters {
            faults: books.faults,
            descriptor_bytes_peak: books.descriptor_bytes_peak,
            page_table_bytes_peak: books.page_table_bytes_peak,
            page_table_bytes: books.page_table_bytes,
            budget_bytes: self.memmap.budget().bytes(),
            populated: books.chunks_populated,
            reclaimed: books.chunks_reclaimed,
            shootdowns: books.shootdowns,
        }
    }

    fn begin_section(&self) {
        self.memmap.reset_peaks();
    }
}

/// Pins through a memmap that is in memory as a whole, as in Linux.
#[derive(Debug)]
pub struct EagerPins {
    memmap: EagerMemmap,
}

impl EagerPins {
    /// Populates a memmap of `frames`.
    ///
    /// # Errors
    /// [`AttachWayError::EagerTooLarge`] before anything is allocated; what the machine lacks.
    pub fn attach(frames: PfnRange) -> Result<Self, AttachWayError> {
        let needed = eager_bytes(frames.count().get()).unwrap_or(u64::MAX);
        let available = available_memory().unwrap_or(u64::MAX);
        if needed > available {
            return Err(AttachWayError::EagerTooLarge { needed, available });
        }
        let memmap = EagerMemmap::attach(frames).map_err(|e| AttachWayError::Machine {
            way: Way::Eager,
            why: e.to_string(),
        })?;
        Ok(Self { memmap })
    }

    /// The memmap.
    #[must_use]
    pub const fn memmap(&self) -> &EagerMemmap {
        &self.memmap
    }
}

impl DescriptorPins for EagerPins {
    type Held = Vec<Pinned>;
    type Context = ();

    const PINS: bool = true;

    fn enter(&self) {}

    #[inline]
    fn pin(&self, (): &(), frames: PfnRange, held: &mut Vec<Pinned>) -> Result<(), PinError> {
        let lookup = self.memmap.lookup();
        for pfn in frames.iter() {
            match lookup.get(paged(pfn)?) {
                Ok(page) => held.push(page.into_pinned()),
                Err(error) => {
                    self.unpin(held);
                    return Err(PinError::Broken(error.to_string()));
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn unpin(&self, held: &mut Vec<Pinned>) {
        for pinned in held.drain(..) {
            self.memmap.unpin(pinned);
        }
    }

    fn counters(&self) -> MemmapCounters {
        MemmapCounters {
            descriptor_bytes_peak: self.memmap.bytes(),
            ..MemmapCounters::default()
        }
    }

    fn begin_section(&self) {}
}

/// All ways of a job.
#[derive(Debug)]
pub struct JobReport {
    /// The ways that were taken, in order.
    pub ways: Vec<WayReport>,
    /// Ways that were left out, and why.
    pub left_out: Vec<(Way, AttachWayError)>,
    /// What an eager memmap of the device takes, in bytes.
    pub eager_memmap_bytes: u64,
}

/// Runs the stage's job each way: attach, all groups, detach.
///
/// # Errors
/// A way that cannot be taken, if it was asked for alone; whatever ends a run early.
pub fn run_job(
    stage: &Stage<'_>,
    ways: Ways,
    options: &MemmapOptions,
    control: &Control,
    observer: &mut impl Observe,
) -> Result<JobReport, AttachWayError> {
    let frames = stage.device_frames();
    let eager_memmap_bytes = eager_bytes(frames.count().get()).unwrap_or(u64::MAX);
    let config = options.config(frames.count().get())?;
    let mut report = JobReport {
        ways: Vec::new(),
        left_out: Vec::new(),
        eager_memmap_bytes,
    };
    for way in ways.iter() {
        if control.is_stopped() {
            break;
        }
        match run_way(stage, way, config, control, observer) {
            Ok(done) => report.ways.push(done),
            Err(
                error @ (AttachWayError::EagerTooLarge { .. } | AttachWayError::Machine { .. }),
            ) if ways == Ways::All => {
                report.left_out.push((way, error));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(report)
}

fn run_way(
    stage: &Stage<'_>,
    way: Way,
    config: Config,
    control: &Control,
    observer: &mut impl Observe,
) -> Result<WayReport, AttachWayError> {
    let frames = stage.device_frames();
    let begun = Instant::now();
    match way {
        Way::Pfn => Ok(stage.run(way, &NoPins, control, observer)?),
        Way::Lazy => {
            let pins = LazyPins::attach(frames, config)?;
            let attach = begun.elapsed();
            let report = stage.run(way, &pins, control, observer)?;
            let end = Instant::now();
            pins.detach()?;
            Ok(WayReport {
                attach,
                detach: end.elapsed(),
                ..report
            })
        }
        Way::Eager => {
            let pins = EagerPins::attach(frames)?;
            let attach = begun.elapsed();
            let report = stage.run(way, &pins, control, observer)?;
            let end = Instant::now();
            drop(pins);
            Ok(WayReport {
                attach,
                detach: end.elapsed(),
                ..report
            })
        }
    }
}
