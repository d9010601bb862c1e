//! Hazard: a device that hands out a frame number which belongs to another byte, to another
//! device, or promises a descriptor where there is none.

extern crate alloc;

mod rig;

use alloc::sync::Arc;

use pageless_block::{BeyondDevice, Bio, BytePos, FrameAccess, Pmem, Sector};
use pageless_pfn::{ByteLen, NoPage, PfnFlags};

#[test]
fn the_bytes_behind_a_published_frame_are_those_at_its_position() {
    let (device, ram) = rig::pmem(1 << 50);
    let buffer = rig::segment(&ram, 0, 4096);
    for page in [0, 1, 77, (1 << 38) - 1] {
        let at = BytePos::new(page * 4096);
        ram.write_bytes(buffer, &[page as u8 | 1; 4096]).unwrap();
        rig::run(&device, Bio::write(Sector::new(page * 8), buffer));
        let frame = device.pfn_of(at, PfnFlags::DEV).unwrap();
        assert_eq!(device.range().index_of(frame.pfn()), Some(page));
        let direct = device
            .segment(at, ByteLen::new(4096), PfnFlags::DEV)
            .unwrap();
        assert_eq!(
            rig::bytes_of(&**device.frames(), direct),
            [page as u8 | 1; 4096]
        );
    }
}

#[test]
fn frames_are_device_memory_and_have_descriptors_only_where_the_caller_says_so() {
    let (device, _ram) = rig::pmem(1 << 20);
    for flags in [PfnFlags::empty(), PfnFlags::DEV] {
        let frame = device.pfn_of(BytePos::new(4096), flags).unwrap();
        assert_eq!(frame.flags(), PfnFlags::DEV);
        assert!(matches!(frame.paged(), Err(NoPage::Device { .. })));
    }
    let mapped = device.pfn_of(BytePos::new(4096), PfnFlags::MAP).unwrap();
    assert!(mapped.is_devmap());
    assert_eq!(mapped.paged().unwrap().pfn(), rig::pfn(rig::PMEM_BASE + 1));
}

#[test]
fn positions_past_the_end_are_an_error_with_the_numbers() {
    let (device, _ram) = rig::pmem(1 << 20);
    let capacity = ByteLen::new(1 << 20);
    for (at, len) in [
        (1 << 20, 1),
        ((1 << 20) - 1, 2),
        (0, (1 << 20) + 1),
        (u64::MAX, u64::MAX),
    ] {
        let (at, len) = (BytePos::new(at), ByteLen::new(len));
        let refused = device.segment(at, len, PfnFlags::DEV);
        assert_eq!(refused, Err(BeyondDevice { at, len, capacity }));
    }
    assert!(device.pfn_of(BytePos::new(1 << 20), PfnFlags::DEV).is_err());
    assert!(
        device
            .pfn_of(BytePos::new((1 << 20) - 1), PfnFlags::DEV)
            .is_ok()
    );
}

#[test]
fn bios_reach_the_frames_of_another_device_through_a_pair() {
    let (ram, near) = (rig::ram(4), rig::memfd(1 << 20));
    let base = rig::pfn(rig::PMEM_BASE + (1 << 20));
    let far = Arc::new(pageless_block::PmemFrames::memfd(base, ByteLen::new(1 << 20)).unwrap());
    let device = Pmem::new(Arc::clone(&near), (Arc::clone(&ram), Arc::clone(&far)));
    let theirs = far
        .segment(BytePos::new(100), ByteLen::new(1024), PfnFlags::DEV)
        .unwrap();
    far.write_bytes(theirs, &[8; 1024]).unwrap();
    rig::run(&device, Bio::write(Sector::new(2), theirs));
    let ours = near
        .segment(BytePos::new(1024), ByteLen::new(1024), PfnFlags::DEV)
        .unwrap();
    assert_eq!(rig::bytes_of(&near, ours), [8; 1024]);
    let buffer = rig::segment(&ram, 0, 1024);
    rig::run(&device, Bio::read(Sector::new(2), buffer));
    assert_eq!(rig::bytes_of(&ram, buffer), [8; 1024]);
}
