//! Records: where the log begins and ends, and what each record holds.

use pageless_block::BytePos;

use super::super::error::{Place, XfsError};
use super::super::fields::{Fields, checksum};
use super::super::volume::{Source, Volume};
use super::transaction::{Operation, operations};

/// The log's own unit; all its numbers are in these.
const BASIC: u64 = 512;
const MAGIC: u32 = 0xfeed_babe;
/// Whose data is in the order of a little-endian processor.
const LITTLE_ENDIAN: u32 = 1;
/// First words that a header has room for: what the cycle number has overwritten in the blocks behind it.
const SAVED: usize = 64;
/// Bytes of a record that a header covers.
const COVERED: u64 = 32 << 10;
/// No record is longer.
const LONGEST: u32 = 256 << 10;
/// Records that may have been under way when the machine stopped.
const UNDER_WAY: usize = 8;
/// Blocks read at a time when looking for the end.
const SCAN: u64 = 512;

/// A place in the log that only ever grows: the number of the pass, then the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lsn(pub(crate) u64);

impl Lsn {
    fn cycle(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn block(self) -> u64 {
        self.0 & 0xffff_ffff
    }
}

/// What has to be done before the volume may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing.
    Clean,
    /// What lies between tail and head has to be put back.
    Dirty,
}

/// The log of a volume, in basic blocks.
#[derive(Debug)]
pub(crate) struct Log {
    start: BytePos,
    blocks: u64,
    head: u64,
    tail: Lsn,
    state: State,
}

/// A record.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) lsn: Lsn,
    pub(crate) operations: Vec<Operation>,
    /// Where the next one begins.
    next: u64,
    tail: Lsn,
}

impl Log {
    /// Finds both ends.
    pub(crate) fn open<S: Source>(volume: &mut Volume<S>) -> Result<Log, XfsError> {
        let geometry = &volume.geometry;
        let (first, count) = geometry.log;
        let place = Place::Log { at: 0 };
        if first.0 == 0 {
            return Err(XfsError::Unsupported {
                place,
                field: "device",
                value: 0,
                why: "the log is on another device",
            });
        }
        let start = geometry.position(first, count.into(), place)?;
        let mut log = Log {
            start,
            blocks: (u64::from(count) << geometry.block_log) / BASIC,
            head: 0,
            tail: Lsn(0),
            state: State::Clean,
        };
        let Some((head, headers)) = log.ends(&mut volume.source)? else {
            return Ok(log);
        };
        log.head = head;
        let newest = headers.iter().rev().take(UNDER_WAY);
        for block in newest {
            let record = match log.record(volume, *block) {
                Ok(Some(record)) => record,
                // The machine stopped while it was written.
                Ok(None) | Err(XfsError::Checksum { .. }) => continue,
                Err(error) => return Err(error),
            };
            let unmounted = matches!(record.operations.as_slice(), [only] if only.is_unmount());
            if !unmounted || record.next != head {
                log.state = State::Dirty;
            }
            (log.head, log.tail) = (record.next, record.tail);
            return Ok(log);
        }
        let rule = "none of the newest records is whole";
        Err(log.bad(head, "records", headers.len() as u64, rule))
    }

    /// Whether there is anything to put back.
    pub(crate) fn state(&self) -> State {
        self.state
    }

    fn bad(&self, block: u64, field: &'static str, value: u64, rule: &'static str) -> XfsError {
        XfsError::Value {
            place: Place::Log { at: block * BASIC },
            field,
            value,
            rule,
        }
    }

    /// The first block that the newest pass has not written, and all headers, oldest first. `None` if nothing was ever written.
    fn ends(&self, source: &mut impl Source) -> Result<Option<(u64, Vec<u64>)>, XfsError> {
        let (mut newest, mut head) = (None, None);
        // Headers of the newest pass, and behind them those of the pass before.
        let (mut new, mut old) = (Vec::new(), Vec::new());
        let mut bytes = vec![0; (SCAN * BASIC) as usize];
        for first in (0..self.blocks).step_by(SCAN as usize) {
            let count = SCAN.min(self.blocks - first);
            let bytes = &mut bytes[..(count * BASIC) as usize];
            source.read(BytePos::new(self.start.get() + first * BASIC), bytes)?;
            let fields = Fields::new(bytes, Place::Log { at: first * BASIC });
            for nth in 0..count {
                let (at, block) = ((nth * BASIC) as usize, first + nth);
                let is_header = fields.u32(at)? == MAGIC;
                let cycle = fields.u32(if is_header { at + 4 } else { at })?;
                if cycle != *newest.get_or_insert(cycle) && head.is_none() {
                    head = Some(block);
                }
                match head {
                    _ if !is_header => {}
                    None => new.push(block),
                    Some(_) => old.push(block),
                }
            }
        }
        if newest == Some(0) {
            return Ok(None);
        }
        old.append(&mut new);
        Ok(Some((head.unwrap_or(0), old)))
    }

    /// Blocks from `block` on, from the start again after the last one.
    fn blocks(
        &self,
        source: &mut impl Source,
        block: u64,
        count: u64,
    ) -> Result<Vec<u8>, XfsError> {
        let mut bytes = vec![0; (count * BASIC) as usize];
        let here = count.min(self.blocks - block % self.blocks);
        let (first, rest) = bytes.split_at_mut((here * BASIC) as usize);
        let at = self.start.get() + block % self.blocks * BASIC;
        source.read(BytePos::new(at), first)?;
        if !rest.is_empty() {
            source.read(self.start, rest)?;
        }
        Ok(bytes)
    }

    /// How many blocks the head lies behind `block`.
    fn to_head(&self, block: u64) -> u64 {
        match self.head.checked_sub(block) {
            Some(0) => self.blocks,
            Some(blocks) => blocks,
            None => self.head + self.blocks - block,
        }
    }

    /// The record at `block`; `None` if the machine stopped before it was written whole.
    fn record<S: Source>(
        &self,
        volume: &mut Volume<S>,
        block: u64,
    ) -> Result<Option<Record>, XfsError> {
        let place = Place::Log { at: block * BASIC };
        let header = self.blocks(&mut volume.source, block, 1)?;
        let header = Fields::new(&header, place);
        header.magic(0, MAGIC)?;
        let (version, len) = (header.u32(8)?, header.u32(12)?);
        let (lsn, tail) = (Lsn(header.u64(16)?), Lsn(header.u64(24)?));
        header.same("own place", lsn.block(), block, "it belongs elsewhere")?;
        header.same(
            "cycle",
            header.u32(4)?.into(),
            lsn.cycle().into(),
            "its place has another",
        )?;
        if tail.block() >= self.blocks || tail > lsn {
            return Err(header.bad(
                "tail",
                tail.0,
                "it lies outside the log, or behind the record",
            ));
        }
        let format = header.u32(300)?;
        if format != LITTLE_ENDIAN {
            return Err(XfsError::Unsupported {
                place,
                field: "byte order",
                value: format.into(),
                why: "only logs of little-endian processors (1) are read",
            });
        }
        let signed = header.uuid(304)? == volume.geometry.log_uuid;
        header.same("UUID", signed.into(), 1, "it is another volume's")?;
        let size = header.u32(320)?;
        if len > LONGEST || size > LONGEST {
            return Err(header.bad(
                "length",
                len.max(size).into(),
                "records have 256 KiB at most",
            ));
        }
        let headers = match version {
            1 => 1,
            2 => u64::from(size).div_ceil(COVERED).max(1),
            _ => return Err(header.bad("version", version.into(), "there are 1 and 2")),
        };
        let data = u64::from(len).div_ceil(BASIC);
        if data > headers * SAVED as u64 {
            return Err(header.bad("length", len.into(), "more than its headers cover"));
        }
        if headers + data > self.to_head(block) {
            return Ok(None);
        }
        let bytes = self.blocks(&mut volume.source, block, headers + data)?;
        let (headers_of, data_of) = bytes.split_at((headers * BASIC) as usize);
        check(headers_of, data_of, place)?;
        let data = restore(headers_of, data_of, place)?;
        let data = Fields::new(&data, place);
        let data = Fields::new(data.slice(0, len as usize)?, place);
        Ok(Some(Record {
            lsn,
            operations: operations(&data, header.u32(40)?)?,
            next: (block + bytes.len() as u64 / BASIC) % self.blocks,
            tail,
        }))
    }

    /// All records that have to be put back, oldest first.
    pub(crate) fn records<S: Source>(
        &self,
        volume: &mut Volume<S>,
    ) -> Result<Vec<Record>, XfsError> {
        let mut all = Vec::new();
        if self.state == State::Clean {
            return Ok(all);
        }
        let (mut at, mut walked) = (self.tail.block(), 0);
        let whole = self.to_head(at);
        let mut last = None;
        while walked < whole {
            // The head is where the last whole record ends, so that none reaches past it.
            let Some(record) = self.record(volume, at)? else {
                let rule = "a record that others follow reaches past the end of the log";
                return Err(self.bad(at, "head", self.head, rule));
            };
            if last.is_some_and(|last| last >= record.lsn) {
                let rule = "it is older than the one before it";
                return Err(self.bad(at, "record", record.lsn.0, rule));
            }
            last = Some(record.lsn);
            walked += (record.next + self.blocks - at - 1) % self.blocks + 1;
            at = record.next;
            all.push(record);
        }
        Ok(all)
    }
}

/// Bytes of a record's header that its checksum covers, and of each further header.
const HEADER: usize = 328;
const FURTHER: usize = 260;
const CHECKSUM: usize = 32;

fn check(headers: &[u8], data: &[u8], place: Place) -> Result<(), XfsError> {
    let fields = Fields::new(headers, place);
    let stored = fields.le_u32(CHECKSUM)?;
    // What makes a volume writes one record, and without a checksum.
    if stored == 0 {
        return Ok(());
    }
    let mut crc = checksum(fields.slice(0, HEADER)?, CHECKSUM);
    for further in headers.chunks_exact(BASIC as usize).skip(1) {
        crc = crc32c::crc32c_append(crc, &further[..FURTHER]);
    }
    let computed = crc32c::crc32c_append(crc, data);
    if stored == computed {
        return Ok(());
    }
    Err(XfsError::Checksum {
        place,
        stored,
        computed,
    })
}

/// Puts the first words back that the cycle number stands in place of.
fn restore(headers: &[u8], data: &[u8], place: Place) -> Result<Vec<u8>, XfsError> {
    let headers = Fields::new(headers, place);
    let mut restored = data.to_vec();
    for (nth, block) in restored.chunks_exact_mut(BASIC as usize).enumerate() {
        // The first header has them at 44, those behind it at 4.
        let saved = match nth / SAVED {
            0 => 44 + nth * 4,
            further => further * BASIC as usize + 4 + nth % SAVED * 4,
        };
        block[..4].copy_from_slice(headers.slice(saved, 4)?);
    }
    Ok(restored)
}
