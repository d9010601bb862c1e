//! Hazard: somewhere on the way a long bio is taken apart, frame by frame or at 4 GiB, although nobody
//! asked for that.

use std::sync::Mutex;

use pageless_block::{Bio, BlockDevice, Limits, QueueId, Request, RequestQueue, Sector, Submitted};
use pageless_pfn::{ByteLen, FrameOffset, Pfn, PfnFlags, PfnT, PhysSegment};

/// Says which segments its requests had.
struct Witness(Mutex<Vec<Vec<PhysSegment>>>);

impl BlockDevice for Witness {
    fn limits(&self) -> Limits {
        Limits::new(ByteLen::new(1 << 50))
    }

    fn submit(&self, request: Request) -> Submitted {
        self.0.lock().unwrap().push(request.segments().collect());
        request.run(|_| Ok(()))
    }
}

fn segment(offset: u64, len: u64) -> PhysSegment {
    let frame = PfnT::new(Pfn::try_new(0x12_3456_7890).unwrap(), PfnFlags::DEV);
    let offset = FrameOffset::try_new(offset).unwrap();
    PhysSegment::try_new(frame, offset, ByteLen::new(len)).unwrap()
}

#[test]
fn a_long_segment_reaches_the_driver_as_it_was_submitted() {
    let queue = RequestQueue::with_depth(Witness(Mutex::default()), 1).unwrap();
    let mut context = queue.context(QueueId::new(0)).unwrap();
    for len in [1 << 30, (1 << 32) + 512, 6 << 40] {
        for offset in [0, 512, 8] {
            let whole = segment(offset, len);
            context.submit(Bio::read(Sector::new(8), whole)).unwrap();
            let done = context.reap().unwrap();
            assert_eq!((done.result(), done.done()), (Ok(()), ByteLen::new(len)));
            assert_eq!(queue.device().0.lock().unwrap().pop().unwrap(), [whole]);
        }
    }
    assert_eq!(context.counters().splits, 0);
}
