//! Fixed-size numbers in a run of bytes: big-endian on disk, bounds checked, errors with a place.

use super::error::{Place, XfsError};

/// Some bytes, and where they are from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'b> {
    bytes: &'b [u8],
    place: Place,
}

impl<'b> Fields<'b> {
    pub(crate) fn new(bytes: &'b [u8], place: Place) -> Self {
        Fields { bytes, place }
    }

    pub(crate) fn place(&self) -> Place {
        self.place
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// `len` bytes from `offset` on.
    pub(crate) fn slice(&self, offset: usize, len: usize) -> Result<&'b [u8], XfsError> {
        let end = offset.checked_add(len);
        end.and_then(|end| self.bytes.get(offset..end))
            .ok_or(XfsError::Outside {
                place: self.place,
                offset,
                len,
                size: self.bytes.len(),
            })
    }

    fn array<const N: usize>(&self, offset: usize) -> Result<[u8; N], XfsError> {
        let mut array = [0; N];
        array.copy_from_slice(self.slice(offset, N)?);
        Ok(array)
    }

    pub(crate) fn u8(&self, offset: usize) -> Result<u8, XfsError> {
        Ok(u8::from_be_bytes(self.array(offset)?))
    }

    pub(crate) fn u16(&self, offset: usize) -> Result<u16, XfsError> {
        Ok(u16::from_be_bytes(self.array(offset)?))
    }

    pub(crate) fn u32(&self, offset: usize) -> Result<u32, XfsError> {
        Ok(u32::from_be_bytes(self.array(offset)?))
    }

    pub(crate) fn u64(&self, offset: usize) -> Result<u64, XfsError> {
        Ok(u64::from_be_bytes(self.array(offset)?))
    }

    /// Little-endian: checksums, and what the log keeps as the processor that wrote it had it.
    pub(crate) fn le_u16(&self, offset: usize) -> Result<u16, XfsError> {
        Ok(u16::from_le_bytes(self.array(offset)?))
    }

    /// As [`le_u16`](Self::le_u16).
    pub(crate) fn le_u32(&self, offset: usize) -> Result<u32, XfsError> {
        Ok(u32::from_le_bytes(self.array(offset)?))
    }

    /// As [`le_u16`](Self::le_u16).
    pub(crate) fn le_u64(&self, offset: usize) -> Result<u64, XfsError> {
        Ok(u64::from_le_bytes(self.array(offset)?))
    }

    pub(crate) fn uuid(&self, offset: usize) -> Result<[u8; 16], XfsError> {
        self.array(offset)
    }

    /// The 32 bits at `offset` have to be `expected`.
    pub(crate) fn magic(&self, offset: usize, expected: u32) -> Result<(), XfsError> {
        let found = self.u32(offset)?;
        if found == expected {
            return Ok(());
        }
        Err(XfsError::Magic {
            place: self.place,
            expected,
            found,
        })
    }

    /// A field has a value that `rule` forbids.
    pub(crate) fn bad(&self, field: &'static str, value: u64, rule: &'static str) -> XfsError {
        XfsError::Value {
            place: self.place,
            field,
            value,
            rule,
        }
    }

    /// `value` has to be `expected`.
    pub(crate) fn same(
        &self,
        field: &'static str,
        value: u64,
        expected: u64,
        rule: &'static str,
    ) -> Result<(), XfsError> {
        if value == expected {
            Ok(())
        } else {
            Err(self.bad(field, value, rule))
        }
    }

    /// The CRC32C of all bytes, those of the checksum at `offset` taken as zeroes, has to be the one that is stored there.
    pub(crate) fn checksum(&self, offset: usize) -> Result<(), XfsError> {
        let stored = self.le_u32(offset)?;
        let computed = checksum(self.bytes, offset);
        if stored == computed {
            return Ok(());
        }
        Err(XfsError::Checksum {
            place: self.place,
            stored,
            computed,
        })
    }
}

/// CRC32C of `bytes`, the four at `offset` taken as zeroes.
pub(crate) fn checksum(bytes: &[u8], offset: usize) -> u32 {
    let (before, rest) = bytes.split_at(offset.min(bytes.len()));
    let after = rest.get(4..).unwrap_or_default();
    let crc = crc32c::crc32c_append(0, before);
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &[0; 4]), after)
}
