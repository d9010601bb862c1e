//! One's own block device: a driver that keeps every byte inverted, in a `Vec`.
//!
//! `cargo run --release --example own_block_device`

use std::sync::Mutex;

use pageless_block::{
    Bio, BlkError, BlockDevice, Data, FrameAccess, Limits, QueueId, RamFrames, Request,
    RequestQueue, Sector, Submitted,
};
use pageless_pfn::{ByteLen, FrameCount, Pfn};

/// Stores every byte with its bits inverted.
#[derive(Debug)]
struct Inverting<M> {
    bytes: Mutex<Vec<u8>>,
    /// What reaches the frames of the bios.
    memory: M,
}

impl<M: FrameAccess> BlockDevice for Inverting<M> {
    fn limits(&self) -> Limits {
        Limits::new(ByteLen::new(1 << 20))
    }

    /// The queue has checked that the request lies within the device.
    fn submit(&self, request: Request) -> Submitted {
        request.run(|request| {
            let mut bytes = self.bytes.lock().map_err(|_| BlkError::Offline)?;
            let mut at = request.position().get() as usize;
            let mut part = |len: ByteLen| {
                at += len.get() as usize;
                at - len.get() as usize..at
            };
            match request.data() {
                Data::FromMemory(memory) => {
                    for segment in memory {
                        let part = &mut bytes[part(segment.len())];
                        segment.take(&self.memory, part)?;
                        part.iter_mut().for_each(|byte| *byte = !*byte);
                    }
                }
                Data::ToMemory(memory) => {
                    for segment in memory {
                        let stored = &bytes[part(segment.len())];
                        let plain: Vec<u8> = stored.iter().map(|byte| !byte).collect();
                        segment.fill(&self.memory, &plain)?;
                    }
                }
                Data::None => return Err(BlkError::NotSupported.into()),
            }
            Ok(())
        })
    }
}

fn main() -> Result<(), Box<dyn core::error::Error>> {
    let ram = RamFrames::new(Pfn::try_new(0x100)?, FrameCount::new(16))?;
    let device = Inverting {
        bytes: Mutex::new(vec![0; 1 << 20]),
        memory: &ram,
    };

    let buffer = ram.segment(4096, ByteLen::new(512)).ok_or("not in RAM")?;
    ram.write_bytes(buffer, b"a driver in 35 lines")?;
    let queue = RequestQueue::with_depth(&device, 8)?;
    let mut context = queue.context(QueueId::new(0))?;
    context.submit(Bio::write(Sector::new(3), buffer))?;
    context.submit(Bio::read(Sector::new(3), buffer))?;
    context.submit(Bio::flush())?;
    context.submit(Bio::discard(Sector::new(3), ByteLen::new(512)))?;
    context.submit(Bio::read(Sector::new(1 << 20), buffer))?;
    context.drain(|done| match done.result() {
        Ok(()) => println!("{}: done", done.bio()),
        Err(error) => println!("{}: {error} (errno {})", done.bio(), error.errno()),
    });

    let mut text = [0; 20];
    ram.read_bytes(buffer, &mut text)?;
    println!("read back: {:?}", String::from_utf8_lossy(&text));
    let stored = device.bytes.lock().map_err(|_| "a driver panicked")?[3 * 512];
    println!("stored as: {stored:#04x} for {:#04x}", b'a');
    Ok(())
}
