//! Running a planned job, one way after the other.
//!
//! ```text
//!   Plan --+                 owns: device frames, RAM frames of the buffers
//!          +--> Stage --run::<P>--> WayReport   (once for each way; P: DescriptorPins)
//!   P -----+        |
//!                   +-- one thread per ThreadPlan: its Queue, its Generator, its slots
//!                         slot = buffer + Held; filled at submission, emptied at completion
//! ```
//!
//! The stage owns what all ways share: the same device, the same buffers, warmed once. A way
//! differs from another only in its [`DescriptorPins`], and the engine is monomorphised over it,
//! so that the way that pins nothing contains no trace of pinning.
//!
//! ```
//! use pageless::job::{IniFile, Job, PlanOptions};
//! use pageless::run::{Control, NoPins, Stage, StageOptions, Way};
//!
//! let text = "[a]\nrw=randwrite\nsize=1m\nbs=4k\n";
//! let job = Job::from_ini(&IniFile::parse("a.fio", text, |_| None)?)?;
//! let plan = job.plan(&PlanOptions::default())?;
//! let stage = Stage::prepare(&plan, &StageOptions::default())?;
//! let report = stage.run(Way::Pfn, &NoPins, &Control::default(), &mut ())?;
//! assert_eq!(report.sections[0].directions.iter().map(|d| d.ios).sum::<u64>(), 256);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```

mod attach;
mod clock;
mod cpu;
mod gate;
mod json;
mod pins;
mod progress;
mod report;
mod stage;
mod starvation;
mod stats;
mod table;
mod thread;
mod trace;
mod way;

pub use attach::{
    AttachWayError, EagerPins, JobReport, LazyPins, MemmapOptions, available_memory, run_job,
};
pub use cpu::CpuUse;
pub use json::{JsonContext, to_json};
pub use pins::{DescriptorPins, MemmapCounters, NoPins, PinError};
pub use progress::{Bar, Observe, Tick};
pub use report::{Failure, FailureKind, MemmapReport, SectionReport, WayReport};
pub use stage::{Control, RunError, Stage, StageError, StageOptions};
pub use stats::{DirectionStats, Latencies, Samples};
pub use table::{table, terminal_width, verdicts};
pub use way::{Way, Ways};
