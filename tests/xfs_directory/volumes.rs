//! Volumes with one large directory, made without being mounted.

use core::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::tool::told;

/// Bytes of an image, nearly all of them a hole. `mkfs.xfs` makes none below 300 MiB.
const SIZE: u64 = 512 << 20;

/// How a volume is to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocks {
    /// Bytes of a block.
    pub(crate) block: u32,
    /// Bytes of a directory block.
    pub(crate) directory: u32,
}

/// Directory blocks of 16 blocks.
pub(crate) const LARGE: Blocks = Blocks {
    block: 4096,
    directory: 65_536,
};

/// Makes an image in `at` whose directory `/big` has `names`. `None` if there is no `mkfs.xfs`.
pub(crate) fn volume(at: &Path, blocks: Blocks, names: &[String]) -> Option<PathBuf> {
    volume_with(at, blocks, names, "size=512")
}

/// The same with other `inodes`, as `mkfs.xfs -i` takes it.
pub(crate) fn volume_with(
    at: &Path,
    blocks: Blocks,
    names: &[String],
    inodes: &str,
) -> Option<PathBuf> {
    let mut prototype = String::from("/\n0 0\nd--755 0 0\nbig d--755 0 0\n");
    for name in names {
        writeln!(prototype, "{name} ---644 0 0 /dev/null").unwrap();
    }
    prototype.push_str("$\n$\n");
    let (image, described) = (at.join("image"), at.join("prototype"));
    fs::write(&described, prototype).unwrap();
    File::create(&image).unwrap().set_len(SIZE).unwrap();
    let block = format!("size={}", blocks.block);
    let directory = format!("size={}", blocks.directory);
    // Which extent belongs to whom stands in the inode alone: that is what scattering rewrites.
    let arguments: [&dyn AsRef<std::ffi::OsStr>; 13] = [
        &"-q",
        &"-i",
        &inodes,
        &"-b",
        &block,
        &"-n",
        &directory,
        &"-m",
        &"rmapbt=0",
        &"-p",
        &described,
        &"-f",
        &image,
    ];
    told("mkfs.xfs", &arguments)?;
    Some(image)
}

/// `count` names of some length.
pub(crate) fn names(count: usize) -> Vec<String> {
    let name = |nth| format!("entry-{nth:05}-of-a-directory-that-is-large");
    (0..count).map(name).collect()
}
