//! The clock that is read twice for each request.
//!
//! Reading the system's monotonic clock takes some 23 ns and waits for everything before it, which a
//! request of 40 ns cannot bear twice and a copy out of cold memory even less: the next one could not
//! begin before the last has ended. The processor's time-stamp counter takes 10 ns and waits for
//! nothing. It is used where it counts at a constant rate and the kernel keeps it as a clock source
//! itself, that is, has not found it to drift between CPUs; elsewhere the system's clock is.
//!
//! What it measures is latencies and when to stop. How long a section took, and with that every rate,
//! is by the system's clock.
#![expect(unsafe_code, reason = "the time-stamp counter is read by an intrinsic")]

use core::time::Duration;
use std::sync::OnceLock;
use std::time::Instant;

/// A reading of a [`RequestClock`], in its ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

impl Moment {
    /// After every reading.
    pub(super) const NEVER: Self = Self(u64::MAX);
}

/// See the [module](self).
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestClock {
    source: Source,
    /// Nanoseconds in a tick, in units of 2^-32.
    scale: u64,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    /// The time-stamp counter.
    Counter,
    /// Nanoseconds since this moment.
    System(Instant),
}

/// 1 ns in a tick.
const UNIT: u64 = 1 << 32;

/// How long the counter is compared with the system's clock. Both ends are known to some 50 ns, so the
/// rate to 10 in a million.
const COMPARED: Duration = Duration::from_millis(5);

impl RequestClock {
    /// The machine's best; the first call in a process takes 5 ms where that is the counter.
    pub(super) fn of_this_machine() -> Self {
        static CLOCK: OnceLock<RequestClock> = OnceLock::new();
        *CLOCK.get_or_init(|| {
            let counter = counter_is_a_clock().then(rate_of_the_counter).flatten();
            match counter {
                Some(scale) => Self {
                    source: Source::Counter,
                    scale,
                },
                None => Self::system(),
            }
        })
    }

    fn system() -> Self {
        Self {
            source: Source::System(Instant::now()),
            scale: UNIT,
        }
    }

    /// Now. Unlike the system's clock it may be read before instructions in front of it have ended.
    #[inline(always)]
    pub(super) fn now(&self) -> Moment {
        match self.source {
            Source::Counter => Moment(counter()),
            Source::System(start) => {
                Moment(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
            }
        }
    }

    /// Nanoseconds from `earlier` to `later`; 0 if it is not earlier.
    #[inline(always)]
    pub(super) const fn nanos(&self, earlier: Moment, later: Moment) -> u64 {
        let ticks = later.0.saturating_sub(earlier.0);
        ((ticks as u128 * self.scale as u128) >> 32) as u64
    }

    /// So long after `moment`.
    pub(super) fn after(&self, moment: Moment, by: Duration) -> Moment {
        // At least 1: nobody has a counter of more than 4 GHz x 1 G.
        let ticks = (by.as_nanos() << 32) / u128::from(self.scale.max(1));
        let ticks = u64::try_from(ticks).unwrap_or(u64::MAX);
        Moment(moment.0.saturating_add(ticks))
    }
}

/// Whether the processor says that the counter's rate is constant and the kernel that it can be
/// relied upon.
#[cfg(target_arch = "x86_64")]
fn counter_is_a_clock() -> bool {
    const FEATURES: u32 = 0x8000_0007;
    const INVARIANT: u32 = 1 << 8;
    let has = core::arch::x86_64::__cpuid(0x8000_0000).eax >= FEATURES;
    if !has || core::arch::x86_64::__cpuid(FEATURES).edx & INVARIANT == 0 {
        return false;
    }
    let sources = "/sys/devices/system/clocksource/clocksource0/available_clocksource";
    std::fs::read_to_string(sources)
        .is_ok_and(|sources| sources.split_whitespace().any(|name| name == "tsc"))
}

#[cfg(not(target_arch = "x86_64"))]
fn counter_is_a_clock() -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn counter() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and it touches no memory. Where the kernel
    // forbids it, the process gets a signal; it is read only where the kernel names it as a clock.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn counter() -> u64 {
    0
}

/// Nanoseconds in a tick of the counter, in units of 2^-32; `None` if it does not count.
fn rate_of_the_counter() -> Option<u64> {
    let (from, began) = both();
    std::thread::sleep(COMPARED);
    let (to, ended) = both();
    let ticks = u128::from(to.checked_sub(from)?);
    let nanos = ended.saturating_duration_since(began).as_nanos();
    let scale = (nanos << 32).checked_div(ticks)?;
    u64::try_from(scale).ok().filter(|scale| *scale > 0)
}

/// The counter and the system's clock at the same time, as near as a few attempts come.
fn both() -> (u64, Instant) {
    let attempts = (0..8).map(|_| {
        let before = counter();
        let now = Instant::now();
        let apart = counter().saturating_sub(before);
        (apart, before + apart / 2, now)
    });
    let (_, ticks, now) = attempts
        .min_by_key(|(apart, ..)| *apart)
        .unwrap_or_else(|| (0, counter(), Instant::now()));
    (ticks, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A counter of this many MHz.
    fn of(mhz: u64) -> RequestClock {
        RequestClock {
            source: Source::Counter,
            scale: UNIT * 1000 / mhz,
        }
    }

    #[test]
    fn ticks_become_nanoseconds_and_back() {
        for mhz in [1, 100, 1000, 2300, 5000] {
            let clock = of(mhz);
            for nanos in [0, 1000, 1_000_000, 3_600_000_000_000] {
                let from = Moment(1 << 50);
                let to = clock.after(from, Duration::from_nanos(nanos));
                let back = clock.nanos(from, to);
                // A tick of the slowest is 1000 ns; the scale has 22 bits or more.
                let off = back.abs_diff(nanos);
                assert!(
                    off <= 1000 / mhz + 1 + (nanos >> 21),
                    "{mhz} MHz: {nanos} -> {back}"
                );
            }
        }
    }

    #[test]
    fn no_time_passes_backwards() {
        assert_eq!(of(1000).nanos(Moment(7), Moment(6)), 0);
        let far = of(1000).after(Moment(u64::MAX - 3), Duration::MAX);
        assert_eq!(far, Moment::NEVER);
    }

    #[test]
    fn either_source_goes_on() {
        for clock in [RequestClock::of_this_machine(), RequestClock::system()] {
            let began = Instant::now();
            let from = clock.now();
            while began.elapsed() < Duration::from_micros(50) {
                assert!(clock.now() >= from, "{clock:?}");
            }
            assert!(clock.nanos(from, clock.now()) > 0, "{clock:?}");
        }
    }
}
