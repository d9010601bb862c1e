//! Hazard: a raw copy that begins, ends or goes where it should not. No system calls but one mapping: also
//! run by Miri, to which a byte outside it is an error.

extern crate alloc;

mod rig;

use pageless_block::{FrameAccess, copy_frames};
use pageless_pfn::PAGE_SIZE;

const LEN: usize = 3 * PAGE_SIZE as usize;

/// Offsets and lengths around the ends of frames, and the last byte that there is.
const PLACES: [(u64, u64); 6] = [
    (0, 1),
    (1, 7),
    (PAGE_SIZE - 1, 2),
    (PAGE_SIZE - 3, PAGE_SIZE + 5),
    (2 * PAGE_SIZE, PAGE_SIZE),
    (3 * PAGE_SIZE - 1, 1),
];

fn pattern(salt: usize) -> Vec<u8> {
    (0..LEN).map(|n| (n * 31 + n / 251 + salt) as u8).collect()
}

fn place((offset, len): (u64, u64)) -> core::ops::Range<usize> {
    offset as usize..(offset + len) as usize
}

#[test]
fn what_is_written_zeroed_and_read_lands_where_a_vector_has_it() {
    let ram = rig::ram(3);
    let whole = rig::segment(&ram, 0, LEN as u64);
    assert_eq!(rig::bytes_of(&ram, whole), vec![0; LEN], "fresh frames");
    let fresh = pattern(0);
    for at in PLACES {
        let mut model = fresh.clone();
        ram.write_bytes(whole, &model).unwrap();
        let segment = rig::segment(&ram, at.0, at.1);
        assert_eq!(rig::bytes_of(&ram, segment), model[place(at)]);
        ram.zero_bytes(segment).unwrap();
        model[place(at)].fill(0);
        assert!(rig::bytes_of(&ram, whole) == model, "zeroed {at:?}");
        let text = vec![0xab; at.1 as usize];
        ram.write_bytes(segment, &text).unwrap();
        model[place(at)].copy_from_slice(&text);
        assert!(rig::bytes_of(&ram, whole) == model, "written {at:?}");
    }
}

#[test]
fn a_copy_between_frames_takes_the_shorter_length_and_touches_nothing_else() {
    let (from, to) = (rig::ram(3), rig::ram(3));
    let whole = rig::segment(&from, 0, LEN as u64);
    let (source, fresh) = (pattern(1), pattern(2));
    from.write_bytes(whole, &source).unwrap();
    for src in PLACES {
        for dst in PLACES {
            let mut model = fresh.clone();
            to.write_bytes(whole, &model).unwrap();
            let parts = (
                rig::segment(&from, src.0, src.1),
                rig::segment(&to, dst.0, dst.1),
            );
            copy_frames(&from, parts.0, &to, parts.1).unwrap();
            let len = src.1.min(dst.1);
            model[place((dst.0, len))].copy_from_slice(&source[place((src.0, len))]);
            assert!(rig::bytes_of(&to, whole) == model, "{src:?} to {dst:?}");
        }
    }
}
