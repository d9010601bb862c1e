//! Hazard: a walk whose fill ahead stops half-way loses a chunk or fills one twice. (What needs no fill to
//! fail is in `tests/behaviour`.)

use pageless_fault::MaySleep;
use pageless_memmap::GetError;

use crate::races::{attach_walking, pfn};

/// How far apart the descriptors of a walk are. Miri is in no hurry.
const STEP: usize = if cfg!(miri) { 16 } else { 1 };

#[test]
fn a_run_that_is_filled_short_is_finished_chunk_by_chunk() {
    let ctx = MaySleep::claim();
    let (memmap, control) = attach_walking(8192, 1 << 20, 0, 4);
    drop(memmap.get(&ctx, pfn(0)).unwrap());
    // The second chunk comes as a whole, the third by half, the fourth and fifth not at all.
    *control.short_fill.lock().unwrap() = Some(3 * 4096);
    let error = memmap.get(&ctx, pfn(128)).unwrap_err();
    assert!(matches!(error, GetError::NoMemory(short) if short.done == 3 * 4096));
    assert_eq!(memmap.counters().chunks_populated, 2);
    for index in (0..5 * 128).step_by(STEP) {
        let page = memmap.get(&ctx, pfn(index)).unwrap();
        assert_eq!(page.references(), 1);
    }
    assert_eq!(memmap.counters().chunks_populated, 5);
    memmap.reclaim(&ctx, 0).unwrap();
    assert_eq!(memmap.counters().used_bytes(), 0);
    control.assert_clean();
    memmap.self_check().unwrap();
}
