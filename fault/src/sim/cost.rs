//! What things cost on the modelled machine, in nanoseconds. Every number that comes of these is *modelled*.
//!
//! One shootdown of `n - 1` targets, as the engine's moments charge it:
//!
//! ```text
//!   initiator  setup + scan*n | post*targets | message*groups | own flush .. | line for each answer
//!                                                  \ delivery                      ^
//!   target i                                        entry | take | flush | ........| exit
//! ```
//!
//! An answer is read when it is there: the initiator's clock is put forward to the moment that the target
//! has written beside it. So the order in which the CPUs are run does not change the sum.
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
    /// From an interrupt message to the target's handler beginning.
    pub delivery: u64,
    /// Entering the handler.
    pub entry: u64,
    /// Leaving it.
    pub exit: u64,
    /// Cache lines that a target reads to learn what is asked: the queue's and the request's.
    pub take_lines: u64,
    /// Leaving a record for lazy sweeps.
    pub record: u64,
    /// Reading one record at a tick.
    pub sweep: u64,
    /// Sending one broadcast invalidation.
    pub fabric_post: u64,
    /// Waiting for it to be executed.
    pub fabric_sync: u64,
    /// CPUs that share a socket.
    pub cpus_per_socket: u16,
}

impl Costs {
    /// One socket of the Haswell on which Amit measured in 2019. Five constants are fitted to six published points: calibrated,
    /// not predictive. Records and broadcasts were not measured there; they are guesses.
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
        delivery: 150,
        entry: 120,
        exit: 110,
        take_lines: 2,
        record: 132,
        sweep: 158,
        fabric_post: 100,
        fabric_sync: 500,
        cpus_per_socket: 1024,
    };

    /// What `moment` costs the CPU `on`.
    #[must_use]
    pub fn of(&self, on: CpuId, moment: Moment) -> u64 {
        let line = |other: CpuId| {
            let socket = |cpu: CpuId| cpu.get() / self.cpus_per_socket.max(1);
            if socket(on) == socket(other) {
                self.line_near
            } else {
                self.line_far
            }
        };
        match moment {
            Moment::Setup { scanned } => self.setup + self.scan * u64::from(scanned),
            Moment::Post(target) | Moment::AckRead(target) => line(target),
            Moment::Kick { message, .. } => {
                if message {
                    self.message
                } else {
                    0
                }
            }
            Moment::HandlerEntry => self.entry,
            Moment::Take => self.take_lines * self.line_near,
            Moment::Acked => 0,
            Moment::HandlerExit => self.exit,
            Moment::Record => self.record,
            Moment::Sweep { records } => self.sweep * u64::from(records),
            Moment::FabricPost => self.fabric_post,
            Moment::FabricSync => self.fabric_sync,
        }
    }
}
