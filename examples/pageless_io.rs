//! Block I/O to a 6 TiB device of which no frame has a descriptor.
//!
//! `cargo run --release --example pageless_io`

use pageless_block::{
    Bio, BytePos, FrameAccess, Op, Pmem, PmemFrames, QueueId, RamFrames, RequestQueue, Sector,
};
use pageless_pfn::{ByteLen, FrameCount, Pfn, PfnFlags};

fn main() -> Result<(), Box<dyn core::error::Error>> {
    // 16 MiB of RAM for buffers, and a sparse device of persistent memory. Both are known by
    // frame numbers alone.
    let ram = RamFrames::new(Pfn::try_new(0x100)?, FrameCount::new(4096))?;
    let frames = PmemFrames::memfd(Pfn::try_new(1 << 30)?, ByteLen::new(6 << 40))?;
    let device = Pmem::new(frames, &ram)
        .with_limits(|limits| limits.max_request = ByteLen::new(64 << 10))?;
    println!(
        "device: {} of persistent memory, frames {}",
        device.frames().len(),
        device.range()
    );

    // A buffer in two parts that begin anywhere. No descriptor says where they are.
    let text = b"no struct page was touched ".repeat(38);
    let (head, tail) = text[..1024].split_at(700);
    let parts = [
        ram.segment(1000, ByteLen::new(700)).ok_or("not in RAM")?,
        ram.segment(80_001, ByteLen::new(324)).ok_or("not in RAM")?,
    ];
    ram.write_bytes(parts[0], head)?;
    ram.write_bytes(parts[1], tail)?;

    let queue = RequestQueue::with_depth(&device, 32)?;
    let mut context = queue.context(QueueId::new(0))?;
    let far = Sector::new((5 << 40) / 512);
    let mut bio = Bio::new(Op::Write, far);
    parts.into_iter().for_each(|part| bio.push(part));
    context.submit(bio)?;
    context.submit(Bio::flush())?;
    while let Some(done) = context.reap() {
        println!("{}: {:?}", done.bio(), done.result());
        done.result()?;
    }

    // From one place of the device to another: the memory of this bio is the device's own, DEV
    // without MAP, so that there is nothing a descriptor could be asked for.
    let source = device.segment(BytePos::new(5 << 40), ByteLen::new(1 << 20), PfnFlags::DEV)?;
    println!(
        "descriptor of {}? {}",
        source.frame(),
        source.frame().paged().unwrap_err()
    );
    context.submit(Bio::write(Sector::new(0), source))?;
    context.drain(|done| println!("{}: {:?}", done.bio(), done.result()));

    let back = ram
        .segment(8 << 20, ByteLen::new(1024))
        .ok_or("not in RAM")?;
    context.submit(Bio::read(Sector::new(0), back))?;
    context.drain(|done| println!("{}: {:?}", done.bio(), done.result()));
    let mut read = [0; 1024];
    ram.read_bytes(back, &mut read)?;
    assert_eq!(read, text[..1024]);
    println!("read back: {:?}...", String::from_utf8_lossy(&read[..26]));

    let seen = context.counters();
    println!(
        "{} bios, {} of them failed, {} split off, {} bytes written, {} read",
        seen.completed, seen.failed, seen.splits, seen.bytes_written, seen.bytes_read
    );
    Ok(())
}
