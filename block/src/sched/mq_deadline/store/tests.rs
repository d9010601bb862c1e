//! The room that requests take.

use super::*;

fn place(lane: u8, position: u64) -> Place {
    Place {
        lane,
        position: position * 512,
        end: (position + 1) * 512,
        mergeable: true,
    }
}

impl<R, const LANES: usize> Store<R, LANES> {
    fn room(&self) -> (usize, usize, [usize; LANES]) {
        let lanes = core::array::from_fn(|lane| self.lanes[lane].sorted.capacity());
        (self.slots.capacity(), self.buckets.capacity(), lanes)
    }
}

/// As many come and go as there is room for, in an order that is never the same.
fn churn(store: &mut Store<u64, 6>, most: usize, rounds: u64) {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state >> 33
    };
    for number in 0..rounds {
        let lane = (next() % 6) as u8;
        if store.len() == most || next().is_multiple_of(3) {
            let found = match next() % 2 {
                0 => store.oldest(lane),
                _ => store.first_from(lane, next() % 1000 * 512),
            };
            if let Some(found) = found {
                store.remove(found).unwrap();
            }
        } else {
            let place = place(lane, next() % 1000);
            store.insert(number, place, Nanos::ZERO).unwrap();
        }
    }
}

#[test]
fn nothing_is_allocated_below_the_capacity() {
    let mut store = Store::<u64, 6>::with_capacity(100);
    let before = store.room();
    churn(&mut store, 100, 20_000);
    store.self_check();
    assert_eq!(store.room(), before);
}

#[test]
fn room_that_was_needed_once_suffices() {
    let mut store = Store::<u64, 6>::with_capacity(0);
    for number in 0..1000 {
        let lane = (number % 6) as u8;
        store
            .insert(number, place(lane, number), Nanos::ZERO)
            .unwrap();
    }
    store.self_check();
    for lane in 0..6 {
        while let Some(found) = store.oldest(lane) {
            store.remove(found).unwrap();
        }
    }
    store.self_check();
    let before = store.room();
    churn(&mut store, 160, 20_000);
    store.self_check();
    assert_eq!(store.room(), before);
}
