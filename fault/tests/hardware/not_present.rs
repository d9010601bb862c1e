//! What is not there is not cached.

use pageless_fault::sim::{FaultCause, Level};

use crate::rig::{HERE, RW, Rig, VA, read_fault};

/// SDM 4.10.2.3 and 4.10.4.3: no TLB entry is made from an entry with P = 0, so establishing a translation needs no
/// invalidation. APM 5.5.3 agrees.
#[test]
fn a_page_mapped_after_a_fault_needs_no_flush() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    let _tables = rig.map(HERE, VA + 0x1000, RW);
    assert_eq!(read_fault(&cpu, VA), Some(FaultCause::NotPresent));
    assert!(!cpu.caches(VA));
    rig.map(HERE, VA, RW);
    assert_eq!(read_fault(&cpu, VA), None);
}

/// SDM 4.10.3.1: no paging-structure-cache entry is made from an entry with P = 0 either.
#[test]
fn a_table_linked_after_a_fault_needs_no_flush() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    assert_eq!(read_fault(&cpu, VA), Some(FaultCause::NotPresent));
    assert_eq!(cpu.cached_structures(), 0);
    rig.map(HERE, VA, RW);
    assert_eq!(read_fault(&cpu, VA), None);
}

/// SDM 4.10.4.1: a fault takes the cached tables of its address with it. A directory that was unlinked, cached, and is linked
/// again as another one is found by the second try at the latest.
#[test]
fn a_fault_through_a_cached_table_does_not_come_twice() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    rig.map(HERE, VA + 0x1000, RW);
    assert_eq!(read_fault(&cpu, VA + 0x1000), None);
    // Memory now has VA in a new table; the CPU knows the old one.
    let _old = rig.remove(VA, Level::Directory);
    rig.map(HERE, VA, RW);
    assert_eq!(read_fault(&cpu, VA), Some(FaultCause::NotPresent));
    assert_eq!(read_fault(&cpu, VA), None);
}
