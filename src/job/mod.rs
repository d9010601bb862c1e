//! Job files: fio's syntax, its options, and the workloads they describe.
//!
//! ```text
//!   text --ini--> RawSection --section--> Section --plan--> Plan (areas, groups, threads)
//!                 owns lines              owns values       owns where each thread works
//! ```
//!
//! Each step owns its result and borrows nothing from the step before. A [`Plan`] is immutable:
//! every run of it, whichever way, starts from the same values and so issues the same requests.
//!
//! ```
//! use pageless::job::{IniFile, Job, PlanOptions};
//!
//! let text = "[a]\nrw=randread\nsize=1m\nbs=4k\n";
//! let job = Job::from_ini(&IniFile::parse("a.fio", text, |_| None)?)?;
//! let plan = job.plan(&PlanOptions::default())?;
//! assert_eq!(plan.device_size().get(), 1 << 20);
//! # Ok::<(), pageless::job::JobError>(())
//! ```

mod direction;
mod error;
mod ini;
mod nearest;
mod options;
mod plan;
mod quote;
mod section;
mod size;
mod time;
pub mod verify;
pub mod workload;

pub use direction::{Direction, PerDirection};
pub use error::{JobError, JobErrorKind, Place, ValueError};
pub use ini::{Entry, IniFile, RawSection};
pub use nearest::nearest;
pub use options::{Known, Opt, honoured_names, lookup};
pub use plan::{Area, Group, Plan, PlanOptions, ThreadPlan};
pub use quote::{Shown, escaped, shown};
pub use section::{Job, Section, StartDelay, ThinkTime, VerifyOptions};
pub use size::{Bytes, Extent, KbBase, command_line_size, job_extent, job_size};
pub use time::{BareUnit, job_time};
