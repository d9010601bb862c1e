//! Records of Linux' blktrace (include/uapi/linux/blktrace_api.h): 48 bytes and a payload.
//!
//! What is written here is what the kernel writes for the same step, so that `blkparse`, `btt` and
//! `iowatcher` need not know the difference. Numbers are little-endian, those in payloads of splits,
//! remaps and unplugs big-endian, as there.

use core::fmt::{self, Write as _};

use thiserror::Error;

use crate::clock::Nanos;
use crate::flags::BioFlags;
use crate::observe::event::{Action, Event};
use crate::op::Op;
use crate::position::{SECTOR_SIZE, Sector};

#[cfg(feature = "std")]
pub(crate) mod file;

/// `BLK_IO_TRACE_MAGIC` with `BLK_IO_TRACE_VERSION` in its low byte.
const MAGIC: u32 = 0x6561_7400 | VERSION as u32;
const VERSION: u8 = 7;

/// Bytes of a record without its payload.
const HEADER: usize = 48;

/// The longest payload: that of a message (`BLK_TN_MAX_MSG`).
const PAYLOAD: usize = 128;

/// Categories: the high half of a record's action (`BLK_TC_*`).
mod category {
    pub(super) const READ: u32 = 1 << 16;
    pub(super) const WRITE: u32 = 1 << 17;
    pub(super) const FLUSH: u32 = 1 << 18;
    pub(super) const SYNC: u32 = 1 << 19;
    pub(super) const QUEUE: u32 = 1 << 20;
    pub(super) const REQUEUE: u32 = 1 << 21;
    pub(super) const ISSUE: u32 = 1 << 22;
    pub(super) const COMPLETE: u32 = 1 << 23;
    /// A request of a file system, as opposed to one of a driver.
    pub(super) const FS: u32 = 1 << 24;
    /// A request of a driver ("packet command").
    pub(super) const PC: u32 = 1 << 25;
    pub(super) const NOTIFY: u32 = 1 << 26;
    pub(super) const AHEAD: u32 = 1 << 27;
    pub(super) const META: u32 = 1 << 28;
    pub(super) const DISCARD: u32 = 1 << 29;
    pub(super) const FUA: u32 = 1 << 31;
}

/// Notes: actions of the category NOTIFY (`BLK_TN_*`).
mod note {
    use super::category::NOTIFY;

    pub(super) const PROCESS: u32 = NOTIFY;
    pub(super) const TIMESTAMP: u32 = NOTIFY | 1;
    pub(super) const MESSAGE: u32 = NOTIFY | 2;
}

/// A device's major and minor number.
///
/// ```
/// use pageless_block::DeviceNumber;
/// let sda1 = DeviceNumber::try_new(8, 1)?;
/// assert_eq!(sda1.bits(), 8 << 20 | 1);
/// assert!(DeviceNumber::try_new(1 << 12, 0).is_err());
/// # Ok::<(), pageless_block::DeviceNumberError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceNumber(u32);

impl DeviceNumber {
    /// The device `major`:`minor`.
    ///
    /// # Errors
    /// [`DeviceNumberError`] for a major beyond 12 bits or a minor beyond 20.
    pub const fn try_new(major: u32, minor: u32) -> Result<Self, DeviceNumberError> {
        if major >> 12 != 0 || minor >> 20 != 0 {
            return Err(DeviceNumberError { major, minor });
        }
        Ok(Self(major << 20 | minor))
    }

    /// The kernel's number (`MKDEV`): the major from bit 20 on.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The major number.
    pub const fn major(self) -> u32 {
        self.0 >> 20
    }

    /// The minor number.
    pub const fn minor(self) -> u32 {
        self.0 & 0xf_ffff
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major(), self.minor())
    }
}

/// Numbers that no device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("device {major}:{minor}: the major must be below 4096, the minor below 1048576")]
pub struct DeviceNumberError {
    /// The major asked for.
    pub major: u32,
    /// The minor asked for.
    pub minor: u32,
}

/// Who writes a record: what an [`Event`] does not know of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceSource {
    /// The device.
    pub device: DeviceNumber,
    /// The process.
    pub pid: u32,
    /// The context, or CPU, whose file this goes to: `blkparse` insists that they agree.
    pub cpu: u32,
    /// One more than the last record of that file had; notes have none.
    pub sequence: u32,
}

/// One record of a trace (`struct blk_io_trace`).
///
/// ```
/// use pageless_block::{DeviceNumber, Nanos, TraceRecord, TraceSource};
/// let source = TraceSource {
///     device: DeviceNumber::try_new(8, 0)?,
///     pid: 1,
///     cpu: 0,
///     sequence: 0,
/// };
/// let record = TraceRecord::message(source, Nanos::new(5), format_args!("{} left", 3));
/// let mut bytes = [0; TraceRecord::MAX];
/// let len = record.encode(&mut bytes);
/// assert_eq!(TraceRecord::decode(&bytes[..len]), Ok((record, len)));
/// assert_eq!(record.payload(), b"3 left");
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceRecord {
    /// Where it came from.
    pub source: TraceSource,
    /// When.
    pub time: Nanos,
    /// Where on the device; 0 where the step is about no place.
    pub sector: Sector,
    /// How many bytes of the device, at most [`TraceRecord::MAX_BYTES`].
    pub bytes: u32,
    /// The step in the low half ([`Action`]), its categories (`BLK_TC_*`) in the high one.
    pub action: u32,
    /// 0, or an errno, negative.
    pub error: i16,
    payload: Payload,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Payload {
    /// What lies beyond `len` is zero.
    bytes: [u8; PAYLOAD],
    len: u8,
}

impl Payload {
    const NONE: Self = Self {
        bytes: [0; PAYLOAD],
        len: 0,
    };

    /// `from`, cut at [`PAYLOAD`] bytes.
    fn new(from: &[u8]) -> Self {
        let mut payload = Self::NONE;
        payload.append(from);
        payload
    }

    fn append(&mut self, more: &[u8]) {
        let free = self.bytes.get_mut(usize::from(self.len)..);
        for (place, &byte) in free.unwrap_or_default().iter_mut().zip(more) {
            *place = byte;
            self.len += 1;
        }
    }

    fn as_slice(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.len))
            .unwrap_or(&self.bytes)
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

/// Cut where the payload ends: a message is for people.
impl fmt::Write for Payload {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.append(text.as_bytes());
        Ok(())
    }
}

impl TraceRecord {
    /// Bytes of the longest record.
    pub const MAX: usize = HEADER + PAYLOAD;

    /// What is recorded of a longer event: the most whole sectors that 32 bits can say, 4 GiB - 512.
    /// No bio of the kernel's is longer; one of ours can be.
    pub const MAX_BYTES: u32 = u32::MAX - (SECTOR_SIZE as u32 - 1);

    /// What the kernel would have written for `event`.
    ///
    /// It has no record of an aborted request ([`Action::Abort`]), and `blkparse` knows none: that
    /// becomes a message.
    #[inline]
    pub fn from_event(event: &Event, source: TraceSource) -> Self {
        if event.action == Action::Abort {
            let sectors = event.len.get() / SECTOR_SIZE;
            let what = format_args!("abort {} {} + {sectors}", event.op, event.sector.get());
            return Self::message(source, event.time, what);
        }
        let mut record = Self {
            source,
            time: event.time,
            sector: event.sector,
            bytes: u32::try_from(event.len.get())
                .unwrap_or(Self::MAX_BYTES)
                .min(Self::MAX_BYTES),
            action: event.action as u32 | step(event),
            error: 0,
            payload: Payload::NONE,
        };
        // A context that holds back or lets go does so without a place, and without flags.
        if matches!(event.action, Action::Plug | Action::Unplug) {
            record.sector = Sector::new(0);
            record.bytes = 0;
            record.action |= category::READ;
        } else {
            record.action |= direction(event.op) | categories(event.flags);
        }
        // Where a driver's own request goes is between it and the device.
        if is_driver(event.op) {
            record.sector = Sector::new(0);
        }
        match event.action {
            Action::Complete => {
                // The largest is 121.
                let errno = event.error.map_or(0, |error| error.errno());
                record.error = i16::try_from(errno).unwrap_or(i16::MAX).wrapping_neg();
            }
            Action::Split | Action::Unplug => {
                record.payload = Payload::new(&event.detail.to_be_bytes());
            }
            Action::Remap => {
                // struct blk_io_trace_remap. An event knows one device only.
                let device = source.device.bits().to_be_bytes();
                record.payload.append(&device);
                record.payload.append(&device);
                record.payload.append(&event.detail.to_be_bytes());
            }
            _ => {}
        }
        record
    }

    /// The note that a process is called `name`. Only its first 15 bytes count, as for the kernel.
    pub fn process(source: TraceSource, name: &str) -> Self {
        let mut comm = [0; 16];
        for (place, byte) in comm.iter_mut().zip(name.bytes().take(15)) {
            *place = byte;
        }
        Self::note(source, Nanos::ZERO, note::PROCESS, Payload::new(&comm))
    }

    /// The note that the trace begins `seconds` and `nanos` after 1970 began.
    pub fn timestamp(source: TraceSource, seconds: u32, nanos: u32) -> Self {
        let mut payload = Payload::new(&seconds.to_le_bytes());
        payload.append(&nanos.to_le_bytes());
        Self::note(source, Nanos::ZERO, note::TIMESTAMP, payload)
    }

    /// A text, cut after 128 bytes.
    pub fn message(source: TraceSource, time: Nanos, text: fmt::Arguments<'_>) -> Self {
        let mut payload = Payload::NONE;
        // Writing to a payload never fails. What an argument's own formatting had to say before it
        // failed is better than nothing.
        let _ = payload.write_fmt(text);
        Self::note(source, time, note::MESSAGE, payload)
    }

    fn note(source: TraceSource, time: Nanos, action: u32, payload: Payload) -> Self {
        Self {
            source: TraceSource {
                sequence: 0,
                ..source
            },
            time,
            sector: Sector::new(0),
            bytes: 0,
            action,
            error: 0,
            payload,
        }
    }

    /// Whether this is about the trace, not about a step of the block layer. Notes have no sequence
    /// number.
    pub const fn is_note(&self) -> bool {
        self.action & category::NOTIFY != 0
    }

    /// Which step this is; `None` for a note, or if it is unknown here.
    pub fn step(&self) -> Option<Action> {
        let number = self.action & 0xffff;
        Action::ALL
            .into_iter()
            .find(|&action| action as u32 == number)
            .filter(|_| !self.is_note())
    }

    /// What follows the record's 48 bytes.
    pub fn payload(&self) -> &[u8] {
        self.payload.as_slice()
    }

    /// Writes the record to the beginning of `to`; returns how many bytes that took.
    #[inline]
    pub fn encode(&self, to: &mut [u8; Self::MAX]) -> usize {
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            for &byte in bytes {
                if let Some(place) = to.get_mut(at) {
                    *place = byte;
                }
                at += 1;
            }
        };
        put(&MAGIC.to_le_bytes());
        put(&self.source.sequence.to_le_bytes());
        put(&self.time.get().to_le_bytes());
        put(&self.sector.get().to_le_bytes());
        put(&self.bytes.to_le_bytes());
        put(&self.action.to_le_bytes());
        put(&self.source.pid.to_le_bytes());
        put(&self.source.device.bits().to_le_bytes());
        put(&self.source.cpu.to_le_bytes());
        put(&self.error.to_le_bytes());
        put(&u16::from(self.payload.len).to_le_bytes());
        put(self.payload());
        at
    }

    /// Reads the record at the beginning of `from`; returns it and how many bytes it took.
    ///
    /// # Errors
    /// [`TraceReadError`] says what is wrong with the bytes.
    pub fn decode(from: &[u8]) -> Result<(Self, usize), TraceReadError> {
        let short = |needed| TraceReadError::Truncated {
            needed,
            present: from.len(),
        };
        let mut header = Fields(from.get(..HEADER).ok_or(short(HEADER))?);
        let magic = header.u32();
        if magic != MAGIC {
            return Err(if magic.swap_bytes() == MAGIC {
                TraceReadError::BigEndian
            } else if magic & !0xff == MAGIC & !0xff {
                TraceReadError::Version { found: magic as u8 }
            } else {
                TraceReadError::NoRecord { magic }
            });
        }
        let sequence = header.u32();
        let time = Nanos::new(header.u64());
        let sector = Sector::new(header.u64());
        let bytes = header.u32();
        let action = header.u32();
        let pid = header.u32();
        let device = DeviceNumber(header.u32());
        let cpu = header.u32();
        let error = header.u16() as i16;
        let payload_len = usize::from(header.u16());
        if payload_len > PAYLOAD {
            return Err(TraceReadError::LongPayload { len: payload_len });
        }
        let len = HEADER + payload_len;
        let payload = Payload::new(from.get(HEADER..len).ok_or(short(len))?);
        let source = TraceSource {
            device,
            pid,
            cpu,
            sequence,
        };
        let record = Self {
            source,
            time,
            sector,
            bytes,
            action,
            error,
            payload,
        };
        Ok((record, len))
    }
}

/// Numbers read one after the other. Beyond the end they are 0.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn next<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => [0; N],
        }
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.next())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.next())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.next())
    }
}

/// The records of one trace file, until its end or the first that is none.
///
/// ```
/// use pageless_block::{TraceReadError, TraceRecords};
/// let mut records = TraceRecords::new(b"not a trace, whatever its name says it is: no record");
/// assert!(matches!(records.next(), Some(Err(TraceReadError::NoRecord { .. }))));
/// assert!(records.next().is_none());
/// ```
#[derive(Clone, Debug)]
pub struct TraceRecords<'a> {
    rest: &'a [u8],
}

impl<'a> TraceRecords<'a> {
    /// The records in `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl Iterator for TraceRecords<'_> {
    type Item = Result<TraceRecord, TraceReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let result = TraceRecord::decode(self.rest);
        // Nothing says where the next record would begin after one that is none.
        let taken = result.map_or(self.rest.len(), |(_, len)| len);
        self.rest = self.rest.get(taken..).unwrap_or_default();
        Some(result.map(|(record, _)| record))
    }
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TraceReadError {
    /// The file ends within a record: it was cut, or is still being written.
    #[error("the record is cut: {needed} bytes needed, {present} present")]
    Truncated {
        /// Bytes the record has.
        needed: usize,
        /// Bytes there are.
        present: usize,
    },
    /// This is no trace, or the place is none where a record begins.
    #[error("no record of blktrace: it begins with {magic:#010x}")]
    NoRecord {
        /// What stands where the magic number should.
        magic: u32,
    },
    /// A trace of a big-endian machine.
    #[error("a trace of a big-endian machine")]
    BigEndian,
    /// Another version of the format.
    #[error("version {found} of the format; this is for 7")]
    Version {
        /// Its number.
        found: u8,
    },
    /// More payload than any record has.
    #[error("{len} bytes of payload; no record has more than 128")]
    LongPayload {
        /// Its bytes.
        len: usize,
    },
}

/// What the step itself says of a record's categories.
fn step(event: &Event) -> u32 {
    let (own, of_request) = match event.action {
        Action::Requeue => (category::REQUEUE, true),
        Action::Issue => (category::ISSUE, true),
        Action::Insert => (category::QUEUE, true),
        // A bio that never was in a request completes, too.
        Action::Complete => (category::COMPLETE, event.tag.is_some()),
        Action::Remap => (category::QUEUE, event.tag.is_some()),
        Action::Split | Action::Bounce => (0, false),
        Action::Queue
        | Action::BackMerge
        | Action::FrontMerge
        | Action::GetRequest
        | Action::SleepRequest
        | Action::Plug
        | Action::Unplug
        | Action::Abort => (category::QUEUE, false),
    };
    match (of_request, is_driver(event.op)) {
        (false, _) => own,
        (true, false) => own | category::FS,
        (true, true) => own | category::PC,
    }
}

const fn is_driver(op: Op) -> bool {
    matches!(op, Op::DriverIn | Op::DriverOut)
}

fn direction(op: Op) -> u32 {
    let direction = if op.is_write() {
        category::WRITE
    } else {
        category::READ
    };
    match op {
        Op::Discard | Op::SecureErase => direction | category::DISCARD,
        Op::Flush => direction | category::FLUSH,
        _ => direction,
    }
}

fn categories(flags: BioFlags) -> u32 {
    // 0 or all ones, so that nothing has to be guessed.
    let if_set = |flag, category| u32::from(flags.contains(flag)).wrapping_neg() & category;
    if_set(BioFlags::SYNC, category::SYNC)
        | if_set(BioFlags::META, category::META)
        | if_set(BioFlags::RAHEAD, category::AHEAD)
        | if_set(BioFlags::PREFLUSH, category::FLUSH)
        | if_set(BioFlags::FUA, category::FUA)
}

#[cfg(test)]
mod tests {
    use pageless_pfn::ByteLen;

    use super::*;
    use crate::priority::Priority;
    use crate::request::{QueueId, Tag};
    use crate::status::BlkError;

    const SOURCE: TraceSource = TraceSource {
        device: DeviceNumber(0x0080_0010),
        pid: 0x0102_0304,
        cpu: 5,
        sequence: 0x0a0b_0c0d,
    };

    fn event(action: Action, op: Op, flags: BioFlags, tag: Option<u16>) -> Event {
        Event {
            action,
            time: Nanos::new(0x1122_3344_5566_7788),
            queue: QueueId::new(0),
            context: 0,
            tag: tag.map(Tag::new),
            op,
            flags,
            priority: Priority::NONE,
            sector: Sector::new(0x99),
            len: ByteLen::new(0x1000),
            error: None,
            detail: 0x0102_0304_0506_0708,
        }
    }

    #[test]
    fn bytes_are_where_the_kernel_has_them() {
        let mut remapped = event(Action::Remap, Op::Write, BioFlags::SYNC, Some(1));
        remapped.error = Some(BlkError::Io);
        let mut bytes = [0; TraceRecord::MAX];
        let len = TraceRecord::from_event(&remapped, SOURCE).encode(&mut bytes);
        #[rustfmt::skip]
        let expected: [u8; 64] = [
            0x07, b't', b'a', b'e', 0x0d, 0x0c, 0x0b, 0x0a, // magic, sequence
            0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, // time
            0x99, 0, 0, 0, 0, 0, 0, 0, // sector
            0x00, 0x10, 0, 0, 0x0f, 0x00, 0x1a, 0x01, // bytes, action
            0x04, 0x03, 0x02, 0x01, 0x10, 0x00, 0x80, 0x00, // pid, device
            5, 0, 0, 0, 0, 0, 16, 0, // cpu, error: of completions only, payload's length
            0x00, 0x80, 0x00, 0x10, 0x00, 0x80, 0x00, 0x10, // device from, device to
            1, 2, 3, 4, 5, 6, 7, 8, // sector it came from
        ];
        assert_eq!(bytes[..len], expected);
    }

    #[test]
    fn an_action_is_the_kernels_with_its_categories() {
        let none = BioFlags::empty();
        let sync = BioFlags::SYNC;
        let all = sync | BioFlags::META | BioFlags::RAHEAD | BioFlags::FLUSHES;
        let tag = Some(3);
        let table = [
            // READ 1, WRITE 2, FLUSH 4, SYNC 8; QUEUE 1, REQUEUE 2, ISSUE 4, COMPLETE 8;
            // FS 1, PC 2, NOTIFY 4, AHEAD 8; META 1, DISCARD 2, DRV_DATA 4, FUA 8.
            (Action::Queue, Op::Read, none, None, 0x0011_0001),
            (Action::Queue, Op::Write, sync, None, 0x001a_0001),
            (Action::Queue, Op::Write, all, None, 0x981e_0001),
            (Action::Queue, Op::Flush, none, None, 0x0015_0001),
            (Action::Queue, Op::Discard, sync, None, 0x201a_0001),
            (Action::Queue, Op::SecureErase, none, None, 0x2012_0001),
            (Action::Queue, Op::WriteZeroes, none, None, 0x0012_0001),
            (Action::Queue, Op::ZoneReset, none, None, 0x0012_0001),
            (Action::BackMerge, Op::Write, none, None, 0x0012_0002),
            (Action::FrontMerge, Op::Read, none, None, 0x0011_0003),
            (Action::GetRequest, Op::Read, none, tag, 0x0011_0004),
            (Action::SleepRequest, Op::Read, none, None, 0x0011_0005),
            (Action::Requeue, Op::Write, none, tag, 0x0122_0006),
            (Action::Issue, Op::Write, sync, tag, 0x014a_0007),
            (Action::Issue, Op::DriverIn, none, tag, 0x0241_0007),
            (Action::Issue, Op::DriverOut, none, tag, 0x0242_0007),
            (Action::Complete, Op::Read, none, tag, 0x0181_0008),
            (Action::Complete, Op::Read, none, None, 0x0081_0008),
            (Action::Plug, Op::Write, sync, None, 0x0011_0009),
            (Action::Unplug, Op::Write, sync, None, 0x0011_000a),
            (Action::Insert, Op::Write, none, tag, 0x0112_000c),
            (Action::Split, Op::Write, none, None, 0x0002_000d),
            (Action::Bounce, Op::Read, none, None, 0x0001_000e),
            (Action::Remap, Op::Read, none, None, 0x0011_000f),
            (Action::Remap, Op::Read, none, tag, 0x0111_000f),
            (Action::Abort, Op::Read, none, tag, 0x0400_0002),
        ];
        for (action, op, flags, tag, word) in table {
            let record = TraceRecord::from_event(&event(action, op, flags, tag), SOURCE);
            assert_eq!(
                record.action, word,
                "{action:?} {op} {flags:?}: {:#x}",
                record.action
            );
        }
        for action in Action::ALL {
            assert!(table.iter().any(|row| row.0 == action), "{action:?}");
        }
    }

    #[test]
    fn a_drivers_own_request_is_at_no_place() {
        let own = event(Action::Issue, Op::DriverOut, BioFlags::empty(), Some(0));
        let record = TraceRecord::from_event(&own, SOURCE);
        assert_eq!((record.sector.get(), record.bytes), (0, 0x1000));
    }

    #[test]
    fn a_length_beyond_32_bits_becomes_the_most_whole_sectors_they_hold() {
        for (len, bytes) in [
            (0xffff_fe00, 0xffff_fe00),
            (0xffff_ffff, 0xffff_fe00),
            (1 << 32, 0xffff_fe00),
            (u64::MAX, 0xffff_fe00),
        ] {
            let mut long = event(Action::Issue, Op::Discard, BioFlags::empty(), Some(0));
            long.len = ByteLen::new(len);
            assert_eq!(TraceRecord::from_event(&long, SOURCE).bytes, bytes);
        }
    }

    #[test]
    fn texts_that_are_too_long_are_cut() {
        let long = "x".repeat(200);
        let record = TraceRecord::message(SOURCE, Nanos::ZERO, format_args!("{long}"));
        assert_eq!(record.payload(), "x".repeat(128).as_bytes());
        let record = TraceRecord::process(SOURCE, &long);
        assert_eq!(record.payload(), [[b'x'; 15].as_slice(), &[0]].concat());
    }
}
