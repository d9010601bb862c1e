//! Hazard: a disk in memory that loses what was written, or keeps what was discarded.

extern crate alloc;

use alloc::sync::Arc;

use pageless_block::{
    Bio, BlkError, FrameAccess, HeapFrames, Op, QueueId, Ram, RequestQueue, Sector, SparseFrames,
    submit_sync,
};
use pageless_pfn::{ByteLen, FrameCount, PAGE_SIZE, Pfn, PhysSegment};

fn memory(frames: u64) -> Arc<HeapFrames> {
    let base = Pfn::try_new(0x100).unwrap();
    Arc::new(HeapFrames::new(base, FrameCount::new(frames)).unwrap())
}

fn segment(memory: &HeapFrames, offset: u64, len: u64) -> PhysSegment {
    memory.segment(offset, ByteLen::new(len)).unwrap()
}

fn fill(memory: &HeapFrames, segment: PhysSegment, byte: u8) {
    let len = usize::try_from(segment.len().get()).unwrap();
    memory.write_bytes(segment, &vec![byte; len]).unwrap();
}

fn bytes(memory: &HeapFrames, segment: PhysSegment) -> Vec<u8> {
    let mut out = vec![0; usize::try_from(segment.len().get()).unwrap()];
    memory.read_bytes(segment, &mut out).unwrap();
    out
}

fn run(disk: &Ram<Arc<HeapFrames>>, bio: impl Into<Bio>) -> Result<(), BlkError> {
    submit_sync(disk, bio).unwrap().result()
}

#[test]
fn what_was_written_is_read_back_whatever_the_memory_looks_like() {
    let memory = memory(8);
    let disk = Ram::new(ByteLen::new(1 << 44), Arc::clone(&memory));
    let from = segment(&memory, 100, 3 * PAGE_SIZE);
    let pattern: Vec<u8> = (0..3 * PAGE_SIZE).map(|n| (n % 251) as u8).collect();
    memory.write_bytes(from, &pattern).unwrap();
    let sector = Sector::new((1 << 35) - 25);
    run(&disk, Bio::write(sector, from)).unwrap();
    assert_eq!(disk.store().resident(), FrameCount::new(4));
    // Back into two pieces, in the other order in memory.
    let (second, first) = (segment(&memory, 0x5000, 512), segment(&memory, 0x3800, 512));
    let mut bio = Bio::read(sector, first);
    bio.push(second);
    run(&disk, bio).unwrap();
    assert_eq!(bytes(&memory, first), pattern[..512]);
    assert_eq!(bytes(&memory, second), pattern[512..1024]);
}

#[test]
fn holes_are_zeroes_discards_free_and_zeroes_are_written() {
    let memory = memory(2);
    let disk = Ram::new(ByteLen::new(1 << 30), Arc::clone(&memory));
    let buffer = segment(&memory, 0, PAGE_SIZE);
    let is = |disk: &_, sector, byte| {
        fill(&memory, buffer, 0xaa);
        run(disk, Bio::read(Sector::new(sector), buffer)).unwrap();
        bytes(&memory, buffer).iter().all(|b| *b == byte)
    };
    assert!(is(&disk, 800, 0));
    assert_eq!(disk.store().resident(), FrameCount::ZERO);
    fill(&memory, buffer, 5);
    run(&disk, Bio::write(Sector::new(800), buffer)).unwrap();
    run(&disk, Bio::write(Sector::new(808), buffer)).unwrap();
    // A part of a frame: brd leaves it alone.
    run(&disk, Bio::discard(Sector::new(801), ByteLen::new(3584))).unwrap();
    assert!(is(&disk, 800, 5));
    run(&disk, Bio::discard(Sector::new(0), ByteLen::new(1 << 30))).unwrap();
    assert!(is(&disk, 800, 0) && is(&disk, 808, 0));
    assert_eq!(disk.store().resident(), FrameCount::ZERO);

    fill(&memory, buffer, 6);
    run(&disk, Bio::write(Sector::new(800), buffer)).unwrap();
    run(
        &disk,
        Bio::write_zeroes(Sector::new(801), ByteLen::new(512)),
    )
    .unwrap();
    run(&disk, Bio::read(Sector::new(800), buffer)).unwrap();
    let back = bytes(&memory, buffer);
    assert_eq!(back, [&[6; 512][..], &[0; 512], &[6; 3072]].concat());
    run(
        &disk,
        Bio::write_zeroes(Sector::new(800), ByteLen::new(4096)),
    )
    .unwrap();
    assert_eq!(disk.store().resident(), FrameCount::ZERO);
}

#[test]
fn no_room_is_told_with_what_was_done_before() {
    let memory = memory(4);
    let store = SparseFrames::with_limit(ByteLen::new(1 << 30), FrameCount::new(2));
    let disk = Ram::with_store(store, Arc::clone(&memory));
    // Four segments of a frame each, not adjacent in memory.
    let mut bio = Bio::write(Sector::new(0), segment(&memory, 3 * PAGE_SIZE, PAGE_SIZE));
    for frame in [1, 0, 2] {
        bio.push(segment(&memory, frame * PAGE_SIZE, PAGE_SIZE));
    }
    let completion = submit_sync(&disk, bio).unwrap();
    assert_eq!(completion.result(), Err(BlkError::NoSpace));
    assert_eq!(completion.done(), ByteLen::new(2 * PAGE_SIZE));
    // It is not broken by that.
    run(&disk, Bio::discard(Sector::new(0), ByteLen::new(1 << 30))).unwrap();
    run(
        &disk,
        Bio::write(Sector::new(0), segment(&memory, 0, PAGE_SIZE)),
    )
    .unwrap();
}

#[test]
fn memory_that_nobody_has_is_an_error_and_what_it_cannot_do_it_says() {
    let (mine, other) = (memory(1), memory(2));
    let disk = Ram::new(ByteLen::new(1 << 30), mine);
    let beyond = segment(&other, PAGE_SIZE, 512);
    assert_eq!(
        run(&disk, Bio::read(Sector::new(0), beyond)),
        Err(BlkError::Io)
    );
    let erase = Bio::secure_erase(Sector::new(0), ByteLen::new(512));
    assert_eq!(run(&disk, erase), Err(BlkError::NotSupported));
    let reset = Bio::manage_zone(Op::ZoneReset, Sector::new(0));
    assert_eq!(run(&disk, reset), Err(BlkError::NotSupported));
    run(&disk, Bio::flush()).unwrap();
}

#[test]
fn threads_write_next_to_each_other() {
    let rounds: u64 = if cfg!(miri) { 4 } else { 200 };
    let memory = memory(4);
    let disk = Ram::new(ByteLen::new(1 << 30), Arc::clone(&memory));
    let queue = RequestQueue::with_depth(&disk, 8).unwrap();
    std::thread::scope(|scope| {
        for id in 0..2_u64 {
            let (queue, memory) = (&queue, &memory);
            scope.spawn(move || {
                let mut context = queue.shared_context(QueueId::new(0)).unwrap();
                let buffer = segment(memory, id * PAGE_SIZE, PAGE_SIZE / 2);
                fill(memory, buffer, id as u8 + 1);
                for n in 0..rounds {
                    // Both halves of each frame, by different threads.
                    let sector = Sector::new(n * 8 + id * 4);
                    context.submit(Bio::write(sector, buffer)).unwrap();
                    context.drain(|done| done.result().unwrap());
                }
            });
        }
    });
    assert_eq!(disk.store().resident(), FrameCount::new(rounds));
    let buffer = segment(&memory, 0, PAGE_SIZE);
    for n in 0..rounds {
        run(&disk, Bio::read(Sector::new(n * 8), buffer)).unwrap();
        assert_eq!(bytes(&memory, buffer), [[1; 2048], [2; 2048]].concat());
    }
}
