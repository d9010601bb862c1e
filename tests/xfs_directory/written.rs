//! A log written by hand: records with transactions that no kernel would arrange like this.

use pageless_block::BytePos;

use crate::patched::Patched;
use crate::xfs::fields::checksum;
use crate::xfs::volume::{Geometry, Volume};

pub(crate) const START: u8 = 0x01;
pub(crate) const COMMIT: u8 = 0x02;
pub(crate) const CONTINUES: u8 = 0x04;
pub(crate) const CONTINUED: u8 = 0x08;
const BASIC: usize = 512;
const CYCLE: u32 = 1;

/// Operations of a record, to be.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    bytes: Vec<u8>,
    count: u32,
}

impl Operations {
    /// One more.
    pub(crate) fn push(&mut self, transaction: u32, flags: u8, bytes: &[u8]) {
        self.bytes.extend(transaction.to_be_bytes());
        self.bytes.extend((bytes.len() as u32).to_be_bytes());
        // Whose it is: that of a transaction.
        self.bytes.extend([0x69, flags, 0, 0]);
        self.bytes.extend(bytes);
        self.count += 1;
    }

    /// What a transaction of `items` items begins with.
    pub(crate) fn begin(&mut self, transaction: u32, items: u32) {
        self.push(transaction, START, &[]);
        let header = [u32::from_be_bytes(*b"TRAN"), 40, transaction, items];
        let header: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.push(transaction, 0, &header);
    }
}

/// What an item of a buffer begins with: `regions` regions, itself included, at `sector`, and the chunks that they are.
pub(crate) fn buffer(
    regions: u16,
    flags: u16,
    sector: u64,
    sectors: u16,
    chunks: &[usize],
) -> Vec<u8> {
    let words = (usize::from(sectors) * BASIC / 128).div_ceil(32);
    let mut map = vec![0_u32; words];
    for chunk in chunks {
        map[chunk / 32] |= 1 << (chunk % 32);
    }
    // The kind of a directory's data block is among the flags.
    let head = [0x123c, regions, flags | 9 << 11, sectors];
    let mut bytes: Vec<u8> = head.iter().flat_map(|half| half.to_le_bytes()).collect();
    bytes.extend(sector.to_le_bytes());
    bytes.extend((words as u32).to_le_bytes());
    bytes.extend(map.iter().flat_map(|word| word.to_le_bytes()));
    bytes
}

/// Writes records one behind the other.
#[derive(Debug)]
pub(crate) struct Writer {
    start: u64,
    next: u32,
    tail: u32,
    uuid: [u8; 16],
}

impl Writer {
    /// Behind the one record that `mkfs.xfs` has written.
    pub(crate) fn new(patched: &Patched) -> (Self, Geometry) {
        let geometry = Volume::open(patched).unwrap().geometry;
        let start = crate::scattered::position(&geometry, geometry.log.0.0);
        let writer = Writer {
            start,
            next: 2,
            tail: 2,
            uuid: geometry.log_uuid,
        };
        (writer, geometry)
    }

    /// Where the next one goes, as a number that only grows.
    pub(crate) fn next(&self) -> u64 {
        u64::from(CYCLE) << 32 | u64::from(self.next)
    }

    /// One more record.
    pub(crate) fn write(&mut self, patched: &mut Patched, operations: Operations) {
        let Operations { mut bytes, count } = operations;
        bytes.resize(bytes.len().next_multiple_of(BASIC), 0);
        let mut header = vec![0; BASIC];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        let before = if self.next == self.tail { 0 } else { self.tail };
        put(0, &0xfeed_babe_u32.to_be_bytes());
        put(4, &CYCLE.to_be_bytes());
        put(8, &2_u32.to_be_bytes());
        put(12, &(bytes.len() as u32).to_be_bytes());
        put(16, &self.next().to_be_bytes());
        put(
            24,
            &(u64::from(CYCLE) << 32 | u64::from(self.tail)).to_be_bytes(),
        );
        put(36, &before.to_be_bytes());
        put(40, &count.to_be_bytes());
        for (nth, block) in bytes.chunks_exact_mut(BASIC).enumerate() {
            put(44 + nth * 4, &block[..4]);
            block[..4].copy_from_slice(&CYCLE.to_be_bytes());
        }
        put(300, &1_u32.to_be_bytes());
        put(304, &self.uuid);
        put(320, &(32_u32 << 10).to_be_bytes());
        let crc = checksum(&header[..328], 32);
        let crc = crc32c::crc32c_append(crc, &bytes);
        header[32..36].copy_from_slice(&crc.to_le_bytes());
        let at = self.start + u64::from(self.next) * BASIC as u64;
        patched.put(at, &header);
        patched.put(at + BASIC as u64, &bytes);
        self.next += 1 + (bytes.len() / BASIC) as u32;
    }
}

/// The bytes of a chunk of the image.
pub(crate) fn chunk(patched: &Patched, at: u64) -> [u8; 128] {
    let mut bytes = [0; 128];
    patched.get(BytePos::new(at), &mut bytes).unwrap();
    bytes
}
