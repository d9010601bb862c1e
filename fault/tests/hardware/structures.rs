//! Paging-structure caches, and tables that change or go away under them.

use pageless_fault::sim::{Entry, FaultCause, Level};
use pageless_pfn::Pfn;

use crate::rig::{Flags, HERE, RW, Rig, THERE, VA, read_fault};

/// SDM 4.10.4.1: INVLPG drops all entries in all paging-structure caches of the current PCID, whatever address they serve. (APM 5.5.3 has
/// the same under "upper-level entries", unless EFER.TCE is set; this model has no TCE.)
#[test]
fn invlpg_of_any_address_drops_all_cached_tables() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    rig.map(HERE, VA, RW);
    assert_eq!(read_fault(&cpu, VA), None);
    assert_eq!(cpu.cached_structures(), 3);
    cpu.invalidate_page(0x7000);
    assert_eq!(cpu.cached_structures(), 0);
    assert!(cpu.caches(VA), "the translation of another page stays");
}

/// SDM 4.10.3.2 and 4.10.4.2: until an invalidation a cached table serves pages that were never accessed before, although memory has
/// another one there; afterwards the walk begins at the root.
#[test]
fn a_replaced_table_is_noticed_after_invlpg_and_not_before() {
    for level in [Level::Directory, Level::Pointers, Level::Root] {
        let rig = Rig::new();
        let cpu = rig.cpu(0);
        rig.map(HERE, VA, RW);
        let old = rig.map(HERE, VA + 0x1000, RW);
        assert_eq!(read_fault(&cpu, VA), None);
        // A new way down, to a frame with another content.
        let was = rig.remove(VA, level);
        let new = rig.map(HERE, VA + 0x1000, RW);
        assert_ne!(old, new);
        cpu.store(VA + 0x1008, 7).unwrap();
        let word = |frame| {
            rig.machine
                .memory()
                .snapshot(Pfn::try_new(frame).unwrap())
                .unwrap()[1]
        };
        assert_eq!((word(old), word(new)), (7, 0), "{level:?} -> {was:?}");
        cpu.invalidate_page(VA + 0x1000);
        cpu.store(VA + 0x1008, 8).unwrap();
        assert_eq!((word(old), word(new)), (7, 8), "{level:?}");
    }
}

/// SDM 4.10.3.2: the walk uses the lowest cached table that serves the address; what is above it is not read again. Seen by an
/// upper entry that is gone.
#[test]
fn a_walk_begins_at_the_lowest_cached_table() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    rig.map(HERE, VA, RW);
    rig.map(HERE, VA + 0x1000, RW);
    assert_eq!(read_fault(&cpu, VA), None);
    let _was = rig.remove(VA, Level::Root);
    assert_eq!(read_fault(&cpu, VA + 0x1000), None);
    // A neighbour in another leaf table has nothing cached that low: its walk begins at the directory.
    let far = VA + (1 << 21);
    assert_eq!(read_fault(&cpu, far), Some(FaultCause::NotPresent));
}

/// SDM 4.10.3: cached tables belong to a PCID.
#[test]
fn a_cached_table_is_not_used_under_another_pcid() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    rig.map(HERE, VA, RW);
    rig.map(HERE, VA + 0x1000, RW);
    assert_eq!(read_fault(&cpu, VA), None);
    cpu.load_cr3(THERE, true);
    let absent = Some(FaultCause::NotPresent);
    assert_eq!(read_fault(&cpu, VA + 0x1000), absent);
    cpu.load_cr3(HERE, true);
    assert_eq!(read_fault(&cpu, VA + 0x1000), None);
}

/// SDM 4.10.3.1: a table is cached only from an entry whose accessed flag is 1: the walk sets it first.
#[test]
fn a_table_is_cached_with_its_accessed_bit_set() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    rig.map(HERE, VA, RW);
    let _leaf = rig.remove(VA, Level::Table);
    let upper = [Level::Directory, Level::Pointers, Level::Root];
    assert!(
        upper
            .iter()
            .all(|level| !rig.has(VA, *level, Flags::ACCESSED))
    );
    assert_eq!(read_fault(&cpu, VA), Some(FaultCause::NotPresent));
    assert!(
        upper
            .iter()
            .all(|level| rig.has(VA, *level, Flags::ACCESSED))
    );
}

/// Not the manual's but the model's own: the poison of a freed frame, read as an entry of any level, is present and has reserved bits set
/// (SDM 4.7), so that a walk through a freed table faults instead of going on. Nor is it cached.
#[test]
fn poison_reads_as_present_entries_with_reserved_bits() {
    let rig = Rig::new();
    let cpu = rig.cpu(0);
    let frame = rig.map(HERE, VA, RW);
    let unmapped = rig.machine.unmap(&cpu, HERE, VA).unwrap();
    let other = rig.cpu(1);
    other.pause();
    unmapped.try_free(&rig.machine, &cpu).unwrap();
    let poison = rig.machine.memory().snapshot(Pfn::try_new(frame).unwrap());
    for word in poison.unwrap() {
        let entry = Entry::from_bits(word);
        assert!(entry.has(Flags::PRESENT));
        for level in [Level::Table, Level::Directory, Level::Pointers, Level::Root] {
            assert!(entry.is_malformed(level), "{entry:?} {level:?}");
        }
    }
    // The freed frame, taken for a table.
    rig.remove(VA, Level::Directory);
    let dangling = Entry::new(frame, RW);
    rig.machine
        .map_entry(HERE, VA, Level::Directory, dangling)
        .unwrap();
    assert_eq!(read_fault(&cpu, VA), Some(FaultCause::Reserved));
    assert!(!cpu.caches(VA));
}
