//! Hazard: frames of two providers that lie side by side merge into one segment, and the first provider
//! is asked for bytes that only the second one has.

extern crate alloc;

mod rig;

use pageless_block::{Bio, FrameAccess, Op, Pmem, RamFrames, Sector, submit_sync};
use pageless_pfn::{ByteLen, FrameCount};

#[test]
fn a_segment_may_run_from_one_provider_into_the_next() {
    let low = RamFrames::new(rig::pfn(0x100), FrameCount::new(4)).unwrap();
    let high = RamFrames::new(rig::pfn(0x104), FrameCount::new(4)).unwrap();
    let device = Pmem::new(rig::memfd(1 << 20), (&low, &high));
    let (last, first) = (
        low.segment(3 * 4096, ByteLen::new(4096)).unwrap(),
        high.segment(0, ByteLen::new(4096)).unwrap(),
    );
    low.write_bytes(last, &[1; 4096]).unwrap();
    high.write_bytes(first, &[2; 4096]).unwrap();
    let mut bio = Bio::new(Op::Write, Sector::new(0));
    bio.push(last);
    bio.push(first);
    assert_eq!(
        bio.segments().len(),
        1,
        "they did not merge: the test is void"
    );
    rig::run(&device, bio);

    let back = low.segment(0, ByteLen::new(8192)).unwrap();
    rig::run(&device, Bio::read(Sector::new(0), back));
    let bytes = rig::bytes_of(&low, back);
    assert_eq!(bytes, [[1; 4096], [2; 4096]].concat());
}

#[test]
fn a_segment_that_runs_into_nothing_is_an_error() {
    let ram = RamFrames::new(rig::pfn(0x100), FrameCount::new(2)).unwrap();
    let other = RamFrames::new(rig::pfn(0x100), FrameCount::new(4)).unwrap();
    let device = Pmem::new(rig::memfd(1 << 20), &ram);
    // Frames 0x101 to 0x103, of which the device's memory knows the first.
    let beyond = other.segment(4096, ByteLen::new(3 * 4096)).unwrap();
    let done = submit_sync(&device, Bio::write(Sector::new(0), beyond)).unwrap();
    assert!(done.result().is_err());
}
