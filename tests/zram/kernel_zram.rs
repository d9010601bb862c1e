//! The kernel's own zram, where there is one that nobody uses.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;

use pageless::vmap::compress::{Algorithm, Page};
use pageless::zram::MmStat;

const DEVICE: &str = "/dev/zram0";
const SETTINGS: &str = "/sys/block/zram0";

/// `/dev/zram0`, for one process of ours at a time. Dropped, it is as it was found.
pub(crate) struct KernelZram {
    lock: File,
    /// As it was.
    algorithm: String,
    /// By us, and not reset yet.
    configured: bool,
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
        let said = |error| format!("{}: {error}", path.display());
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .and_then(|file| file.lock().map(|()| file));
        let mut lock = lock.map_err(said)?;
        let mut left = String::new();
        lock.read_to_string(&mut left).map_err(said)?;

        let size = get("disksize")?;
        if size != "0" {
            // Whoever was killed while it was ours has left it so, since this machine was started.
            if left != mark()? {
                return Err(format!("{DEVICE} is in use, with {size} bytes"));
            }
            reset()?;
        }
        Ok(Self {
            lock,
            algorithm: chosen(&get("comp_algorithm")?).to_owned(),
            configured: false,
        })
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
        self.write_lock(&mark().unwrap());
        set("comp_algorithm", &algorithm.to_string());
        set("disksize", &(pages.len() * size_of::<Page>()).to_string());
        self.configured = true;
        let mut file = OpenOptions::new().write(true).open(DEVICE).unwrap();
        for page in pages {
            file.write_all(page).unwrap();
        }
        file.sync_all().unwrap();
        drop(file);
        let stat = get("mm_stat").unwrap().parse().unwrap();
        reset().unwrap();
        self.configured = false;
        self.write_lock("");
        Some(stat)
    }

    fn write_lock(&mut self, content: &str) {
        self.lock.set_len(0).unwrap();
        self.lock.rewind().unwrap();
        self.lock.write_all(content.as_bytes()).unwrap();
    }
}

impl Drop for KernelZram {
    /// This may be on the way out of a panic.
    fn drop(&mut self) {
        let clean = match self.configured {
            true => reset(),
            false => Ok(()),
        };
        let restored = clean.and_then(|()| {
            fs::write(setting("comp_algorithm"), &self.algorithm)
                .and_then(|()| self.lock.set_len(0))
                .map_err(|error| error.to_string())
        });
        if let Err(error) = restored {
            eprintln!("{DEVICE} is not as it was: {error}");
        }
    }
}

/// What the lock file says while the device is configured: in this run of the machine.
fn mark() -> Result<String, String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    boot.map_err(|error| format!("boot_id: {error}"))
}

/// Whoever watches for devices may have it open for a moment; then it is busy.
fn reset() -> Result<(), String> {
    let mut last = None;
    for _ in 0..100_000 {
        match fs::write(setting("reset"), "1") {
            Ok(()) => return Ok(()),
            Err(error) => last = Some(error),
        }
        std::thread::yield_now();
    }
    Err(format!("{DEVICE} does not let itself be reset: {last:?}"))
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
