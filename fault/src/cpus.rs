//! Who runs: what per-CPU lists are kept by.

use crate::shootdown::CpuId;

/// A machine that knows who is asking.
pub trait Cpus {
    /// One above the largest number that [`current`](Self::current) answers.
    fn cpus(&self) -> u16;

    /// Whoever runs this. On a machine of our own, the CPU. On the host, where threads move between CPUs, a number
    /// that the calling thread shares with few others and keeps while it lives. So a list kept for each number is seldom fought
    /// over, but it needs a lock all the same.
    fn current(&self) -> CpuId;

    /// Whether an interrupt could be taken now: with `false`, a shootdown that others wait for must not be waited for.
    fn may_wait(&self) -> bool;

    /// One turn of waiting for somebody else; `turn` counts from 0. Serves own shootdowns.
    fn relax(&self, turn: u32);
}
