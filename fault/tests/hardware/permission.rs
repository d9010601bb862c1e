//! Permission to write: cached like everything else, and given back by the fault itself.

use pageless_fault::sim::{FaultCause, Level};

use crate::rig::{Flags, HERE, RO, RW, Rig, VA, read_fault, write_fault};

/// SDM 4.10.4.3: after a change of R/W from 0 to 1 without an invalidation, a write may fault once for each address, and no more;
/// 4.10.4.1: the fault drops the entry. This model always faults once, which is the worst that is allowed.
#[test]
fn a_page_made_writable_faults_once_and_heals() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    rig.map(HERE, VA, RO);
    assert_eq!(read_fault(&cpu, VA), None);
    rig.set(VA, Level::Table, Flags::WRITABLE);
    assert_eq!(write_fault(&cpu, VA), Some(FaultCause::Protection));
    assert!(!cpu.caches(VA), "the fault takes the entry with it");
    assert_eq!(write_fault(&cpu, VA), None);
}

/// SDM 4.10.4.3 with 4.10.4.1, of a table: what a paging-structure cache says about writing also faults at most once, also for a page
/// that is in no TLB.
#[test]
fn a_table_made_writable_faults_once_and_heals() {
    for level in [Level::Directory, Level::Pointers, Level::Root] {
        let rig = Rig::new();
        let cpu = rig.cpu(0);
        rig.map(HERE, VA, RW);
        rig.map(HERE, VA + 0x1000, RW);
        rig.clear(VA, level, Flags::WRITABLE);
        assert_eq!(read_fault(&cpu, VA), None);
        rig.set(VA, level, Flags::WRITABLE);
        let other = VA + 0x1000;
        assert!(!cpu.caches(other));
        assert_eq!(write_fault(&cpu, other), Some(FaultCause::Protection));
        assert_eq!(write_fault(&cpu, other), None, "{level:?}");
    }
}

/// SDM 4.10.4.2: without the invalidation that it recommends, a page made read-only may still be written. It may for as long as its
/// entry stays, and not after.
#[test]
fn a_page_made_read_only_can_be_written_until_flushed() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    rig.map(HERE, VA, RW);
    assert_eq!(write_fault(&cpu, VA), None);
    rig.clear(VA, Level::Table, Flags::WRITABLE);
    assert_eq!(write_fault(&cpu, VA), None);
    cpu.invalidate_page(VA);
    assert_eq!(write_fault(&cpu, VA), Some(FaultCause::Protection));
    assert_eq!(read_fault(&cpu, VA), None);
}

/// SDM 4.8 with 4.10.4.2. Narrower than the manual: a write through a cached entry that is not known to be dirty walks, and then obeys what
/// the walk finds; a CPU that only set the bit and trusted its cache for the rest would be allowed.
#[test]
fn the_first_write_to_a_clean_page_asks_memory_again() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    rig.map(HERE, VA, RW);
    assert_eq!(read_fault(&cpu, VA), None);
    rig.clear(VA, Level::Table, Flags::WRITABLE);
    assert_eq!(write_fault(&cpu, VA), Some(FaultCause::Protection));
    assert!(!rig.has(VA, Level::Table, Flags::DIRTY));
}

/// SDM 4.6.1, supervisor mode with CR0.WP = 1: data may be written only if R/W is 1 in every entry on the way. APM 5.6.1 and 5.6.5
/// agree.
#[test]
fn a_write_needs_the_permission_of_every_level() {
    let all = [Level::Table, Level::Directory, Level::Pointers, Level::Root];
    for level in all {
        let rig = Rig::new();
        let cpu = rig.cpu(0);
        rig.map(HERE, VA, RW);
        rig.clear(VA, level, Flags::WRITABLE);
        assert_eq!(write_fault(&cpu, VA), Some(FaultCause::Protection));
        assert_eq!(read_fault(&cpu, VA), None, "{level:?}");
        // The same when the way down is cached.
        assert_eq!(write_fault(&cpu, VA), Some(FaultCause::Protection));
    }
}

/// SDM 4.7: the error code tells a missing translation (P = 0) from a forbidden access (P = 1) and from reserved bits (RSVD), and a
/// write (W/R) from a read. U/S, I/D, PK and SGX are not modelled.
#[test]
fn the_fault_says_what_was_wrong() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    rig.map(HERE, VA, RO);
    rig.map(HERE, VA + 0x1000, RO);
    rig.set_bits(VA + 0x1000, Level::Table, 1 << 51);
    let faults = |va| (read_fault(&cpu, va), write_fault(&cpu, va));
    assert_eq!(faults(VA), (None, Some(FaultCause::Protection)));
    let reserved = Some(FaultCause::Reserved);
    assert_eq!(faults(VA + 0x1000), (reserved, reserved));
    let absent = Some(FaultCause::NotPresent);
    assert_eq!(faults(VA + 0x2000), (absent, absent));
}
