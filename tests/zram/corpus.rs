//! Files that every Debian machine has.

use std::fs;
use std::path::{Path, PathBuf};

use pageless::vmap::compress::{PAGE, Page};

/// What must be there, or there is no corpus.
const LICENSES: &str = "/usr/share/common-licenses";

/// Text, code, tables, binaries, and what is compressed already.
const MORE: [&str; 6] = [
    "/usr/share/perl",
    "/usr/share/perl5",
    "/usr/share/zoneinfo",
    "/usr/bin",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/share/doc",
];

/// A file, in whole pages; the last is filled up with zeroes, as a page cache has it.
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) pages: Vec<Page>,
}

/// All of the licences, and up to `most` bytes from each of the other trees that exist. The same on each run. `None`, and a line that says
/// so, without licences.
pub(crate) fn files(most: usize) -> Option<Vec<File>> {
    let mut files = tree(Path::new(LICENSES), 1 << 30);
    if files.is_empty() {
        eprintln!(
            "SKIPPED: {LICENSES} has no files, so there is no corpus (Debian: package base-files)"
        );
        return None;
    }
    for dir in MORE {
        files.extend(tree(Path::new(dir), most));
    }
    Some(files)
}

/// Regular files of a tree by name, until there are `most` bytes.
fn tree(dir: &Path, most: usize) -> Vec<File> {
    let (mut files, mut bytes) = (Vec::new(), 0);
    let mut waiting = vec![dir.to_owned()];
    while let Some(path) = waiting.pop() {
        let Ok(kind) = fs::symlink_metadata(&path) else {
            continue;
        };
        if kind.is_dir() {
            let mut inside: Vec<_> = fs::read_dir(&path)
                .into_iter()
                .flatten()
                .filter_map(|entry| Some(entry.ok()?.path()))
                .collect();
            inside.sort_unstable_by(|a, b| b.cmp(a));
            waiting.extend(inside);
        } else if kind.is_file()
            && bytes < most
            && let Ok(content) = fs::read(&path)
        {
            let take = content.len().min((most - bytes).next_multiple_of(PAGE));
            bytes += take;
            files.push(File {
                path,
                pages: content[..take].chunks(PAGE).map(page).collect(),
            });
        }
    }
    files
}

fn page(bytes: &[u8]) -> Page {
    let mut page = [0; PAGE];
    page[..bytes.len()].copy_from_slice(bytes);
    page
}
