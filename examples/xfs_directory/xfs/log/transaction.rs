//! Operations, the pieces of transactions, and the items of a transaction.

use alloc::collections::BTreeMap;

use super::super::error::{Place, XfsError};
use super::super::fields::Fields;
use super::record::{Lsn, Record};

const START: u8 = 0x01;
const COMMIT: u8 = 0x02;
const CONTINUES: u8 = 0x04;
const CONTINUED: u8 = 0x08;
const END: u8 = 0x10;
const UNMOUNT: u8 = 0x20;
/// Bytes ahead of each operation's own.
const HEADER: usize = 12;
/// What a transaction begins with.
const TRANSACTION: u32 = u32::from_be_bytes(*b"TRAN");

/// A piece of a transaction.
#[derive(Debug)]
pub(crate) struct Operation {
    transaction: u32,
    flags: u8,
    bytes: Box<[u8]>,
}

impl Operation {
    pub(crate) fn is_unmount(&self) -> bool {
        self.flags & UNMOUNT != 0
    }
}

/// The `count` operations of a record's `data`.
pub(crate) fn operations(data: &Fields<'_>, count: u32) -> Result<Vec<Operation>, XfsError> {
    let mut all = Vec::new();
    let mut at = 0;
    for _ in 0..count {
        let len = data.u32(at + 4)? as usize;
        all.push(Operation {
            transaction: data.u32(at)?,
            flags: data.u8(at + 9)?,
            bytes: data.slice(at + HEADER, len)?.into(),
        });
        at += HEADER + len;
    }
    Ok(all)
}

/// Something that a transaction says, in regions: the first one is what it is about.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) kind: u16,
    pub(crate) regions: Vec<Vec<u8>>,
    /// Where the transaction was committed.
    pub(crate) lsn: Lsn,
}

impl Item {
    pub(crate) fn place(&self) -> Place {
        Place::Log {
            at: (self.lsn.0 & 0xffff_ffff) * 512,
        }
    }
}

/// The items of all transactions that were committed, in the order of the commits.
pub(crate) fn items(records: Vec<Record>) -> Result<Vec<Item>, XfsError> {
    let mut open: BTreeMap<u32, Vec<Vec<u8>>> = BTreeMap::new();
    let mut all = Vec::new();
    for Record {
        lsn, operations, ..
    } in records
    {
        for operation in operations {
            let Operation {
                transaction,
                flags,
                bytes,
            } = operation;
            if flags & START != 0 {
                open.insert(transaction, Vec::new());
            } else if flags & COMMIT != 0 {
                let regions = open.remove(&transaction).unwrap_or_default();
                split(regions, lsn, &mut all)?;
            } else if flags & UNMOUNT != 0 {
                open.remove(&transaction);
            } else if let Some(regions) = open.get_mut(&transaction) {
                // Of those that began before the tail nothing is left to be done.
                match regions.last_mut() {
                    Some(last) if flags & CONTINUED != 0 => last.extend_from_slice(&bytes),
                    _ if bytes.is_empty() && flags & !(CONTINUES | END) == 0 => {}
                    _ => regions.push(bytes.into()),
                }
            }
        }
    }
    Ok(all)
}

/// Cuts a transaction's regions into items.
fn split(regions: Vec<Vec<u8>>, lsn: Lsn, all: &mut Vec<Item>) -> Result<(), XfsError> {
    let place = Place::Log {
        at: (lsn.0 & 0xffff_ffff) * 512,
    };
    let mut regions = regions.into_iter();
    let Some(first) = regions.next() else {
        return Ok(());
    };
    let found = Fields::new(&first, place).le_u32(0)?;
    if found != TRANSACTION {
        return Err(XfsError::Magic {
            place,
            expected: TRANSACTION,
            found,
        });
    }
    while let Some(first) = regions.next() {
        let fields = Fields::new(&first, place);
        let (kind, count) = (fields.le_u16(0)?, usize::from(fields.le_u16(2)?));
        let more = count.saturating_sub(1);
        if count == 0 || more > regions.len() {
            return Err(fields.bad("regions of an item", count as u64, "there are not as many"));
        }
        let mut own = vec![first];
        own.extend(regions.by_ref().take(more));
        all.push(Item {
            kind,
            regions: own,
            lsn,
        });
    }
    Ok(())
}
