//! A trace on disk: `NAME.blktrace.0`, `NAME.blktrace.1`, ..., one file for each context.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use thiserror::Error;

use super::{DeviceNumber, TraceRecord, TraceSource};
use crate::clock::Nanos;
use crate::observe::event::{Event, Probe};

/// Bytes that are collected before they are written.
const BUFFER: usize = 64 << 10;

/// A [`Probe`] that writes a trace which `blkparse -i NAME`, `btt` and `iowatcher -t NAME` read.
///
/// There is one file for each context, with a lock of its own, so that contexts which run on threads
/// of their own do not wait for each other. An event of a context beyond the last goes to file
/// `context % contexts`.
///
/// Each record says which thread took the step, and a note before its first one in a file what that
/// thread is called, or the program if it has no name. The kernel does so by task, and `blkparse
/// -s` sums up by it.
///
/// Time never goes back within a file, whatever the order in which threads got there; and it is
/// never 0, which `blkparse` takes for "not known yet". Without a clock everything happens at 1 ns.
///
/// `iowatcher` keeps what it read in `NAME.dump` and looks there first: remove that when the trace is
/// made anew.
///
/// A failure to write (a full disk, say) stops the file it happened to, at the end of a record, and
/// nothing else. [`finish`](BlkTrace::finish) returns it; dropping the trace writes what is left as
/// well, but has nobody to tell.
///
/// ```
/// # fn main() -> Result<(), Box<dyn core::error::Error>> {
/// use pageless_block::{Action, BioFlags, BlkTrace, DeviceNumber, Event, Nanos, Op, Priority};
/// use pageless_block::{Probe, QueueId, Sector};
/// use pageless_pfn::ByteLen;
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path();
/// let trace = BlkTrace::create(directory, "ram0", DeviceNumber::try_new(1, 0)?, 2)?;
/// trace.event(&Event {
///     action: Action::Queue,
///     time: Nanos::new(1000),
///     queue: QueueId::new(0),
///     context: 1,
///     tag: None,
///     op: Op::Read,
///     flags: BioFlags::empty(),
///     priority: Priority::NONE,
///     sector: Sector::new(8),
///     len: ByteLen::new(4096),
///     error: None,
///     detail: 0,
/// });
/// trace.finish()?;
/// assert!(directory.join("ram0.blktrace.1").exists());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct BlkTrace {
    device: DeviceNumber,
    files: Box<[Context]>,
}

/// On cache lines of its own: another thread's lock next to it would be waited for, too.
#[derive(Debug)]
#[repr(align(128))]
struct Context(Mutex<Output>);

#[derive(Debug)]
struct Output {
    path: PathBuf,
    file: File,
    /// Whole records that are not written yet.
    buffer: Vec<u8>,
    /// How many they are.
    buffered: u64,
    /// Bytes that are written.
    written: u64,
    /// The thread of the last record; 0 before any.
    thread: u32,
    /// That of the last record.
    sequence: u32,
    /// That of the last record.
    time: Nanos,
    /// Records that came to nothing.
    lost: u64,
    failure: Option<io::Error>,
}

impl BlkTrace {
    /// Creates the files `NAME.blktrace.0` to `NAME.blktrace.{contexts - 1}` in `directory`, or
    /// empties those that are there. Those of a trace of the same name with more contexts are removed:
    /// `blkparse` would take them for a part of this one.
    ///
    /// # Errors
    /// [`BlkTraceCreateError`] says what to do differently.
    pub fn create(
        directory: &Path,
        name: &str,
        device: DeviceNumber,
        contexts: u16,
    ) -> Result<Self, BlkTraceCreateError> {
        if contexts == 0 {
            return Err(BlkTraceCreateError::NoContext);
        }
        if name.is_empty() || name.contains(['/', '\0']) {
            return Err(BlkTraceCreateError::Name {
                name: name.to_owned(),
            });
        }
        let path = |number: u32| directory.join(format!("{name}.blktrace.{number}"));
        let mut files = Vec::with_capacity(usize::from(contexts));
        for context in 0..contexts {
            let path = path(u32::from(context));
            let file = match File::create(&path) {
                Ok(file) => file,
                Err(source) => return Err(BlkTraceCreateError::Open { path, source }),
            };
            let mut output = Output::new(path, file);
            let source = TraceSource {
                device,
                pid: 0,
                cpu: u32::from(context),
                sequence: 0,
            };
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now = now.unwrap_or_default();
            // The format ends in 2106.
            let seconds = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
            output.put(&TraceRecord::timestamp(source, seconds, now.subsec_nanos()));
            files.push(Context(Mutex::new(output)));
        }
        // Reading stops at the first number that is missing.
        for number in u32::from(contexts).. {
            let path = path(number);
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(source) => return Err(BlkTraceCreateError::Stale { path, source }),
            }
        }
        Ok(Self {
            device,
            files: files.into_boxed_slice(),
        })
    }

    /// Adds a text, which `blkparse` prints as it stands: say, what the events after it belong to.
    pub fn message(&self, context: u16, time: Nanos, text: &str) {
        if let Some((cpu, mut output)) = self.output(context) {
            let time = output.not_before(time);
            let source = self.source(cpu, thread_id(), 0);
            output.put(&TraceRecord::message(source, time, format_args!("{text}")));
        }
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// [`BlkTraceWriteError`]: the first failure to write, now or before. Other files than the one it
    /// names may have failed, too; what it counts as lost is in all of them.
    pub fn finish(self) -> Result<(), BlkTraceWriteError> {
        let mut first = None;
        let mut lost = 0;
        for context in &self.files {
            let mut output = lock(&context.0);
            output.flush();
            lost += output.lost;
            if let Some(source) = output.failure.take()
                && first.is_none()
            {
                first = Some((output.path.clone(), source));
            }
        }
        match first {
            None => Ok(()),
            Some((path, source)) => Err(BlkTraceWriteError { path, lost, source }),
        }
    }

    /// The file for `context`, and its number. There always is one.
    fn output(&self, context: u16) -> Option<(u32, MutexGuard<'_, Output>)> {
        let number = usize::from(context).checked_rem(self.files.len())?;
        let file = self.files.get(number)?;
        Some((u32::try_from(number).ok()?, lock(&file.0)))
    }

    const fn source(&self, cpu: u32, pid: u32, sequence: u32) -> TraceSource {
        TraceSource {
            device: self.device,
            pid,
            cpu,
            sequence,
        }
    }
}

impl Probe for BlkTrace {
    fn event(&self, event: &Event) {
        let Some((cpu, mut output)) = self.output(event.context) else {
            return;
        };
        let time = output.not_before(event.time);
        let thread = thread_id();
        if output.thread != thread {
            output.thread = thread;
            let source = self.source(cpu, thread, 0);
            output.put(&TraceRecord::process(source, &thread_name()));
        }
        // 32 bits, in the kernel as well: after 4 billion records of a file it starts again.
        let sequence = output.sequence.wrapping_add(1);
        let event = Event { time, ..*event };
        let record = TraceRecord::from_event(&event, self.source(cpu, thread, sequence));
        if !record.is_note() {
            output.sequence = sequence;
        }
        output.put(&record);
    }
}

impl Drop for BlkTrace {
    fn drop(&mut self) {
        for context in &self.files {
            lock(&context.0).flush();
        }
    }
}

impl Output {
    fn new(path: PathBuf, file: File) -> Self {
        Self {
            path,
            file,
            buffer: Vec::with_capacity(BUFFER),
            buffered: 0,
            written: 0,
            thread: 0,
            sequence: 0,
            time: Nanos::new(1),
            lost: 0,
            failure: None,
        }
    }

    /// `time`, or that of the last record if that was later.
    fn not_before(&mut self, time: Nanos) -> Nanos {
        self.time = self.time.max(time);
        self.time
    }

    fn put(&mut self, record: &TraceRecord) {
        if self.buffer.len() + TraceRecord::MAX > BUFFER {
            self.flush();
        }
        if self.failure.is_some() {
            self.lost += 1;
            return;
        }
        let mut bytes = [0; TraceRecord::MAX];
        let len = record.encode(&mut bytes);
        self.buffer
            .extend_from_slice(bytes.get(..len).unwrap_or(&bytes));
        self.buffered += 1;
    }

    /// Writes what is buffered; once that has failed, nothing more.
    fn flush(&mut self) {
        let records = mem::take(&mut self.buffered);
        if self.failure.is_none() && !self.buffer.is_empty() {
            match self.file.write_all(&self.buffer) {
                Ok(()) => self.written += self.buffer.len() as u64,
                Err(error) => {
                    // A part of it may be there, up to the middle of a record. If it cannot be cut
                    // off, readers find a truncated record, which they know.
                    let _ = self.file.set_len(self.written);
                    self.failure = Some(error);
                    self.lost += records;
                }
            }
        }
        self.buffer.clear();
    }
}

/// A thread that panicked while it held the lock left at worst a record less.
fn lock(output: &Mutex<Output>) -> MutexGuard<'_, Output> {
    output.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The kernel's number of this thread, asked for once; the process's while the thread goes down.
fn thread_id() -> u32 {
    std::thread_local! {
        static ID: u32 = rustix::thread::gettid().as_raw_pid().cast_unsigned();
    }
    ID.try_with(|id| *id).unwrap_or_else(|_| std::process::id())
}

/// What this thread is called, or the program: the main thread's name says nothing.
fn thread_name() -> String {
    match std::thread::current().name() {
        Some(name) if name != "main" => name.to_owned(),
        _ => {
            let program = std::env::current_exe().unwrap_or_default();
            let name = program.file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        }
    }
}

/// Why there is no trace.
#[derive(Debug, Error)]
pub enum BlkTraceCreateError {
    /// At least one context is needed.
    #[error("a trace of 0 contexts")]
    NoContext,
    /// The name must be the beginning of a file's name.
    #[error("{name:?} is no name for a trace: it must not be empty nor contain '/' or a zero byte")]
    Name {
        /// The name asked for.
        name: String,
    },
    /// A file cannot be created.
    #[error("cannot create {}: {source}", path.display())]
    Open {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of an earlier trace of that name is in the way.
    #[error("cannot remove {}, which is of another trace: {source}", path.display())]
    Stale {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A trace that is not complete.
#[derive(Debug, Error)]
#[error("cannot write {}: {source}; {lost} records of the trace are lost", path.display())]
pub struct BlkTraceWriteError {
    /// The first file that failed.
    pub path: PathBuf,
    /// Records that are in no file, of this one and others.
    pub lost: u64,
    /// Why.
    pub source: io::Error,
}
