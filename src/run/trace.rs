//! Block traces of a run, for `blkparse` and its kin.

use alloc::sync::Arc;
use std::path::Path;

use pageless_block::{
    BlkTrace, BlkTraceCreateError, BlkTraceWriteError, Clock, DeviceNumber, Event, MonotonicClock,
    Probe,
};

use super::way::Way;

/// 240: the first of the majors that Linux keeps for local use.
const MAJOR: u32 = 240;

/// The trace of one way: a file for each thread, as the kernel has one for each CPU.
#[derive(Debug)]
pub(super) struct WayTrace {
    trace: Arc<BlkTrace>,
    clock: MonotonicClock,
}

impl WayTrace {
    /// `WAY.blktrace.0` and so on in `directory`, for as many threads as run at a time.
    pub(super) fn create(
        directory: &Path,
        way: Way,
        threads: usize,
    ) -> Result<Self, BlkTraceCreateError> {
        let device = match DeviceNumber::try_new(MAJOR, way as u32) {
            Ok(device) => device,
            Err(error) => unreachable!("both numbers are small: {error}"),
        };
        let threads = u16::try_from(threads).unwrap_or(u16::MAX).max(1);
        Ok(Self {
            trace: Arc::new(BlkTrace::create(directory, way.name(), device, threads)?),
            clock: MonotonicClock::new(),
        })
    }

    /// What the `number`-th thread gives its queue.
    pub(super) fn of_thread(&self, number: usize) -> ThreadTrace {
        ThreadTrace {
            probe: Arc::new(Numbered {
                context: u16::try_from(number).unwrap_or(u16::MAX),
                trace: Arc::clone(&self.trace),
            }),
            clock: Arc::new(self.clock),
        }
    }

    /// Writes what is left, after all threads have ended.
    pub(super) fn finish(self) -> Result<(), BlkTraceWriteError> {
        match Arc::try_unwrap(self.trace) {
            Ok(trace) => trace.finish(),
            // Somebody still has it; it is written when the last one lets go.
            Err(_) => Ok(()),
        }
    }
}

/// Who looks on at a thread's queue, and by which clock.
#[derive(Clone)]
pub(super) struct ThreadTrace {
    pub(super) probe: Arc<dyn Probe>,
    pub(super) clock: Arc<dyn Clock>,
}

/// Each thread has a queue of its own, whose only context is number 0.
struct Numbered {
    context: u16,
    trace: Arc<BlkTrace>,
}

impl Probe for Numbered {
    fn event(&self, event: &Event) {
        self.trace.event(&Event {
            context: self.context,
            ..*event
        });
    }
}
