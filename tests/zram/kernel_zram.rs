//! The kernel's own zram, where there is one that nobody uses.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;

use pageless::vmap::compress::{Algorithm, Page};
use pageless::zram::MmStat;

const DEVICE: &str = "/dev/zram0";
const SETTINGS: &str = "/sys/block/zram0";

/// What the lock file says while the device is configured: whoever finds it, and the device still configured, clears up behind a
/// process that was killed.
const IN_USE: &[u8] = b"configured\n";

/// `/dev/zram0`, for one process of ours at a time. Dropped, it is as it was found.
pub(crate) struct KernelZram {
    lock: File,
    algorithm: String,
}

impl KernelZram {
    /// The device, unless there is none, it is not ours to configure, or somebody uses it: then a line says so.
    pub(crate) fn claim() -> Option<Self> {
        match Self::try_claim() {
            Ok(device) => Some(device),
            Err(why) => {
                eprintln!("SKIPPED: nothing to compare with: {why}");
                None
            }
        }
    }

    fn try_claim() -> Result<Self, String> {
        if !Path::new(DEVICE).exists() || !Path::new(SETTINGS).exists() {
            return Err(format!("no {DEVICE}"));
        }
        let writable = OpenOptions::new().write(true).open(setting("reset"));
        writable.map_err(|error| format!("{DEVICE} is not ours to configure: {error}"))?;

        let path = std::env::temp_dir().join("pageless-zram0.lock");
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .and_then(|file| file.lock().map(|()| file));
        let mut lock = lock.map_err(|error| format!("{}: {error}", path.display()))?;
        let mut left = Vec::new();
        lock.read_to_end(&mut left)
            .map_err(|error| format!("{}: {error}", path.display()))?;

        let device = Self {
            lock,
            algorithm: chosen(&get("comp_algorithm")?).to_owned(),
        };
        match get("disksize")?.as_str() {
            "0" => {}
            _ if left == IN_USE => device.reset(),
            size => {
                // Somebody's: nothing is to be put back.
                core::mem::forget(device);
                return Err(format!("{DEVICE} is in use, with {size} bytes"));
            }
        }
        Ok(device)
    }

    /// What the kernel needs for these pages. `None`, and a line that says so, if it has no such compressor.
    pub(crate) fn store<'a>(
        &mut self,
        algorithm: Algorithm,
        pages: impl ExactSizeIterator<Item = &'a Page>,
    ) -> Option<MmStat> {
        let there = get("comp_algorithm").unwrap();
        if !names(&there).any(|name| name == algorithm.to_string()) {
            eprintln!("SKIPPED: the kernel's compressors are {there}, and not {algorithm}");
            return None;
        }
        self.mark(IN_USE);
        set("comp_algorithm", &algorithm.to_string());
        set("disksize", &(pages.len() * size_of::<Page>()).to_string());
        let mut file = OpenOptions::new().write(true).open(DEVICE).unwrap();
        for page in pages {
            file.write_all(page).unwrap();
        }
        file.sync_all().unwrap();
        drop(file);
        let stat = get("mm_stat").unwrap().parse().unwrap();
        self.reset();
        self.mark(b"");
        Some(stat)
    }

    fn mark(&mut self, content: &[u8]) {
        self.lock.set_len(0).unwrap();
        self.lock.rewind().unwrap();
        self.lock.write_all(content).unwrap();
    }

    /// Whoever watches for devices may have it open for a moment; then it is busy.
    fn reset(&self) {
        for _ in 0..100_000 {
            match fs::write(setting("reset"), "1") {
                Ok(()) => return,
                Err(_) => std::thread::yield_now(),
            }
        }
        eprintln!("{DEVICE} does not let itself be reset: it stays configured");
    }
}

impl Drop for KernelZram {
    fn drop(&mut self) {
        self.reset();
        // Not `set`: this may be on the way out of a panic.
        let restored = fs::write(setting("comp_algorithm"), &self.algorithm)
            .and_then(|()| self.lock.set_len(0));
        if let Err(error) = restored {
            eprintln!("{DEVICE} is not as it was: {error}");
        }
    }
}

fn setting(name: &str) -> String {
    format!("{SETTINGS}/{name}")
}

fn get(name: &str) -> Result<String, String> {
    let text = fs::read_to_string(setting(name)).map_err(|error| format!("{name}: {error}"))?;
    Ok(text.trim().to_owned())
}

fn set(name: &str, value: &str) {
    fs::write(setting(name), value).unwrap_or_else(|error| panic!("{name} = {value}: {error}"));
}

fn names(line: &str) -> impl Iterator<Item = &str> {
    line.split_ascii_whitespace()
        .map(|name| name.trim_matches(['[', ']']))
}

/// The one in brackets.
fn chosen(line: &str) -> &str {
    let named = line.split_ascii_whitespace();
    let chosen = named.into_iter().find(|name| name.starts_with('['));
    chosen.unwrap_or("lzo-rle").trim_matches(['[', ']'])
}
