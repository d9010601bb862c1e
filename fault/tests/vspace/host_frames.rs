//! Frames of the host that are in more than one file.

use alloc::sync::Arc;

use pageless_fault::host::{BackingError, HostFrames, HostRam, HostVspace};
use pageless_fault::{FrameMemory, MapError, Protection, Vspace, WindowLen, WindowOffset};
use pageless_pfn::{FrameCount, Pfn, PfnRange};

fn frames(first: u64, count: u64) -> PfnRange {
    PfnRange::try_new(Pfn::try_new(first).unwrap(), FrameCount::new(count)).unwrap()
}

#[test]
fn neighbours_are_one_stretch_whatever_files_they_are_in() {
    let (low, high) = (frames(0x100, 4), frames(0x104, 4));
    let (low, high) = (HostRam::new(low).unwrap(), HostRam::new(high).unwrap());
    let mut shown = HostFrames::new();
    shown.add_ram(&high).unwrap();
    shown.add_ram(&low).unwrap();
    // Nothing, in the middle of something.
    shown.add(frames(0x106, 0), high.file(), 0).unwrap();
    let len = WindowLen::covering(1).unwrap();
    let space = HostVspace::reserve(Arc::new(shown), len).unwrap();
    let at = WindowOffset::new(4096);

    let beyond = space.map(at, frames(0x106, 4), Protection::Read);
    let pfn = Pfn::try_new(0x108).unwrap();
    assert_eq!(beyond, Err(MapError::NoSuchFrame { pfn }));
    assert_eq!(space.translate(at), None);

    space
        .map(at, frames(0x102, 5), Protection::ReadWrite)
        .unwrap();
    let boundary = WindowOffset::new(3 * 4096 - 4);
    space.write(boundary, b"low.high").unwrap();
    let mut seen = [0; 4];
    let last = frames(0x103, 1).start().phys();
    low.read(
        last.checked_add(pageless_pfn::ByteLen::new(4092)).unwrap(),
        &mut seen,
    )
    .unwrap();
    assert_eq!(&seen, b"low.");
    high.read(frames(0x104, 1).start().phys(), &mut seen)
        .unwrap();
    assert_eq!(&seen, b"high");
}

#[test]
fn no_file_has_frames_beyond_the_end_of_any_file() {
    let ram = HostRam::new(frames(0x100, 1)).unwrap();
    let offset = u64::MAX - 4095;
    let refused = HostFrames::new().add(frames(0x200, 2), ram.file(), offset);
    assert!(
        matches!(refused, Err(BackingError::BeyondFile { .. })),
        "{refused:?}"
    );
}

#[test]
fn of_no_bytes_nothing_is_looked_at_wherever_they_are() {
    let ram = HostRam::new(frames(0x100, 1)).unwrap();
    let len = WindowLen::covering(1).unwrap();
    let space = HostVspace::reserve(HostFrames::of_ram(&ram).unwrap(), len).unwrap();
    // The last of them would be at address 0, where no slice can be.
    let null = 0_u64.wrapping_sub(space.base().get());
    for at in [0, 4096, len.get(), u64::MAX, null] {
        #[expect(unsafe_code, reason = "what is shown could be written to by others")]
        // SAFETY: nothing is shown.
        let seen = unsafe { space.view(WindowOffset::new(at), 0, |bytes| bytes.len()) };
        assert_eq!(seen, Ok(0), "{at:#x}");
    }
}
