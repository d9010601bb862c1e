//! Blocks against a list of them: what pages they have, what is in those, who refers to them, and what is free.

use alloc::sync::Arc;
use std::collections::HashMap;
use std::sync::Mutex;

use pageless_fault::FrameMemory;
use pageless_pfn::Pfn;
use pageless_vmap::compound::{AllocPagesError, DestructorId, NotSplit, SplitError};
use pageless_vmap::frames::{Fragmentation, Fragmented, Gfp, Injection, Order};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::rig::{Block, Host, Rig, Sim, Size, World, order};

/// Frames of memory, and pages of address space. Both run out.
const FRAMES: u64 = 96;
const ADDRESSES: u64 = 160;
/// Descriptors for all of them.
const DESCRIPTORS: u64 = 1 << 20;

/// `which` is the block at this place of the list, modulo its length.
#[derive(Debug, Clone, Copy)]
enum Op {
    Alloc {
        order: u8,
        atomic: bool,
        fallback: bool,
        destructor: bool,
        tag: u8,
    },
    Get {
        which: usize,
        page: u64,
    },
    Put {
        which: usize,
    },
    /// With interrupts off.
    Drop {
        which: usize,
    },
    Raw {
        which: usize,
    },
    Split {
        which: usize,
    },
    Write {
        which: usize,
        at: u64,
        tag: u8,
    },
    Purge,
    Fragment {
        order: u8,
        seed: u64,
    },
    Heal,
    AlwaysFallBack(bool),
    /// The allocation of a frame that comes after so many others fails.
    FailFrame(u64),
    /// Whatever is mapped after so many others is not.
    FailMap(u64),
    NoFailures,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let which = || 0..64_usize;
    let op = prop_oneof![
        8 => (0..5_u8, any::<bool>(), any::<bool>(), any::<bool>(), any::<u8>()).prop_map(
            |(order, atomic, fallback, destructor, tag)| Op::Alloc { order, atomic, fallback, destructor, tag }
        ),
        2 => (which(), 0..16_u64).prop_map(|(which, page)| Op::Get { which, page }),
        4 => which().prop_map(|which| Op::Put { which }),
        2 => which().prop_map(|which| Op::Drop { which }),
        1 => which().prop_map(|which| Op::Raw { which }),
        2 => which().prop_map(|which| Op::Split { which }),
        2 => (which(), 0..16 * 4096_u64, any::<u8>()).prop_map(|(which, at, tag)| Op::Write { which, at, tag }),
        1 => Just(Op::Purge),
        1 => (1..4_u8, any::<u64>()).prop_map(|(order, seed)| Op::Fragment { order, seed }),
        1 => Just(Op::Heal),
        1 => any::<bool>().prop_map(Op::AlwaysFallBack),
        1 => (0..6_u64).prop_map(Op::FailFrame),
        1 => (0..4_u64).prop_map(Op::FailMap),
        2 => Just(Op::NoFailures),
    ];
    proptest::collection::vec(op, 1..60)
}

/// What the oracle knows of a block.
#[derive(Debug, Clone)]
struct Known {
    pages: Vec<Pfn>,
    is_virtual: bool,
    destructor: bool,
    /// Every byte of it that is not what its page began with.
    written: HashMap<u64, u8>,
    tag: u8,
}

impl Known {
    fn byte(&self, at: u64) -> u8 {
        let page = (at / 4096) as u8;
        let begun = self.tag.wrapping_add(page);
        self.written.get(&at).copied().unwrap_or(begun)
    }

    fn bytes(&self) -> u64 {
        self.pages.len() as u64 * 4096
    }
}

/// Heads and orders of blocks that have been destroyed.
type Destroyed = Arc<Mutex<Vec<(Pfn, u8)>>>;

struct Books<'w, R: Rig> {
    world: &'w World<R>,
    /// By head.
    known: HashMap<Pfn, Known>,
    /// References, to any of the blocks.
    held: Vec<Block<'w, R>>,
    fragmented: Option<Fragmented<'w, R::Memory>>,
    always: bool,
    failing: bool,
    destructor: DestructorId,
    destroyed: Destroyed,
    expected: Vec<(Pfn, u8)>,
}

impl<'w, R: Rig> Books<'w, R> {
    fn new(world: &'w World<R>) -> Self {
        let destroyed = Destroyed::default();
        let seen = Arc::clone(&destroyed);
        let destructor = world
            .pages
            .register_destructor(Arc::new(move |head, of: Order| {
                seen.lock().unwrap().push((head, of.get()));
            }));
        Books {
            world,
            known: HashMap::new(),
            held: Vec::new(),
            fragmented: None,
            always: false,
            failing: false,
            destructor,
            destroyed,
            expected: Vec::new(),
        }
    }

    /// Frames that nobody has, once everything that waits is flushed.
    fn free(&self) -> u64 {
        let out: usize = self.known.values().map(|known| known.pages.len()).sum();
        let taken = self.fragmented.as_ref().map_or(0, |f| f.taken().get());
        FRAMES - out as u64 - taken
    }

    fn references(&self, head: Pfn) -> usize {
        self.held
            .iter()
            .filter(|block| block.head() == head)
            .count()
    }

    fn pick(&mut self, which: usize) -> Option<Block<'w, R>> {
        if self.held.is_empty() {
            return None;
        }
        let at = which % self.held.len();
        Some(self.held.swap_remove(at))
    }

    /// The reference is about to go: if it is the last one, the block ends.
    fn gone(&mut self, head: Pfn) {
        if self.references(head) == 0 {
            let known = self.known.remove(&head).expect("a block that is out");
            if known.destructor {
                let order = known.pages.len().trailing_zeros() as u8;
                self.expected.push((head, order));
            }
        }
    }

    fn step(&mut self, op: Op) -> Result<(), TestCaseError> {
        let pages = &self.world.pages;
        match op {
            Op::Alloc {
                order: of,
                atomic,
                fallback,
                destructor,
                tag,
            } => self.alloc(order(of), atomic, fallback, destructor, tag)?,
            Op::Get { which, page } => {
                let Some(block) = self.pick(which) else {
                    return Ok(());
                };
                let of = self.known[&block.head()].pages.clone();
                let page = of[(page % of.len() as u64) as usize];
                let again = pages.get_page(page);
                prop_assert!(again.is_some(), "a page of a block that is out");
                self.held.extend(again);
                self.held.push(block);
            }
            Op::Put { which } => {
                if let Some(block) = self.pick(which) {
                    let head = block.head();
                    block.put(&self.world.ctx);
                    self.gone(head);
                }
            }
            Op::Drop { which } => {
                if let Some(block) = self.pick(which) {
                    let head = block.head();
                    self.world.rig.with_interrupts_off(|| drop(block));
                    self.gone(head);
                }
            }
            Op::Raw { which } => {
                if let Some(block) = self.pick(which) {
                    let head = block.into_raw();
                    let again = pages.assume(head);
                    prop_assert!(again.is_some(), "a reference that was kept");
                    self.held.extend(again);
                }
            }
            Op::Split { which } => self.split(which)?,
            Op::Write { which, at, tag } => {
                if let Some(block) = self.pick(which) {
                    let known = self.known.get_mut(&block.head()).unwrap();
                    let at = at % known.bytes();
                    prop_assert_eq!(block.write(at, &[tag]), Ok(()));
                    known.written.insert(at, tag);
                    prop_assert!(block.write(known.bytes(), &[tag]).is_err());
                    self.held.push(block);
                }
            }
            Op::Purge => {
                prop_assert!(pages.areas().purge(&self.world.ctx).is_ok());
                let free = pages.frames().statistics().free().get();
                prop_assert_eq!(free, self.free(), "frames after a purge");
            }
            Op::Fragment { order: of, seed } => {
                self.fragmented = None;
                let how = Fragmentation {
                    order: order(of),
                    keep_free: 700,
                    seed,
                };
                // What waits for a shootdown is nobody's that could be taken.
                prop_assert!(pages.areas().purge(&self.world.ctx).is_ok());
                self.fragmented = pages.frames().fragment(how).ok();
            }
            Op::Heal => self.fragmented = None,
            Op::AlwaysFallBack(always) => {
                pages.always_fall_back(always);
                self.always = always;
            }
            Op::FailFrame(nth) => {
                pages.frames().inject(Some(Injection::Nth(nth)));
                self.failing = true;
            }
            Op::FailMap(left) => {
                pages.areas().space().fail_after(left);
                self.failing = true;
            }
            Op::NoFailures => {
                pages.frames().inject(None);
                pages.areas().space().fail_after(u64::MAX);
                self.failing = false;
            }
        }
        Ok(())
    }

    fn alloc(
        &mut self,
        of: Order,
        atomic: bool,
        fallback: bool,
        destructor: bool,
        tag: u8,
    ) -> Result<(), TestCaseError> {
        let World { pages, ctx, rig } = self.world;
        let before = pages.counters();
        let gfp = match (atomic, fallback) {
            (true, false) => Gfp::atomic(),
            (true, true) => Gfp::atomic().virtual_fallback(),
            (false, false) => Gfp::kernel(ctx),
            (false, true) => Gfp::kernel(ctx).virtual_fallback(),
        };
        let allocated = if atomic {
            rig.with_interrupts_off(|| pages.alloc(&gfp, of))
        } else {
            pages.alloc(&gfp, of)
        };
        let after = pages.counters();
        let count = of.frames().get();
        let block = match allocated {
            Ok(block) => block,
            Err(error) => {
                // Somebody who may sleep gets single frames as long as there are any, and addresses as long as there is a hole.
                let single = count == 1 || fallback;
                let excused = match error {
                    // Lost in holes, or told to fail.
                    AllocPagesError::Mapping { .. } => true,
                    AllocPagesError::DescriptorNow(_) => atomic,
                    AllocPagesError::Contiguous(_) | AllocPagesError::Frames { .. } => {
                        atomic || !single || self.free() < count
                    }
                    _ => false,
                };
                prop_assert!(
                    self.failing || excused,
                    "{}: {} are free",
                    error,
                    self.free()
                );
                prop_assert_eq!(after.contiguous, before.contiguous);
                prop_assert_eq!(after.fallbacks, before.fallbacks);
                return Ok(());
            }
        };
        let is_virtual = block.is_virtual();
        prop_assert!(
            !is_virtual || (fallback && count > 1),
            "nobody permitted that"
        );
        prop_assert!(is_virtual || !(self.always && fallback && count > 1));
        prop_assert_eq!(after.contiguous, before.contiguous + u64::from(!is_virtual));
        prop_assert_eq!(after.fallbacks, before.fallbacks + u64::from(is_virtual));
        prop_assert_eq!((block.order(), block.references()), (of, 1));
        let mut mine = Vec::new();
        for n in 0..count {
            let page = block.nth(n).expect("a page of the block");
            let others = self.known.values().flat_map(|known| &known.pages);
            prop_assert!(
                others.chain(&mine).all(|other| *other != page),
                "page {} twice",
                page
            );
            mine.push(page);
            let content = [tag.wrapping_add(n as u8); 4096];
            prop_assert_eq!(block.write(n * 4096, &content), Ok(()));
        }
        prop_assert_eq!(block.nth(count), None);
        if destructor {
            block.set_destructor(self.destructor);
        }
        let known = Known {
            pages: mine,
            is_virtual,
            destructor,
            written: HashMap::new(),
            tag,
        };
        let before = self.known.insert(block.head(), known);
        prop_assert!(before.is_none(), "a head twice");
        self.held.push(block);
        Ok(())
    }

    fn split(&mut self, which: usize) -> Result<(), TestCaseError> {
        let Some(block) = self.pick(which) else {
            return Ok(());
        };
        let head = block.head();
        let references = self.references(head) as u32 + 1;
        match self.world.pages.split_page(&self.world.ctx, block) {
            Ok(singles) => {
                prop_assert_eq!(references, 1, "others refer to it");
                let known = self.known.remove(&head).unwrap();
                let heads: Vec<_> = singles.iter().map(|page| page.head()).collect();
                prop_assert_eq!(&heads, &known.pages);
                for (n, page) in (0_u64..).zip(&heads) {
                    let within = n * 4096..(n + 1) * 4096;
                    let written = known.written.iter();
                    let written = written.filter(|(at, _)| within.contains(at));
                    let single = Known {
                        pages: vec![*page],
                        is_virtual: false,
                        destructor: false,
                        written: written.map(|(at, tag)| (at - n * 4096, *tag)).collect(),
                        tag: known.tag.wrapping_add(n as u8),
                    };
                    self.known.insert(*page, single);
                }
                self.held.extend(singles);
            }
            Err(NotSplit { block, why }) => {
                prop_assert_eq!(why, SplitError::Shared { head, references });
                prop_assert!(references > 1);
                prop_assert_eq!(block.as_ref().map(|block| block.head()), Some(head));
                self.held.extend(block);
            }
        }
        Ok(())
    }

    /// Everything that can be asked about the blocks that are out, and about nothing else.
    fn check(&self) -> Result<(), TestCaseError> {
        let pages = &self.world.pages;
        let out = self.known.values().map(|known| known.pages.len() as u64);
        let all = (self.known.len() as u64, out.sum());
        prop_assert_eq!(pages.self_check(), Ok(all));
        prop_assert_eq!(pages.frames().self_check(), Ok(()));
        prop_assert_eq!(pages.areas().self_check(), Ok(()));
        prop_assert_eq!(&*self.destroyed.lock().unwrap(), &self.expected);
        let mapped: u64 = self
            .known
            .values()
            .filter(|known| known.is_virtual)
            .map(|known| known.pages.len() as u64)
            .sum();
        prop_assert_eq!(
            pages.areas().space().mapped(),
            mapped,
            "pages that show something"
        );
        for block in &self.held {
            let head = block.head();
            let known = &self.known[&head];
            prop_assert_eq!(block.references() as usize, self.references(head));
            prop_assert_eq!(block.is_virtual(), known.is_virtual);
            prop_assert_eq!(block.bytes(), known.bytes());
            let start = block.address();
            for (n, page) in (0_u64..).zip(&known.pages) {
                let address = start.checked_add(n * 4096).unwrap();
                prop_assert_eq!(block.nth(n), Some(*page));
                prop_assert_eq!(pages.compound_head(*page), Some(head));
                prop_assert_eq!(pages.compound_index(*page), Some(n));
                prop_assert_eq!(pages.page_to_addr(*page), Some(address));
                prop_assert_eq!(pages.addr_to_page(address), Some(*page));
                prop_assert_eq!(pages.virt_to_head_page(address), Some(head));
            }
            self.content(block, known)?;
        }
        Ok(())
    }

    /// The bytes of a block, seen in one piece and frame by frame.
    fn content(&self, block: &Block<'w, R>, known: &Known) -> Result<(), TestCaseError> {
        let mut whole = vec![0; known.bytes() as usize];
        prop_assert_eq!(block.read(0, &mut whole), Ok(()));
        for (n, (page, seen)) in known.pages.iter().zip(whole.chunks(4096)).enumerate() {
            let mut alone = [0; 4096];
            let memory = self.world.pages.frames().memory();
            memory.read(page.phys(), &mut alone).unwrap();
            prop_assert!(
                seen == alone,
                "page {} through its address and by number",
                n
            );
            let begun = known.tag.wrapping_add(n as u8);
            for (at, byte) in (n as u64 * 4096..).zip(seen) {
                if *byte != begun || known.written.contains_key(&at) {
                    prop_assert_eq!(*byte, known.byte(at), "byte {}", at);
                }
            }
        }
        Ok(())
    }

    fn end(mut self) {
        self.world.pages.frames().inject(None);
        self.held.clear();
        self.fragmented = None;
    }
}

fn blocks_agree_with_a_list_of_them<R: Rig>(cases: u32) {
    let config = Config {
        cases: Config::default().cases.div_ceil(256 / cases),
        failure_persistence: None,
        ..Config::default()
    };
    let size = Size {
        frames: FRAMES,
        pages: ADDRESSES,
        descriptors: DESCRIPTORS,
    };
    let ran = TestRunner::new(config).run(&ops(), |ops| {
        let mut result = Ok(());
        R::run(size, |world| {
            let mut books = Books::new(&world);
            for op in ops {
                result = books.step(op).and_then(|()| books.check());
                if result.is_err() {
                    return;
                }
            }
            books.end();
            world.nothing_remains();
        });
        result
    });
    if let Err(error) = ran {
        panic!("{error}");
    }
}

#[test]
fn on_the_host_blocks_agree_with_a_list_of_them() {
    blocks_agree_with_a_list_of_them::<Host>(64);
}

#[test]
fn in_the_model_blocks_agree_with_a_list_of_them() {
    blocks_agree_with_a_list_of_them::<Sim>(32);
}
