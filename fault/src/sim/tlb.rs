//! One CPU's caches of translations: a set-associative TLB for each page size, and a paging-structure
//! cache (Intel SDM vol. 3A, 4.10.2 and 4.10.3).
//!
//! Private to its CPU: no atomics here. What is cached stays until something invalidates it, however
//! wrong it has become; that is the point.
#![forbid(unsafe_code)]

use alloc::boxed::Box;
use alloc::vec;

use super::entry::Level;
use super::memory::FrameTag;

/// Sets and ways of one cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Sets: a power of two.
    pub sets: usize,
    /// Entries in each set.
    pub ways: usize,
}

/// What a CPU can cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlbShape {
    /// 4 KiB translations.
    pub small: Shape,
    /// 2 MiB translations.
    pub large: Shape,
    /// Page-structure entries, fully associative.
    pub structures: usize,
}

impl Default for TlbShape {
    /// 64 entries in 16 sets for 4 KiB pages, 16 in 4 sets for 2 MiB, 16 page-structure entries.
    fn default() -> Self {
        TlbShape {
            small: Shape { sets: 16, ways: 4 },
            large: Shape { sets: 4, ways: 4 },
            structures: 16,
        }
    }
}

/// A process-context identifier: 12 bits that keep the address spaces in a TLB apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pcid(u16);

impl Pcid {
    /// The first.
    pub const ZERO: Pcid = Pcid(0);

    /// The identifier `id`; `None` above 4095.
    #[must_use]
    pub const fn try_new(id: u16) -> Option<Self> {
        if id < 1 << 12 { Some(Pcid(id)) } else { None }
    }

    /// As a number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// A cached translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Translation {
    /// The first frame of the page.
    pub(crate) frame: u64,
    /// The tag that the accessed frame had when the entry was read. Of a 2 MiB page, its first frame's.
    pub(crate) tag: FrameTag,
    pub(crate) writable: bool,
    /// Whether the dirty bit of the entry is known to be set.
    pub(crate) dirty: bool,
    /// Cached: nothing is there. No x86 does this.
    pub(crate) absent: bool,
}

/// What a cached translation is found by. `0` is an empty place.
///
/// | bits | meaning |
/// |---|---|
/// | 0..=35 | page number: bits 47:12 of the address |
/// | 36..=47 | PCID; 0 in a global entry |
/// | 62 | global: any PCID finds it |
/// | 63 | there is an entry |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key(u64);

const EMPTY: Key = Key(0);
const VALID: u64 = 1 << 63;
const GLOBAL: u64 = 1 << 62;
const NUMBER: u64 = (1 << 36) - 1;

/// The number of the 4 KiB page around `va`: bits 47:12.
const fn small(va: u64) -> u64 {
    va >> 12 & NUMBER
}

/// The number of the 2 MiB page around `va`: bits 47:21.
const fn large(va: u64) -> u64 {
    va >> 21 & NUMBER >> 9
}

impl Key {
    const fn of(number: u64, pcid: Pcid) -> Self {
        Key(VALID | (pcid.0 as u64) << 36 | number & NUMBER)
    }

    const fn global(number: u64) -> Self {
        Key(VALID | GLOBAL | number & NUMBER)
    }

    const fn is_global(self) -> bool {
        self.0 & GLOBAL != 0
    }

    const fn pcid(self) -> u16 {
        (self.0 >> 36 & 0xfff) as u16
    }
}

#[derive(Debug, Clone)]
struct Cache {
    keys: Box<[Key]>,
    values: Box<[Translation]>,
    /// The way of each set that is replaced next.
    victim: Box<[u8]>,
    sets: usize,
    ways: usize,
}

impl Cache {
    fn new(shape: Shape) -> Self {
        let sets = shape.sets.next_power_of_two();
        let ways = shape.ways.clamp(1, 255);
        let nothing = Translation {
            frame: 0,
            tag: FrameTag(0),
            writable: false,
            dirty: false,
            absent: false,
        };
        Cache {
            keys: vec![EMPTY; sets * ways].into(),
            values: vec![nothing; sets * ways].into(),
            victim: vec![0; sets].into(),
            sets,
            ways,
        }
    }

    #[inline(always)]
    fn find(&self, number: u64, pcid: Pcid) -> Option<usize> {
        let first = (number as usize & (self.sets - 1)) * self.ways;
        let (own, global) = (Key::of(number, pcid), Key::global(number));
        let set = self.keys.get(first..first + self.ways)?;
        let way = set.iter().position(|key| *key == own || *key == global)?;
        Some(first + way)
    }

    fn insert(&mut self, number: u64, pcid: Pcid, global: bool, value: Translation) {
        let key = if global {
            Key::global(number)
        } else {
            Key::of(number, pcid)
        };
        let set = number as usize & (self.sets - 1);
        let at = self.find(number, pcid).unwrap_or_else(|| {
            let first = set * self.ways;
            let empty = (first..first + self.ways).find(|at| self.keys[*at] == EMPTY);
            empty.unwrap_or_else(|| {
                let way = usize::from(self.victim[set]);
                self.victim[set] = ((way + 1) % self.ways) as u8;
                first + way
            })
        });
        self.keys[at] = key;
        self.values[at] = value;
    }

    fn retain(&mut self, keep: impl Fn(Key) -> bool) {
        for key in &mut self.keys {
            if *key != EMPTY && !keep(*key) {
                *key = EMPTY;
            }
        }
    }

    fn len(&self) -> usize {
        self.keys.iter().filter(|key| **key != EMPTY).count()
    }
}

/// A cached page-structure entry: which table serves a stretch of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Structure {
    /// The level of the table pointed to.
    pub(crate) level: Level,
    /// Frame of the table.
    pub(crate) table: u64,
    /// Its tag when the entry was read.
    pub(crate) tag: FrameTag,
    /// The address, without the bits that the table itself translates.
    prefix: u64,
    pcid: Pcid,
    /// Whether every entry on the way allowed writing.
    pub(crate) writable: bool,
}

impl Structure {
    fn serves(&self, va: u64, pcid: Pcid) -> bool {
        self.pcid == pcid && self.prefix == prefix(va, self.level)
    }
}

/// The translation caches of one CPU.
#[derive(Debug, Clone)]
pub(crate) struct Tlb {
    small: Cache,
    large: Cache,
    structures: Box<[Option<Structure>]>,
    next_structure: usize,
}

impl Tlb {
    pub(crate) fn new(shape: TlbShape) -> Self {
        Tlb {
            small: Cache::new(shape.small),
            large: Cache::new(shape.large),
            structures: vec![None; shape.structures].into(),
            next_structure: 0,
        }
    }

    /// The cached translation of the page around `va`, and the frame that `va` itself falls into.
    #[inline(always)]
    pub(crate) fn lookup(&self, va: u64, pcid: Pcid) -> Option<(Translation, u64)> {
        match self.small.find(small(va), pcid) {
            Some(at) => {
                let found = self.small.values[at];
                Some((found, found.frame))
            }
            None => self.lookup_large(va, pcid),
        }
    }

    #[inline(never)]
    fn lookup_large(&self, va: u64, pcid: Pcid) -> Option<(Translation, u64)> {
        let at = self.large.find(large(va), pcid)?;
        let found = self.large.values[at];
        Some((found, found.frame + (va >> 12 & 511)))
    }

    pub(crate) fn insert(
        &mut self,
        va: u64,
        level: Level,
        pcid: Pcid,
        global: bool,
        value: Translation,
    ) {
        match level {
            Level::Table => self.small.insert(small(va), pcid, global, value),
            _ => self.large.insert(large(va), pcid, global, value),
        }
    }

    /// The lowest table that is cached for `va`.
    pub(crate) fn structure(&self, va: u64, pcid: Pcid) -> Option<Structure> {
        self.structures
            .iter()
            .flatten()
            .filter(|cached| cached.serves(va, pcid))
            .min_by_key(|cached| cached.level)
            .copied()
    }

    pub(crate) fn insert_structure(
        &mut self,
        va: u64,
        level: Level,
        pcid: Pcid,
        table: (u64, FrameTag),
        writable: bool,
    ) {
        let cached = Structure {
            level,
            table: table.0,
            tag: table.1,
            prefix: prefix(va, level),
            pcid,
            writable,
        };
        let same =
            |old: &Structure| old.level == level && old.pcid == pcid && old.prefix == cached.prefix;
        let at = self
            .structures
            .iter()
            .position(|old| old.as_ref().is_none_or(same));
        let at = at.unwrap_or_else(|| {
            let at = self.next_structure;
            self.next_structure = (at + 1) % self.structures.len().max(1);
            at
        });
        if let Some(place) = self.structures.get_mut(at) {
            *place = Some(cached);
        }
    }

    /// INVLPG: every entry for the page around `va` (4 KiB and 2 MiB, the PCID's own and global ones), and the whole
    /// paging-structure cache of the PCID (SDM 4.10.4.1).
    pub(crate) fn invalidate_page(&mut self, va: u64, pcid: Pcid) {
        self.drop_translations(va, pcid);
        self.drop_structures(Some(pcid));
    }

    fn drop_translations(&mut self, va: u64, pcid: Pcid) {
        while let Some(at) = self.small.find(small(va), pcid) {
            self.small.keys[at] = EMPTY;
        }
        while let Some(at) = self.large.find(large(va), pcid) {
            self.large.keys[at] = EMPTY;
        }
    }

    /// MOV to CR3 without bit 63, INVPCID type 1: everything of the PCID but global translations.
    pub(crate) fn invalidate_pcid(&mut self, pcid: Pcid) {
        let keep = |key: Key| key.is_global() || key.pcid() != pcid.0;
        self.small.retain(keep);
        self.large.retain(keep);
        self.drop_structures(Some(pcid));
    }

    /// INVPCID type 2, a change of CR4.PGE: everything, of all PCIDs and global.
    pub(crate) fn invalidate_all(&mut self) {
        self.small.keys.fill(EMPTY);
        self.large.keys.fill(EMPTY);
        self.drop_structures(None);
    }

    /// What a CPU does on its own when an access faults: whatever would be used for that address goes, tables as well as
    /// translations (SDM 4.10.4.1), so that the next try walks from the root. Tables for other addresses stay.
    pub(crate) fn heal(&mut self, va: u64, pcid: Pcid) {
        self.drop_translations(va, pcid);
        for place in &mut self.structures {
            if place.is_some_and(|cached| cached.serves(va, pcid)) {
                *place = None;
            }
        }
    }

    /// Translations cached now.
    pub(crate) fn len(&self) -> usize {
        self.small.len() + self.large.len()
    }

    pub(crate) fn structures_cached(&self) -> usize {
        self.structures.iter().flatten().count()
    }

    fn drop_structures(&mut self, pcid: Option<Pcid>) {
        for place in &mut self.structures {
            if place.is_some_and(|cached| pcid.is_none_or(|pcid| cached.pcid == pcid)) {
                *place = None;
            }
        }
    }
}

/// The bits of `va` above those that a table of `level` translates.
const fn prefix(va: u64, level: Level) -> u64 {
    let bits = level.shift() + 9;
    va >> bits & ((1 << (48 - bits)) - 1)
}

#[cfg(all(test, not(loom)))]
mod tests;
