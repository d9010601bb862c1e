//! Items of buffers: which parts of 128 bytes, and what they are from now on.

use super::super::error::XfsError;
use super::super::fields::Fields;
use super::record::Lsn;
use super::transaction::Item;

/// What an item of a buffer begins with.
pub(crate) const BUFFER: u16 = 0x123c;
/// The same of an inode.
pub(crate) const INODE: u16 = 0x123b;
/// The unit of the bitmap.
const CHUNK: usize = 128;
/// Nothing that was said before about this place is to be done.
const CANCEL: u16 = 1 << 1;
/// Bits of an inode's item: its fork changes.
const FORK: u32 = 0b1110;

/// What a buffer, or one piece of one, looks like from now on.
#[derive(Debug)]
pub(crate) struct BufferItem {
    pub(crate) lsn: Lsn,
    /// Where it is on the device, in units of 512 bytes.
    pub(crate) sector: u64,
    /// How long.
    pub(crate) sectors: u64,
    pub(crate) cancels: bool,
    /// Where in the buffer, and what.
    pub(crate) runs: Vec<(usize, Vec<u8>)>,
}

impl BufferItem {
    /// Reads an item, if it is one of a buffer.
    pub(crate) fn read(item: Item) -> Result<Option<BufferItem>, XfsError> {
        if item.kind != BUFFER {
            return Ok(None);
        }
        let place = item.place();
        let mut regions = item.regions.into_iter();
        let first = regions.next().unwrap_or_default();
        let fields = Fields::new(&first, place);
        let (flags, sectors) = (fields.le_u16(4)?, u64::from(fields.le_u16(6)?));
        let words = fields.le_u32(16)? as usize;
        let map = fields.slice(20, words.saturating_mul(4))?;
        let map = Fields::new(map, place);
        let mut buffer = BufferItem {
            lsn: item.lsn,
            sector: fields.le_u64(8)?,
            sectors,
            cancels: flags & CANCEL != 0,
            runs: Vec::new(),
        };
        if buffer.cancels {
            return Ok(Some(buffer));
        }
        let bit = |nth: usize| -> Result<bool, XfsError> {
            Ok(nth < words * 32 && map.le_u32(nth / 32 * 4)? & 1 << (nth % 32) != 0)
        };
        let mut nth = 0;
        for region in regions {
            while nth < words * 32 && !bit(nth)? {
                nth += 1;
            }
            let at = nth * CHUNK;
            let end = at + region.len();
            // Whoever wrote it may have cut a run in two, never a chunk.
            for chunk in nth..end.div_ceil(CHUNK) {
                if !bit(chunk)? {
                    let rule = "there are more bytes than the bitmap has bits";
                    return Err(fields.bad("bytes of a run", region.len() as u64, rule));
                }
            }
            if region.is_empty() || region.len() % CHUNK != 0 || end as u64 > sectors * 512 {
                let rule = "it is not a number of chunks that lie in the buffer";
                return Err(fields.bad("bytes of a run", region.len() as u64, rule));
            }
            nth = end / CHUNK;
            buffer.runs.push((at, region));
        }
        Ok(Some(buffer))
    }
}

/// Whether an item changes where the data of `inode` is.
pub(crate) fn changes_fork(item: &Item, inode: u64) -> Result<bool, XfsError> {
    let Some(first) = item.regions.first().filter(|_| item.kind == INODE) else {
        return Ok(false);
    };
    let fields = Fields::new(first, item.place());
    Ok(fields.le_u64(16)? == inode && fields.le_u32(4)? & FORK != 0)
}
