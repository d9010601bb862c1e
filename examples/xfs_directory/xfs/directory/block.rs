//! One directory block, as one run of bytes: what kind it is, whether it is sound, and what it says.

use super::super::error::XfsError;
use super::super::fields::Fields;
use super::super::inode::Piece;
use super::hash::hash;

const DATA: u32 = u32::from_be_bytes(*b"XDD3");
const ONLY: u32 = u32::from_be_bytes(*b"XDB3");
const FREE: u32 = u32::from_be_bytes(*b"XDF3");
const LEAF_ALONE: u16 = 0x3df1;
const LEAF_OF_TREE: u16 = 0x3dff;
const NODE: u16 = 0x3ebe;
/// Every kind's header, without what only some have.
const HEADER: usize = 64;
/// In place of an inode number's first 16 bits: nothing is here.
const UNUSED: u16 = 0xffff;
/// A hash, and where it leads.
const PAIR: usize = 8;

/// What a directory block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Entries.
    Data,
    /// Entries, and their hashes at the end: the directory has no other block.
    Only,
    /// Hashes, in a directory that has one block of them.
    LeafAlone,
    /// Hashes, in a tree.
    Leaf,
    /// Above leaves or other nodes.
    Node,
    /// How much room data blocks have.
    Free,
}

impl Kind {
    /// The one that the block's magic number says, which is in one of two places.
    pub(crate) fn of(block: &Fields<'_>) -> Result<Kind, XfsError> {
        let long = block.u32(0)?;
        match (long, block.u16(8)?) {
            (DATA, _) => Ok(Kind::Data),
            (ONLY, _) => Ok(Kind::Only),
            (FREE, _) => Ok(Kind::Free),
            (_, LEAF_ALONE) => Ok(Kind::LeafAlone),
            (_, LEAF_OF_TREE) => Ok(Kind::Leaf),
            (_, NODE) => Ok(Kind::Node),
            _ => Err(XfsError::Magic {
                place: block.place(),
                expected: DATA,
                found: long,
            }),
        }
    }

    /// Where its checksum is. What it is signed with stands behind that, in the same order in all kinds.
    pub(crate) fn checksum_at(self) -> usize {
        match self {
            Kind::Data | Kind::Only | Kind::Free => 4,
            Kind::LeafAlone | Kind::Leaf | Kind::Node => 12,
        }
    }

    /// Where it says what change it has seen last.
    pub(crate) fn sequence_at(self) -> usize {
        self.checksum_at() + 12
    }
}

/// Whether the block is what it should be, all of it: the checksum goes over the whole.
pub(crate) fn verify(
    block: &Fields<'_>,
    pieces: &[Piece],
    owner: u64,
    uuid: [u8; 16],
) -> Result<Kind, XfsError> {
    let kind = Kind::of(block)?;
    let checksum = kind.checksum_at();
    block.checksum(checksum)?;
    let at = block.u64(checksum + 4)?;
    let first = pieces.first().map_or(0, |piece| piece.at.get() / 512);
    block.same("own position", at, first, "it belongs elsewhere")?;
    let signed = block.uuid(checksum + 20)? == uuid;
    block.same("UUID", signed.into(), 1, "it is another volume's")?;
    let found = block.u64(checksum + 36)?;
    block.same("owner", found, owner, "it is another directory's")?;
    Ok(kind)
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) name: Box<[u8]>,
    pub(crate) inode: u64,
}

/// The entry at `offset`, and how many bytes it takes.
pub(crate) fn entry_at(block: &Fields<'_>, offset: usize) -> Result<(Entry, usize), XfsError> {
    if offset < HEADER {
        return Err(block.bad("entry's offset", offset as u64, "it lies in the header"));
    }
    let len = usize::from(block.u8(offset + 8)?);
    let name = block.slice(offset + 9, len)?;
    // The number of the inode, the length, the name, a byte of type and the offset; rounded up.
    let size = (8 + 1 + len + 1 + 2).next_multiple_of(8);
    let own = block.u16(offset + size - 2)?;
    block.same(
        "entry's own offset",
        own.into(),
        offset as u64,
        "no entry begins there",
    )?;
    if len == 0 || block.u16(offset)? == UNUSED {
        return Err(block.bad("entry's offset", offset as u64, "no entry begins there"));
    }
    let entry = Entry {
        name: name.into(),
        inode: block.u64(offset)?,
    };
    Ok((entry, size))
}

/// All entries, in the order they lie in.
pub(crate) fn entries(block: &Fields<'_>, kind: Kind) -> Result<Vec<Entry>, XfsError> {
    let end = match kind {
        Kind::Only => hashes_of_only(block)?.0,
        _ => block.len(),
    };
    let mut all = Vec::new();
    let mut at = HEADER;
    while at < end {
        let size = if block.u16(at)? == UNUSED {
            let size = usize::from(block.u16(at + 2)?);
            if size == 0 || !size.is_multiple_of(8) {
                return Err(block.bad("unused bytes", size as u64, "they come in eights"));
            }
            size
        } else {
            let (entry, size) = entry_at(block, at)?;
            all.push(entry);
            size
        };
        at += size;
    }
    block.same(
        "end of the last entry",
        at as u64,
        end as u64,
        "entries end with the block",
    )?;
    Ok(all)
}

/// The most bytes in one piece that a data block has to give, as it says itself.
pub(crate) fn most_room(block: &Fields<'_>) -> Result<u16, XfsError> {
    block.u16(48 + 2)
}

/// A name's hash, and where its entry is, in units of 8 bytes of the data space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hashed {
    pub(crate) hash: u32,
    pub(crate) at: u32,
}

/// Hashes of a leaf.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) next: u32,
    pub(crate) previous: u32,
    /// In ascending order, without those that are no longer in use.
    pub(crate) hashes: Vec<Hashed>,
    /// The highest one, in use or not.
    pub(crate) last: Option<u32>,
}

/// Where the hashes of a directory's only block begin, and how many there are.
fn hashes_of_only(block: &Fields<'_>) -> Result<(usize, usize), XfsError> {
    let tail = block.len().saturating_sub(8);
    let count = block.u32(tail)? as usize;
    let bytes = count.checked_mul(PAIR);
    match bytes.and_then(|bytes| tail.checked_sub(bytes)) {
        Some(start) if start >= HEADER => Ok((start, count)),
        _ => Err(block.bad("hashes", count as u64, "more than fit in the block")),
    }
}

/// Hashes and places of a leaf, or of a directory's only block, as they stand there; and the leaves beside it, next and previous.
fn hashes<'b>(block: &Fields<'b>, kind: Kind) -> Result<(Fields<'b>, [u32; 2]), XfsError> {
    let (start, count) = match kind {
        Kind::Only => hashes_of_only(block)?,
        _ => (HEADER, usize::from(block.u16(56)?)),
    };
    let beside = match kind {
        Kind::Leaf => [block.u32(0)?, block.u32(4)?],
        _ => [0, 0],
    };
    let bytes = block.slice(start, count * PAIR)?;
    Ok((Fields::new(bytes, block.place()), beside))
}

/// How many of the pairs have a first number below `wanted`. They have to ascend.
fn below(pairs: &Fields<'_>, wanted: u32) -> Result<usize, XfsError> {
    let (mut low, mut high) = (0, pairs.len() / PAIR);
    while low < high {
        let middle = low + (high - low) / 2;
        if pairs.u32(middle * PAIR)? < wanted {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// The hashes of a leaf, or of a directory's only block.
pub(crate) fn leaf(block: &Fields<'_>, kind: Kind) -> Result<Leaf, XfsError> {
    let (pairs, [next, previous]) = hashes(block, kind)?;
    let mut leaf = Leaf {
        next,
        previous,
        hashes: Vec::with_capacity(pairs.len() / PAIR),
        last: None,
    };
    for at in (0..pairs.len()).step_by(PAIR) {
        let (hash, at) = (pairs.u32(at)?, pairs.u32(at + 4)?);
        if leaf.last.is_some_and(|last| last > hash) {
            return Err(block.bad("hash", hash.into(), "lower than the one before it"));
        }
        leaf.last = Some(hash);
        if at != 0 {
            leaf.hashes.push(Hashed { hash, at });
        }
    }
    Ok(leaf)
}

/// What a leaf has of one hash, and the leaf where there may be more.
pub(crate) fn find(
    block: &Fields<'_>,
    kind: Kind,
    wanted: u32,
) -> Result<(Vec<Hashed>, Option<u32>), XfsError> {
    let (pairs, [next, _]) = hashes(block, kind)?;
    let mut found = Vec::new();
    for at in (below(&pairs, wanted)? * PAIR..pairs.len()).step_by(PAIR) {
        let (hash, at) = (pairs.u32(at)?, pairs.u32(at + 4)?);
        if hash != wanted {
            return Ok((found, None));
        }
        if at != 0 {
            found.push(Hashed { hash, at });
        }
    }
    Ok((found, (next != 0).then_some(next)))
}

/// The child of a node that `wanted` is below, if it is below any.
pub(crate) fn child(block: &Fields<'_>, wanted: u32) -> Result<Option<u32>, XfsError> {
    let count = usize::from(block.u16(56)?);
    let pairs = Fields::new(block.slice(HEADER, count * PAIR)?, block.place());
    match below(&pairs, wanted)? {
        nth if nth < count => pairs.u32(nth * PAIR + 4).map(Some),
        _ => Ok(None),
    }
}

/// A node's child, and the highest hash below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) last: u32,
    pub(crate) block: u32,
}

/// A node's level, and its children in ascending order.
pub(crate) fn node(block: &Fields<'_>) -> Result<(u16, Vec<Child>), XfsError> {
    let (count, level) = (usize::from(block.u16(56)?), block.u16(58)?);
    if count == 0 {
        return Err(block.bad("children", 0, "a node without any"));
    }
    let bytes = Fields::new(block.slice(HEADER, count * PAIR)?, block.place());
    let mut children: Vec<Child> = Vec::with_capacity(count);
    for at in (0..bytes.len()).step_by(PAIR) {
        let child = Child {
            last: bytes.u32(at)?,
            block: bytes.u32(at + 4)?,
        };
        if children
            .last()
            .is_some_and(|before| before.last > child.last)
        {
            let hash = child.last.into();
            return Err(block.bad("hash", hash, "lower than the one before it"));
        }
        children.push(child);
    }
    Ok((level, children))
}

/// The first data block that a block of the free index is about, counted in directory blocks, and what each has.
pub(crate) fn free(block: &Fields<'_>) -> Result<(u32, Vec<u16>), XfsError> {
    let (first, count) = (block.u32(48)?, block.u32(52)? as usize);
    let len = count.saturating_mul(2);
    let bytes = Fields::new(block.slice(HEADER, len)?, block.place());
    let all = (0..bytes.len()).step_by(2).map(|at| bytes.u16(at));
    Ok((first, all.collect::<Result<_, _>>()?))
}

/// The entries of a directory that is small enough for its inode. Neither `.` nor `..` is among them.
pub(crate) fn inline_entries(inode: &Fields<'_>) -> Result<Vec<Entry>, XfsError> {
    let (count, long) = (inode.u8(0)?, inode.u8(1)? > 0);
    let width = if long { 8 } else { 4 };
    let mut at = 2 + width;
    let mut all = Vec::with_capacity(count.into());
    for _ in 0..count {
        let len = usize::from(inode.u8(at)?);
        let name = inode.slice(at + 3, len)?;
        // One byte of type between the name and the number.
        let number = at + 3 + len + 1;
        all.push(Entry {
            name: name.into(),
            inode: match long {
                true => inode.u64(number)?,
                false => inode.u32(number)?.into(),
            },
        });
        at = number + width;
    }
    inode.same(
        "end of the last entry",
        at as u64,
        inode.len() as u64,
        "entries end with the data",
    )?;
    Ok(all)
}

/// An entry's name has to have the hash it is found under.
pub(crate) fn check_hash(
    block: &Fields<'_>,
    entry: &Entry,
    hashed: Hashed,
) -> Result<(), XfsError> {
    let rule = "the tree has the entry under another";
    block.same(
        "hash of a name",
        hash(&entry.name).into(),
        hashed.hash.into(),
        rule,
    )
}
