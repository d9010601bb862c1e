//! Hazard: a flag read as frame number, a frame number read as a flag, or a descriptor promised
//! where there is none. Exhaustive over the 32 flag combinations.

use pageless_pfn::{NoPage, Pfn, PfnFlags, PfnT};

const EDGE_PFNS: [u64; 8] = [
    0,
    1,
    0xfff,
    0x1000,
    1 << 40,
    (1 << 51) - 1,
    1 << 51,
    (1 << 52) - 1,
];

fn all_flag_sets() -> impl Iterator<Item = PfnFlags> {
    (0_u64..32).map(|bits| PfnFlags::from_bits(bits << 59).expect("bits 63..59 are all defined"))
}

#[test]
fn flags_sit_in_the_bits_that_linux_gives_them() {
    let bits = [
        (PfnFlags::SG_CHAIN, 63),
        (PfnFlags::SG_LAST, 62),
        (PfnFlags::DEV, 61),
        (PfnFlags::MAP, 60),
        (PfnFlags::SPECIAL, 59),
    ];
    for (flag, bit) in bits {
        assert_eq!(flag.bits(), 1 << bit, "{flag:?}");
    }
}

#[test]
fn every_flag_set_and_edge_pfn_comes_back_as_it_went_in() {
    for flags in all_flag_sets() {
        for number in EDGE_PFNS {
            let pfn = Pfn::try_new(number).unwrap();
            let tagged = PfnT::new(pfn, flags);
            assert_eq!(tagged.pfn(), pfn);
            assert_eq!(tagged.flags(), flags);
            assert_eq!(tagged.bits(), number | flags.bits());
            assert_eq!(PfnT::from_bits(tagged.bits()), tagged);
            assert_eq!(tagged.phys().get(), number << 12);
        }
    }
}

#[test]
fn has_page_follows_linux_truth_table_for_every_flag_set() {
    for flags in all_flag_sets() {
        for number in EDGE_PFNS {
            let tagged = PfnT::new(Pfn::try_new(number).unwrap(), flags);
            let (dev, map) = (flags.contains(PfnFlags::DEV), flags.contains(PfnFlags::MAP));
            let expected = match (dev, map) {
                (false, false) => true,
                (true, false) => false,
                (false, true) => true,
                (true, true) => true,
            };
            assert_eq!(tagged.has_page(), expected, "{tagged:?}");
            assert_eq!(tagged.is_devmap(), dev && map, "{tagged:?}");
        }
    }
}

#[test]
fn a_ticket_to_a_descriptor_is_refused_with_the_flag_that_forbids_it() {
    for flags in all_flag_sets() {
        for number in EDGE_PFNS {
            let pfn = Pfn::try_new(number).unwrap();
            let tagged = PfnT::new(pfn, flags);
            match tagged.paged() {
                Ok(ticket) => {
                    assert_eq!(ticket.pfn(), pfn);
                    assert!(tagged.has_page());
                    assert!(!flags.intersects(PfnFlags::SG_CHAIN | PfnFlags::SPECIAL));
                }
                Err(NoPage::Chain { pfn: p }) => {
                    assert_eq!(p, pfn);
                    assert!(flags.contains(PfnFlags::SG_CHAIN));
                }
                Err(NoPage::Special { pfn: p }) => {
                    assert_eq!(p, pfn);
                    assert!(flags.contains(PfnFlags::SPECIAL));
                }
                Err(NoPage::Device { pfn: p }) => {
                    assert_eq!(p, pfn);
                    assert!(!tagged.has_page());
                }
            }
        }
    }
}

#[test]
fn reserved_bits_are_neither_flags_nor_frame_number_and_are_kept() {
    for bit in 52..59 {
        let tagged = PfnT::from_bits(1 << bit | 0x42);
        assert_eq!(tagged.pfn().get(), 0x42);
        assert_eq!(tagged.bits(), 1 << bit | 0x42);
        assert_eq!(tagged.flags().bits(), 1 << bit);
        assert!(tagged.has_page());
    }
}

#[test]
fn flags_never_reach_into_the_frame_number() {
    let stray = PfnFlags::from_bits_retain(u64::MAX);
    let tagged = PfnT::new(Pfn::MIN, stray);
    assert_eq!(tagged.pfn(), Pfn::MIN);
}

#[test]
fn what_is_printed_names_the_frame_and_the_flags() {
    let tagged = PfnT::new(Pfn::try_new(0x2a).unwrap(), PfnFlags::DEV | PfnFlags::MAP);
    assert_eq!(tagged.to_string(), "0x2a|DEV | MAP");
    assert_eq!(PfnT::from(Pfn::try_new(0x2a).unwrap()).to_string(), "0x2a");
}
