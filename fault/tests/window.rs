//! Hazard: a window that is not what it says: present where it should not be, not zero where it is new,
//! given back too early, or out of bounds.
#![cfg(all(not(loom), target_os = "linux", target_arch = "x86_64"))]

use core::sync::atomic::Ordering;

use pageless_fault::host::{HostMachine, HostWindow};
use pageless_fault::{
    FaultReason, Machine, MaySleep, ReserveError, Table, Window, WindowLen, WindowOffset,
    WindowRange, Word,
};

fn reserve(bytes: u64, largest: u64) -> HostWindow {
    HostMachine::new()
        .unwrap()
        .reserve(WindowLen::covering(bytes).unwrap(), largest)
        .unwrap()
}

fn range(start: u64, len: u64) -> WindowRange {
    WindowRange::try_new(WindowOffset::new(start), len).unwrap()
}

fn fetched(window: &HostWindow, at: u64) -> Result<u32, FaultReason> {
    window
        .word(WindowOffset::new(at))
        .unwrap()
        .fetch_add(1)
        .get()
}

#[test]
fn a_batch_of_scattered_ranges_goes_away_together_and_comes_back_zero() {
    let ctx = MaySleep::claim();
    let window = reserve(1 << 40, 8192);
    // More than one vector's worth.
    let ranges: Vec<_> = (0..200)
        .map(|n| range(n * (5 << 30) / 4096 * 4096, 8192))
        .collect();
    for round in 0..3 {
        for r in &ranges {
            window.populate(*r, &ctx).unwrap();
            assert_eq!(fetched(&window, r.start().get()), Ok(0), "round {round}");
            assert_eq!(fetched(&window, r.end().get() - 4), Ok(0), "round {round}");
            assert_eq!(fetched(&window, r.start().get()), Ok(1));
        }
        let debt = window.unmap(&ranges, 4711).unwrap();
        assert_eq!(debt.settle(&ctx).unwrap().into_inner(), 4711);
        for r in &ranges {
            assert_eq!(
                fetched(&window, r.start().get()),
                Err(FaultReason::NotPresent)
            );
        }
    }
}

#[test]
fn a_debt_that_is_dropped_never_gives_its_value_back() {
    #[derive(Debug)]
    struct Loud<'a>(&'a core::cell::Cell<bool>);
    impl Drop for Loud<'_> {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    let ctx = MaySleep::claim();
    let window = reserve(2 << 20, 4096);
    window.populate(range(0, 4096), &ctx).unwrap();
    let freed = core::cell::Cell::new(false);
    drop(window.unmap(&[range(0, 4096)], Loud(&freed)).unwrap());
    assert!(!freed.get(), "freed before its flush was proved");
    window.populate(range(0, 4096), &ctx).unwrap();
    let debt = window.unmap(&[range(0, 4096)], Loud(&freed)).unwrap();
    drop(debt.settle(&ctx).unwrap());
    assert!(freed.get());
}

#[test]
fn prefilled_pages_move_in_without_a_fault_of_their_own() {
    let ctx = MaySleep::claim();
    let window = reserve(1 << 30, 65536);
    let prefilled = window.prefill(65536, &ctx).unwrap();
    assert_eq!(fetched(&window, 1 << 20), Err(FaultReason::NotPresent));
    window
        .populate_from(range(1 << 20, 65536), prefilled)
        .unwrap();
    for at in (0..65536).step_by(4096) {
        assert_eq!(fetched(&window, (1 << 20) + at), Ok(0));
    }
}

#[test]
fn filling_what_is_present_is_refused_and_says_how_far_it_came() {
    let ctx = MaySleep::claim();
    let window = reserve(2 << 20, 65536);
    window.populate(range(8192, 4096), &ctx).unwrap();
    window
        .word(WindowOffset::new(8192))
        .unwrap()
        .store(5, Ordering::Relaxed);
    let error = window.populate(range(0, 65536), &ctx).unwrap_err();
    assert_eq!((error.start, error.asked, error.done), (0, 65536, 8192));
    assert_eq!(error.errno, libc::EEXIST);
    assert_eq!(
        fetched(&window, 8192),
        Ok(5),
        "what was there was overwritten"
    );
    assert_eq!(fetched(&window, 4096), Ok(0));
}

#[test]
fn a_window_that_cannot_fit_is_a_clear_error() {
    let machine = HostMachine::new().unwrap();
    let asked = WindowLen::covering(1 << 52).unwrap();
    let error = machine.reserve(asked, 4096).unwrap_err();
    assert_eq!(error, ReserveError::AddressSpace { asked: 1 << 52 });
    assert!(error.to_string().contains("smaller device"), "{error}");
    assert_eq!(WindowLen::covering(u64::MAX), None);
}

#[test]
fn words_and_tables_end_where_the_window_ends() {
    let window = reserve(2 << 20, 4096);
    assert!(window.word(WindowOffset::new((2 << 20) - 4)).is_some());
    assert!(window.word(WindowOffset::new(2 << 20)).is_none());
    assert!(window.word(WindowOffset::new(2)).is_none());
    assert!(window.table::<64>(1 << 15).is_some());
    assert!(window.table::<64>((1 << 15) + 1).is_none());
    assert!(window.table::<6>(1).is_none());
    assert!(window.table::<64>(u64::MAX).is_none());
    let table = window.table::<64>(10).unwrap();
    assert!(table.nth(9).is_some());
    assert!(table.nth(10).is_none());
    assert!(
        window
            .populate(range(2 << 20, 4096), &MaySleep::claim())
            .is_err()
    );
}

#[test]
fn an_eager_window_never_faults() {
    let window = HostWindow::reserve_populated(WindowLen::covering(4 << 20).unwrap()).unwrap();
    for at in (0..4 << 20).step_by(4096) {
        assert_eq!(fetched(&window, at), Ok(0));
    }
}

#[test]
fn nothing_outside_the_window_can_be_unmapped_or_filled() {
    let ctx = MaySleep::claim();
    let window = reserve(2 << 20, 8192);
    let beyond = [range(0, 4096), range(2 << 20, 4096)];
    for ranges in [&beyond[1..], &beyond, &[range((2 << 20) - 4096, 8192)]] {
        window.populate(range(0, 4096), &ctx).unwrap();
        let (owned, error) = window.unmap(ranges, 1).unwrap_err();
        assert_eq!(owned, 1);
        assert!(matches!(
            error,
            pageless_fault::UnmapError::Refused {
                errno: libc::EFAULT,
                ..
            }
        ));
        // Refused as a whole: what lies inside is still there.
        assert_eq!(fetched(&window, 0), Ok(0));
        window
            .unmap(&beyond[..1], ())
            .unwrap()
            .settle(&ctx)
            .unwrap()
            .into_inner();
    }
    let short = window.prefill(4096, &ctx).unwrap();
    assert!(window.populate_from(range(0, 8192), short).is_err());
    assert_eq!(fetched(&window, 0), Err(FaultReason::NotPresent));
}
