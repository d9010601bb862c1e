//! Hazard: memory in pieces has more segments than a device takes.

use pageless::block::{Bio, Op, QueueId, RequestQueue, Sector, device_segments};
use pageless::block::{BlockDevice, Pmem, PmemFrames};
use pageless::pfn::{ByteLen, PAGE_SIZE, Pfn};
use pageless::vmap::frames::Fragmentation;

use crate::rig::{DEVICE, OnePiece, Rig, on_each_machine, order, pattern, seen};

fn a_queue_cuts_a_bio_to_what_the_device_takes<R: Rig>() {
    R::run(|mm| {
        let frames = PmemFrames::memfd(Pfn::try_new(1 << 30).unwrap(), ByteLen::new(DEVICE));
        let device = Pmem::new(frames.unwrap(), mm.memory())
            .with_limits(|limits| {
                limits.max_segments = 3;
                limits.max_segment = ByteLen::new(2 * PAGE_SIZE);
                limits.virt_boundary = Some(ByteLen::new(PAGE_SIZE));
            })
            .unwrap();
        let how = Fragmentation {
            order: order(2),
            keep_free: 400,
            seed: 5,
        };
        let taken = mm.frames().fragment(how).unwrap();
        let gfp = mm.gfp().virtual_fallback();
        let block = mm.pages.alloc(&gfp, order(6)).unwrap();
        let segments: Vec<_> = block.segments().collect();
        let pieces = device_segments(&device.limits(), segments.iter().copied()).count() as u64;
        assert!(pieces > 20, "{pieces}");

        let bytes = pattern(6, block.bytes() as usize);
        mm.store(&device, 0, &bytes);
        let queue = RequestQueue::with_depth(&device, 4).unwrap();
        let mut context = queue.context(QueueId::new(0)).unwrap();
        for (op, sector) in [(Op::Read, 0), (Op::Write, DEVICE / 2 / 512)] {
            let before = context.counters().splits;
            let mut bio = Bio::new(op, Sector::new(sector));
            bio.extend(segments.iter().copied());
            context.submit(bio).unwrap();
            context.drain(|done| done.result().unwrap());
            let requests = context.counters().splits - before + 1;
            assert!(requests >= pieces.div_ceil(3), "{requests} of {pieces}");
            assert!(seen(&block) == bytes);
        }
        assert!(mm.load(&device, DEVICE / 2 / 512, OnePiece::len(&block)) == bytes);
        drop((block, taken));
        mm.nothing_remains();
    });
}

on_each_machine! {
    a_queue_cuts_a_bio_to_what_the_device_takes
}
