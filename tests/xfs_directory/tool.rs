//! Tools that somebody else wrote.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

use crate::xfs::log::State;

/// Where tools are that are not on everybody's path.
const SYSTEM: &str = "/usr/sbin";

/// Runs `program`; `None`, and a line that says so, if there is none.
pub(crate) fn tool(program: &str, arguments: &[&dyn AsRef<OsStr>]) -> Option<Output> {
    let run = |program: &Path| {
        let arguments = arguments.iter().map(|argument| argument.as_ref());
        Command::new(program).args(arguments).output()
    };
    match run(Path::new(program)).or_else(|_| run(&Path::new(SYSTEM).join(program))) {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("SKIPPED: cannot run {program} (packages xfsprogs, xz-utils): {error}");
            None
        }
    }
}

/// What `program` says, which has to succeed.
pub(crate) fn told(program: &str, arguments: &[&dyn AsRef<OsStr>]) -> Option<String> {
    let output = tool(program, arguments)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{program}: {}\n{}",
        output.status,
        text(&output.stderr)
    );
    Some(text(&output.stdout))
}

/// An entry as `xfs_db` lists it: name, inode, hash.
pub(crate) type Listed = (Vec<u8>, u64, u32);

/// The entries that `xfs_db` finds in a directory, sorted by name.
pub(crate) fn listed(image: &Path, path: &str) -> Option<Vec<Listed>> {
    let path = format!("path {path}");
    let text = told("xfs_db", &[&"-r", &"-c", &path, &"-c", &"ls", &image])?;
    let entry = |line: &str| {
        // Place, inode, type, hash, length, name, and whether the hash is right.
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, inode, _, hash, _, name, "(good)"] = words[..] else {
            panic!("xfs_db says {line:?}");
        };
        let hash = u32::from_str_radix(hash.trim_start_matches("0x"), 16).unwrap();
        (name.as_bytes().to_vec(), inode.parse().unwrap(), hash)
    };
    let mut all: Vec<Listed> = text.lines().map(entry).collect();
    all.sort();
    Some(all)
}

/// `xfs_repair` has to find nothing that it would repair. A log with something in it, which it ignores, is enough for its status 1, but it has nothing to say about it.
pub(crate) fn assert_sound(image: &Path, state: State) {
    let Some(output) = tool("xfs_repair", &[&"-n", &image]) else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stderr);
    let expected = match state {
        State::Clean => 0,
        State::Dirty => 1,
    };
    assert_eq!(output.status.code(), Some(expected), "{text}");
    // It went all the way.
    assert!(text.contains("verify link counts"), "{text}");
    for complaint in ["would ", "bad ", "CRC error", "corrupt"] {
        assert!(!text.contains(complaint), "{text}");
    }
}
