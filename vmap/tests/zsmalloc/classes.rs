//! The size classes are Linux's, number for number.

use pageless_pfn::PAGE_SIZE;
use pageless_vmap::zsmalloc::{
    CLASS_DELTA, CLASSES, ChainSize, ClassTable, HEADER, MAX_OBJECT, MIN_CLASS,
};

fn table(chain: u8) -> ClassTable {
    ClassTable::new(ChainSize::try_new(chain).unwrap())
}

#[test]
fn there_are_as_many_as_in_linux() {
    assert_eq!(CLASSES, 255);
    for (chain, unique, huge, crossing) in
        [(4, 69, 3257, 49), (8, 119, 3625, 105), (16, 192, 3833, 181)]
    {
        let table = table(chain);
        let crosses = table.shapes().iter().filter(|s| s.crossing() > 0).count();
        assert_eq!(table.shapes().len(), unique, "chain {chain}");
        assert_eq!(table.huge_threshold(), huge, "chain {chain}");
        assert_eq!(crosses, crossing, "chain {chain}");
    }
}

/// How often a mapping, a copy or a second segment is needed at all.
#[test]
fn of_the_objects_a_known_part_crosses_a_boundary() {
    for (chain, percent) in [(4, 18.8), (8, 29.6), (16, 37.5)] {
        let table = table(chain);
        // Over the 255 sizes before classes are merged.
        let sizes = (0..CLASSES).map(|number| MIN_CLASS + number * CLASS_DELTA);
        let fraction = |size: usize| {
            let shape = table.shapes()[table.index_of(size - HEADER).unwrap()];
            f64::from(shape.crossing()) / f64::from(shape.objects)
        };
        let mean = sizes.map(fraction).sum::<f64>() / CLASSES as f64;
        assert!((mean * 100.0 - percent).abs() < 0.06, "{mean}");
    }
}

#[test]
fn every_size_has_the_smallest_class_that_it_fits_into() {
    for chain in [4, 8, 16] {
        let table = table(chain);
        for size in 1..=MAX_OBJECT {
            let index = table.index_of(size).unwrap();
            let shape = table.shapes()[index];
            assert!(size <= shape.capacity(), "{size} in {shape:?}");
            if let Some(smaller) = index.checked_sub(1) {
                let smaller = table.shapes()[smaller];
                assert!(
                    size + HEADER > usize::from(smaller.size),
                    "{size} in {shape:?}"
                );
            }
            assert_eq!(shape.is_huge(), size >= table.huge_threshold(), "{size}");
        }
        assert_eq!(table.index_of(0), None);
        assert_eq!(table.index_of(MAX_OBJECT + 1), None);
    }
}

#[test]
fn a_zspage_has_as_many_objects_as_fit() {
    for chain in [4, 8, 16] {
        for shape in table(chain).shapes() {
            let bytes = u64::from(shape.pages) * PAGE_SIZE;
            assert_eq!(u64::from(shape.objects), bytes / u64::from(shape.size));
            assert!((1..=chain).contains(&shape.pages));
        }
    }
}

#[test]
fn a_zspage_has_4_to_16_frames_at_most() {
    assert!(ChainSize::try_new(3).is_err());
    assert!(ChainSize::try_new(17).is_err());
    assert_eq!(ChainSize::default().get(), 8);
}
