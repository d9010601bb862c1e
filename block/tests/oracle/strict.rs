//! A device that trusts its queue in nothing.
//!
//! It is told beforehand which bios are on their way, and checks every request against them: that each of
//! its sectors is what some bio asked for, with that bio's flags, priority and memory, and comes once; that
//! the request is within the limits; that its tag names no other request here. It has a
//! volatile cache if its limits say so, and knows of each sector which version of it is durable.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use std::sync::{Mutex, MutexGuard};

use fastrand::Rng;
use pageless_block::{
    Bio, BioFlags, BlkError, BlockDevice, Done, Failure, Features, FrameAccess, Limits, Op,
    Priority, QueueId, RamFrames, Request, Submitted,
};
use pageless_pfn::{ByteLen, PhysSegment};

pub(crate) const SECTOR: u64 = 512;

/// How the device treats what it is given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Carries requests out before `submit` returns.
    pub(crate) at_once: bool,
    /// Of 256 requests, how many find it busy.
    pub(crate) busy: u8,
    /// Of 256 requests, how many fail, somewhere on their way.
    pub(crate) fail: u8,
    pub(crate) seed: u64,
}

/// What becomes of a sector of a bio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Awaited,
    AtDevice,
    Over,
}

/// A bio that is on its way, as it was submitted.
#[derive(Debug)]
struct Expected {
    op: Op,
    /// As the device must see them.
    flags: BioFlags,
    durable: bool,
    priority: Priority,
    start: u64,
    len: u64,
    /// Where in memory each of its sectors is.
    memory: Vec<u64>,
    fates: Vec<Fate>,
    /// What was written when it was submitted and must be durable before its data, or its end.
    before: Vec<(usize, u64)>,
    /// Its first byte that failed.
    failed: Option<u64>,
}

/// What the device says about a bio that has completed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Its first byte that failed.
    pub(crate) failed: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// Requests other than flushes that the device took.
    pub(crate) requests: u64,
    pub(crate) flushes: u64,
    pub(crate) busy: u64,
}

struct Kept {
    request: Request,
    /// For a flush: what it makes durable.
    snapshot: Vec<u64>,
}

struct State {
    bytes: Vec<u8>,
    /// By sector: the version it has, and that which is durable.
    written: Vec<u64>,
    durable: Vec<u64>,
    version: u64,
    kept: Vec<Kept>,
    /// Queue and tag of what is here.
    tags: Vec<(u16, u16)>,
    expected: BTreeMap<u64, Expected>,
    rng: Rng,
    seen: Seen,
    /// How many there are who say that it must be left alone.
    stopped: u32,
}

pub(crate) struct Strict {
    limits: Limits,
    ram: Arc<RamFrames>,
    manner: Manner,
    /// How many requests of a hardware queue may be here.
    depth: usize,
    state: Mutex<State>,
}

impl Strict {
    pub(crate) fn new(limits: Limits, ram: Arc<RamFrames>, manner: Manner, depth: u16) -> Self {
        let capacity = limits.capacity.get();
        let sectors = (capacity / SECTOR) as usize;
        Self {
            limits,
            ram,
            manner,
            depth: usize::from(depth),
            state: Mutex::new(State {
                bytes: vec![0; capacity as usize],
                written: vec![0; sectors],
                durable: vec![0; sectors],
                version: 0,
                kept: Vec::new(),
                tags: Vec::new(),
                expected: BTreeMap::new(),
                rng: Rng::with_seed(manner.seed),
                seen: Seen::default(),
                stopped: 0,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // One failed check in another thread is enough to read about.
        self.state
            .lock()
            .unwrap_or_else(|_| panic!("a check failed elsewhere"))
    }

    /// From now on the requests of this bio may come.
    pub(crate) fn expect_bio(&self, bio: &Bio) {
        let features = self.limits.features;
        let cache = features.contains(Features::WRITE_CACHE);
        let mut flags = bio.flags() - BioFlags::FLUSHES;
        flags.set(
            BioFlags::FUA,
            bio.flags().contains(BioFlags::FUA) && cache && features.contains(Features::FUA),
        );
        let len = bio.len().get();
        let mut state = self.state();
        let before = match bio.flags().contains(BioFlags::PREFLUSH) && cache {
            true => state.dirty(),
            false => Vec::new(),
        };
        let expected = Expected {
            op: bio.op(),
            flags,
            durable: bio.flags().contains(BioFlags::FUA),
            priority: bio.priority(),
            start: bio.sector().get() * SECTOR,
            len,
            memory: sectors_of(bio.segments()),
            fates: vec![Fate::Awaited; (len / SECTOR) as usize],
            before,
            failed: None,
        };
        let other = state.expected.insert(bio.token(), expected);
        assert!(other.is_none(), "two bios {} on their way", bio.token());
    }

    /// The bio was not taken in after all.
    pub(crate) fn forget_bio(&self, token: u64) {
        let gone = self.state().expected.remove(&token);
        let gone = gone.expect("a bio was rejected that nobody submitted");
        assert!(
            gone.fates.iter().all(|fate| *fate == Fate::Awaited),
            "bio {token} was rejected, and the device has it: {gone:?}"
        );
    }

    /// The bio has completed, with its first `done` bytes done.
    pub(crate) fn bio_completed(&self, token: u64, done: u64) -> Verdict {
        let mut state = self.state();
        let bio = state.expected.remove(&token);
        let bio = bio.unwrap_or_else(|| panic!("bio {token} completed and was not on its way"));
        assert!(
            !bio.fates.contains(&Fate::AtDevice),
            "bio {token} completed while the device has some of it: {bio:?}"
        );
        let sectors = (done / SECTOR) as usize;
        assert!(
            bio.fates[..sectors].iter().all(|fate| *fate == Fate::Over),
            "bio {token} completed with {done} bytes that never reached the device: {bio:?}"
        );
        if done == bio.len {
            state.assert_durable(&bio.before, token, "completed before what it flushes is");
        }
        if bio.durable {
            let first = (bio.start / SECTOR) as usize;
            for sector in first..first + sectors {
                assert_eq!(
                    state.written[sector], state.durable[sector],
                    "bio {token} has FUA and completed; sector {sector} is not durable"
                );
            }
        }
        Verdict { failed: bio.failed }
    }

    /// Whether one block of a bio is in so many pieces, or so badly placed, that no request can hold it: the
    /// first such byte.
    pub(crate) fn impossible(&self, bio: &Bio) -> Option<u64> {
        let memory = sectors_of(bio.segments());
        let unit = self
            .limits
            .logical_block
            .max(self.limits.dma_alignment)
            .get();
        let at = memory
            .chunks((unit / SECTOR) as usize)
            .position(|block| !self.takes(block));
        Some(at? as u64 * unit)
    }

    pub(crate) fn ram(&self) -> Arc<RamFrames> {
        Arc::clone(&self.ram)
    }

    pub(crate) fn seen(&self) -> Seen {
        self.state().seen
    }

    /// While `f` runs nothing may come.
    pub(crate) fn left_alone<R>(&self, f: impl FnOnce() -> R) -> R {
        self.state().stopped += 1;
        let result = f();
        self.state().stopped -= 1;
        result
    }

    /// How many requests are here.
    pub(crate) fn here(&self) -> usize {
        self.state().kept.len()
    }

    /// What the bios are that should have completed.
    pub(crate) fn missing(&self) -> String {
        let state = self.state();
        let missing = state.expected.iter().map(|(token, bio)| {
            format!(
                "bio {token} never completed: {} of {} bytes at sector {}, {:?}; sectors {:?}",
                bio.op,
                bio.len,
                bio.start / SECTOR,
                bio.flags,
                bio.fates
            )
        });
        missing.collect::<Vec<_>>().join("\n")
    }

    /// Whether these sectors of memory can be segments of one request: tried, all ways of cutting them.
    fn takes(&self, memory: &[u64]) -> bool {
        let limits = &self.limits;
        let max = limits.max_segment.get();
        // More than there can be means that there is no way.
        let most = limits.max_segments.min(u32::MAX - 1);
        let one = |sectors: &[u64]| {
            let (first, len) = (sectors[0], sectors.len() as u64 * SECTOR);
            let boundary = |b: ByteLen| first / b.get() == (first + len - 1) / b.get();
            sectors.windows(2).all(|two| two[0] + SECTOR == two[1])
                && len <= max
                && (first | len).is_multiple_of(limits.dma_alignment.get())
                && limits.segment_boundary.is_none_or(boundary)
        };
        let seam = |at: usize| {
            let (end, next) = (memory[at - 1] + SECTOR, memory[at]);
            limits
                .virt_boundary
                .is_none_or(|virt| (end | next).is_multiple_of(virt.get()))
        };
        // By how many sectors are covered: the fewest segments that do so.
        let mut fewest = vec![u32::MAX; memory.len() + 1];
        fewest[0] = 0;
        for end in 1..=memory.len() {
            for start in 0..end {
                if fewest[start] < most && (start == 0 || seam(start)) && one(&memory[start..end]) {
                    fewest[end] = fewest[end].min(fewest[start] + 1);
                }
            }
        }
        fewest[memory.len()] <= most
    }

    /// Whether a request is within the limits.
    fn assert_legal(&self, request: &Request) {
        let limits = &self.limits;
        let (start, len) = (request.position().get(), request.len().get());
        let flags = request.flags();
        assert!(
            !flags.contains(BioFlags::PREFLUSH),
            "the device is to see no PREFLUSH: {request:?}"
        );
        if request.op() == Op::Flush {
            assert!(limits.features.contains(Features::WRITE_CACHE));
            assert_eq!((len, request.segments().count()), (0, 0));
            return;
        }
        let max = match request.op() {
            Op::Read | Op::Write => limits.max_request,
            Op::Discard => limits.max_discard,
            Op::WriteZeroes => limits.max_write_zeroes,
            Op::SecureErase => limits.max_secure_erase,
            op => panic!("nobody asked for {op}"),
        };
        assert!(
            len > 0 && len <= max.get(),
            "longer than {max}: {request:?}"
        );
        assert!(
            (start | len).is_multiple_of(limits.logical_block.get()),
            "not whole blocks: {request:?}"
        );
        assert!(start + len <= limits.capacity.get(), "past the end");
        if let Some(chunk) = limits.chunk {
            assert_eq!(
                start / chunk.get(),
                (start + len - 1) / chunk.get(),
                "from one chunk of {chunk} into the next: {request:?}"
            );
        }
        if request.op().carries_data() {
            let segments: Vec<PhysSegment> = request.segments().collect();
            let memory = sectors_of(&segments);
            assert_eq!(memory.len() as u64 * SECTOR, len, "memory of {request:?}");
            assert!(
                self.takes(&memory),
                "memory that the device cannot take: {request:?}, {segments:?}"
            );
        }
    }
}

impl State {
    /// What is written and not durable, with its version.
    fn dirty(&self) -> Vec<(usize, u64)> {
        let both = self.written.iter().zip(&self.durable).enumerate();
        let dirty = both.filter(|(_, (written, durable))| written > durable);
        dirty
            .map(|(sector, (written, _))| (sector, *written))
            .collect()
    }

    fn assert_durable(&self, what: &[(usize, u64)], token: u64, why: &str) {
        for &(sector, version) in what {
            let durable = self.durable[sector];
            assert!(
                durable >= version,
                "bio {token} {why} durable: sector {sector}, version {version}, durable {durable}"
            );
        }
    }

    /// Finds for each sector of a request the bio that asks for it, and gives it this fate. Those from
    /// `fails` on fail.
    fn mark(&mut self, request: &Request, fate: Fate, fails: u64) {
        let (start, op) = (request.position().get(), request.op());
        let segments: Vec<PhysSegment> = request.segments().collect();
        let memory = sectors_of(&segments);
        for (n, at) in (start..request.end().get())
            .step_by(SECTOR as usize)
            .enumerate()
        {
            let (&token, bio) = self
                .expected
                .iter_mut()
                .find(|(_, bio)| {
                    let inside = bio.start <= at && at < bio.start + bio.len;
                    let here = (at.wrapping_sub(bio.start) / SECTOR) as usize;
                    inside && bio.op == op && bio.memory.get(here) == memory.get(n)
                })
                .unwrap_or_else(|| panic!("no bio asks for byte {at} of {request:?}"));
            assert_eq!(bio.flags, request.flags(), "flags of bio {token} at {at}");
            assert_eq!(
                bio.priority,
                request.priority(),
                "priority of bio {token} at {at}"
            );
            let here = &mut bio.fates[((at - bio.start) / SECTOR) as usize];
            let before = match fate {
                Fate::AtDevice => Fate::Awaited,
                _ => Fate::AtDevice,
            };
            assert_eq!(*here, before, "byte {at} of bio {token} came twice");
            *here = fate;
            if at >= fails {
                let at = at - bio.start;
                bio.failed = Some(bio.failed.map_or(at, |before| before.min(at)));
            }
        }
        if fate == Fate::AtDevice {
            let (start, end) = (start, request.end().get());
            for (token, bio) in &self.expected {
                if bio.start < end && start < bio.start + bio.len && !bio.before.is_empty() {
                    let why = "has PREFLUSH, and its data came before what it flushes was";
                    self.assert_durable(&bio.before, *token, why);
                }
            }
        }
    }

    /// Carries a request out, or as much of it as it is to be.
    fn carry_out(&mut self, device: &Strict, kept: Kept) -> Done {
        let Kept { request, snapshot } = kept;
        if request.op() == Op::Flush {
            for (durable, upto) in self.durable.iter_mut().zip(snapshot) {
                *durable = upto.max(*durable);
            }
            return request.complete(Ok(()));
        }
        let (start, len) = (request.position().get(), request.len().get());
        let fails = self.rng.u8(..) < device.manner.fail;
        let done = match fails {
            true => self.rng.u64(0..len / SECTOR) * SECTOR,
            false => len,
        };
        self.move_bytes(device, &request, done);
        self.mark(&request, Fate::Over, start + done);
        let result = match fails {
            true => Err(Failure {
                error: BlkError::Medium,
                done: ByteLen::new(done),
            }),
            false => Ok(()),
        };
        request.complete(result)
    }

    fn move_bytes(&mut self, device: &Strict, request: &Request, done: u64) {
        let start = request.position().get();
        let mut at = start as usize;
        if request.op() == Op::Read {
            let end = (start + done) as usize;
            for segment in request.segments() {
                let len = (segment.len().get() as usize).min(end - at);
                let part = &self.bytes[at..at + len];
                device.ram.write_bytes(segment, part).unwrap();
                at += len;
            }
            return;
        }
        for segment in request.segments() {
            let len = segment.len().get() as usize;
            let part = &mut self.bytes[at..at + len];
            device.ram.read_bytes(segment, part).unwrap();
            at += len;
        }
        let end = request.end().get() as usize;
        // What carries no data makes zeroes; nothing is known of what failed.
        self.bytes[at..end].fill(0);
        self.bytes[(start + done) as usize..end].fill(0xEE);
        let features = device.limits.features;
        let durable =
            !features.contains(Features::WRITE_CACHE) || request.flags().contains(BioFlags::FUA);
        for sector in start / SECTOR..request.end().get() / SECTOR {
            let sector = sector as usize;
            self.version += 1;
            self.written[sector] = self.version;
            if durable {
                self.durable[sector] = self.version;
            }
        }
    }
}

impl BlockDevice for Strict {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn submit(&self, request: Request) -> Submitted {
        let mut state = self.state();
        assert_eq!(state.stopped, 0, "the queue is quiesced: {request:?}");
        self.assert_legal(&request);
        if state.rng.u8(..) < self.manner.busy {
            state.seen.busy += 1;
            return Submitted::Busy(request);
        }
        let name = (request.queue().get(), request.tag().get());
        assert!(!state.tags.contains(&name), "tag taken twice: {request:?}");
        state.tags.push(name);
        let is_flush = request.op() == Op::Flush;
        let here = |kept: &&Kept| {
            let (this, flush) = (kept.request.queue().get(), kept.request.op() == Op::Flush);
            this == name.0 && flush == is_flush
        };
        let here = state.kept.iter().filter(here).count() + 1;
        let room = if is_flush { 1 } else { self.depth };
        assert!(
            here <= room,
            "{here} requests, and room for {room}: {request:?}"
        );
        match is_flush {
            true => state.seen.flushes += 1,
            false => state.seen.requests += 1,
        }
        state.mark(&request, Fate::AtDevice, u64::MAX);
        let snapshot = if is_flush {
            state.written.clone()
        } else {
            Vec::new()
        };
        let kept = Kept { request, snapshot };
        if self.manner.at_once {
            state.tags.retain(|here| *here != name);
            return Submitted::Done(state.carry_out(self, kept));
        }
        state.kept.push(kept);
        Submitted::Kept
    }

    fn poll(&self, queue: QueueId, done: &mut dyn FnMut(Done)) {
        let mut over = Vec::new();
        let mut state = self.state();
        let mut rounds = state.rng.usize(..4);
        while rounds > 0 {
            rounds -= 1;
            let ours: Vec<usize> = (0..state.kept.len())
                .filter(|&n| state.kept[n].request.queue() == queue)
                .collect();
            let Some(&n) = state.rng.choice(&ours) else {
                break;
            };
            let kept = state.kept.swap_remove(n);
            let name = (queue.get(), kept.request.tag().get());
            state.tags.retain(|here| *here != name);
            over.push(state.carry_out(self, kept));
        }
        drop(state);
        over.into_iter().for_each(done);
    }
}

/// The address of each sector's memory.
pub(crate) fn sectors_of(segments: &[PhysSegment]) -> Vec<u64> {
    let each = |segment: &PhysSegment| {
        let first = segment.phys().get();
        (first..first + segment.len().get()).step_by(SECTOR as usize)
    };
    segments.iter().flat_map(each).collect()
}
