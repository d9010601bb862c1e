//! Hazard: a part of the block layer that the plain path does not pass asks for a descriptor: a merge, a
//! scheduler, a flush, a driver on top of another. A memmap covers devices and buffers while bios go
//! through all of them; afterwards not one of its descriptors has ever been in memory.

extern crate alloc;

use alloc::sync::Arc;
use core::time::Duration;

use pageless::block::{
    Bio, BioFlags, BytePos, Delay, Latencies, Latency, ManualClock, MqDeadline, Partition, Pmem,
    PmemFrames, QueueConfig, QueueId, RamFrames, RequestQueue, Sector, Stripe, WriteCache,
    WriteCacheConfig,
};
use pageless::fault::host::HostMachine;
use pageless::memmap::{Config, Counters, Memmap};
use pageless::pfn::{ByteLen, FrameCount, Pfn, PfnFlags, PfnRange};

fn pfn(number: u64) -> Pfn {
    Pfn::try_new(number).unwrap()
}

const MIB: u64 = 1 << 20;

/// Bios that are submitted.
const BIOS: u64 = 40_000;

#[test]
fn merges_schedulers_flushes_and_stacked_drivers_touch_no_descriptor() {
    let ram = Arc::new(RamFrames::new(pfn(0x1000), FrameCount::new(256)).unwrap());
    let machine = HostMachine::new().unwrap();
    let covered = PfnRange::try_new(pfn(0), FrameCount::new(0x20_0000)).unwrap();
    let memmap = Memmap::attach(&machine, covered, Config::default()).unwrap();

    let clock = Arc::new(ManualClock::new());
    let member = |n: u64| {
        let frames = PmemFrames::memfd(pfn(0x10_0000 + n * 0x1000), ByteLen::new(8 * MIB)).unwrap();
        let pmem = Pmem::new(frames, Arc::clone(&ram));
        let staging = ram.segment(n * 65_536, ByteLen::new(65_536)).unwrap();
        let cache =
            WriteCache::try_new(pmem, Arc::clone(&ram), staging, WriteCacheConfig::default())
                .unwrap();
        let latency = Latency::Uniform(Duration::from_micros(1), Duration::from_micros(9));
        Delay::new(cache, Arc::clone(&clock) as _, Latencies::all(latency), n)
    };
    let stripe = Stripe::try_new(ByteLen::new(65_536), [member(0), member(1)]).unwrap();
    let device = Partition::try_new(stripe, BytePos::new(MIB), ByteLen::new(8 * MIB)).unwrap();
    let config = QueueConfig {
        depth: 32,
        elevator: Some(Box::new(MqDeadline::default())),
        clock: Some(clock as _),
        ..QueueConfig::default()
    };
    let queue = RequestQueue::try_new(device, config).unwrap();
    let mut context = queue.context(QueueId::new(0)).unwrap();

    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut submitted = 0;
    while submitted < BIOS {
        let mut plug = context.plug();
        for _ in 0..8 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // Two neighbours, on the device and in memory: they merge unless a flag keeps them apart.
            let at = (random % (8 * MIB - 65_536)) / 512;
            let flags = match random >> 60 {
                0 => BioFlags::FUA,
                1 => BioFlags::PREFLUSH,
                _ => BioFlags::SYNC,
            };
            for n in 0..2 {
                let memory = ram
                    .segment(4 * 65_536 + n * 2048, ByteLen::new(2048))
                    .unwrap();
                let sector = Sector::new(at + n * 4);
                let bio: Bio = match random >> 32 & 1 {
                    0 => Bio::read(sector, memory).with_flags(BioFlags::SYNC).erase(),
                    _ => Bio::write(sector, memory).with_flags(flags).erase(),
                };
                plug.submit(bio).unwrap();
                submitted += 1;
            }
        }
        plug.submit(Bio::discard(Sector::new(0), ByteLen::new(65_536)))
            .unwrap();
        plug.submit(Bio::flush()).unwrap();
        drop(plug);
        context.drain(|done| done.result().unwrap());
    }
    let counters = context.counters();
    assert_eq!(counters.failed, 0);
    assert!(counters.merges > BIOS / 10, "{counters:?}");
    assert!(counters.flushes > 0 && counters.bytes_discarded > 0);
    // The device's own frames as memory, too: DEV without MAP, nothing could be asked for.
    let own = pageless::pfn::PhysSegment::try_new(
        pageless::pfn::PfnT::new(pfn(0x10_0000), PfnFlags::DEV),
        pageless::pfn::FrameOffset::ZERO,
        ByteLen::new(4096),
    )
    .unwrap();
    assert!(own.frame().paged().is_err());
    assert_eq!(memmap.counters(), Counters::default());
}
