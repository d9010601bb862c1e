//! Hazard: somewhere between submission and completion somebody asks for a descriptor. A memmap covers
//! the device and the buffers while millions of requests go through; afterwards not one of its
//! descriptors has ever been in memory.

use pageless::block::{Bio, BytePos, Pmem, PmemFrames, QueueId, RamFrames, RequestQueue};
use pageless::block::{Op, Sector};
use pageless::fault::host::HostMachine;
use pageless::memmap::{Config, Memmap};
use pageless::pfn::{ByteLen, FrameCount, Pfn, PfnFlags, PfnRange};

/// Requests that reach the driver, split pieces included.
const REQUESTS: u64 = 2_000_000;

#[test]
fn millions_of_requests_with_splits_and_partial_segments_touch_no_descriptor() {
    let ram_at = Pfn::try_new(0x1000).unwrap();
    let device_at = Pfn::try_new(0x10_0000).unwrap();
    let ram = RamFrames::new(ram_at, FrameCount::new(64)).unwrap();
    let frames = PmemFrames::memfd(device_at, ByteLen::new(16 << 20)).unwrap();
    let device = Pmem::new(frames, &ram)
        .with_limits(|limits| limits.max_request = ByteLen::new(1024))
        .unwrap();

    // From before the first RAM frame to behind the last device frame.
    let covered = PfnRange::try_new(Pfn::try_new(0).unwrap(), FrameCount::new(0x20_0000)).unwrap();
    let memmap = Memmap::attach(&HostMachine::new().unwrap(), covered, Config::default()).unwrap();

    let queue = RequestQueue::with_depth(&device, 32).unwrap();
    let mut context = queue.context(QueueId::new(0)).unwrap();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bios = 0;
    loop {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let at = random % (32 << 10 >> 1);
        let mut bio = Bio::new(
            if random & 1 << 40 == 0 {
                Op::Write
            } else {
                Op::Read
            },
            Sector::new(at),
        );
        // Two parts that begin anywhere in a frame and end in the middle of one; together some sectors,
        // more than the device takes at once.
        let (head, total) = (700 + (random >> 20) % 300, 512 * (3 + (random >> 50) % 4));
        for (offset, len) in [(random >> 30) % 4000, 100_000 + (random >> 10) % 4000]
            .into_iter()
            .zip([head, total - head])
        {
            bio.push(ram.segment(offset, ByteLen::new(len)).unwrap());
        }
        context.submit(bio).unwrap();
        bios += 1;
        if bios % 32 == 0 {
            context.drain(|done| done.result().unwrap());
            let counters = context.counters();
            if counters.completed + counters.splits >= REQUESTS {
                break;
            }
        }
    }
    // From the device to the device: the memory of the bio is DEV without MAP.
    let own = device
        .segment(BytePos::new(0), ByteLen::new(1 << 20), PfnFlags::DEV)
        .unwrap();
    assert!(own.frame().paged().is_err());
    context
        .submit(Bio::write(Sector::new(8 << 11), own))
        .unwrap();
    context.drain(|done| done.result().unwrap());

    let counters = context.counters();
    assert_eq!(counters.failed, 0);
    assert!(counters.splits > REQUESTS / 4, "{counters:?}");
    assert!(counters.bytes_read > 0 && counters.bytes_written > 0);
    let memmap = memmap.counters();
    assert_eq!(memmap, pageless::memmap::Counters::default());
}
