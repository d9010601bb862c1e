//! Hazard: a step that hardly ever fails does, and a bio is lost, a tag or memory is kept, or the queue no
//! longer works.
//!
//! One scenario goes through every such step. It is run once for each visit of each of them, and that
//! visit fails, alone or with the two after it.
#![expect(unsafe_code, reason = "a global allocator")]

extern crate alloc;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use std::alloc::System;

use pageless_block::{
    Bio, BioFlags, BlkError, Bounce, Completion, Context, Failpoint, Features, FrameAccess,
    HeapFrames, MqDeadline, QueueConfig, QueueId, Ram, RejectReason, RequestQueue, Sector,
    WriteCache, WriteCacheConfig,
};
use pageless_pfn::{ByteLen, FrameCount, FrameOffset, PAGE_SIZE, Pfn, PfnFlags, PfnT, PhysSegment};

thread_local! {
    /// Bytes allocated and not freed.
    static BALANCE: Cell<i64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: forwards everything to the system's allocator; counting touches a thread-local `Cell`
// that needs no allocation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BALANCE.set(BALANCE.get() + layout.size() as i64);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BALANCE.set(BALANCE.get() - layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const BLOCK: u64 = 4096;
const CAPACITY: u64 = 64 * BLOCK;
const DEPTH: u16 = 4;
const BASE: u64 = 0x100;

type Disk = Bounce<WriteCache<Ram<Arc<HeapFrames>>, Arc<HeapFrames>>, Arc<HeapFrames>>;

/// A sparse store behind a volatile cache behind a bounce buffer; requests of at most two blocks.
fn disk(memory: &Arc<HeapFrames>) -> Disk {
    let ram = Ram::new(ByteLen::new(CAPACITY), Arc::clone(memory));
    let ram = ram.with_limits(|limits| {
        limits.set_logical_block(ByteLen::new(BLOCK));
        limits.max_request = ByteLen::new(2 * BLOCK);
        limits.max_discard = ByteLen::new(2 * BLOCK);
        limits.features -= Features::PAGELESS;
    });
    let own = |frame, frames| {
        let len = ByteLen::new(frames * PAGE_SIZE);
        memory.segment(frame * PAGE_SIZE, len).unwrap()
    };
    let config = WriteCacheConfig::default();
    let cache = WriteCache::try_new(ram.unwrap(), Arc::clone(memory), own(0, 4), config).unwrap();
    let each = ByteLen::new(2 * BLOCK);
    Bounce::try_new(cache, Arc::clone(memory), own(4, 12), each).unwrap()
}

/// Memory for the `n`-th bio, of which no frame has a descriptor.
fn buffer(n: u64, blocks: u64) -> PhysSegment {
    let frame = Pfn::try_new(BASE + 16 + n % 16 * 10).unwrap();
    let frame = PfnT::new(frame, PfnFlags::DEV);
    PhysSegment::try_new(frame, FrameOffset::ZERO, ByteLen::new(blocks * BLOCK)).unwrap()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Read,
    Write,
    Discard,
    Flush,
}

#[derive(Clone, Copy, Debug)]
struct Io {
    what: What,
    block: u64,
    blocks: u64,
    /// The part that goes with it.
    part: Option<(u64, u64)>,
}

/// Nothing went wrong, or something did: each bio is accounted for in any case.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    rejected: u64,
    failed: u64,
}

struct Run<'q, 'm> {
    context: Context<'q, Disk>,
    memory: &'m HeapFrames,
    /// By block: what was written there last; `None` where that failed.
    blocks: Vec<Option<u8>>,
    awaited: BTreeMap<u64, Io>,
    token: u64,
    outcome: Outcome,
}

impl Run<'_, '_> {
    fn bio(&mut self, what: What, block: u64, blocks: u64, flags: BioFlags) -> Bio {
        self.token += 1;
        let (sector, len) = (Sector::new(block * BLOCK / 512), blocks * BLOCK);
        let memory = || buffer(self.token, blocks);
        let bytes = vec![self.token as u8; len as usize];
        let bio = match what {
            What::Read => Bio::read(sector, memory()).erase(),
            What::Write => {
                self.memory.write_bytes(memory(), &bytes).unwrap();
                Bio::write(sector, memory()).erase()
            }
            What::Discard => Bio::discard(sector, ByteLen::new(len)).erase(),
            What::Flush => Bio::flush().erase(),
        };
        let flags = bio.flags() | flags;
        bio.with_flags(flags).with_token(self.token)
    }

    fn go(&mut self, what: What, block: u64, blocks: u64, flags: BioFlags) {
        let bio = self.bio(what, block, blocks, flags);
        self.submit(
            bio,
            Some(Io {
                what,
                block,
                blocks,
                part: None,
            }),
        );
    }

    /// Submits until it is taken in: a step that fails does so a few times.
    fn submit(&mut self, bio: Bio, io: Option<Io>) {
        let (token, mut bio) = (bio.token(), bio);
        if let Some(io) = io {
            self.awaited.insert(token, io);
        }
        for _ in 0..10 {
            let Err(rejected) = self.context.submit(bio) else {
                return;
            };
            match rejected.reason {
                RejectReason::NoMemory => self.outcome.rejected += 1,
                // Unless there was room.
                RejectReason::QueueFull { .. } => {
                    let full = self.context.in_flight() >= u32::from(DEPTH);
                    self.outcome.rejected += u64::from(!full);
                }
                reason => panic!("bio {token}: {reason}"),
            }
            bio = rejected.bio;
            // A part is waited for: it cannot wait for the others.
            while let Some(done) = self.context.reap() {
                self.completed(done);
            }
        }
        panic!("{bio:?} is not taken in although nothing fails any more");
    }

    fn settle(&mut self, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..100 {
            while let Some(done) = self.context.reap() {
                self.completed(done);
            }
            if is_so(self) {
                return;
            }
        }
        panic!("never completed: {:?}", self.awaited);
    }

    fn completed(&mut self, done: Completion) {
        let token = done.token();
        let io = self.awaited.remove(&token);
        let io = io.unwrap_or_else(|| panic!("bio {token} completed twice"));
        if let Err(error) = done.result() {
            let short = matches!(error, BlkError::Resource | BlkError::NoSpace);
            assert!(short, "bio {token} failed with {error}: {io:?}");
            self.outcome.failed += 1;
        }
        let all = done.result().is_ok();
        let whole = done.done().get() / BLOCK;
        if let Some((block, number)) = io.part {
            // That it failed says nothing about how.
            self.blocks[block as usize] = all.then_some(number as u8);
        }
        let range = io.block as usize..(io.block + io.blocks) as usize;
        for (n, block) in self.blocks[range].iter_mut().enumerate() {
            let known = (n as u64) < whole;
            match io.what {
                What::Write => *block = known.then_some(token as u8),
                What::Discard => *block = known.then_some(0),
                What::Read if known => {
                    let memory = buffer(token, io.blocks);
                    let at = ByteLen::new(n as u64 * BLOCK);
                    let memory = memory.slice(at, ByteLen::new(BLOCK)).unwrap();
                    let mut bytes = vec![0; BLOCK as usize];
                    self.memory.read_bytes(memory, &mut bytes).unwrap();
                    let must = block.unwrap_or(bytes[0]);
                    assert!(
                        bytes.iter().all(|byte| *byte == must),
                        "bio {token}: {io:?}"
                    );
                }
                _ => {}
            }
        }
    }

    /// Splits, merges, flushes, parts: whatever has steps that may fail.
    fn scenario(&mut self) {
        use What::{Discard, Flush, Read, Write};
        let none = BioFlags::empty();
        // Five requests for four tags.
        self.go(Write, 0, 9, none);
        self.settle(|run| run.awaited.is_empty());
        // Held back, and joined to each other.
        let ios = [
            (Write, 16, 1),
            (Write, 17, 1),
            (Write, 20, 1),
            (Write, 15, 1),
        ];
        let bios = ios.map(|(what, block, blocks)| self.bio(what, block, blocks, none));
        let mut plug = self.context.plug();
        let mut left = Vec::new();
        for (bio, (what, block, blocks)) in bios.into_iter().zip(ios) {
            let io = Io {
                what,
                block,
                blocks,
                part: None,
            };
            let token = bio.token();
            match plug.submit(bio) {
                Ok(()) => drop(self.awaited.insert(token, io)),
                Err(rejected) => {
                    self.outcome.rejected += 1;
                    left.push((rejected.bio, io));
                }
            }
        }
        drop(plug);
        for (bio, io) in left {
            self.submit(bio, Some(io));
        }
        self.settle(|run| run.awaited.is_empty());
        // Around the scheduler.
        self.go(Write, 30, 2, BioFlags::FUA);
        self.go(Flush, 0, 0, none);
        self.go(Write, 32, 5, BioFlags::FUA | BioFlags::PREFLUSH);
        self.settle(|run| run.awaited.is_empty());
        self.go(Read, 0, 9, none);
        self.go(Discard, 16, 5, none);
        self.settle(|run| run.awaited.is_empty());
        // One that waits for another.
        let mut whole = self.bio(Write, 40, 3, none);
        let mut part = self.bio(Write, 50, 1, none);
        let part_token = part.token();
        part.chain_to(&mut whole);
        let io = Io {
            what: Write,
            block: 40,
            blocks: 3,
            part: Some((50, part_token)),
        };
        self.submit(whole, Some(io));
        self.submit(part, None);
        self.settle(|run| run.awaited.is_empty());
        self.go(Read, 30, 8, none);
        self.go(Read, 40, 3, none);
        self.settle(|run| run.awaited.is_empty());
    }

    /// Whether as many requests as ever can be had at a time.
    fn take_all_tags(&mut self) {
        let depth = u64::from(DEPTH);
        let bios = (0..depth).map(|n| self.bio(What::Read, 2 * n, 1, BioFlags::NOMERGE));
        let bios: Vec<Bio> = bios.collect();
        let mut plug = self.context.plug();
        for bio in bios {
            let (what, block) = (What::Read, bio.sector().get() * 512 / BLOCK);
            self.awaited.insert(
                bio.token(),
                Io {
                    what,
                    block,
                    blocks: 1,
                    part: None,
                },
            );
            plug.submit(bio).expect("a tag has been lost");
        }
        drop(plug);
        self.settle(|run| run.awaited.is_empty());
    }
}

/// The scenario with something armed, and again with nothing; how often the step was visited the first
/// time.
fn run(point: Failpoint, skip: u64, times: u64, shared: bool) -> (u64, Outcome) {
    let base = Pfn::try_new(BASE).unwrap();
    let memory = Arc::new(HeapFrames::new(base, FrameCount::new(16 + 16 * 10)).unwrap());
    let config = QueueConfig {
        depth: DEPTH,
        // A lost tag is one that is missed.
        elevator_depth: DEPTH,
        elevator: Some(Box::new(MqDeadline::default())),
        ..QueueConfig::default()
    };
    let queue = RequestQueue::try_new(disk(&memory), config).unwrap();
    let id = QueueId::new(0);
    let context = match shared {
        true => queue.shared_context(id).unwrap(),
        false => queue.context(id).unwrap(),
    };
    let mut run = Run {
        context,
        memory: &memory,
        blocks: vec![Some(0); (CAPACITY / BLOCK) as usize],
        awaited: BTreeMap::new(),
        token: 0,
        outcome: Outcome::default(),
    };
    point.arm(skip, times);
    run.scenario();
    let (seen, failed) = point.disarm();
    assert_eq!(failed, times.min(seen.saturating_sub(skip)));
    assert_eq!((run.context.in_flight(), queue.in_flight()), (0, 0));
    assert_eq!(queue.device().in_use(), 0, "bounce buffers");
    let outcome = core::mem::take(&mut run.outcome);

    run.take_all_tags();
    run.scenario();
    run.go(What::Flush, 0, 0, BioFlags::empty());
    run.settle(|run| run.awaited.is_empty());
    assert_eq!(run.outcome, Outcome::default(), "nothing fails any more");
    assert_eq!(queue.device().device().dirty(), ByteLen::ZERO);
    for block in (0..CAPACITY / BLOCK).step_by(4) {
        run.go(What::Read, block, 4, BioFlags::empty());
        run.settle(|run| run.awaited.is_empty());
    }
    let counters = run.context.counters();
    assert_eq!(counters.submitted, counters.completed);
    (seen, outcome)
}

fn each_visit_fails(shared: bool) {
    for point in Failpoint::ALL {
        // What is allocated once and kept, is now.
        let (visits, outcome) = run(point, 0, 0, shared);
        assert_eq!(outcome, Outcome::default(), "nothing was to fail");
        assert!(visits > 0, "the scenario never comes to {}", point.name());
        for (nth, times) in (0..visits).flat_map(|nth| [(nth, 1), (nth, 3)]) {
            let before = BALANCE.get();
            let (_, outcome) = run(point, nth, times, shared);
            let lost = BALANCE.get() - before;
            assert_eq!(
                lost,
                0,
                "bytes lost to {times} visits from {nth} on of {}: {outcome:?}",
                point.name()
            );
        }
    }
}

#[test]
fn whatever_fails_no_bio_is_lost_and_nothing_is_kept() {
    each_visit_fails(false);
}

#[test]
fn the_same_where_contexts_share_a_hardware_queue() {
    each_visit_fails(true);
}
