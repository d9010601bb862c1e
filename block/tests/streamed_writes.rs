//! Hazard: writes that go past the caches lose the bytes before the first whole line or after the last, or
//! are not seen by the reads after them.

extern crate alloc;

use alloc::sync::Arc;

use pageless_block::{Bio, FrameAccess, Pmem, PmemFrames, RamFrames, Sector, submit_sync};
use pageless_pfn::{ByteLen, FrameCount, Pfn};

const SECTORS: u64 = 64;

#[test]
fn a_streamed_write_is_a_write_whatever_its_segments() {
    let ram = Arc::new(RamFrames::new(Pfn::try_new(0x100).unwrap(), FrameCount::new(64)).unwrap());
    let frames =
        |base| PmemFrames::memfd(Pfn::try_new(base).unwrap(), ByteLen::new(SECTORS * 512)).unwrap();
    let plain = Pmem::new(frames(1 << 30), Arc::clone(&ram));
    let streamed = Pmem::new(frames(1 << 31), Arc::clone(&ram)).with_streamed_writes();
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..500 {
        let sectors = random.u64(1..=8);
        let (at, total) = (random.u64(0..=SECTORS - sectors), sectors * 512);
        // Three segments that begin and end anywhere.
        let (a, b) = (random.u64(1..total), random.u64(1..total));
        let cuts = [0, a.min(b), a.max(b), total];
        let mut bio = None::<Bio<_>>;
        for pair in cuts.windows(2) {
            let len = pair[1] - pair[0];
            if len == 0 {
                continue;
            }
            let from = random.u64(0..200_000);
            let memory = ram.segment(from, ByteLen::new(len)).unwrap();
            let bytes: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
            ram.write_bytes(memory, &bytes).unwrap();
            match &mut bio {
                Some(bio) => bio.push(memory),
                None => bio = Some(Bio::write(Sector::new(at), memory)),
            }
        }
        let bio = bio.unwrap();
        for device in [&plain, &streamed] {
            let done = submit_sync(device, bio.clone()).unwrap();
            done.result().unwrap();
        }
        let contents = |device: &Pmem<_>| {
            let frames = device.frames();
            let all = frames
                .segment(
                    pageless_block::BytePos::new(0),
                    frames.len(),
                    pageless_pfn::PfnFlags::empty(),
                )
                .unwrap();
            let mut bytes = vec![0; frames.len().get() as usize];
            frames.read_bytes(all, &mut bytes).unwrap();
            bytes
        };
        assert!(contents(&plain) == contents(&streamed), "round {round}");
    }
}
