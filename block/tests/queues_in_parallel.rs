//! Hazard: queues of one device, each on a thread of its own, that get in each other's way.

extern crate alloc;

mod rig;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use pageless_block::{
    Bio, FrameAccess, Limits, NullDevice, Pmem, QueueConfig, QueueId, RequestQueue, Sector,
};
use pageless_pfn::ByteLen;

const THREADS: u64 = 4;
const DEPTH: u16 = 8;
const ROUNDS: u64 = 2000;

/// Each thread has a context of its own, on a hardware queue of its own or on one that all share.
fn read_back_what_was_written(hw_queues: u16) {
    let ram = rig::ram(256);
    let device = Pmem::new(rig::memfd(6 << 40), Arc::clone(&ram));
    let device = device
        .with_limits(|limits| limits.max_request = ByteLen::new(1024))
        .unwrap();
    // Each bio is two requests. Where all share a hardware queue, they share its tags as well.
    let config = QueueConfig {
        hw_queues,
        depth: DEPTH * 2 * (THREADS as u16) / hw_queues,
        ..QueueConfig::default()
    };
    let queue = RequestQueue::try_new(&device, config).unwrap();
    let completed = AtomicU64::new(0);
    std::thread::scope(|threads| {
        for thread in 0..THREADS {
            let (queue, ram, completed) = (&queue, &ram, &completed);
            threads.spawn(move || {
                let id = QueueId::new(thread as u16 % hw_queues);
                let mut context = match u64::from(hw_queues) {
                    THREADS => queue.context(id).unwrap(),
                    _ => queue.shared_context(id).unwrap(),
                };
                let buffer = |slot: u64| rig::segment(ram, (thread * 32 + slot) * 4096 + 17, 2048);
                for round in 0..ROUNDS {
                    // Interleaved with the other threads' places, a tebibyte apart and next door.
                    let place = |slot: u64| {
                        let near = (round * 8 + slot) * THREADS + thread;
                        Sector::new(((round % 6) << 40) / 512 + near % 100_000 * 4)
                    };
                    for slot in 0..u64::from(DEPTH) {
                        let stamp = (thread << 32 | round << 8 | slot).to_le_bytes();
                        ram.write_bytes(buffer(slot), &stamp.repeat(256)).unwrap();
                        let bio = Bio::write(place(slot), buffer(slot)).with_token(slot);
                        context.submit(bio).unwrap();
                    }
                    context.drain(|done| {
                        assert_eq!(done.result(), Ok(()));
                        assert_eq!(done.bio().sector(), place(done.token()));
                        ram.zero_bytes(buffer(done.token())).unwrap();
                    });
                    for slot in 0..u64::from(DEPTH) {
                        context
                            .submit(Bio::read(place(slot), buffer(slot)).with_token(slot))
                            .unwrap();
                    }
                    context.drain(|done| {
                        assert_eq!(done.result(), Ok(()));
                        let stamp = (thread << 32 | round << 8 | done.token()).to_le_bytes();
                        assert!(rig::bytes_of(ram, done.bio().segments()[0]) == stamp.repeat(256));
                    });
                }
                completed.fetch_add(context.counters().completed, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(
        completed.into_inner(),
        THREADS * ROUNDS * 2 * u64::from(DEPTH)
    );
    assert_eq!(queue.in_flight(), 0);
}

#[test]
fn each_queue_reads_back_what_it_wrote_and_gets_only_its_own_bios() {
    read_back_what_was_written(THREADS as u16);
}

#[test]
fn contexts_that_share_a_hardware_queue_do_so_too() {
    read_back_what_was_written(1);
}

#[test]
fn contexts_may_move_to_another_thread() {
    let (device, _ram) = rig::pmem(1 << 20);
    let queue = RequestQueue::with_depth(&device, 2).unwrap();
    let mut context = queue.context(rig::QUEUE).unwrap();
    context.submit(Bio::flush()).unwrap();
    let done = std::thread::scope(|threads| threads.spawn(move || context.reap()).join());
    assert_eq!(done.unwrap().unwrap().result(), Ok(()));
}

/// Contexts have numbers for those who look on, of which there are 65536. Statistics are not to be shared by two of
/// them without their knowing.
#[test]
#[cfg_attr(miri, ignore = "65536 contexts take their time")]
fn contexts_of_the_same_number_lose_none_of_their_counts() {
    const BIOS: u64 = 100_000;
    let config = QueueConfig {
        io_stat: true,
        depth: 1,
        ..QueueConfig::default()
    };
    let device = NullDevice::new(Limits::new(ByteLen::new(1 << 20)));
    let queue = RequestQueue::try_new(device, config).unwrap();
    let first = queue.shared_context(rig::QUEUE).unwrap();
    for _ in 1..1 << 16 {
        drop(queue.shared_context(rig::QUEUE).unwrap());
    }
    let second = queue.shared_context(rig::QUEUE).unwrap();
    assert_eq!(first.number(), second.number());
    std::thread::scope(|threads| {
        for mut context in [first, second] {
            threads.spawn(move || {
                for _ in 0..BIOS {
                    // The other one may have the only tag.
                    while context.submit(rig::sector(0)).is_err() {}
                    context.drain(|done| assert_eq!(done.result(), Ok(())));
                }
            });
        }
    });
    let stat = queue.stat().unwrap();
    assert_eq!((stat.read_ios, stat.in_flight), (2 * BIOS, 0));
}
