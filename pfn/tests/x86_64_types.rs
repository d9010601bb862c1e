//! Hazard: a frame that an x86-64 processor cannot address, passed off as one that it can.
#![cfg(feature = "x86_64")]

use pageless_pfn::{BeyondX86, Pfn, PhysAddr};
use x86_64::structures::paging::{PhysFrame, Size4KiB};

#[test]
fn frames_go_there_and_back_up_to_52_bits_of_address() {
    for number in [0, 1, 0xfffff, (1 << 40) - 1] {
        let pfn = Pfn::try_new(number).unwrap();
        let frame = PhysFrame::<Size4KiB>::try_from(pfn).unwrap();
        assert_eq!(frame.start_address().as_u64(), number << 12);
        assert_eq!(Pfn::from(frame), pfn);
    }
}

#[test]
fn frames_and_addresses_beyond_52_bits_are_refused() {
    for number in [1 << 40, (1 << 52) - 1] {
        let pfn = Pfn::try_new(number).unwrap();
        let addr = pfn.phys();
        assert_eq!(
            PhysFrame::<Size4KiB>::try_from(pfn),
            Err(BeyondX86 { addr })
        );
    }
    let last = PhysAddr::new((1 << 52) - 1);
    assert_eq!(
        x86_64::PhysAddr::try_from(last).map(PhysAddr::from),
        Ok(last)
    );
    assert!(x86_64::PhysAddr::try_from(PhysAddr::new(1 << 52)).is_err());
}
