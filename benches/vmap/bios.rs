//! What it costs a bio that its memory is in pieces: reads of 256 KiB by the pmem driver, into a virtual compound page, into one in one piece, into
//! memory of the block layer's own, and into that and then copied.

use super::compound::{pages, scatter};
use super::ratios::{self, Figure, Line, Report, Target};
use super::{cpus, host};
use alloc::sync::Arc;
use pageless::DirectMap;
use pageless_block::{
    Bio, Context, FrameAccess, Op, Pmem, PmemFrames, QueueId, RamFrames, RequestQueue, Sector,
};
use pageless_fault::host::HostRam;
use pageless_pfn::{ByteLen, FrameCount, Pfn, PhysSegment};
use pageless_vmap::frames::{Gfp, Order, PageBlock};
use std::time::Instant;

/// Bytes of a bio.
const LEN: u64 = 256 << 10;
/// Bios of a sample, one behind the other on the device.
const BIOS: u64 = 64;

type Device = Pmem<(DirectMap<Arc<HostRam>>, Arc<RamFrames>)>;

/// ns for each bio that reads into `memory`; `then` is done after each.
fn read(context: &mut Context<'_, &Device>, memory: &[PhysSegment], mut then: impl FnMut()) -> f64 {
    let begun = Instant::now();
    for n in 0..BIOS {
        let mut bio = Bio::new(Op::Read, Sector::new(n * LEN / 512));
        bio.extend(memory.iter().copied());
        context.submit(bio).unwrap();
        context.drain(|done| done.result().unwrap());
        then();
    }
    begun.elapsed().as_nanos() as f64 / BIOS as f64
}

/// Adds the lines of this section.
pub(crate) fn measure(report: &mut Report) {
    cpus::pin(0);
    let pages = pages();
    let ctx = host::ctx();
    let kept = scatter(&pages, 1);
    let (order, gfp) = (Order::try_new(6).unwrap(), Gfp::kernel(&ctx));
    let contiguous = pages.alloc(&gfp, order).unwrap();
    pages.always_fall_back(true);
    let in_pieces = pages.alloc(&gfp.virtual_fallback(), order).unwrap();
    assert!(in_pieces.is_virtual() && !contiguous.is_virtual());

    let own = RamFrames::new(Pfn::try_new(1 << 28).unwrap(), FrameCount::new(64));
    let own = Arc::new(own.unwrap());
    let device = PmemFrames::memfd(Pfn::try_new(1 << 30).unwrap(), ByteLen::new(BIOS * LEN));
    let memory = DirectMap::new(Arc::clone(pages.frames().memory()));
    let device: Device = Pmem::new(device.unwrap(), (memory, Arc::clone(&own)));
    let whole = device.frames().segment(
        pageless_block::BytePos::new(0),
        device.frames().len(),
        pageless_pfn::PfnFlags::empty(),
    );
    let fill = vec![0x5a; (BIOS * LEN) as usize];
    device.frames().write_bytes(whole.unwrap(), &fill).unwrap();

    let buffer = own.segment(0, ByteLen::new(LEN)).unwrap();
    let (pieces, one): (Vec<_>, Vec<_>) = (
        in_pieces.segments().collect(),
        contiguous.segments().collect(),
    );
    assert_eq!((pieces.len(), one.len()), (64, 1));
    let queue = RequestQueue::with_depth(&device, 8).unwrap();
    let mut ours = queue.context(QueueId::new(0)).unwrap();
    let other = RequestQueue::with_depth(&device, 8).unwrap();
    let mut theirs = other.context(QueueId::new(0)).unwrap();
    let mut bounce = vec![0; LEN as usize];
    read(&mut ours, &[buffer], || {});
    let pairs = report.scaled(100, 30);
    let taken = [
        ratios::alternate(
            pairs,
            || read(&mut ours, &pieces, || {}),
            || read(&mut theirs, &one, || {}),
        ),
        ratios::alternate(
            pairs,
            || read(&mut ours, &one, || {}),
            || read(&mut theirs, &[buffer], || {}),
        ),
        ratios::alternate(
            pairs,
            || read(&mut ours, &pieces, || {}),
            || {
                read(&mut theirs, &[buffer], || {
                    own.read_bytes(buffer, &mut bounce).unwrap();
                    in_pieces.write(0, &bounce).unwrap();
                })
            },
        ),
    ];
    for ((name, against), taken) in [
        ("a virtual compound page, 64 segments", "one in one piece"),
        ("a compound page in one piece", "`RamFrames`"),
        (
            "a virtual compound page, 64 segments",
            "`RamFrames`, and copied there",
        ),
    ]
    .into_iter()
    .zip(&taken)
    {
        let line = Line {
            name: &format!("bio that reads 256 KiB of pmem into {name}"),
            against,
            unit: "ns",
            figure: Figure::Cost,
            target: Target::Informs,
        };
        report.add(&line, taken);
    }
    drop((in_pieces, contiguous));
    kept.into_iter()
        .for_each(|block: PageBlock| pages.frames().free(block));
}
