//! What things cost on the modelled machine, in nanoseconds. Every number that comes of these is *modelled*.
//!
//! One shootdown of `n - 1` targets, as the engine's moments charge it:
//!
//! ```text
//!   initiator  setup + scan*n | line for each post | message*groups | own flush ... | line for each answer
//!                                                        \ delivery                    ^
//!   target i                                              entry | take | flush ........| exit
//! ```
//!
//! An answer is read when it is there: the initiator's clock is put forward to the moment that the target
//! has written beside it. A moment is announced before it is charged, so nobody looks at a CPU
//! whose clock is ahead of what it has done; whoever finds something early finds its time with it. So the order in
//! which the CPUs are run does not change the sum.
//!
//! `hit` is a pace as well: a CPU that spins looks for interrupts once in so many nanoseconds.
#![forbid(unsafe_code)]

use crate::shootdown::{CpuId, Moment};

/// A table of costs, all in nanoseconds but the topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Costs {
    /// An instruction whose translation is cached.
    pub hit: u64,
    /// One memory access of a page walk.
    pub walk: u64,
    /// Invalidating one page.
    pub flush_page: u64,
    /// Invalidating everything.
    pub flush_all: u64,
    /// Beginning a shootdown.
    pub setup: u64,
    /// Looking at one CPU while choosing targets.
    pub scan: u64,
    /// A cache line last written by a CPU of the same socket.
    pub line_near: u64,
    /// A cache line last written by a CPU of another socket.
    pub line_far: u64,
    /// Sending one interrupt message.
    pub message: u64,
    /// From an interrupt message to its arrival at a CPU of the same socket.
    pub delivery_near: u64,
    /// The same at a CPU of another socket.
    pub delivery_far: u64,
    /// From its arrival to the first instruction of a CPU that was idle.
    pub idle_exit: u64,
    /// Entering the handler.
    pub entry: u64,
    /// Leaving it.
    pub exit: u64,
    /// Cache lines that a target reads to learn what is asked: the queue's and the request's, last written by whoever asks.
    pub take_lines: u64,
    /// Leaving a record for lazy sweeps.
    pub record: u64,
    /// Reading one record at a tick.
    pub sweep: u64,
    /// Sending one broadcast invalidation.
    pub fabric_post: u64,
    /// Waiting for it to be executed.
    pub fabric_sync: u64,
    /// Writing one page-table entry.
    pub write_entry: u64,
    /// Copying one cache line, in or out, from one end of a loop to the other.
    pub copy_line: u64,
    /// CPUs that share a socket.
    pub cpus_per_socket: u16,
}

impl Costs {
    /// One socket of the Haswell on which Amit measured in 2019 (RFC of 31 May 2019, "x86/mm/tlb: flush remote and local TLBs
    /// concurrently"). Its constants are set by hand so that six published points come out: calibrated, not predictive. Only the
    /// intercept, the cost of one more target and that of the flush can be told apart by six points. Idle exits, records, broadcasts, entries written
    /// and lines copied were not measured there; they are guesses.
    pub const HASWELL_2019: Costs = Costs {
        hit: 1,
        walk: 17,
        flush_page: 200,
        flush_all: 150,
        setup: 90,
        scan: 2,
        line_near: 35,
        line_far: 35,
        message: 60,
        delivery_near: 150,
        delivery_far: 300,
        idle_exit: 1000,
        entry: 120,
        exit: 110,
        take_lines: 2,
        record: 132,
        sweep: 158,
        fabric_post: 100,
        fabric_sync: 500,
        write_entry: 5,
        copy_line: 3,
        cpus_per_socket: 1024,
    };

    /// Two sockets of 8 CPUs, on which LATR's authors measured in 2018: the Haswell's constants, and a far line fitted to their one
    /// point of 16 CPUs.
    pub const TWO_SOCKETS_2014: Costs = Costs {
        line_far: 272,
        cpus_per_socket: 8,
        ..Costs::HASWELL_2019
    };

    /// Eight sockets of 15 CPUs, theirs as well: a far line fitted to their one point of 120 CPUs.
    pub const EIGHT_SOCKETS_2013: Costs = Costs {
        line_far: 371,
        cpus_per_socket: 15,
        ..Costs::HASWELL_2019
    };

    /// The Ivy Bridge on which Hansen measured flushes of 1 to 35 pages (a5102476a24b, 2014): 227 cycles for each page more, at
    /// 2.67 GHz.
    pub const IVY_BRIDGE_2014: Costs = Costs {
        flush_page: 85,
        ..Costs::HASWELL_2019
    };

    /// Two sockets of chiplets as they are sold now, with half of `cpus` each. **Not calibrated**: no published
    /// measurement stands behind it, and what comes of it is a prediction.
    #[must_use]
    pub const fn two_modern_sockets(cpus: u16) -> Costs {
        Costs {
            flush_page: 50,
            flush_all: 200,
            walk: 15,
            line_near: 60,
            line_far: 210,
            delivery_near: 250,
            delivery_far: 450,
            entry: 180,
            exit: 150,
            cpus_per_socket: cpus.div_ceil(2),
            ..Costs::HASWELL_2019
        }
    }

    fn is_near(&self, one: CpuId, other: CpuId) -> bool {
        let socket = |cpu: CpuId| cpu.get() / self.cpus_per_socket.max(1);
        socket(one) == socket(other)
    }

    /// A cache line that `on` wants and `other` has written.
    fn line(&self, on: CpuId, other: CpuId) -> u64 {
        if self.is_near(on, other) {
            self.line_near
        } else {
            self.line_far
        }
    }

    /// From an interrupt message of `from` to its arrival at `to`.
    #[must_use]
    pub fn delivery(&self, from: CpuId, to: CpuId) -> u64 {
        if self.is_near(from, to) {
            self.delivery_near
        } else {
            self.delivery_far
        }
    }

    /// What `moment` costs the CPU `on`.
    #[must_use]
    pub fn of(&self, on: CpuId, moment: Moment) -> u64 {
        match moment {
            Moment::Setup { scanned } => self.setup + self.scan * u64::from(scanned),
            Moment::Post(other) | Moment::AckRead { from: other, .. } => self.line(on, other),
            Moment::Kick { message, .. } => {
                if message {
                    self.message
                } else {
                    0
                }
            }
            Moment::HandlerEntry => self.entry,
            Moment::Take { from } => self.take_lines * self.line(on, from.unwrap_or(on)),
            Moment::Acked | Moment::Wait => 0,
            Moment::HandlerExit => self.exit,
            Moment::Record => self.record,
            Moment::Sweep { records } => self.sweep * u64::from(records),
            Moment::FabricPost => self.fabric_post,
            Moment::FabricSync => self.fabric_sync,
        }
    }
}
