//! Which CPU a thread runs on. Without being told, the scheduler now and then leaves two short
//! threads on one CPU for all of a sample.

use core::mem;
use std::thread;

/// Keeps the calling thread on CPU `number`, counted round the CPUs there are.
pub(crate) fn pin(number: usize) {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    // SAFETY: all-zero is an empty `cpu_set_t`.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the number is below the CPUs of this machine, which a `cpu_set_t` has room for.
    unsafe { libc::CPU_SET(number % cpus, &mut set) };
    // SAFETY: reads the set; a refusal leaves the thread where it was, which is only noisier.
    unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
}
