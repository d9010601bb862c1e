//! Merging without descriptors against merging with them.

use alloc::vec::Vec;

use pageless_pfn::{PAGE_SIZE, PfnFlags};
use proptest::prelude::*;

use super::*;
use crate::limits::model::{atoms, fewest_segments, legal, segment, some_bio, unlimited};
use crate::limits::split::{Cut, Cutter};
use crate::limits::{Features, Limits, ZoneLimits};
use crate::priority::PriorityClass;

fn plain(addr: u64, len: u64) -> PhysSegment {
    segment(addr, len, PfnFlags::empty())
}

fn shape(op: Op, position: u64, segments: &[PhysSegment]) -> Shape<'_> {
    let len = segments.iter().map(|one| one.len().get()).sum();
    Shape {
        op,
        flags: BioFlags::empty(),
        position: BytePos::new(position),
        len: ByteLen::new(len),
        segments,
    }
}

fn merge(limits: &Limits, front: &Shape<'_>, back: &Shape<'_>) -> Option<u32> {
    limits.merged(
        &Part::new(limits, front, Priority::NONE),
        &Part::new(limits, back, Priority::NONE),
    )
}

#[test]
fn neighbours_on_the_device_merge_wherever_their_memory_is() {
    let (front, back) = ([plain(0x1000, 512)], [plain(0x9000, 1024)]);
    let both = |op| merge(&unlimited(), &shape(op, 0, &front), &shape(op, 512, &back));
    assert_eq!(both(Op::Read), Some(2));
    assert_eq!(both(Op::Write), Some(2));
}

#[test]
fn what_differs_in_operation_flags_or_priority_stays_apart() {
    let (front, back) = ([plain(0, 512)], [plain(0x1000, 512)]);
    let limits = unlimited();
    let write = shape(Op::Write, 0, &front);
    fn part<'a>(
        limits: &Limits,
        shape: &Shape<'a>,
        priority: Priority,
    ) -> Part<Copied<slice::Iter<'a, PhysSegment>>> {
        Part::new(limits, shape, priority)
    }
    let idle = Priority::new(PriorityClass::Idle, 0).unwrap();
    for flag in BioFlags::all() {
        let mut flagged = shape(Op::Write, 512, &back);
        flagged.flags = flag;
        let (front, back) = (part(&limits, &write, idle), part(&limits, &flagged, idle));
        assert_eq!(limits.merged(&front, &back), None, "{flag:?}");
    }
    let read = shape(Op::Read, 512, &back);
    assert_eq!(merge(&limits, &write, &read), None);
    let write_after = shape(Op::Write, 512, &back);
    let (front, back) = (
        part(&limits, &write, idle),
        part(&limits, &write_after, Priority::NONE),
    );
    assert_eq!(limits.merged(&front, &back), None);
}

#[test]
fn what_must_stay_alone_does() {
    let (front, back) = ([plain(0, 512)], [plain(0x1000, 512)]);
    let both = |op, flags| {
        let (mut front, mut back) = (shape(op, 0, &front), shape(op, 512, &back));
        front.flags = flags;
        back.flags = flags;
        merge(&unlimited(), &front, &back).is_some()
    };
    for flag in BioFlags::all() {
        let alone = BioFlags::NEVER_MERGED | BioFlags::ATOMIC;
        assert_eq!(both(Op::Write, flag), !alone.contains(flag), "{flag:?}");
    }
    for op in [Op::ZoneAppend, Op::WriteZeroes, Op::Flush, Op::ZoneReset] {
        assert!(!both(op, BioFlags::empty()), "{op}");
    }
}

#[test]
fn discards_merge_up_to_the_longest() {
    let mut limits = unlimited();
    limits.max_discard = ByteLen::new(8192);
    let discard = |position, len| Shape {
        len: ByteLen::new(len),
        ..shape(Op::Discard, position, &[])
    };
    assert_eq!(
        merge(&limits, &discard(0, 4096), &discard(4096, 4096)),
        Some(0)
    );
    assert_eq!(
        merge(&limits, &discard(0, 4096), &discard(4096, 4608)),
        None
    );
}

#[test]
fn nothing_is_merged_across_chunks_and_written_across_zones() {
    let (front, back) = ([plain(0, 512)], [plain(0x1000, 512)]);
    let both = |limits: &Limits, op| {
        merge(limits, &shape(op, 512, &front), &shape(op, 1024, &back)).is_some()
    };
    let mut limits = unlimited();
    limits.chunk = Some(ByteLen::new(1024));
    assert!(!both(&limits, Op::Read));
    let mut limits = unlimited();
    limits.features |= Features::ZONED;
    limits.zones = Some(ZoneLimits {
        size: ByteLen::new(1024),
        max_append: ByteLen::ZERO,
        max_open: 0,
        max_active: 0,
    });
    assert!(both(&limits, Op::Read));
    assert!(!both(&limits, Op::Write));
}

#[test]
fn a_bound_that_was_too_high_refuses_nothing() {
    let mut limits = unlimited();
    limits.max_segments = 2;
    let (front, back) = ([plain(0, 512)], [plain(0x1000, 512)]);
    let (front, back) = (shape(Op::Read, 0, &front), shape(Op::Read, 512, &back));
    let mut bounded = Part::new(&limits, &front, Priority::NONE);
    bounded.count = 7;
    let back = Part::new(&limits, &back, Priority::NONE);
    assert_eq!(limits.merged(&bounded, &back), Some(2));
}

/// A page descriptor, as far as merging reads it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Page {
    /// Memory of a device.
    zone_device: bool,
    /// Which device's.
    pgmap: u64,
}

/// Descriptors for all the memory that the model uses, and bios that name memory by descriptor.
struct Memmap(Vec<Page>);

/// A page by its descriptor, and bytes within it.
#[derive(Clone, Copy)]
struct PageVec {
    page: usize,
    offset: u64,
    len: u64,
}

impl Memmap {
    /// Some descriptors for memory that segments name: what the flags say is what they say. A frame
    /// that both ordinary memory and a device's segment name has no one descriptor: `None`.
    fn describing(segments: &[PhysSegment]) -> Option<Self> {
        let ordinary = Page {
            zone_device: false,
            pgmap: 0,
        };
        let mut pages: Vec<Option<Page>> = alloc::vec![None; 64];
        for one in segments {
            let flags = one.frame().flags();
            let page = match flags.contains(PfnFlags::DEV) {
                true => Page {
                    zone_device: true,
                    pgmap: flags.bits(),
                },
                false => ordinary,
            };
            for pfn in one.pieces().map(|piece| piece.frame().pfn().get() as usize) {
                match &mut pages[pfn] {
                    Some(known) if *known != page => return None,
                    place => *place = Some(page),
                }
            }
        }
        Some(Self(
            pages
                .into_iter()
                .map(|page| page.unwrap_or(ordinary))
                .collect(),
        ))
    }

    /// One vec for each page.
    fn vecs(segments: &[PhysSegment]) -> Vec<PageVec> {
        segments
            .iter()
            .flat_map(|one| one.pieces())
            .map(|piece| PageVec {
                page: piece.frame().pfn().get() as usize,
                offset: piece.offset().get(),
                len: piece.len().get(),
            })
            .collect()
    }

    fn page_to_phys(vec: PageVec) -> u64 {
        vec.page as u64 * PAGE_SIZE + vec.offset
    }

    /// Linux's rule (`biovec_phys_mergeable`), but for the boundary, which is about the segments of
    /// the device and counted there.
    fn phys_mergeable(&self, one: PageVec, next: PageVec) -> bool {
        let (a, b) = (self.0[one.page], self.0[next.page]);
        let same_pgmap = if a.zone_device || b.zone_device {
            a.zone_device == b.zone_device && a.pgmap == b.pgmap
        } else {
            true
        };
        Self::page_to_phys(one) + one.len == Self::page_to_phys(next) && same_pgmap
    }

    /// What hardware would be told: runs of memory, as addresses and lengths.
    fn runs(&self, vecs: &[PageVec]) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let mut last: Option<PageVec> = None;
        for &vec in vecs {
            match runs.last_mut() {
                Some(run) if last.is_some_and(|last| self.phys_mergeable(last, vec)) => {
                    run.1 += vec.len;
                }
                _ => runs.push((Self::page_to_phys(vec), vec.len)),
            }
            last = Some(vec);
        }
        runs
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 500,
        max_global_rejects: 100_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn merges_as_one_that_consults_descriptors(
        (limits, op, position, memory) in some_bio(),
        at in any::<prop::sample::Index>(),
    ) {
        let cutter = Cutter::new(&limits);
        let block = limits.logical_block.get();
        let len: u64 = memory.iter().map(|one| one.len().get()).sum();
        prop_assume!(len / block > 1);
        let cut = (1 + at.index((len / block - 1) as usize) as u64) * block;
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let mut left = cut;
        for &one in &memory {
            match one.split_at(ByteLen::new(left)) {
                Some((head, tail)) => {
                    first.push(head);
                    second.push(tail);
                    left = 0;
                }
                None if left == 0 => second.push(one),
                None => {
                    left -= one.len().get();
                    first.push(one);
                }
            }
        }
        let (front, back) = (shape(op, position, &first), shape(op, position + cut, &second));
        prop_assume!(cutter.cut(&front) == Cut::Fits && cutter.cut(&back) == Cut::Fits);
        let memmap = Memmap::describing(&memory);
        prop_assume!(memmap.is_some());
        let memmap = memmap.unwrap();

        let got = limits.merged(
            &Part::new(&limits, &front, Priority::NONE),
            &Part::new(&limits, &back, Priority::NONE),
        );

        // With descriptors: the same runs of memory, and what a device makes of them.
        let mut vecs = Memmap::vecs(&first);
        vecs.extend(Memmap::vecs(&second));
        let runs: Vec<(u64, u64)> = memmap.runs(&vecs);
        let mut ours = SegmentRules::of(&limits).cut(first.iter().chain(&second).copied());
        let mut our_runs = Vec::new();
        while let Some(run) = ours.run() {
            our_runs.push((run.phys().get(), run.len().get()));
        }
        prop_assert_eq!(&our_runs, &runs);
        // Each run gets flags of its own, so that the model joins what descriptors joined, no more.
        let joined: Vec<PhysSegment> = runs
            .iter()
            .enumerate()
            .map(|(number, &(addr, len))| {
                let flags = [PfnFlags::empty(), PfnFlags::DEV][number % 2];
                segment(addr, len, flags)
            })
            .collect();
        let together = atoms(&joined);
        prop_assert_eq!(got.is_some(), legal(&limits, op, position, &together));
        if let Some(count) = got {
            let fewest = fewest_segments(&limits, &together).unwrap();
            prop_assert!(fewest <= count && count <= limits.max_segments);
        }
    }
}
