//! A volume that was in use when its machine stopped: `interrupted.tar.xz`, made by `make-interrupted`.
//!
//! Its directory `/scattered` has blocks of 64 KiB, each in six or seven pieces, and its log has changes to them that are nowhere else.

use std::path::{Path, PathBuf};

use crate::tool::told;

const ARCHIVE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/xfs_directory/interrupted.tar.xz"
);

/// Unpacks the volume in `at`. `None` if there is no `tar` or no `xz`.
pub(crate) fn interrupted(at: &Path) -> Option<PathBuf> {
    told("xz", &[&"--version"])?;
    told("tar", &[&"-xJf", &ARCHIVE, &"-C", &at])?;
    Some(at.join("interrupted"))
}

/// The names that were in the directory when the machine had stopped writing to it, sorted: what the script did.
pub(crate) fn names() -> Vec<String> {
    let mut names = Vec::new();
    for nth in 0..12_000 {
        let name = format!("e{nth:05}");
        match nth % 90 {
            0 => names.push(format!("moved{nth:05}")),
            4 => {}
            5 => names.extend([format!("{name}-second"), name]),
            _ => names.push(name),
        }
    }
    names.sort_unstable();
    names
}

/// The names that were in it when it was mounted for the last time.
pub(crate) fn names_before() -> Vec<String> {
    (0..12_000).map(|nth| format!("e{nth:05}")).collect()
}
