//! Our walker against somebody else's: the `x86_64` crate's `OffsetPageTable` reads the same tables, copied out of the simulated
//! frames, and writes tables that are copied into them.
//!
//! Accessed and dirty bits, which that crate knows nothing of, are held against a walker as naive as can be.
#![expect(
    unsafe_code,
    reason = "the oracle reads page tables through raw addresses"
)]

use alloc::boxed::Box;
use alloc::vec::Vec;

use pageless_fault::shootdown::{CpuId, SpaceId};
use pageless_fault::sim::{
    Cpu, Entry, FaultCause, Level, MapError, PHYSICAL_BITS, PageFault, SimConfig, SimMachine,
    TlbShape,
};
use pageless_pfn::Pfn;
use proptest::prelude::*;
use proptest::sample::select;
use x86_64::structures::paging::mapper::{MappedFrame, TranslateResult};
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageTable, PhysFrame, Size2MiB, Size4KiB,
    Translate,
};
use x86_64::{PhysAddr, VirtAddr};

use crate::rig::{Flags, RW};

/// Frames of the machine: two 2 MiB pages' worth, of which the second is for large pages.
const FRAMES: u32 = 1024;
const LARGE_FRAME: u64 = 512;
/// The spaces under test; [`ALL_MEMORY`] maps every frame at its own number, for looking and for stamping.
const SPACES: [SpaceId; 2] = [SpaceId::new(0), SpaceId::new(1)];
const ALL_MEMORY: SpaceId = SpaceId::new(2);

const LEVELS: [Level; 4] = [Level::Root, Level::Pointers, Level::Directory, Level::Table];

#[repr(C, align(4096))]
#[derive(Clone, Copy)]
struct PageAligned([u64; 512]);

/// All frames, one behind the other.
struct Copied(Box<[PageAligned]>);

impl Copied {
    fn of(machine: &SimMachine) -> Self {
        let frames = (0..u64::from(FRAMES)).map(|frame| {
            let frame = Pfn::try_new(frame).unwrap();
            PageAligned(machine.memory().snapshot(frame).unwrap())
        });
        Copied(frames.collect())
    }

    /// The oracle over the tables below frame `root`.
    fn oracle(&mut self, root: u64) -> OffsetPageTable<'_> {
        let base = self.0.as_mut_ptr();
        // SAFETY: `root` is the number of one of the frames, each of which is as large as a page table and aligned like
        // one. Of any 512 words a `PageTable` can be made. The buffer is borrowed for as long as the result lives.
        let table = unsafe { &mut *base.add(usize::try_from(root).unwrap()).cast::<PageTable>() };
        // SAFETY: physical address 0 is the start of the buffer. Our tables point only to tables inside it: they were made by
        // `SimMachine`, and random entries are only leaves, which the oracle does not follow.
        unsafe { OffsetPageTable::new(table, VirtAddr::from_ptr(base)) }
    }

    /// Marks what an access should mark, and says what it should find: the physical address, or the fault.
    fn access(&mut self, root: u64, va: u64, write: bool) -> Result<u64, FaultCause> {
        let (mut table, mut writable) = (root, true);
        for level in LEVELS {
            let word = &mut self.0[usize::try_from(table).unwrap()].0[level.index(va)];
            let entry = Entry::from_bits(*word);
            if !entry.has(Flags::PRESENT) {
                return Err(FaultCause::NotPresent);
            }
            if entry.is_malformed(level) {
                return Err(FaultCause::Reserved);
            }
            writable &= entry.has(Flags::WRITABLE);
            let leaf = entry.is_leaf(level);
            if leaf && write && !writable {
                return Err(FaultCause::Protection);
            }
            *word |= Flags::ACCESSED.bits();
            if leaf {
                if write {
                    *word |= Flags::DIRTY.bits();
                }
                let below = (1 << level.shift()) - 1;
                return Ok((entry.frame() << 12) + (va & below));
            }
            table = entry.frame();
        }
        unreachable!("the lowest level has only leaves")
    }
}

#[derive(Debug, Clone)]
struct Mapping {
    space: usize,
    va: u64,
    large: bool,
    bits: u64,
    frame: u64,
    /// The permission of a level above is taken away.
    read_only_above: Option<Level>,
}

#[derive(Debug, Clone)]
struct Access {
    space: usize,
    va: u64,
    write: bool,
}

/// Addresses in both halves, dense enough that neighbours share tables at every level.
fn address() -> impl Strategy<Value = u64> {
    let root = select(&[0u64, 1, 255, 256, 511][..]);
    (
        root,
        0u64..2,
        0u64..3,
        select(&[0u64, 1, 2, 511][..]),
        0u64..512,
    )
        .prop_map(|(root, pointer, directory, table, word)| {
            let va = root << 39 | pointer << 30 | directory << 21 | table << 12 | word << 3;
            // Bits 63:48 are copies of bit 47.
            ((va << 16).cast_signed() >> 16).cast_unsigned()
        })
}

fn mapping() -> impl Strategy<Value = Mapping> {
    let flags = (
        any::<[bool; 8]>(),
        prop::option::weighted(0.05, PHYSICAL_BITS..52),
    );
    let above = prop::option::weighted(0.2, select(&LEVELS[..3]));
    (
        0..2usize,
        address(),
        prop::bool::weighted(0.2),
        flags,
        0u64..32,
        above,
    )
        .prop_map(
            |(space, va, large, (set, reserved), frame, read_only_above)| {
                let choices = [
                    Flags::WRITABLE,
                    Flags::WRITABLE,
                    Flags::USER_ACCESSIBLE,
                    Flags::WRITE_THROUGH,
                    Flags::ACCESSED,
                    Flags::DIRTY,
                    Flags::BIT_9,
                    Flags::NO_EXECUTE,
                ];
                let mut flags = Flags::PRESENT;
                for (flag, set) in choices.into_iter().zip(set) {
                    flags.set(flag, set || flags.contains(flag));
                }
                Mapping {
                    space,
                    va,
                    large,
                    bits: flags.bits() | reserved.map_or(0, |bit| 1 << bit),
                    frame,
                    read_only_above,
                }
            },
        )
}

fn access() -> impl Strategy<Value = Access> {
    let access = (0..2usize, address(), any::<bool>());
    access.prop_map(|(space, va, write)| Access { space, va, write })
}

/// A machine whose second CPU sees all memory, and whose frames 480 to 511 are for 4 KiB pages.
fn machine() -> (SimMachine, Cpu, Cpu) {
    let machine = SimMachine::new(SimConfig {
        cpus: 2,
        frames: FRAMES,
        user_spaces: 2,
        tick_every: 0,
        tlb: TlbShape {
            structures: 5,
            ..TlbShape::default()
        },
        ..SimConfig::default()
    });
    let machine = machine.unwrap();
    for large in 0..u64::from(FRAMES) / 512 {
        let entry = Entry::new(large * 512, RW | Flags::HUGE_PAGE);
        machine
            .map_entry(ALL_MEMORY, large << 21, Level::Directory, entry)
            .unwrap();
    }
    let (cpu, eye) = (
        machine.cpu(CpuId::new(0)).unwrap(),
        machine.cpu(CpuId::new(1)).unwrap(),
    );
    eye.load_cr3(ALL_MEMORY, false);
    // Its own entries are marked now, and not in the middle of a test.
    for large in 0..u64::from(FRAMES) / 512 {
        let word = eye.load(large << 21).unwrap();
        eye.store(large << 21, word).unwrap();
    }
    (machine, cpu, eye)
}

fn build(machine: &SimMachine, mappings: &[Mapping]) {
    for mapping in mappings {
        let space = SPACES[mapping.space];
        let (level, frame, more) = if mapping.large {
            (Level::Directory, LARGE_FRAME, Flags::HUGE_PAGE.bits())
        } else {
            (Level::Table, 480 + mapping.frame, 0)
        };
        let entry = Entry::from_bits(frame << 12 | mapping.bits | more);
        match machine.map_entry(space, mapping.va, level, entry) {
            Ok(()) | Err(MapError::Occupied { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        if let Some(above) = mapping.read_only_above {
            let old = machine.entry(space, mapping.va, above);
            let new = Entry::from_bits(old.bits() & !Flags::WRITABLE.bits());
            let _old = machine.replace_entry(space, mapping.va, above, new);
        }
    }
}

/// Every address that is asked about: random ones, those that are mapped, and their neighbours.
fn asked(mappings: &[Mapping], accesses: Vec<Access>) -> Vec<Access> {
    let near = mappings.iter().flat_map(|mapping| {
        let at = move |va, write| Access {
            space: mapping.space,
            va,
            write,
        };
        let page = if mapping.large { 1 << 21 } else { 1 << 12 };
        let first = mapping.va & !(page - 1);
        let mut near = alloc::vec![
            at(mapping.va, false),
            at(first, false),
            at(first + page - 8, true)
        ];
        // Not across the hole in the middle of the address space, nor over the end.
        near.extend(
            first
                .checked_add(page)
                .and_then(canonical)
                .map(|va| at(va, false)),
        );
        near.extend(
            first
                .checked_sub(8)
                .and_then(canonical)
                .map(|va| at(va, true)),
        );
        near
    });
    let near: Vec<_> = near.collect();
    accesses.into_iter().chain(near).collect()
}

fn canonical(va: u64) -> Option<u64> {
    VirtAddr::try_new(va).ok().map(VirtAddr::as_u64)
}

/// What the oracle says of `va`: physical address and flags of the leaf.
fn ask(oracle: &OffsetPageTable<'_>, va: u64) -> Option<(u64, Flags, bool)> {
    match oracle.translate(VirtAddr::new(va)) {
        TranslateResult::Mapped {
            frame,
            offset,
            flags,
        } => {
            let large = matches!(frame, MappedFrame::Size2MiB(_));
            Some((frame.start_address().as_u64() + offset, flags, large))
        }
        TranslateResult::NotMapped => None,
        TranslateResult::InvalidFrameAddress(address) => panic!("{va:#x} maps {address:?}"),
    }
}

/// Executes the access, and says to which physical address it went: by a stamp that `eye` finds or has left there.
fn physical(cpu: &Cpu, eye: &Cpu, access: &Access, expected: u64) -> Result<bool, PageFault> {
    let stamp = access.va ^ expected << 1 ^ 0x5a5a;
    if access.write {
        eye.store(expected, !stamp).unwrap();
        cpu.store(access.va, stamp)?;
        Ok(eye.load(expected) == Ok(stamp))
    } else {
        eye.store(expected, stamp).unwrap();
        Ok(cpu.load(access.va)? == stamp)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// SDM 4.5 and 4.8: where the oracle finds a page, the CPU reaches the same byte with the same permissions; where it finds none, the
    /// CPU faults; and in the end the tables are marked as a naive walker would have marked them.
    #[test]
    fn walks_end_where_the_oracle_says(
        mappings in prop::collection::vec(mapping(), 1..24),
        accesses in prop::collection::vec(access(), 1..40),
    ) {
        let (machine, cpu, eye) = machine();
        build(&machine, &mappings);
        let (mut oracles, mut naive) = (Copied::of(&machine), Copied::of(&machine));
        for access in asked(&mappings, accesses) {
            let space = SPACES[access.space];
            let root = machine.root(space).get();
            cpu.load_cr3(space, true);
            let said = ask(&oracles.oracle(root), access.va);
            let expected = naive.access(root, access.va, access.write);
            match (said, expected) {
                (Some((address, flags, large)), Ok(expected)) => {
                    prop_assert_eq!(address, expected);
                    prop_assert_eq!(physical(&cpu, &eye, &access, address), Ok(true));
                    let level = if large { Level::Directory } else { Level::Table };
                    let entry = machine.entry(space, access.va, level);
                    let marks = Flags::ACCESSED | Flags::DIRTY;
                    let entry = Flags::from_bits_truncate(entry.bits() & !(0xf_ffff_ffff << 12));
                    prop_assert_eq!(entry - marks, flags - marks);
                    prop_assert!(cpu.caches(access.va));
                }
                (said, Err(cause)) => {
                    // What the oracle does not look at: permissions and reserved bits.
                    prop_assert_eq!(said.is_none(), cause == FaultCause::NotPresent);
                    let found = if access.write { cpu.store(access.va, 0) } else { cpu.load(access.va).map(drop) };
                    prop_assert_eq!(found.map_err(|fault| fault.cause), Err(cause));
                }
                (None, Ok(at)) => prop_assert!(false, "{:#x} maps {at:#x} for us alone", access.va),
            }
        }
        // Only tables: what the pages hold has been stamped over.
        let after = Copied::of(&machine);
        for frame in 0..480 {
            prop_assert!(after.0[frame].0 == naive.0[frame].0, "frame {frame} is marked otherwise");
        }
    }

    /// SDM 4.5: tables that the oracle has written, copied into simulated frames word by word, are read as they were meant.
    #[test]
    fn tables_that_the_oracle_wrote_are_walked(
        pages in prop::collection::btree_map(address(), (0u64..32, prop::bool::weighted(0.2), any::<bool>()), 1..24),
        others in prop::collection::vec(address(), 1..40),
    ) {
        let (machine, cpu, eye) = machine();
        let space = SPACES[1];
        let root = machine.root(space).get();
        let mut copied = Copied::of(&machine);
        let mut spare = Spare(Vec::new());
        while let Some(frame) = machine.alloc() {
            if frame.pfn().get() < 480 {
                spare.0.push(frame.pfn().get());
                copied.0[usize::try_from(frame.pfn().get()).unwrap()].0 = [0; 512];
            } else {
                break;
            }
        }
        {
            let mut oracle = copied.oracle(root);
            for (va, (frame, large, writable)) in &pages {
                let mut flags = Flags::PRESENT;
                flags.set(Flags::WRITABLE, *writable);
                let va = VirtAddr::new(*va);
                // SAFETY: the tables are a buffer of ours, and nothing is accessed through what they map. What is mapped already is
                // refused by the oracle, and stays.
                unsafe {
                    if *large {
                        let at = PhysFrame::<Size2MiB>::containing_address(PhysAddr::new(LARGE_FRAME << 12));
                        let _ = oracle.map_to(Page::containing_address(va), at, flags, &mut spare).map(|flush| flush.ignore());
                    } else {
                        let at = PhysFrame::<Size4KiB>::containing_address(PhysAddr::new((480 + frame) << 12));
                        let _ = oracle.map_to(Page::containing_address(va), at, flags, &mut spare).map(|flush| flush.ignore());
                    }
                }
            }
        }
        for (frame, words) in (0u64..480).zip(&copied.0) {
            if machine.memory().snapshot(Pfn::try_new(frame).unwrap()) == Some(words.0) {
                continue;
            }
            for (index, word) in (0u64..).zip(&words.0) {
                eye.store(frame << 12 | index << 3, *word).unwrap();
            }
        }
        cpu.load_cr3(space, false);
        for va in pages.keys().chain(&others) {
            for write in [false, true] {
                let access = Access { space: 1, va: *va, write };
                match ask(&copied.oracle(root), *va) {
                    Some((at, flags, _)) if !write || flags.contains(Flags::WRITABLE) => {
                        prop_assert_eq!(physical(&cpu, &eye, &access, at), Ok(true));
                    }
                    Some(_) => {
                        let cause = cpu.store(*va, 0).map_err(|fault| fault.cause);
                        prop_assert_eq!(cause, Err(FaultCause::Protection));
                    }
                    None => {
                        let cause = cpu.load(*va).map_err(|fault| fault.cause);
                        prop_assert_eq!(cause, Err(FaultCause::NotPresent));
                    }
                }
            }
        }
    }
}

/// Frames for the oracle's tables.
struct Spare(Vec<u64>);

// SAFETY: every frame is in the list once, comes out of it once, and belongs to nobody else: the machine has given it to us.
unsafe impl FrameAllocator<Size4KiB> for Spare {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let frame = self.0.pop()?;
        Some(PhysFrame::containing_address(PhysAddr::new(frame << 12)))
    }
}
