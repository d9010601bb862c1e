//! Scatter-gather lists: tables of entries, chained by frame number.
//!
//! A list is a table whose entries are data, up to one that carries `SG_LAST`; an entry with
//! `SG_CHAIN` says in which frame the list goes on. Entries after either are not looked at. Where
//! the tables lie is the caller's business: the walk asks for them one by one.
//!
//! ```text
//!   table 0                    table at frame 0x900
//!   +---------------------+    +--------------------------+
//!   | data  0x100 + 4096  |    | data 0x300 + 512         |
//!   | data  0x200 + 65536 |    | data 0x301 + 512 SG_LAST |
//!   | 0x900 SG_CHAIN -----+--->+--------------------------+
//!   +---------------------+
//! ```

use thiserror::Error;

use crate::frame::Pfn;
use crate::phys::{ByteLen, FrameOffset};
use crate::segment::{PhysSegment, SegmentError};
use crate::tagged::{PfnFlags, PfnT};

/// One entry of a scatter-gather table: data, or the way to the next table.
///
/// Fields are public because tables come from outside; [`SgWalk`] checks what it meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SgEntry {
    /// The first frame of the data, or the frame of the next table under `SG_CHAIN`.
    pub frame: PfnT,
    /// Bytes into the first frame; 0 in a chain entry.
    pub offset: u64,
    /// Bytes of data; 0 in a chain entry.
    pub len: u64,
}

const _: () = assert!(size_of::<SgEntry>() == 24);

impl SgEntry {
    /// An entry for `segment`, with more to follow.
    pub const fn data(segment: PhysSegment) -> Self {
        Self {
            frame: segment.frame(),
            offset: segment.offset().get(),
            len: segment.len().get(),
        }
    }

    /// An entry for `segment`, the last of the list.
    pub const fn last(segment: PhysSegment) -> Self {
        let flags = segment.frame().flags().union(PfnFlags::SG_LAST);
        Self {
            frame: PfnT::new(segment.frame().pfn(), flags),
            offset: segment.offset().get(),
            len: segment.len().get(),
        }
    }

    /// An entry that says: the list goes on with the table in frame `table`.
    pub const fn chain(table: Pfn) -> Self {
        Self {
            frame: PfnT::new(table, PfnFlags::SG_CHAIN),
            offset: 0,
            len: 0,
        }
    }
}

/// How much of a list a walk is ready to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SgLimits {
    /// The most tables, the first one included.
    pub tables: u32,
    /// The most data entries in all tables together.
    pub entries: u64,
}

impl Default for SgLimits {
    /// 1024 tables, 2^20 entries.
    fn default() -> Self {
        Self {
            tables: 1024,
            entries: 1 << 20,
        }
    }
}

/// What a complete list amounts to. Made by [`SgWalk::check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SgShape {
    /// Tables, the first one included.
    pub tables: u32,
    /// Data entries.
    pub entries: u64,
    /// Bytes of data.
    pub bytes: ByteLen,
}

/// Walks a scatter-gather list across its tables and yields its segments.
///
/// `lookup` answers with the table that lies in a frame. After an error the walk is over. An
/// error in a later table shows only when the walk gets there: where acting on half a list would
/// be wrong, call [`SgWalk::check`] on a clone first.
///
/// ```
/// use pageless_pfn::{ByteLen, FrameOffset, Pfn, PhysSegment, SgEntry, SgLimits, SgWalk};
/// let segment = |pfn| {
///     PhysSegment::try_new(Pfn::try_new(pfn).unwrap().into(), FrameOffset::ZERO, ByteLen::new(4096))
/// };
/// let second = [SgEntry::last(segment(0x300)?)];
/// let next = Pfn::try_new(0x900).unwrap();
/// let first = [SgEntry::data(segment(0x100)?), SgEntry::chain(next)];
/// let walk = SgWalk::new(&first, |pfn| (pfn == next).then_some(&second[..]), SgLimits::default());
/// assert_eq!(walk.clone().check().unwrap().bytes.get(), 8192);
/// assert_eq!(walk.map(|s| s.unwrap().frame().pfn().get()).collect::<Vec<_>>(), [0x100, 0x300]);
/// # Ok::<(), pageless_pfn::SegmentError>(())
/// ```
#[derive(Clone, Debug)]
pub struct SgWalk<'t, F> {
    table: &'t [SgEntry],
    lookup: F,
    limits: SgLimits,
    /// Index within `table`; `None` once the walk is over.
    at: Option<usize>,
    /// Tables entered so far.
    tables: u32,
    entries: u64,
    /// Brent's cycle search: the chain frame we hope to meet again, and how many more tables to
    /// follow before hoping for a newer one.
    tortoise: Option<Pfn>,
    stride: u32,
    steps: u32,
}

impl<'t, F> SgWalk<'t, F>
where
    F: FnMut(Pfn) -> Option<&'t [SgEntry]>,
{
    /// A walk from the first entry of `table` on.
    pub const fn new(table: &'t [SgEntry], lookup: F, limits: SgLimits) -> Self {
        Self {
            table,
            lookup,
            limits,
            at: Some(0),
            tables: 1,
            entries: 0,
            tortoise: None,
            stride: 1,
            steps: 0,
        }
    }

    /// Walks to the end and says what there is.
    ///
    /// # Errors
    /// [`SgError`], the first one on the way.
    pub fn check(mut self) -> Result<SgShape, SgError> {
        let mut bytes = ByteLen::ZERO;
        for segment in self.by_ref() {
            let segment = segment?;
            bytes = bytes
                .checked_add(segment.len())
                .ok_or(SgError::TooManyBytes)?;
        }
        Ok(SgShape {
            tables: self.tables,
            entries: self.entries,
            bytes,
        })
    }

    /// Moves on to the table in frame `chain`.
    fn follow(&mut self, chain: Pfn) -> Result<(), SgError> {
        if self.tortoise == Some(chain) {
            return Err(SgError::Cycle {
                chain,
                tables: self.tables,
            });
        }
        if self.steps == 0 {
            self.tortoise = Some(chain);
            self.steps = self.stride;
            self.stride = self.stride.saturating_mul(2);
        }
        self.steps -= 1;
        if self.tables >= self.limits.tables {
            return Err(SgError::TooManyTables {
                limit: self.limits.tables,
                chain,
            });
        }
        self.table = (self.lookup)(chain).ok_or(SgError::NoTable {
            chain,
            tables: self.tables,
        })?;
        self.tables += 1;
        self.at = Some(0);
        Ok(())
    }

    fn step(&mut self) -> Result<Option<PhysSegment>, SgError> {
        // Each turn but the last enters a further table, of which there are at most `limits`.
        while let Some(at) = self.at {
            let table = self.tables - 1;
            let entry = self
                .table
                .get(at)
                .ok_or(SgError::MissingLast { table, entries: at })?;
            let flags = entry.frame.flags();
            if flags.contains(PfnFlags::SG_CHAIN) {
                if flags.contains(PfnFlags::SG_LAST) {
                    return Err(SgError::ChainAndLast { table, index: at });
                }
                if entry.offset != 0 || entry.len != 0 {
                    return Err(SgError::ChainWithData {
                        table,
                        index: at,
                        len: entry.len,
                    });
                }
                self.follow(entry.frame.pfn())?;
                continue;
            }
            if self.entries >= self.limits.entries {
                return Err(SgError::TooManyEntries {
                    limit: self.limits.entries,
                });
            }
            let frame = PfnT::new(entry.frame.pfn(), flags.difference(PfnFlags::SG_LAST));
            let offset = FrameOffset::try_new(entry.offset).map_err(|e| SgError::BadOffset {
                table,
                index: at,
                offset: e.offset,
            })?;
            let segment =
                PhysSegment::try_new(frame, offset, ByteLen::new(entry.len)).map_err(|source| {
                    SgError::BadSegment {
                        table,
                        index: at,
                        source,
                    }
                })?;
            self.entries += 1;
            self.at = if flags.contains(PfnFlags::SG_LAST) {
                None
            } else {
                Some(at + 1)
            };
            return Ok(Some(segment));
        }
        Ok(None)
    }
}

impl<'t, F> Iterator for SgWalk<'t, F>
where
    F: FnMut(Pfn) -> Option<&'t [SgEntry]>,
{
    type Item = Result<PhysSegment, SgError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.step() {
            Ok(segment) => segment.map(Ok),
            Err(error) => {
                self.at = None;
                Some(Err(error))
            }
        }
    }
}

impl<'t, F> core::iter::FusedIterator for SgWalk<'t, F> where F: FnMut(Pfn) -> Option<&'t [SgEntry]> {}

/// What is wrong with a scatter-gather list. Tables and entries are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SgError {
    /// The table ends without `SG_LAST` and without `SG_CHAIN`.
    #[error("table {table} ends after {entries} entries without a last or a chain entry")]
    MissingLast {
        /// Which table.
        table: u32,
        /// How many entries it has.
        entries: usize,
    },
    /// The chain leads back to a table that was seen before.
    #[error("the table in frame {chain} comes a second time, after {tables} tables")]
    Cycle {
        /// The frame that came again.
        chain: Pfn,
        /// Tables walked until this showed.
        tables: u32,
    },
    /// More tables than the walk is ready to follow.
    #[error("the list goes on in frame {chain} after {limit} tables, the limit")]
    TooManyTables {
        /// The limit.
        limit: u32,
        /// Where the next one would have been.
        chain: Pfn,
    },
    /// More data entries than the walk is ready to follow.
    #[error("the list has more than {limit} entries, the limit")]
    TooManyEntries {
        /// The limit.
        limit: u64,
    },
    /// The data is longer than 2^64 - 1 bytes.
    #[error("the list describes more than 2^64 - 1 bytes")]
    TooManyBytes,
    /// There is no table in the frame that a chain entry names.
    #[error("there is no table in frame {chain}, named by table {}", tables - 1)]
    NoTable {
        /// The frame.
        chain: Pfn,
        /// Tables walked until then.
        tables: u32,
    },
    /// An entry says that it is the last and that the list goes on.
    #[error("entry {index} of table {table} is both a chain and the last entry")]
    ChainAndLast {
        /// Which table.
        table: u32,
        /// Which of its entries.
        index: usize,
    },
    /// A chain entry with a length or an offset.
    #[error("entry {index} of table {table} is a chain entry and describes {len} bytes of data")]
    ChainWithData {
        /// Which table.
        table: u32,
        /// Which of its entries.
        index: usize,
        /// The length found in it.
        len: u64,
    },
    /// An offset that does not lie within a frame.
    #[error("entry {index} of table {table}: offset {offset} does not lie within a frame")]
    BadOffset {
        /// Which table.
        table: u32,
        /// Which of its entries.
        index: usize,
        /// The offset found in it.
        offset: u64,
    },
    /// The entry's data is no segment.
    #[error("entry {index} of table {table}: {source}")]
    BadSegment {
        /// Which table.
        table: u32,
        /// Which of its entries.
        index: usize,
        /// Why not.
        source: SegmentError,
    },
}
