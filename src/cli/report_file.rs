//! The file that a report goes to: opened before the run, written after it.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Error as IoError, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// An open file that keeps its contents until there are new ones. One that was made for the
/// report goes away again if there is none.
#[derive(Debug)]
pub(super) struct ReportFile {
    path: PathBuf,
    file: File,
    /// It was not there before, and nothing has been written to it.
    unused: bool,
}

/// Why there can be no report.
#[derive(Debug, Error)]
pub(super) enum ReportFileError {
    /// It cannot be opened or written.
    #[error("cannot write {}: {source}", path.display())]
    Unwritable {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: IoError,
    },
    /// Writing would destroy what the run reads.
    #[error("--json {}: this is the {what}", path.display())]
    Input {
        /// Where.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
}

impl ReportFile {
    /// Opens the file at `path`, which must be none of the `inputs`, by whatever name.
    pub(super) fn open(
        path: &Path,
        inputs: &[(&'static str, Option<&PathBuf>)],
    ) -> Result<Self, ReportFileError> {
        let unwritable = |source| ReportFileError::Unwritable {
            path: path.into(),
            source,
        };
        let made = OpenOptions::new().write(true).create_new(true).open(path);
        let (file, unused) = match made {
            Ok(file) => (file, true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let file = OpenOptions::new().write(true).open(path);
                (file.map_err(unwritable)?, false)
            }
            Err(error) => return Err(unwritable(error)),
        };
        let opened = Self {
            path: path.into(),
            file,
            unused,
        };
        let meta = opened.file.metadata().map_err(unwritable)?;
        for (what, input) in inputs {
            let input = input.and_then(|path| std::fs::metadata(path).ok());
            if input.is_some_and(|input| is_same(&input, &meta)) {
                return Err(ReportFileError::Input {
                    path: path.into(),
                    what,
                });
            }
        }
        Ok(opened)
    }

    /// Replaces what is in the file.
    pub(super) fn write(mut self, text: &str) -> Result<(), ReportFileError> {
        self.unused = false;
        let written = self.replace(text);
        written.map_err(|source| ReportFileError::Unwritable {
            path: self.path.clone(),
            source,
        })
    }

    fn replace(&mut self, text: &str) -> Result<(), IoError> {
        // A pipe or a terminal has no length.
        if self.file.metadata()?.is_file() {
            self.file.set_len(0)?;
        }
        self.file.write_all(text.as_bytes())
    }
}

impl Drop for ReportFile {
    fn drop(&mut self) {
        if self.unused {
            // Empty and ours. There is nobody to tell if it cannot be removed.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}
