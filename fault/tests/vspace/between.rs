//! A shootdown of several ranges at once leaves what is between them as it is, also what is being mapped there meanwhile. On the host
//! ranges with nothing between them but guard pages are taken away by one call; a page that somebody maps there at that moment must
//! survive it.

use core::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use pageless_fault::{FrameMemory, MaySleep, Protection, Vspace, WindowOffset, WindowRange};

use super::rig::{Host, Rig, Sim, run};

fn page(page: u64) -> WindowOffset {
    WindowOffset::new(page * 4096)
}

fn range(first: u64) -> WindowRange {
    WindowRange::try_new(page(first), 4096).unwrap()
}

/// Takes down what is at each of `at`, and shoots it down at once.
fn unmap(space: &impl Vspace, at: &[u64]) {
    let down = |at: &u64| space.take_down(range(*at), ()).unwrap();
    let debt = space.shoot_down(at.iter().map(down).collect());
    let Ok(debt) = debt else {
        panic!("a shootdown that did not begin");
    };
    debt.settle(&MaySleep::claim())
        .map_err(|(_, error)| error)
        .unwrap();
}

fn what_is_mapped_between_two_ranges_stays<R: Rig>() {
    R::run(8, |memory, space| {
        for n in 0..5 {
            let frame = memory.frames().nth(n).unwrap();
            memory.write(frame.phys(), &n.to_le_bytes()).unwrap();
            // Nothing at 3.
            if n != 3 {
                space
                    .map(page(n), run(memory, n, 1), Protection::Read)
                    .unwrap();
            }
        }
        unmap(space, &[0, 2, 4]);
        let mut read = [0; 8];
        space.read(page(1), &mut read).unwrap();
        assert_eq!(u64::from_le_bytes(read), 1);
        for gone in [0, 2, 3, 4] {
            assert_eq!(space.translate(page(gone)), None);
            assert!(space.read(page(gone), &mut read).is_err(), "page {gone}");
        }
        // All of it can be used again.
        for n in [0, 2, 3, 4] {
            space
                .map(page(n), run(memory, n, 1), Protection::Read)
                .unwrap();
        }
        unmap(space, &[0, 1, 2, 3, 4]);
    });
}

#[test]
fn on_the_host() {
    what_is_mapped_between_two_ranges_stays::<Host>();
}

#[test]
fn on_the_modelled_machine() {
    what_is_mapped_between_two_ranges_stays::<Sim>();
}

#[test]
fn what_is_being_mapped_between_two_ranges_stays() {
    const ROUNDS: u64 = 20_000;
    Host::run(8, |memory, space| {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            // Both sides of page 5, again and again.
            let around = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for at in [4, 6] {
                        space
                            .map(page(at), run(memory, at, 1), Protection::Read)
                            .unwrap();
                    }
                    unmap(space, &[4, 6]);
                }
            });
            let mut lost = 0;
            for _ in 0..ROUNDS {
                space
                    .map(page(5), run(memory, 5, 1), Protection::Read)
                    .unwrap();
                lost += u64::from(space.read(page(5), &mut [0; 8]).is_err());
                unmap(space, &[5]);
            }
            done.store(true, Ordering::Relaxed);
            around.join().unwrap();
            assert_eq!(lost, 0, "of {ROUNDS} mappings");
        });
    });
}
