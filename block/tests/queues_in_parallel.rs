//! Hazard: queues of one device, each on a thread of its own, that get in each other's way.

extern crate alloc;

mod rig;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use pageless_block::{Bio, FrameAccess, Pmem, Queue, QueueId, Sector};
use pageless_pfn::ByteLen;

const THREADS: u64 = 4;
const DEPTH: u16 = 8;
const ROUNDS: u64 = 2000;

#[test]
fn each_queue_reads_back_what_it_wrote_and_gets_only_its_own_bios() {
    let ram = rig::ram(256);
    let device =
        Pmem::new(rig::memfd(6 << 40), Arc::clone(&ram)).with_max_request(ByteLen::new(1024));
    let device = device.unwrap();
    let completed = AtomicU64::new(0);
    std::thread::scope(|threads| {
        for thread in 0..THREADS {
            let (device, ram, completed) = (&device, &ram, &completed);
            threads.spawn(move || {
                let id = QueueId::new(thread as u16);
                let mut queue = Queue::try_new(device, id, DEPTH).unwrap();
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
                        queue.submit(bio).unwrap();
                    }
                    queue.drain(|done| {
                        assert_eq!(done.result, Ok(()));
                        assert_eq!(done.bio.sector(), place(done.bio.token()));
                        ram.zero_bytes(buffer(done.bio.token())).unwrap();
                    });
                    for slot in 0..u64::from(DEPTH) {
                        queue
                            .submit(Bio::read(place(slot), buffer(slot)).with_token(slot))
                            .unwrap();
                    }
                    queue.drain(|done| {
                        assert_eq!(done.result, Ok(()));
                        let stamp = (thread << 32 | round << 8 | done.bio.token()).to_le_bytes();
                        assert!(rig::bytes_of(ram, done.bio.segments()[0]) == stamp.repeat(256));
                    });
                }
                completed.fetch_add(queue.counters().completed, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(
        completed.into_inner(),
        THREADS * ROUNDS * 2 * u64::from(DEPTH)
    );
}

#[test]
fn queues_may_move_to_another_thread() {
    let (device, _ram) = rig::pmem(1 << 20);
    let device = Arc::new(device);
    let mut queue = Queue::try_new(Arc::clone(&device), QueueId::new(0), 2).unwrap();
    queue.submit(Bio::flush()).unwrap();
    let done = std::thread::spawn(move || queue.reap()).join().unwrap();
    assert_eq!(done.unwrap().result, Ok(()));
}
