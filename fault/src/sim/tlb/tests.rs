//! The caches against a naive oracle: a list of all that was ever put in and has not been invalidated since. A TLB
//! may forget whatever it likes and may keep two translations of one page; it must never invent one.

use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

/// One translation or table that was put in.
#[derive(Debug, Clone, Copy)]
struct Put {
    va: u64,
    level: Level,
    pcid: Pcid,
    global: bool,
    /// Its frame: no two are the same.
    number: u64,
}

impl Put {
    fn covers(&self, va: u64) -> bool {
        self.va >> self.level.shift() == va >> self.level.shift()
    }

    fn is_for(&self, va: u64, pcid: Pcid) -> bool {
        self.covers(va) && (self.global || self.pcid == pcid)
    }

    /// Of a table: whether it serves `va`.
    fn leads_to(&self, va: u64, pcid: Pcid) -> bool {
        let shift = self.level.shift() + 9;
        self.pcid == pcid && self.va >> shift == va >> shift
    }
}

#[derive(Debug, Default)]
struct Oracle {
    translations: Vec<Put>,
    tables: Vec<Put>,
}

#[derive(Debug, Clone)]
enum Act {
    Insert {
        va: u64,
        level: Level,
        pcid: Pcid,
        global: bool,
    },
    Structure {
        va: u64,
        level: Level,
        pcid: Pcid,
    },
    Look {
        va: u64,
        pcid: Pcid,
    },
    Page {
        va: u64,
        pcid: Pcid,
    },
    Heal {
        va: u64,
        pcid: Pcid,
    },
    Context(Pcid),
    Everything,
}

/// Few pages, near each other and far apart, so that sets collide.
fn address() -> impl Strategy<Value = u64> {
    let page = prop_oneof![4 => 0u64..40, 1 => 490u64..512];
    (0u64..3, 0u64..3, 0u64..3, page, 0u64..4096).prop_map(|(root, pointer, dir, page, at)| {
        root << 39 | pointer << 30 | dir << 21 | page << 12 | at
    })
}

fn pcid() -> impl Strategy<Value = Pcid> {
    prop_oneof![Just(0), Just(1), Just(4095)].prop_map(|id| Pcid::try_new(id).unwrap())
}

fn act() -> impl Strategy<Value = Act> {
    let leaf = prop_oneof![3 => Just(Level::Table), 1 => Just(Level::Directory)];
    let table = prop_oneof![
        Just(Level::Table),
        Just(Level::Directory),
        Just(Level::Pointers)
    ];
    prop_oneof![
        8 => (address(), leaf, pcid(), any::<bool>())
            .prop_map(|(va, level, pcid, global)| Act::Insert { va, level, pcid, global }),
        4 => (address(), table, pcid())
            .prop_map(|(va, level, pcid)| Act::Structure { va, level, pcid }),
        8 => (address(), pcid()).prop_map(|(va, pcid)| Act::Look { va, pcid }),
        3 => (address(), pcid()).prop_map(|(va, pcid)| Act::Page { va, pcid }),
        2 => (address(), pcid()).prop_map(|(va, pcid)| Act::Heal { va, pcid }),
        1 => pcid().prop_map(Act::Context),
        1 => Just(Act::Everything),
    ]
}

fn shape() -> impl Strategy<Value = TlbShape> {
    (0u32..4, 1usize..4, 0u32..3, 1usize..3, 0usize..6).prop_map(
        |(small_sets, small_ways, large_sets, large_ways, structures)| TlbShape {
            small: Shape {
                sets: 1 << small_sets,
                ways: small_ways,
            },
            large: Shape {
                sets: 1 << large_sets,
                ways: large_ways,
            },
            structures,
        },
    )
}

fn translation(number: u64) -> Translation {
    Translation {
        frame: number << 9,
        tag: FrameTag(number),
        writable: true,
        dirty: false,
        absent: false,
    }
}

fn check(tlb: &Tlb, oracle: &Oracle, va: u64, pcid: Pcid) {
    if let Some((found, frame)) = tlb.lookup(va, pcid) {
        let put = oracle
            .translations
            .iter()
            .find(|put| found == translation(put.number) && put.is_for(va, pcid));
        let put = put.unwrap_or_else(|| panic!("{va:#x} under {pcid:?}: {found:?} was never put"));
        let offset = match put.level {
            Level::Table => 0,
            _ => va >> 12 & 511,
        };
        assert_eq!(frame, found.frame + offset, "{va:#x} in {put:?}");
    }
    if let Some(found) = tlb.structure(va, pcid) {
        assert!(
            oracle.tables.iter().any(|put| put.number == found.table
                && put.level == found.level
                && put.leads_to(va, pcid)),
            "{va:#x} under {pcid:?}: {found:?} was never put"
        );
    }
}

proptest! {
    #[test]
    fn forgets_but_never_invents(shape in shape(), acts in prop::collection::vec(act(), 1..200)) {
        let mut tlb = Tlb::new(shape);
        let mut oracle = Oracle::default();
        let mut asked = Vec::new();
        for (number, act) in acts.into_iter().enumerate() {
            let number = number as u64 + 1;
            let takes = !matches!(act, Act::Insert { .. } | Act::Structure { .. } | Act::Look { .. });
            match act {
                Act::Insert { va, level, pcid, global } => {
                    tlb.insert(va, level, pcid, global, translation(number));
                    oracle.translations.push(Put { va, level, pcid, global, number });
                    asked.push((va, pcid));
                    // With room for one at least, the last one put in is there.
                    prop_assert!(tlb.lookup(va, pcid).is_some());
                }
                Act::Structure { va, level, pcid } => {
                    tlb.insert_structure(va, level, pcid, (number, FrameTag(number)), true);
                    oracle.tables.push(Put { va, level, pcid, global: false, number });
                    asked.push((va, pcid));
                }
                Act::Look { va, pcid } => asked.push((va, pcid)),
                Act::Page { va, pcid } => {
                    tlb.invalidate_page(va, pcid);
                    oracle.translations.retain(|put| !put.is_for(va, pcid));
                    oracle.tables.retain(|put| put.pcid != pcid);
                    prop_assert!(tlb.lookup(va, pcid).is_none());
                }
                Act::Heal { va, pcid } => {
                    let others = tlb.structures.iter().flatten().filter(|cached| !cached.serves(va, pcid)).count();
                    tlb.heal(va, pcid);
                    oracle.translations.retain(|put| !put.is_for(va, pcid));
                    oracle.tables.retain(|put| !put.leads_to(va, pcid));
                    prop_assert!(tlb.lookup(va, pcid).is_none() && tlb.structure(va, pcid).is_none());
                    prop_assert_eq!(tlb.structures_cached(), others);
                }
                Act::Context(pcid) => {
                    let globals = |tlb: &Tlb| {
                        let keys = tlb.small.keys.iter().chain(&tlb.large.keys);
                        keys.filter(|key| key.is_global()).count()
                    };
                    let before = globals(&tlb);
                    tlb.invalidate_pcid(pcid);
                    prop_assert_eq!(globals(&tlb), before);
                    oracle.translations.retain(|put| put.global || put.pcid != pcid);
                    oracle.tables.retain(|put| put.pcid != pcid);
                }
                Act::Everything => {
                    tlb.invalidate_all();
                    oracle = Oracle::default();
                    prop_assert_eq!((tlb.len(), tlb.structures_cached()), (0, 0));
                }
            }
            // Everything again where something was taken away; else what came last.
            let from = if takes { 0 } else { asked.len().saturating_sub(4) };
            for (va, pcid) in &asked[from..] {
                check(&tlb, &oracle, *va, *pcid);
            }
        }
    }
}

#[test]
fn a_full_set_forgets_in_turn() {
    let mut tlb = Tlb::new(TlbShape {
        small: Shape { sets: 1, ways: 4 },
        large: Shape { sets: 1, ways: 1 },
        structures: 0,
    });
    let cached = |tlb: &Tlb| {
        let pages = (0..8).filter(|page| tlb.lookup(page << 12, Pcid::ZERO).is_some());
        pages.collect::<Vec<u64>>()
    };
    for page in 0..4 {
        tlb.insert(
            page << 12,
            Level::Table,
            Pcid::ZERO,
            false,
            translation(page),
        );
    }
    assert_eq!(cached(&tlb), [0, 1, 2, 3]);
    tlb.insert(4 << 12, Level::Table, Pcid::ZERO, false, translation(4));
    assert_eq!(cached(&tlb), [1, 2, 3, 4]);
    tlb.insert(5 << 12, Level::Table, Pcid::ZERO, false, translation(5));
    assert_eq!(cached(&tlb), [2, 3, 4, 5]);
    // An empty place is taken first.
    tlb.invalidate_page(3 << 12, Pcid::ZERO);
    tlb.insert(6 << 12, Level::Table, Pcid::ZERO, false, translation(6));
    assert_eq!(cached(&tlb), [2, 4, 5, 6]);
}
