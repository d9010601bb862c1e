//! Hazard: a throttle that lets more pass than it should, or that never lets something long pass.

use pageless_block::{Nanos, Throttle};
use pageless_pfn::ByteLen;
use proptest::prelude::*;

const PERIOD: u64 = 20_000_000;

#[test]
fn what_a_period_has_not_used_is_gone_with_it() {
    let mut throttle = Throttle::from_mbps(1);
    assert_eq!(throttle.bucket(), ByteLen::new(20_971));
    throttle.take(Nanos::new(100), ByteLen::new(1)).unwrap();
    // Nine periods later there is one bucket and not ten.
    let late = Nanos::new(100 + 9 * PERIOD);
    throttle.take(late, ByteLen::new(20_971)).unwrap();
    let again = throttle.take(late, ByteLen::new(1));
    assert_eq!(again, Err(Nanos::new(100 + 10 * PERIOD)));
}

#[test]
fn what_is_longer_than_a_period_passes_and_is_paid_for_later() {
    let mut throttle = Throttle::new(ByteLen::new(50 * 1000));
    throttle.take(Nanos::ZERO, ByteLen::new(3500)).unwrap();
    // 2500 are owed: two periods pay nothing but that, and the third has 500 left.
    let again = throttle.take(Nanos::ZERO, ByteLen::new(500));
    assert_eq!(again, Err(Nanos::new(3 * PERIOD)));
    let again = throttle.take(Nanos::new(3 * PERIOD), ByteLen::new(501));
    assert_eq!(again, Err(Nanos::new(4 * PERIOD)));
    throttle
        .take(Nanos::new(3 * PERIOD), ByteLen::new(500))
        .unwrap();
}

#[test]
fn extreme_rates_lengths_and_times_neither_panic_nor_stop() {
    let mut slow = Throttle::from_mbps(0);
    assert_eq!(slow.bucket(), ByteLen::new(1));
    slow.take(Nanos::ZERO, ByteLen::new(u64::MAX)).unwrap();
    assert_eq!(
        slow.take(Nanos::ZERO, ByteLen::new(u64::MAX)),
        Err(Nanos::new(u64::MAX))
    );
    assert!(slow.take(Nanos::new(u64::MAX), ByteLen::new(1)).is_err());
    let mut fast = Throttle::new(ByteLen::new(u64::MAX));
    fast.take(Nanos::new(u64::MAX), ByteLen::new(1 << 50))
        .unwrap();
    let mut back = Throttle::from_mbps(1);
    back.take(Nanos::new(5 * PERIOD), ByteLen::new(20_971))
        .unwrap();
    assert_eq!(
        back.take(Nanos::ZERO, ByteLen::new(1)),
        Err(Nanos::new(6 * PERIOD))
    );
}

proptest! {
    #[test]
    fn the_rate_holds_and_the_time_to_try_again_is_the_first_that_passes(
        full in 1..5000_u64,
        takes in prop::collection::vec((0..3 * PERIOD, 1..12_000_u64), 1..60),
    ) {
        let mut throttle = Throttle::new(ByteLen::new(full * 50));
        let (mut now, mut passed) = (0, 0);
        for (wait, len) in takes {
            now += wait;
            let len = ByteLen::new(len);
            if let Err(again) = throttle.take(Nanos::new(now), len) {
                prop_assert!(again > Nanos::new(now));
                let before = throttle.clone().take(Nanos::new(again.get() - 1), len);
                prop_assert_eq!(before, Err(again), "passes earlier");
                now = again.get();
                prop_assert_eq!(throttle.take(again, len), Ok(()), "does not pass then");
            }
            // Never more than one thing ahead of what the periods so far have had.
            let had = (now / PERIOD + 1) * full;
            prop_assert!(passed < had, "{passed} passed of {had}, and one more");
            passed += len.get();
        }
    }
}
