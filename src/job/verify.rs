//! What verified blocks hold, and how they are checked.
//!
//! ```text
//!   0      8        16       24   28   32        40                48    64
//!   +------+--------+--------+----+----+---------+-----------------+-----+---------
//!   | magic| offset | length | method  | seed    | checksum (16 bytes)   | payload
//!   +------+--------+--------+---------+---------+-----------------------+---------
//! ```
//!
//! All numbers are little-endian. The checksum covers the header without the checksum, and the
//! payload, so a block that was torn, misdirected, lost or left stale is seen.

use thiserror::Error;

use md5::{Digest, Md5};

use super::error::ValueError;
use super::workload::Seed;

/// How blocks are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// A header with a CRC-32C.
    Crc32c,
    /// A header with an MD5.
    Md5,
    /// No header: the whole block is the pattern.
    Pattern,
}

impl Method {
    /// Reads fio's `verify` value; `0` is none.
    ///
    /// # Errors
    /// A method that is not implemented.
    pub fn parse(text: &str) -> Result<Option<Self>, ValueError> {
        match text {
            "0" => Ok(None),
            "crc32c" | "crc32c-intel" => Ok(Some(Self::Crc32c)),
            "md5" => Ok(Some(Self::Md5)),
            "pattern" => Ok(Some(Self::Pattern)),
            _ => Err(ValueError::NotOneOf("crc32c, md5, pattern, 0")),
        }
    }

    const fn code(self) -> u64 {
        match self {
            Self::Crc32c => 1,
            Self::Md5 => 2,
            Self::Pattern => 3,
        }
    }
}

/// `verify_pattern`: bytes repeated over the block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    bytes: Vec<u8>,
    /// Where in `bytes` the block's offset goes (`%o`, 8 bytes, little-endian).
    offsets: Vec<usize>,
}

impl Pattern {
    /// Reads fio's pattern syntax: hexadecimal bytes `0xdeadbeef`, decimal numbers, `"text"`,
    /// `%o` for the block's offset, and any sequence of them.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        const SHAPE: ValueError = ValueError::Shape("0xdeadbeef, 12, \"text\", %o or a sequence");
        let mut pattern = Self {
            bytes: Vec::new(),
            offsets: Vec::new(),
        };
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(quoted) = rest.strip_prefix('"') {
                let (inside, behind) = quoted.split_once('"').ok_or(SHAPE)?;
                pattern.bytes.extend_from_slice(inside.as_bytes());
                rest = behind;
            } else if let Some(behind) = rest.strip_prefix("%o") {
                pattern.offsets.push(pattern.bytes.len());
                pattern.bytes.extend_from_slice(&[0; 8]);
                rest = behind;
            } else if let Some(digits) = rest.strip_prefix("0x") {
                let end = digits
                    .find(|c: char| !c.is_ascii_hexdigit())
                    .unwrap_or(digits.len());
                if end == 0 {
                    return Err(SHAPE);
                }
                pattern.push_hex(&digits[..end])?;
                rest = &digits[end..];
            } else {
                let signed = rest.strip_prefix('-').unwrap_or(rest);
                let sign = rest.len() - signed.len();
                let digits = signed
                    .find(|c: char| !c.is_ascii_digit())
                    .unwrap_or(signed.len());
                let (number, behind) = rest.split_at(sign + digits);
                let number: i64 = number.parse().map_err(|_| SHAPE)?;
                pattern.push_decimal(number);
                rest = behind;
            }
        }
        if pattern.bytes.is_empty() {
            return Err(ValueError::Empty);
        }
        if pattern.bytes.len() > 512 {
            return Err(ValueError::Shape("at most 512 bytes"));
        }
        Ok(pattern)
    }

    fn push_hex(&mut self, digits: &str) -> Result<(), ValueError> {
        let padded = if digits.len() % 2 == 1 {
            format!("0{digits}")
        } else {
            digits.to_owned()
        };
        for at in (0..padded.len()).step_by(2) {
            let byte = u8::from_str_radix(&padded[at..at + 2], 16);
            self.bytes.push(byte.map_err(|_| ValueError::NotANumber)?);
        }
        Ok(())
    }

    fn push_decimal(&mut self, number: i64) {
        if number < 0
            && let Ok(number) = i32::try_from(number)
        {
            self.bytes.extend_from_slice(&number.to_le_bytes());
            return;
        }
        let all = number.to_le_bytes();
        let used = all.iter().rposition(|b| *b != 0).map_or(1, |last| last + 1);
        self.bytes.extend_from_slice(&all[..used]);
    }

    /// The pattern of the block at `offset`, once.
    fn unit(&self, offset: u64) -> Vec<u8> {
        let mut unit = self.bytes.clone();
        for at in &self.offsets {
            unit[*at..*at + 8].copy_from_slice(&offset.to_le_bytes());
        }
        unit
    }

    fn fill(&self, block: &mut [u8], offset: u64, phase: usize) {
        let unit = self.unit(offset);
        let mut at = phase % unit.len();
        for byte in block {
            *byte = unit[at];
            at = if at + 1 == unit.len() { 0 } else { at + 1 };
        }
    }
}

/// Bytes in front of the payload.
pub const HEADER: usize = 64;
const MAGIC: u64 = u64::from_le_bytes(*b"pgl-vrfy");
const CHECKED: usize = 48;

/// What is written into a block, and what is expected of one that is read.
#[derive(Debug, Clone)]
pub struct Verifier {
    method: Method,
    pattern: Option<Pattern>,
    interval: Option<u32>,
}

/// A block that does not hold what was written to it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("at offset {offset} ({len} bytes): {kind}")]
pub struct Mismatch {
    /// Where the checked piece begins, in bytes from the beginning of the file.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
    /// What differs.
    pub kind: MismatchKind,
}

/// What differs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MismatchKind {
    /// There is no header of ours.
    #[error("no verify header: expected magic {expected:#018x}, found {found:#018x}")]
    Magic {
        /// Our magic number.
        expected: u64,
        /// What stands there.
        found: u64,
    },
    /// The header belongs to another place: a misdirected write or read.
    #[error("the header belongs to offset {found}, expected {expected}")]
    Offset {
        /// Where it was read.
        expected: u64,
        /// Where it says it belongs.
        found: u64,
    },
    /// The header belongs to a block of another length.
    #[error("the header is of a block of {found} bytes, expected {expected}")]
    Length {
        /// How long the block is.
        expected: u64,
        /// How long it says it is.
        found: u64,
    },
    /// The block was written with another method.
    #[error("the header's checksum method is number {found}, expected {expected}")]
    OtherMethod {
        /// The job's method.
        expected: u64,
        /// The header's.
        found: u64,
    },
    /// An older write stands where a newer one should: the newer was lost.
    #[error("the block is of write {found:#018x}, expected write {expected:#018x}: stale data")]
    Seed {
        /// The seed of the last write.
        expected: u64,
        /// The seed found.
        found: u64,
    },
    /// The contents changed.
    #[error("checksum of the contents is {found}, expected {expected}{}", .first_difference.map(|at| format!("; first different byte at offset {at}")).unwrap_or_default())]
    Checksum {
        /// The header's.
        expected: String,
        /// The contents'.
        found: String,
        /// The first byte that differs, counted from the beginning of the file, if it is known
        /// what was written.
        first_difference: Option<u64>,
    },
    /// The pattern is broken.
    #[error("expected byte {expected:#04x}, found {found:#04x}, first at offset {at}")]
    Byte {
        /// Where, counted from the beginning of the file.
        at: u64,
        /// The pattern's byte.
        expected: u8,
        /// The byte found.
        found: u8,
    },
}

impl Verifier {
    /// A verifier for `method`; with `interval`, one header for each so many bytes.
    #[must_use]
    pub const fn new(method: Method, pattern: Option<Pattern>, interval: Option<u32>) -> Self {
        Self {
            method,
            pattern,
            interval,
        }
    }

    /// Fills a block that is to be written at `offset`; `seed` tells this write from others.
    pub fn fill(&self, block: &mut [u8], offset: u64, seed: Seed) {
        let step = self.step(block.len());
        let mut at = offset;
        for piece in block.chunks_mut(step) {
            self.fill_piece(piece, at, offset, seed);
            at = at.wrapping_add(piece.len() as u64);
        }
    }

    /// Checks a block read from `offset`; with `seed`, also that it is of that write.
    ///
    /// # Errors
    /// The first [`Mismatch`].
    pub fn check(&self, block: &[u8], offset: u64, seed: Option<Seed>) -> Result<(), Mismatch> {
        let step = self.step(block.len());
        let mut at = offset;
        for piece in block.chunks(step) {
            self.check_piece(piece, at, offset, seed)
                .map_err(|kind| Mismatch {
                    offset: at,
                    len: piece.len() as u64,
                    kind,
                })?;
            at = at.wrapping_add(piece.len() as u64);
        }
        Ok(())
    }

    fn step(&self, len: usize) -> usize {
        self.interval
            .and_then(|i| usize::try_from(i).ok())
            .unwrap_or(len)
            .max(1)
    }

    fn fill_piece(&self, piece: &mut [u8], at: u64, block: u64, seed: Seed) {
        if self.method == Method::Pattern {
            self.payload(piece, at, block, seed);
            return;
        }
        let len = piece.len() as u64;
        let Some((header, payload)) = piece.split_at_mut_checked(HEADER) else {
            return;
        };
        self.payload(payload, at, block, seed);
        for (field, value) in [MAGIC, at, len, self.method.code(), seed.get(), 0]
            .iter()
            .enumerate()
        {
            header[field * 8..field * 8 + 8].copy_from_slice(&value.to_le_bytes());
        }
        let sum = self.checksum(&header[..CHECKED], payload);
        header[CHECKED..].copy_from_slice(&sum);
    }

    fn payload(&self, payload: &mut [u8], at: u64, block: u64, seed: Seed) {
        match &self.pattern {
            Some(pattern) => {
                let phase = usize::try_from(at.wrapping_sub(block)).unwrap_or(0);
                pattern.fill(payload, block, phase);
            }
            None => random_payload(payload, seed.derive(at)),
        }
    }

    fn check_piece(
        &self,
        piece: &[u8],
        at: u64,
        block: u64,
        seed: Option<Seed>,
    ) -> Result<(), MismatchKind> {
        if self.method == Method::Pattern {
            return self.check_pattern(piece, at, block);
        }
        let Some((header, payload)) = piece.split_at_checked(HEADER) else {
            return Ok(());
        };
        let field = |n: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&header[n * 8..n * 8 + 8]);
            u64::from_le_bytes(bytes)
        };
        let (magic, offset, len, method, found_seed) =
            (field(0), field(1), field(2), field(3), field(4));
        if magic != MAGIC {
            return Err(MismatchKind::Magic {
                expected: MAGIC,
                found: magic,
            });
        }
        if offset != at {
            return Err(MismatchKind::Offset {
                expected: at,
                found: offset,
            });
        }
        let piece_len = piece.len() as u64;
        if len != piece_len {
            return Err(MismatchKind::Length {
                expected: piece_len,
                found: len,
            });
        }
        if method != self.method.code() {
            let expected = self.method.code();
            return Err(MismatchKind::OtherMethod {
                expected,
                found: method,
            });
        }
        let sum = self.checksum(&header[..CHECKED], payload);
        if sum != header[CHECKED..] {
            let first_difference = self.first_difference(payload, at, block, found_seed);
            return Err(MismatchKind::Checksum {
                expected: self.hex(&header[CHECKED..]),
                found: self.hex(&sum),
                first_difference,
            });
        }
        match seed {
            Some(seed) if seed.get() != found_seed => Err(MismatchKind::Seed {
                expected: seed.get(),
                found: found_seed,
            }),
            _ => Ok(()),
        }
    }

    fn first_difference(&self, payload: &[u8], at: u64, block: u64, seed: u64) -> Option<u64> {
        let mut written = vec![0; payload.len()];
        self.payload(&mut written, at, block, Seed::new(seed));
        let differs = |(found, written): &(&u8, &u8)| found != written;
        let index = payload.iter().zip(&written).position(|p| differs(&p))?;
        // Where nearly all differs, the seed itself was hit or nothing of the write is left: then
        // no place is the first.
        let all = payload.iter().zip(&written).filter(differs).count();
        if all > payload.len() / 8 * 7 {
            return None;
        }
        Some(at + (HEADER + index) as u64)
    }

    fn check_pattern(&self, piece: &[u8], at: u64, block: u64) -> Result<(), MismatchKind> {
        let Some(pattern) = &self.pattern else {
            return Ok(());
        };
        let unit = pattern.unit(block);
        let phase = usize::try_from(at.wrapping_sub(block)).unwrap_or(0) % unit.len();
        let expected = unit.iter().cycle().skip(phase);
        for (index, (found, expected)) in piece.iter().zip(expected).enumerate() {
            if found != expected {
                let at = at + index as u64;
                return Err(MismatchKind::Byte {
                    at,
                    expected: *expected,
                    found: *found,
                });
            }
        }
        Ok(())
    }

    fn checksum(&self, header: &[u8], payload: &[u8]) -> [u8; 16] {
        match self.method {
            Method::Crc32c | Method::Pattern => {
                let crc = crc32c::crc32c_append(crc32c::crc32c(header), payload);
                let mut sum = [0; 16];
                sum[..4].copy_from_slice(&crc.to_le_bytes());
                sum
            }
            Method::Md5 => Md5::new()
                .chain_update(header)
                .chain_update(payload)
                .finalize()
                .into(),
        }
    }

    fn hex(&self, sum: &[u8]) -> String {
        let used = if self.method == Method::Md5 { 16 } else { 4 };
        sum.iter().take(used).map(|b| format!("{b:02x}")).collect()
    }
}

fn random_payload(payload: &mut [u8], seed: Seed) {
    // Weyl sequence with one multiply and fold: no two payloads alike is all that is asked of it.
    let mut state = seed.get();
    let mut words = payload.chunks_exact_mut(8);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let product = u128::from(state) * u128::from(state ^ 0xe703_7ed1_a0b4_28db);
        let folded = (product >> 64) as u64 ^ product as u64;
        folded.to_le_bytes()
    };
    for word in &mut words {
        word.copy_from_slice(&next());
    }
    let rest = words.into_remainder();
    let last = next();
    for (byte, value) in rest.iter_mut().zip(last) {
        *byte = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verifiers() -> Vec<(&'static str, Verifier)> {
        let pattern = || Pattern::parse("0xff%o\"abcd\"-12").ok();
        vec![
            ("crc32c", Verifier::new(Method::Crc32c, None, None)),
            ("md5", Verifier::new(Method::Md5, None, None)),
            (
                "crc32c in pieces",
                Verifier::new(Method::Crc32c, None, Some(512)),
            ),
            (
                "crc32c of a pattern",
                Verifier::new(Method::Crc32c, pattern(), None),
            ),
            ("pattern", Verifier::new(Method::Pattern, pattern(), None)),
        ]
    }

    #[test]
    fn patterns_lay_out_bytes_as_fio_does() {
        let bytes = |text| {
            let mut block = [0u8; 17];
            Pattern::parse(text)
                .expect(text)
                .fill(&mut block, 0x10_0000, 0);
            block
        };
        assert_eq!(
            bytes("0xdeadbeef")[..6],
            [0xde, 0xad, 0xbe, 0xef, 0xde, 0xad]
        );
        assert_eq!(bytes("0x123")[..3], [0x01, 0x23, 0x01]);
        assert_eq!(bytes("12")[..2], [12, 12]);
        assert_eq!(bytes("300")[..3], [0x2c, 0x01, 0x2c]);
        assert_eq!(bytes("70000")[..4], [0x70, 0x11, 0x01, 0x70]);
        assert_eq!(bytes("-12")[..5], [0xf4, 0xff, 0xff, 0xff, 0xf4]);
        assert_eq!(
            bytes("0xff%o\"abcd\"-12"),
            [
                0xff, 0, 0, 0x10, 0, 0, 0, 0, 0, b'a', b'b', b'c', b'd', 0xf4, 0xff, 0xff, 0xff
            ]
        );
        for text in ["", "zz", "\"open", "0x", "%x", "12x"] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_was_written_verifies() {
        for (name, verifier) in verifiers() {
            for len in [512, 4096, 1536] {
                let mut block = vec![0; len];
                verifier.fill(&mut block, 8192, Seed::new(3));
                assert_eq!(
                    verifier.check(&block, 8192, Some(Seed::new(3))),
                    Ok(()),
                    "{name}"
                );
                assert_eq!(verifier.check(&block, 8192, None), Ok(()), "{name}");
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_found_and_a_payload_byte_is_located() {
        for (name, verifier) in verifiers() {
            let mut block = vec![0; 1024];
            verifier.fill(&mut block, 4096, Seed::new(3));
            for at in 0..block.len() {
                block[at] ^= 0x10;
                let found = verifier.check(&block, 4096, None);
                block[at] ^= 0x10;
                let mismatch = found.expect_err(name);
                match mismatch.kind {
                    MismatchKind::Byte { at: place, .. }
                    | MismatchKind::Checksum {
                        first_difference: Some(place),
                        ..
                    } => {
                        assert_eq!(place, 4096 + at as u64, "{name}");
                    }
                    _ => assert!(at % 512 < HEADER, "{name}: byte {at} not located"),
                }
            }
        }
    }

    #[test]
    fn misdirected_torn_and_stale_blocks_are_told_apart() {
        let verifier = Verifier::new(Method::Crc32c, None, None);
        let write = |offset, seed| {
            let mut block = vec![0; 1024];
            verifier.fill(&mut block, offset, Seed::new(seed));
            block
        };
        let kind = |block: &[u8], offset, seed| {
            verifier
                .check(block, offset, Some(Seed::new(seed)))
                .expect_err("differs")
                .kind
        };
        let misdirected = kind(&write(0, 1), 1024, 1);
        assert_eq!(
            misdirected,
            MismatchKind::Offset {
                expected: 1024,
                found: 0
            }
        );
        assert_eq!(
            kind(&write(0, 1), 0, 2),
            MismatchKind::Seed {
                expected: 2,
                found: 1
            }
        );
        let mut torn = write(0, 2);
        torn[512..].copy_from_slice(&write(0, 1)[512..]);
        assert!(matches!(
            kind(&torn, 0, 2),
            MismatchKind::Checksum {
                first_difference: Some(512),
                ..
            }
        ));
        assert!(matches!(
            kind(&[0; 1024], 0, 1),
            MismatchKind::Magic { found: 0, .. }
        ));
        let short = verifier
            .check(&write(0, 1)[..512], 0, None)
            .expect_err("half a block");
        assert_eq!(
            short.kind,
            MismatchKind::Length {
                expected: 512,
                found: 1024
            }
        );
    }
}
