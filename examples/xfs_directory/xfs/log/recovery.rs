//! Putting back what the log says about the blocks of one directory.
//!
//! An item knows sectors, and its bytes go into one piece of a directory block. But whether they are to be put there at all, and what the
//! checksum is afterwards, is decided by the whole: the header with the number of the last change is in the first piece, and the
//! checksum goes over all of them. So the pieces stand together as one object before anything is changed.

use alloc::collections::BTreeMap;

use super::super::directory::Directory;
use super::super::directory::block::{Kind, verify};
use super::super::error::XfsError;
use super::super::fields::{Fields, checksum};
use super::super::inode::Piece;
use super::super::object::{Change, Objects};
use super::super::volume::Source;
use super::buffer::{BufferItem, changes_fork};
use super::record::{Lsn, Record};
use super::transaction::items;

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// Items that had to do with other things.
    pub(crate) others: u64,
    /// Items that a later change of the same place made void.
    pub(crate) cancelled: u64,
    /// Items that the device has seen already.
    pub(crate) seen: u64,
    /// Items put back.
    pub(crate) items: u64,
    /// Bytes of those.
    pub(crate) bytes: u64,
    /// Directory blocks that changed.
    pub(crate) blocks: u64,
    /// The most pieces of one of these.
    pub(crate) most: u64,
}

/// Where a piece's bytes are in the directory.
struct Stretch {
    sectors: u64,
    block: u32,
    /// In the directory block.
    at: usize,
}

/// Puts back what `records` say about the blocks of `directory`.
pub(crate) fn recover<S, O>(
    records: Vec<Record>,
    directory: &Directory<'_, S, O>,
    objects: &O,
) -> Result<Recovered, XfsError>
where
    S: Source,
    O: Objects<Object: Change>,
{
    let mut done = Recovered::default();
    let mut buffers = Vec::new();
    for item in items(records)? {
        if changes_fork(&item, directory.inode().number)? {
            return Err(XfsError::Unsupported {
                place: item.place(),
                field: "change of the extents of inode",
                value: directory.inode().number,
                why: "items of inodes are not put back",
            });
        }
        match BufferItem::read(item)? {
            Some(buffer) => buffers.push(buffer),
            None => done.others += 1,
        }
    }
    let mut cancels: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for buffer in buffers.iter().filter(|buffer| buffer.cancels) {
        *cancels.entry((buffer.sector, buffer.sectors)).or_default() += 1;
    }
    let stretches = stretches(directory)?;
    let mut of_block: BTreeMap<u32, Vec<(usize, BufferItem)>> = BTreeMap::new();
    for buffer in buffers {
        if let Some(left) = cancels.get_mut(&(buffer.sector, buffer.sectors))
            && *left > 0
        {
            *left -= u64::from(buffer.cancels);
            done.cancelled += 1;
            continue;
        }
        match find(&stretches, &buffer) {
            Some((block, at)) => of_block.entry(block).or_default().push((at, buffer)),
            None => done.others += 1,
        }
    }
    for (block, buffers) in of_block {
        let pieces = directory.pieces(block)?;
        let object = objects.object(&pieces, directory.place(block))?;
        put_back(object, &pieces, block, buffers, directory, &mut done)?;
    }
    Ok(done)
}

fn stretches<S: Source, O: Objects>(
    directory: &Directory<'_, S, O>,
) -> Result<BTreeMap<u64, Stretch>, XfsError> {
    let mut all = BTreeMap::new();
    for block in directory.blocks() {
        let mut at = 0;
        for Piece { at: start, len } in directory.pieces(block)? {
            let sectors = len.get() / 512;
            all.insert(start.get() / 512, Stretch { sectors, block, at });
            at += len.get() as usize;
        }
    }
    Ok(all)
}

/// The directory block that the whole of `buffer` is in, and where in that it begins.
fn find(stretches: &BTreeMap<u64, Stretch>, buffer: &BufferItem) -> Option<(u32, usize)> {
    let (start, stretch) = stretches.range(..=buffer.sector).next_back()?;
    let skip = buffer.sector - start;
    let fits = skip.checked_add(buffer.sectors)? <= stretch.sectors;
    fits.then(|| (stretch.block, stretch.at + skip as usize * 512))
}

/// Changes one directory block, and makes its checksum right.
fn put_back<S: Source, O: Objects>(
    mut object: impl Change,
    pieces: &[Piece],
    block: u32,
    buffers: Vec<(usize, BufferItem)>,
    directory: &Directory<'_, S, O>,
    done: &mut Recovered,
) -> Result<(), XfsError> {
    let place = directory.place(block);
    let (uuid, owner) = (directory.uuid(), directory.inode().number);
    // A block that was never written says nothing about when it was.
    let written = object.look(|bytes| {
        let fields = Fields::new(bytes, place);
        let kind = Kind::of(&fields).ok()?;
        let own = fields.uuid(kind.checksum_at() + 20).ok()? == uuid;
        let lsn = fields.u64(kind.sequence_at()).ok()?;
        (own && lsn != u64::MAX).then_some(Lsn(lsn))
    })?;
    let mut last = None;
    for (at, buffer) in buffers {
        if written.is_some_and(|written| written >= buffer.lsn) {
            done.seen += 1;
            continue;
        }
        for (offset, bytes) in buffer.runs {
            object.change(at + offset, &bytes)?;
            done.bytes += bytes.len() as u64;
        }
        done.items += 1;
        last = last.max(Some(buffer.lsn));
    }
    let Some(last) = last else {
        return Ok(());
    };
    done.blocks += 1;
    done.most = done.most.max(pieces.len() as u64);
    let kind = object.look(|bytes| Kind::of(&Fields::new(bytes, place)))??;
    object.change(kind.sequence_at(), &last.0.to_be_bytes())?;
    let crc = object.look(|bytes| checksum(bytes, kind.checksum_at()))?;
    object.change(kind.checksum_at(), &crc.to_le_bytes())?;
    object
        .look(|bytes| verify(&Fields::new(bytes, place), pieces, owner, uuid))?
        .map(|_| ())
}
