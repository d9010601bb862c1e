//! Who runs, on a machine whose threads move between CPUs at will.

use core::cell::Cell;
use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::OnceLock;

use super::frames::HostRam;
use super::vspace::HostVspace;
use crate::cpus::Cpus;
use crate::shootdown::CpuId;

/// CPUs that this process may use, as the first caller found it.
fn cpus() -> u16 {
    static CPUS: OnceLock<u16> = OnceLock::new();
    *CPUS.get_or_init(|| {
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get());
        u16::try_from(cpus).unwrap_or(1024).clamp(1, 1024)
    })
}

/// A number below [`cpus`] that the calling thread keeps. Threads take them in turn.
fn current() -> CpuId {
    std::thread_local! {
        static MINE: Cell<Option<u16>> = const { Cell::new(None) };
    }
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = MINE.get().unwrap_or_else(|| {
        // Relaxed: a number, and nothing else.
        let number = (NEXT.fetch_add(1, Ordering::Relaxed) % u32::from(cpus())) as u16;
        MINE.set(Some(number));
        number
    });
    CpuId::new(number)
}

/// One turn of waiting for another thread.
pub(super) fn relax(turn: u32) {
    match turn {
        0..64 => core::hint::spin_loop(),
        64..4096 => std::thread::yield_now(),
        // Whoever we wait for does not get a CPU: stop competing with them.
        _ => std::thread::sleep(core::time::Duration::from_micros(50)),
    }
}

/// Whichever part of the host is asked, the threads are the same.
macro_rules! threads_run {
    ($($asked:ty),*) => {$(
        impl Cpus for $asked {
            fn cpus(&self) -> u16 {
                cpus()
            }

            fn current(&self) -> CpuId {
                current()
            }

            fn may_wait(&self) -> bool {
                true
            }

            fn relax(&self, turn: u32) {
                relax(turn);
            }
        }
    )*};
}

threads_run!(HostRam, HostVspace);
