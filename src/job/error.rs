//! What can be wrong with a job file, always with file, line and value.

use std::io;

use alloc::sync::Arc;

use thiserror::Error;

use super::quote::{escaped, shown};

/// A line of a job file; line 0 is the file as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    file: Arc<str>,
    line: u32,
}

impl Place {
    /// The place of line `line` (counted from 1) of `file`.
    #[must_use]
    pub const fn new(file: Arc<str>, line: u32) -> Self {
        Self { file, line }
    }

    /// The file's name as the user gave it.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line, counted from 1; 0 stands for the whole file.
    #[must_use]
    pub const fn line(&self) -> u32 {
        self.line
    }

    /// Makes an error of `kind` at this place.
    #[must_use]
    pub fn error(&self, kind: JobErrorKind) -> JobError {
        JobError {
            place: self.clone(),
            kind: Box::new(kind),
        }
    }
}

impl core::fmt::Display for Place {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.line == 0 {
            write!(f, "{}", escaped(&self.file))
        } else {
            write!(f, "{}:{}", escaped(&self.file), self.line)
        }
    }
}

/// A job file that cannot be run, and the line that is to blame.
#[derive(Debug, Error)]
#[error("{place}: {kind}")]
pub struct JobError {
    place: Place,
    kind: Box<JobErrorKind>,
}

impl JobError {
    /// Where the mistake stands.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// What the mistake is.
    #[must_use]
    pub fn kind(&self) -> &JobErrorKind {
        &self.kind
    }
}

/// The kinds of mistakes, each with the text it is about.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JobErrorKind {
    /// The file could not be read at all.
    #[error("cannot read the job file: {0}")]
    Unreadable(#[source] io::Error),
    /// The file holds something other than text.
    #[error("the job file is not UTF-8 text")]
    NotText,
    /// A `[` without its `]`, or text behind it.
    #[error("`{}` is not a section header: write `[name]`", shown(.0))]
    BadHeader(String),
    /// `[]`.
    #[error("a section needs a name: write `[name]`")]
    NamelessSection,
    /// An option before the first section header.
    #[error("option `{}` stands before the first section: put `[global]` or `[name]` above it", shown(.0))]
    OutsideSection(String),
    /// `include`, which fio replaces by another file.
    #[error("fio's `include` is not supported: put the other file's sections into this one")]
    Include,
    /// There is nothing to run.
    #[error("no job in this file: it needs at least one section besides `[global]`")]
    NoJob,
    /// A line such as `=4`.
    #[error("`{}` has no option name in front of `=`", shown(.0))]
    NoName(String),
    /// Blanks beside `=`, which fio takes for a part of the name or value.
    #[error("blanks around `=` in `{}`: fio reads them as part of the value; write `key=value`", shown(.0))]
    BlankAroundEquals(String),
    /// `${NAME}` is not set.
    #[error("environment variable `{}` is not set", shown(.0))]
    UnsetVariable(String),
    /// `${` without `}`.
    #[error("`{}` opens `${{` and never closes it", shown(.0))]
    OpenVariable(String),
    /// Not an option of fio.
    #[error("unknown option `{}`{}", shown(.name), .nearest.map(|n| format!(": the nearest known one is `{n}`")).unwrap_or_default())]
    UnknownOption {
        /// What stands in the file.
        name: String,
        /// The known name that looks most like it.
        nearest: Option<&'static str>,
    },
    /// An option of fio that changes the workload and that is not implemented.
    #[error(
        "option `{0}` is fio's, but not implemented here, and leaving it out would change the workload"
    )]
    NotImplemented(String),
    /// A value that the option cannot take.
    #[error("{}={}: {why}", shown(.option), shown(.value))]
    BadValue {
        /// The option's name in the file.
        option: String,
        /// Its value in the file.
        value: String,
        /// What is wrong with it.
        why: ValueError,
    },
    /// An option that needs `=value` stands alone.
    #[error("option `{0}` needs a value: write `{0}=...`")]
    MissingValue(String),
    /// Two options of a section that cannot both hold, or one that lacks another.
    #[error("section [{}]: {what}", shown(.section))]
    Contradiction {
        /// The section's name.
        section: String,
        /// The contradiction, with its numbers.
        what: String,
    },
}

/// Why a value does not fit its option.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum ValueError {
    /// Nothing stands behind `=`.
    #[error("no value")]
    Empty,
    /// It does not begin with a digit.
    #[error("not a number")]
    NotANumber,
    /// A number with something behind it that is no known unit.
    #[error("`{}` is no unit (fio would silently read it as {read})", shown(.rest))]
    UnknownUnit {
        /// The text behind the digits.
        rest: String,
        /// What fio makes of the value.
        read: String,
    },
    /// A fraction where fio reads whole numbers only.
    #[error("fractions are not read here (fio would silently read it as {read}); write {instead}")]
    Fraction {
        /// What fio makes of the value.
        read: String,
        /// How to say it.
        instead: &'static str,
    },
    /// More than 64 bits.
    #[error("does not fit 64 bits")]
    TooLarge,
    /// Outside the option's range.
    #[error("must be between {low} and {high}")]
    OutOfRange {
        /// The least value allowed.
        low: String,
        /// The greatest value allowed.
        high: String,
    },
    /// Not one of the words the option knows.
    #[error("must be one of {0}")]
    NotOneOf(&'static str),
    /// A shape other than the option's.
    #[error("must look like {0}")]
    Shape(&'static str),
    /// Not whole sectors.
    #[error("must be a multiple of the 512-byte sector")]
    PartialSector,
    /// A value that fio takes and that is not implemented.
    #[error("{0}")]
    Unsupported(&'static str),
    /// More parts than directions.
    #[error("at most three parts: reads, writes, trims")]
    TooManyParts,
    /// Percentages that exceed 100, or do not reach it.
    #[error("the percentages add up to {sum}, {must}")]
    PercentSum {
        /// The sum.
        sum: f64,
        /// What it must be.
        must: &'static str,
    },
}
