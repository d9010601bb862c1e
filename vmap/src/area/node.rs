//! One share of the books: areas by address, what waits for a shootdown, and ranges to be had again.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::panic::Location;

use pageless_fault::Unflushed;
use pageless_fault::sync::Mutex;
use pageless_fault::sync::atomic::AtomicU64;

use pageless_pfn::PAGE_SIZE;

use crate::area::counters::Counts;
use crate::area::flushed::FlushedArea;
use crate::area::listing::AreaKind;
use crate::area::pool::Pools;
use crate::area::ram::RamRun;
use crate::area::release::Holds;
use crate::area::span::{PageNumber, Span};

/// One share of the books. On cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Node {
    /// Areas that begin in a zone of this node.
    pub(crate) areas: Mutex<Areas>,
    /// Ranges that came from the CPUs of this node.
    pub(crate) pools: Mutex<Pools>,
    /// How many areas are in `flushed`. `Relaxed`: written under the lock of `areas`, and no more than a hint to whoever has not got that.
    pub(crate) flushed: AtomicU64,
    /// What the CPUs of this node did.
    pub(crate) counts: Counts,
    /// The zone that its addresses come from at the moment. `Relaxed`: a hint, used under the lock of the free tree.
    pub(crate) zone: AtomicU64,
}

impl Node {
    /// The `number`-th node, whose first zone has the same number.
    pub(crate) fn new(number: u16) -> Self {
        Node {
            zone: AtomicU64::new(u64::from(number)),
            areas: Mutex::new(Areas::default()),
            flushed: AtomicU64::new(0),
            pools: Mutex::new(Pools::new()),
            counts: Counts::default(),
        }
    }
}

/// The areas of a node.
#[derive(Debug, Default)]
pub(crate) struct Areas {
    /// By first page.
    pub(crate) records: BTreeMap<PageNumber, Record>,
    /// What has left the page table and waits.
    pub(crate) lazy: Vec<Waiting>,
    /// What has been shot down, and is not yet taken apart.
    pub(crate) flushed: Vec<FlushedArea>,
}

/// An area that has left the page table.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// Its pages that were mapped.
    pub(crate) unflushed: Unflushed<Doomed>,
    /// The page behind its addresses, guard included.
    pub(crate) end: PageNumber,
}

impl Waiting {
    /// What is to be shot down: the first page, and the one behind the last.
    pub(crate) fn pages(&self) -> (PageNumber, PageNumber) {
        let range = self.unflushed.range();
        (
            range.start().get() / PAGE_SIZE,
            range.end().get() / PAGE_SIZE,
        )
    }
}

/// What the books know of an area. It is there from the taking of its addresses until they are given back.
#[derive(Debug)]
pub(crate) struct Record {
    /// Its addresses, guard included.
    pub(crate) span: Span,
    /// How many of them, from the first, are mapped or will be.
    pub(crate) pages: u64,
    /// What for.
    pub(crate) kind: AreaKind,
    /// By whom.
    pub(crate) caller: &'static Location<'static>,
    /// Pages that are referenced through their descriptor.
    pub(crate) referenced: u64,
    /// The node whose pool gets the addresses back.
    pub(crate) home: u16,
    /// How far it has come.
    pub(crate) state: State,
}

/// How far an area has come.
///
/// ```text
///   Held ----publish----> Busy ----unmap----> Leaving ----entries gone----> Lazy --flushed, taken apart--> (no record)
///     |                    ^                   |   |                          |
///     +---- unmap ---------|-------------------^   |                          +--not proved--> Quarantined
///                          +------- refused -------+
/// ```
#[derive(Debug)]
pub(crate) enum State {
    /// Somebody holds its [`Area`](crate::area::Area): mapped or not, it is theirs to unmap.
    Held,
    /// Whoever knows the address may unmap it.
    Busy(Holds),
    /// Somebody is taking its entries out of the page table.
    Leaving,
    /// Not in the page table, but not flushed.
    Lazy,
    /// Its shootdown failed: never to be used again.
    Quarantined,
}

/// What a shootdown sets free.
#[derive(Debug)]
pub(crate) enum Doomed {
    /// A whole area.
    Area {
        /// Its addresses, guard included.
        span: Span,
        /// What it owns.
        holds: Holds,
    },
    /// Pages of a block of small mappings.
    Ram(RamRun),
}
