//! A naive model of what a device takes: memory atom by atom, every set of segments tried.

use alloc::vec::Vec;

use pageless_pfn::{ByteLen, PfnFlags, PfnT, PhysAddr, PhysSegment};
use proptest::prelude::*;

use super::{Features, Limits, ZoneLimits};
use crate::op::Op;

/// Addresses and lengths of the model's memory are multiples of this.
pub(crate) const ATOM: u64 = 256;

pub(crate) fn segment(addr: u64, len: u64, flags: PfnFlags) -> PhysSegment {
    let addr = PhysAddr::new(addr);
    PhysSegment::try_new(
        PfnT::new(addr.pfn(), flags),
        addr.frame_offset(),
        ByteLen::new(len),
    )
    .unwrap()
}

pub(crate) fn unlimited() -> Limits {
    Limits::new(ByteLen::new(1 << 40))
}

/// Memory as the model sees it: an address and flags for each atom.
pub(crate) type Atoms = Vec<(u64, PfnFlags)>;

pub(crate) fn atoms(segments: &[PhysSegment]) -> Atoms {
    let mut atoms = Vec::new();
    for one in segments {
        for at in (0..one.len().get()).step_by(ATOM as usize) {
            atoms.push((one.phys().get() + at, one.frame().flags()));
        }
    }
    atoms
}

/// Whether these atoms, in order, are one piece of contiguous memory that the device takes as one
/// segment.
pub(crate) fn one_segment(limits: &Limits, atoms: &[(u64, PfnFlags)]) -> bool {
    let (first, last) = (atoms[0].0, atoms[atoms.len() - 1].0 + ATOM - 1);
    let len = atoms.len() as u64 * ATOM;
    let contiguous = atoms
        .windows(2)
        .all(|pair| pair[0].0 + ATOM == pair[1].0 && pair[0].1 == pair[1].1);
    contiguous
        && len <= limits.max_segment.get()
        && first.is_multiple_of(limits.dma_alignment.get())
        && len.is_multiple_of(limits.dma_alignment.get())
        && limits
            .segment_boundary
            .is_none_or(|boundary| first / boundary.get() == last / boundary.get())
}

/// The fewest segments that hold these atoms, if any number does.
pub(crate) fn fewest_segments(limits: &Limits, atoms: &[(u64, PfnFlags)]) -> Option<u32> {
    let seam = |at: usize| {
        limits.virt_boundary.is_none_or(|virt| {
            (atoms[at - 1].0 + ATOM).is_multiple_of(virt.get())
                && atoms[at].0.is_multiple_of(virt.get())
        })
    };
    let mut fewest = alloc::vec![None; atoms.len() + 1];
    fewest[0] = Some(0);
    for end in 1..=atoms.len() {
        fewest[end] = (0..end)
            .filter(|&start| start == 0 || seam(start))
            .filter(|&start| one_segment(limits, &atoms[start..end]))
            .filter_map(|start| fewest[start].map(|count: u32| count + 1))
            .min();
    }
    fewest[atoms.len()]
}

/// Whether the device takes this as one request.
pub(crate) fn legal(limits: &Limits, op: Op, position: u64, atoms: &[(u64, PfnFlags)]) -> bool {
    let len = atoms.len() as u64 * ATOM;
    let within = |size: ByteLen| position / size.get() == (position + len - 1) / size.get();
    len.is_multiple_of(limits.logical_block.get())
        && len <= limits.max_request.get()
        && limits.chunk.is_none_or(within)
        && (op == Op::Read || limits.zones.is_none_or(|zones| within(zones.size)))
        && fewest_segments(limits, atoms).is_some_and(|count| count <= limits.max_segments)
}

pub(crate) fn some_limits() -> impl Strategy<Value = Limits> {
    let powers = |range: core::ops::Range<u32>| range.prop_map(|power| ByteLen::new(1 << power));
    (
        powers(9..11),
        prop_oneof![3 => Just(ByteLen::new(1)), 2 => powers(8..11)],
        (0..12_u64, 0..512_u64),
        prop_oneof![1..6_u32, Just(u32::MAX)],
        prop_oneof![(0..4096_u64).prop_map(Some), Just(None)],
        proptest::option::of(powers(0..3)),
        proptest::option::of(powers(9..13)),
        proptest::option::of(1..8_u64),
        proptest::option::of(powers(1..3)),
    )
        .prop_map(
            |(block, dma, request, max_segments, segment, boundary, virt, chunk, zone)| {
                let least = block.get().max(dma.get());
                let mut limits = unlimited();
                limits.logical_block = block;
                limits.physical_block = block;
                limits.discard_granularity = block;
                limits.dma_alignment = dma;
                limits.max_request = ByteLen::new(least + request.0 * block.get() + request.1);
                limits.max_segments = max_segments;
                if let Some(more) = segment {
                    // Not a multiple of the alignment, where the model has room below it.
                    let more = if dma.get() < ATOM {
                        more - more % ATOM
                    } else {
                        more
                    };
                    limits.max_segment = ByteLen::new(least + more);
                }
                limits.segment_boundary = boundary.map(|factor| ByteLen::new(least * factor.get()));
                limits.virt_boundary = virt;
                limits.chunk = chunk.map(|blocks| ByteLen::new(blocks * block.get()));
                if let Some(factor) = zone {
                    limits.features |= Features::ZONED;
                    limits.zones = Some(ZoneLimits {
                        size: ByteLen::new(block.get() * factor.get()),
                        max_append: ByteLen::new(4096),
                        max_open: 0,
                        max_active: 0,
                    });
                }
                limits.validate().unwrap();
                limits
            },
        )
}

/// Memory of whole blocks, mostly aligned as the limits want it.
pub(crate) fn some_memory(limits: &Limits) -> impl Strategy<Value = Vec<PhysSegment>> + use<> {
    let block = limits.logical_block.get();
    let grain = limits.dma_alignment.get().max(ATOM);
    let virt = limits.virt_boundary.map_or(grain, ByteLen::get).max(grain);
    let one = (
        prop_oneof![1 => Just(ATOM), 8 => Just(grain), 8 => Just(virt)],
        0..20_u64,
        1..6_u64,
        any::<bool>(),
        prop_oneof![6 => Just(PfnFlags::empty()), 1 => Just(PfnFlags::DEV)],
    );
    proptest::collection::vec(one, 1..7).prop_map(move |ones| {
        let mut segments: Vec<PhysSegment> = Vec::new();
        for (grain, place, len, follows, flags) in ones {
            let addr = match segments.last() {
                Some(last) if follows => last.last_phys().get() + 1,
                _ => place * grain,
            };
            segments.push(segment(addr, len.min(5000 / grain).max(1) * grain, flags));
        }
        let total: u64 = segments.iter().map(|one| one.len().get()).sum();
        let over = total % block;
        if over != 0 {
            let last = *segments.last().unwrap();
            let addr = last.phys().get();
            let len = last.len().get() + block - over;
            *segments.last_mut().unwrap() = segment(addr, len, last.frame().flags());
        }
        segments
    })
}

pub(crate) fn some_bio() -> impl Strategy<Value = (Limits, Op, u64, Vec<PhysSegment>)> {
    some_limits().prop_flat_map(|limits| {
        let block = limits.logical_block.get();
        (
            Just(limits),
            prop_oneof![Just(Op::Read), Just(Op::Write)],
            (0..40_u64).prop_map(move |blocks| blocks * block),
            some_memory(&limits),
        )
    })
}
