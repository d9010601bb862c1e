//! Objects of a compressed pool that cross from one frame into the next: mapped side by side, copied together, or read in two segments.
//! Where, if anywhere, does mapping win?
//!
//! *Measured* on the host, where mapping is system calls and a local flush is one of them. *Modelled* on 1 to 64 CPUs, where a local flush
//! is what it would be in a kernel: two invalidations on the CPU that did the mapping. The reader's own pass over the bytes is in every
//! figure, so a copy is two passes, and a mapping is one.

use super::modelled::{PRICED, beside_running_cpus, machine};
use super::peer::Peer;
use super::ratios::{Figure, Pairs, Report, Spread};
use super::turns::{in_turn, median};
use super::{cpus, host, plot};
use alloc::sync::Arc;
use comfy_table::{ContentArrangement, Table, presets};
use core::cell::RefCell;
use core::error::Error;
use core::hint::black_box;
use pageless_fault::host::HostVspace;
use pageless_fault::shootdown::Processor;
use pageless_fault::sim::Costs;
use pageless_fault::{FrameMemory, Protection, Vspace, WindowLen, WindowOffset, WindowRange};
use pageless_pfn::{FrameCount, Pfn, PfnRange};
use pageless_vmap::frames::Gfp;
use pageless_vmap::zsmalloc::{
    Frame, FrameSource, Handle, NoFrame, PairWindow, PairWindows, Zsmalloc,
};
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

/// Bytes of the objects, of classes in which some cross. (Of 256 bytes none does, and of 3625 and more each has a frame for itself.)
const SIZES: [usize; 14] = [
    32, 64, 96, 128, 192, 288, 384, 512, 768, 1024, 1536, 2048, 3072, 3600,
];
/// Bytes that pages are compressed to.
const COMPRESSED: [usize; 7] = [288, 520, 1040, 1536, 2064, 3072, 3600];
/// Objects of a sample.
const OBJECTS: usize = 64;
/// Objects of the mix.
const MIX: usize = 512;
/// CPUs of the modelled machines.
pub(crate) const CPUS: [u16; 7] = [1, 2, 4, 8, 16, 32, 64];
/// Bytes of a cache line.
const LINE: u64 = 64;

/// All frames of a memory, so that neighbours in a zspage are no neighbours in memory.
struct Scattered<'m, M> {
    memory: &'m M,
    free: Mutex<Vec<Frame>>,
}

impl<'m, M: FrameMemory> Scattered<'m, M> {
    fn new(memory: &'m M) -> Self {
        let (even, odd): (Vec<Pfn>, Vec<Pfn>) =
            memory.frames().iter().partition(|pfn| pfn.get() % 2 == 0);
        let free = even.into_iter().chain(odd).map(Frame::from_unused);
        Scattered {
            memory,
            free: Mutex::new(free.collect()),
        }
    }
}

impl<M: FrameMemory> FrameSource for Scattered<'_, M> {
    type Memory = M;

    fn memory(&self) -> &M {
        self.memory
    }

    fn take(&self, _: &Gfp<'_>) -> Result<Frame, NoFrame> {
        self.free.lock().unwrap().pop().ok_or(NoFrame)
    }

    fn give_back(&self, frame: Frame) {
        self.free.lock().unwrap().push(frame);
    }
}

fn store<F: FrameSource>(pool: &Zsmalloc<F>, bytes: &[u8]) -> Handle {
    let ctx = host::ctx();
    let handle = pool.malloc(&Gfp::kernel(&ctx), bytes.len()).unwrap();
    pool.write(&handle, bytes).unwrap();
    handle
}

fn crosses<F: FrameSource>(pool: &Zsmalloc<F>, handle: &Handle) -> bool {
    pool.segments(handle, |_, second| !second.is_empty())
        .unwrap()
}

/// So many objects that hold `bytes` and cross.
fn crossing<F: FrameSource>(pool: &Zsmalloc<F>, bytes: &[u8], count: usize) -> Vec<Handle> {
    let mut found = Vec::new();
    let mut passed_over = Vec::new();
    while found.len() < count {
        let handle = store(pool, bytes);
        if crosses(pool, &handle) {
            found.push(handle);
        } else {
            passed_over.push(handle);
        }
    }
    passed_over
        .into_iter()
        .for_each(|handle| pool.free(handle).unwrap());
    found
}

/// What is read and how: ns for each object, medians, and ratios to a copy.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) bytes: usize,
    pub(crate) copied: f64,
    pub(crate) segments: Option<f64>,
    pub(crate) mapped: f64,
    pub(crate) mapped_beside: f64,
    segments_ratio: Option<Spread>,
    mapped_ratio: Spread,
    mapped_beside_ratio: Spread,
}

/// What was measured.
pub(crate) struct Measured {
    pub(crate) sums: Vec<Row>,
    mix: Row,
    decompressed: Vec<Row>,
}

/// A reader of an object in two pieces.
type Two<'a> = &'a dyn Fn(&[u8], &[u8]);

/// A pool of this process, and a window of its own.
struct Rig<'m, M: FrameMemory> {
    pool: &'m Zsmalloc<Scattered<'m, M>>,
    window: RefCell<PairWindow<'m, &'m HostVspace>>,
    peer: Peer,
    rounds: usize,
}

impl<M: FrameMemory> Rig<'_, M> {
    /// One row: `one` reads an object in one piece, `two` one in two.
    fn row(
        &self,
        what: String,
        handles: &[Handle],
        one: impl Fn(&[u8]),
        two: Option<Two<'_>>,
    ) -> Row {
        // Short enough not to be disturbed, long enough for the clock.
        let times = (1 << 17) / (handles.len() * (64 + self.bytes(handles))) + 1;
        let each = |times: usize, read: &mut dyn FnMut(&Handle)| {
            let begun = Instant::now();
            for handle in (0..times).flat_map(|_| handles) {
                read(handle);
            }
            begun.elapsed().as_nanos() as f64 / (times * handles.len()) as f64
        };
        let mut local = [0; 4096];
        let mut copy = || {
            each(times, &mut |handle| {
                self.pool.with_copy(handle, &mut local, &one).unwrap();
            })
        };
        let mut segments = || match two {
            None => 0.0,
            Some(two) => each(times, &mut |handle| {
                self.pool.segments(handle, two).unwrap();
            }),
        };
        let map = |handle: &Handle| {
            let mut window = self.window.borrow_mut();
            let mapping = window.map(self.pool, handle, Protection::Read).unwrap();
            mapping.with(&one).unwrap();
        };
        let mut alone = || each(1, &mut |handle| map(handle));
        let mut beside = || {
            self.peer.want(true);
            self.peer.see();
            let taken = each(1, &mut |handle| map(handle));
            self.peer.want(false);
            taken
        };
        let sides: [&mut dyn FnMut() -> f64; 4] =
            [&mut copy, &mut segments, &mut alone, &mut beside];
        let [copied, segments, mapped, mapped_beside] = in_turn(self.rounds, sides);
        let ratio = |ours: &[f64]| Pairs::taken(ours.to_vec(), copied.clone()).figure(Figure::Cost);
        Row {
            what,
            bytes: self.bytes(handles),
            copied: median(&copied),
            segments: two.map(|_| median(&segments)),
            mapped: median(&mapped),
            mapped_beside: median(&mapped_beside),
            segments_ratio: two.map(|_| ratio(&segments)),
            mapped_ratio: ratio(&mapped),
            mapped_beside_ratio: ratio(&mapped_beside),
        }
    }

    /// Of the objects, on average.
    fn bytes(&self, handles: &[Handle]) -> usize {
        let all = handles
            .iter()
            .map(|handle| self.pool.size_of(handle).unwrap());
        all.sum::<usize>() / handles.len()
    }
}

/// Measures on the host.
pub(crate) fn measure(report: &Report) -> Measured {
    let ram = host::ram(2048);
    let peer = Peer::start(Arc::clone(&ram));
    cpus::pin(0);
    let space = host::space(&ram, 1024);
    let pool = Zsmalloc::new(Scattered::new(&*ram));
    let range = WindowRange::try_new(WindowOffset::new(0), 64 * 4096).unwrap();
    let windows = PairWindows::new(&space, range);
    let rig = Rig {
        pool: &pool,
        window: RefCell::new(windows.claim(&host::ctx()).unwrap()),
        peer,
        rounds: report.scaled(60, 8),
    };
    let free = |handles: Vec<Handle>| {
        handles
            .into_iter()
            .for_each(|handle| pool.free(handle).unwrap());
    };
    let one = |bytes: &[u8]| {
        black_box(crc32c::crc32c(bytes));
    };
    let two = |first: &[u8], second: &[u8]| {
        black_box(crc32c::crc32c_append(crc32c::crc32c(first), second));
    };
    let mut rng = fastrand::Rng::with_seed(1);
    let sums = SIZES.map(|size| {
        let handles = crossing(&pool, &noise(&mut rng, size), OBJECTS);
        let row = rig.row(format!("{size} bytes"), &handles, one, Some(&two));
        free(handles);
        row
    });
    let mixed: Vec<_> = (0..MIX)
        .map(|_| {
            let size = rng.usize(32..=3600);
            store(&pool, &noise(&mut rng, size))
        })
        .collect();
    let crossing_share = mixed.iter().filter(|one| crosses(&pool, one)).count() * 100 / MIX;
    let what = format!("32 to 3600 bytes, as they come: {crossing_share} % cross");
    let mix = rig.row(what, &mixed, one, Some(&two));
    free(mixed);
    let decompressed = COMPRESSED.map(|size| {
        let object = compressed(&mut rng, size);
        let handles = crossing(&pool, &object, OBJECTS);
        let decompress = |bytes: &[u8]| {
            let mut page = [0; 4096];
            let len = lz4_flex::block::decompress_into(bytes, &mut page).unwrap();
            assert_eq!(len, black_box(&page).len());
        };
        let row = rig.row(
            format!("{} bytes", object.len()),
            &handles,
            decompress,
            None,
        );
        free(handles);
        row
    });
    Measured {
        sums: sums.into(),
        mix,
        decompressed: decompressed.into(),
    }
}

fn noise(rng: &mut fastrand::Rng, len: usize) -> Vec<u8> {
    (0..len).map(|_| rng.u8(..)).collect()
}

/// A page that LZ4 makes into at most `len` bytes, and not much less: some noise, and something that repeats.
fn compressed(rng: &mut fastrand::Rng, len: usize) -> Vec<u8> {
    let noise = noise(rng, 4096);
    let page = |random: usize| {
        let repeats = (random..4096).map(|at| (at % 8) as u8);
        let page: Vec<u8> = noise[..random].iter().copied().chain(repeats).collect();
        lz4_flex::block::compress(&page)
    };
    (0..4096)
        .rev()
        .step_by(8)
        .map(page)
        .find(|object| object.len() <= len)
        .unwrap()
}

/// What one object costs on a modelled machine, in modelled ns.
#[derive(Clone, Copy)]
pub(crate) struct Modelled {
    pub(crate) bytes: usize,
    pub(crate) copied: f64,
    pub(crate) segments: f64,
    pub(crate) local: f64,
    pub(crate) global: f64,
}

/// For each size, on `cpus` CPUs.
fn modelled(cpus: u16, costs: Costs) -> Vec<Modelled> {
    const TIMES: u64 = 4;
    let machine = machine(cpus, 2048, costs);
    let ram = machine.ram(FrameCount::new(1024)).unwrap();
    let space = machine
        .reserve_vspace(WindowLen::covering(4 << 20).unwrap())
        .unwrap();
    let pool = Zsmalloc::new(Scattered::new(&ram));
    let range = WindowRange::try_new(WindowOffset::new(0), 64 * 4096).unwrap();
    let windows = PairWindows::new(&space, range);
    let taken = RefCell::new(Vec::new());
    beside_running_cpus(&machine, cpus, |cpu| {
        let ctx = host::ctx();
        let mut window = windows.claim(&ctx).unwrap();
        let mut into = [0; 4096];
        for bytes in SIZES {
            let handles = crossing(&pool, &vec![7; bytes], TIMES as usize);
            let pass = (bytes as u64).div_ceil(LINE) * costs.copy_line;
            let mut sum = Modelled {
                bytes,
                copied: 0.0,
                segments: 0.0,
                local: 0.0,
                global: 0.0,
            };
            // The first time tables are made, and what they are reached by is cached.
            for (n, handle) in [&handles[0]].into_iter().chain(&handles).enumerate() {
                let timed = |work: &mut dyn FnMut()| {
                    let begun = cpu.now();
                    work();
                    if n == 0 {
                        0.0
                    } else {
                        (cpu.now() - begun) as f64 / TIMES as f64
                    }
                };
                sum.copied += timed(&mut || {
                    pool.read(handle, &mut into).unwrap();
                    cpu.advance_to(cpu.now() + pass);
                });
                sum.segments += timed(&mut || cpu.advance_to(cpu.now() + pass));
                sum.local += timed(&mut || {
                    let mapping = window.map(&pool, handle, Protection::Read).unwrap();
                    mapping.read(0, &mut into[..bytes]).unwrap();
                    mapping.unmap().unwrap();
                });
                sum.global += timed(&mut || map_globally(&space, &ram, &mut into[..bytes]));
            }
            handles
                .into_iter()
                .for_each(|handle| pool.free(handle).unwrap());
            taken.borrow_mut().push(sum);
        }
    });
    taken.into_inner()
}

/// The same as a pair window does, with a shootdown on all CPUs.
fn map_globally(space: &impl Vspace, ram: &impl FrameMemory, into: &mut [u8]) {
    let ctx = host::ctx();
    let start = WindowOffset::new(2 << 20);
    for (page, frame) in [(0, 7), (1, 3)] {
        let frame = ram.frames().nth(frame).unwrap();
        let one = PfnRange::try_new(frame, FrameCount::new(1)).unwrap();
        let at = start.checked_add(page * 4096).unwrap();
        space.map(at, one, Protection::Read).unwrap();
    }
    let before = 4096 - into.len() as u64 / 2 / 8 * 8;
    let object = start.checked_add(before).unwrap();
    space.read(object, into).unwrap();
    let range = WindowRange::try_new(start, 2 * 4096).unwrap();
    let Ok(down) = space.take_down(range, ()) else {
        panic!("two pages refused to go");
    };
    let Ok(debt) = space.shoot_down(vec![down]) else {
        panic!("a shootdown that did not begin");
    };
    let Ok(_flushed) = debt.settle(&ctx) else {
        panic!("a shootdown that did not end");
    };
}

fn table(header: impl IntoIterator<Item = String>) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::ASCII_MARKDOWN)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    table
}

fn ratio(spread: Spread) -> String {
    format!(
        "{:.2}x ({:.2}..{:.2})",
        spread.median, spread.low, spread.high
    )
}

fn measured_table<'r>(rows: impl IntoIterator<Item = &'r Row>) -> Table {
    let mut table = table(
        [
            "objects that cross",
            "copied, ns",
            "two segments, ns",
            "of the copy",
            "mapped, alone, ns",
            "of the copy",
            "mapped, a thread running beside, ns",
            "of the copy",
        ]
        .map(String::from),
    );
    for row in rows {
        table.add_row([
            row.what.clone(),
            format!("{:.0}", row.copied),
            row.segments.map_or("-".to_owned(), |ns| format!("{ns:.0}")),
            row.segments_ratio.map_or("-".to_owned(), ratio),
            format!("{:.0}", row.mapped),
            ratio(row.mapped_ratio),
            format!("{:.0}", row.mapped_beside),
            ratio(row.mapped_beside_ratio),
        ]);
    }
    table
}

/// The smallest size from which on `wins` holds for all.
fn from_size<T>(
    rows: &[T],
    bytes: impl Fn(&T) -> usize,
    wins: impl Fn(&T) -> bool,
) -> Option<usize> {
    let losing = rows.iter().rposition(|row| !wins(row));
    rows.get(losing.map_or(0, |last| last + 1)).map(bytes)
}

fn answer(from: Option<usize>) -> String {
    match from {
        Some(bytes) => format!("from {bytes} bytes on"),
        None => "at no size".to_owned(),
    }
}

/// The answer, from what was measured.
fn measured_answer(what: &str, rows: &[Row]) {
    let alone = from_size(rows, |row| row.bytes, |row| row.mapped < row.copied);
    let beside = from_size(rows, |row| row.bytes, |row| row.mapped_beside < row.copied);
    let ratios = |of: fn(&Row) -> Spread| rows.iter().map(of).map(|spread| spread.median);
    let best = ratios(|row| row.mapped_ratio).fold(f64::INFINITY, f64::min);
    let worst = ratios(|row| row.mapped_beside_ratio).fold(0.0, f64::max);
    println!(
        "\nmeasured, {what}: on the host mapping wins against a copy {} alone and {} with a thread running beside; it takes {best:.1} \
         times as long at best, and {worst:.0} times at worst.",
        answer(alone),
        answer(beside),
    );
}

/// The answer, from what was modelled.
fn modelled_answer(name: &str, all: &[Vec<Modelled>]) {
    let bytes = |row: &Modelled| row.bytes;
    let local = from_size(&all[0], bytes, |row| row.local < row.copied);
    let against_segments = from_size(&all[0], bytes, |row| row.local < row.segments);
    let last = &all[0][all[0].len() - 1];
    let for_each_byte = (last.copied - last.segments) / last.bytes as f64;
    println!(
        "\nmodelled, {name}: with a local flush, on however many CPUs, mapping wins against a copy {} and against two segments {}. Mapping \
         and flushing add {:.0} ns to reading {} bytes, copying them adds {:.0}: they would meet at {:.0} bytes (an object has at most 3624 \
         that cross).",
        answer(local),
        answer(against_segments),
        last.local - last.segments,
        last.bytes,
        last.copied - last.segments,
        (last.local - last.segments) / for_each_byte,
    );
    for (rows, cpus) in all.iter().zip(CPUS) {
        let global = from_size(rows, bytes, |row| row.global < row.copied);
        println!(
            "  with a shootdown of {cpus} CPUs: {}, and it takes {:.1} times as long as a copy of {} bytes",
            answer(global),
            rows[rows.len() - 1].global / rows[rows.len() - 1].copied,
            rows[rows.len() - 1].bytes,
        );
    }
}

/// Prints what was measured, and then what is modelled, and draws both.
///
/// # Errors
///
/// The plot could not be drawn or written.
pub(crate) fn print(measured: &Measured, to: Option<&Path>) -> Result<(), Box<dyn Error>> {
    println!("\nmeasured: a reader that sums the bytes up\n");
    println!(
        "{}",
        measured_table(measured.sums.iter().chain([&measured.mix]))
    );
    measured_answer("a reader that sums the bytes up", &measured.sums);
    println!("\nmeasured: a reader that decompresses a page by LZ4, which wants one piece\n");
    println!("{}", measured_table(&measured.decompressed));
    measured_answer("a reader that decompresses", &measured.decompressed);
    let mut drawn = Vec::new();
    for priced in &PRICED {
        let all: Vec<_> = CPUS
            .iter()
            .map(|cpus| modelled(*cpus, (priced.costs)(*cpus)))
            .collect();
        println!("\nmodelled: {}\n", priced.name);
        let global = CPUS.map(|cpus| format!("mapped, shootdown of {cpus}, modelled ns"));
        let mut table = table(
            [
                "bytes",
                "two segments, modelled ns",
                "copied, modelled ns",
                "mapped, local flush, modelled ns",
            ]
            .map(String::from)
            .into_iter()
            .chain(global),
        );
        for (n, row) in all[0].iter().enumerate() {
            // What touches no other CPU costs the same on any number of them.
            assert!(all.iter().all(|rows| rows[n].copied == row.copied));
            let own = [row.segments, row.copied, row.local];
            let global = all.iter().map(|rows| rows[n].global);
            let figures = own.into_iter().chain(global).map(|ns| format!("{ns:.0}"));
            table.add_row([row.bytes.to_string()].into_iter().chain(figures));
        }
        println!("{table}");
        modelled_answer(priced.name, &all);
        drawn.push((priced.name, all));
    }
    let default = super::ratios::folder()?.join("vmap-objects.svg");
    let file = to.unwrap_or(&default);
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    plot::draw(file, measured, &drawn)?;
    println!("\ndrawn to {}", file.display());
    Ok(())
}
