//! One's own block device: a driver that keeps every byte inverted, in a `Vec`.
//!
//! `cargo run --release --example own_block_device`

use std::sync::Mutex;

use pageless_block::{
    Bio, BlkError, BlockDevice, DeviceInfo, FrameAccess, Op, Queue, QueueId, RamFrames, Request,
    Sector,
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
    fn info(&self) -> DeviceInfo {
        DeviceInfo::new(ByteLen::new(1 << 20))
    }

    /// The queue has checked that the request lies within the device.
    fn execute(&self, request: &Request) -> Result<(), BlkError> {
        let mut bytes = self.bytes.lock().map_err(|_| BlkError::Offline)?;
        let mut at = request.position().get() as usize;
        for segment in request.segments() {
            let part = &mut bytes[at..at + segment.len().get() as usize];
            at += part.len();
            if request.op() == Op::Write {
                self.memory.read_bytes(segment, part)?;
                part.iter_mut().for_each(|byte| *byte = !*byte);
            } else {
                let plain: Vec<u8> = part.iter().map(|byte| !byte).collect();
                self.memory.write_bytes(segment, &plain)?;
            }
        }
        match request.op() {
            Op::Read | Op::Write | Op::Flush => Ok(()),
            _ => Err(BlkError::NotSupported),
        }
    }
}

fn main() -> Result<(), Box<dyn core::error::Error>> {
    let ram = RamFrames::new(Pfn::try_new(0x100)?, FrameCount::new(16))?;
    let device = Inverting {
        bytes: Mutex::new(vec![0; 1 << 20]),
        memory: &ram,
    };

    let buffer = ram.segment(4096, ByteLen::new(512)).ok_or("not in RAM")?;
    ram.write_bytes(buffer, b"a driver in thirty lines")?;
    let mut queue = Queue::try_new(&device, QueueId::new(0), 8)?;
    queue.submit(Bio::write(Sector::new(3), buffer))?;
    queue.submit(Bio::read(Sector::new(3), buffer))?;
    queue.submit(Bio::flush())?;
    queue.submit(Bio::discard(Sector::new(3), ByteLen::new(512)))?;
    queue.submit(Bio::read(Sector::new(1 << 20), buffer))?;
    queue.drain(|done| match done.result {
        Ok(()) => println!("{}: done", done.bio),
        Err(error) => println!("{}: {error} (errno {})", done.bio, error.errno()),
    });

    let mut text = [0; 24];
    ram.read_bytes(buffer, &mut text)?;
    println!("read back: {:?}", String::from_utf8_lossy(&text));
    let stored = device.bytes.lock().map_err(|_| "a driver panicked")?[3 * 512];
    println!("stored as: {stored:#04x} for {:#04x}", b'a');
    Ok(())
}
