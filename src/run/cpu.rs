//! What a thread has cost the processor, as the kernel counts it.

use core::time::Duration;

/// Processor time and events of a thread between two readings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuUse {
    /// Time in user mode, in ticks of 10 ms.
    pub user: Duration,
    /// Time in the kernel, in ticks of 10 ms.
    pub system: Duration,
    /// Context switches, voluntary or not.
    pub switches: u64,
    /// Page faults that needed input.
    pub major_faults: u64,
    /// Other page faults that the kernel handled.
    pub minor_faults: u64,
}

impl CpuUse {
    /// What the calling thread has used so far; zeroes where `/proc` does not say.
    #[must_use]
    pub fn of_this_thread() -> Self {
        let mut used = Self::default();
        if let Ok(stat) = std::fs::read_to_string("/proc/thread-self/stat") {
            used.read_stat(&stat);
        }
        if let Ok(status) = std::fs::read_to_string("/proc/thread-self/status") {
            used.switches = status
                .lines()
                .filter(|line| line.contains("ctxt_switches:"))
                .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
                .sum();
        }
        used
    }

    fn read_stat(&mut self, stat: &str) {
        // The name in parentheses may hold blanks; fields are counted from behind it.
        let Some((_, fields)) = stat.rsplit_once(')') else {
            return;
        };
        let field = |n: usize| {
            fields
                .split_whitespace()
                .nth(n)
                .and_then(|f| f.parse::<u64>().ok())
                .unwrap_or(0)
        };
        let ticks = |n| Duration::from_millis(10 * field(n));
        (self.minor_faults, self.major_faults) = (field(7), field(9));
        (self.user, self.system) = (ticks(11), ticks(12));
    }

    /// What was used since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
            switches: self.switches.saturating_sub(earlier.switches),
            major_faults: self.major_faults.saturating_sub(earlier.major_faults),
            minor_faults: self.minor_faults.saturating_sub(earlier.minor_faults),
        }
    }

    /// Adds another thread's use.
    pub fn merge(&mut self, other: Self) {
        self.user += other.user;
        self.system += other.system;
        self.switches += other.switches;
        self.major_faults += other.major_faults;
        self.minor_faults += other.minor_faults;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_stat_is_read_behind_the_name() {
        let mut used = CpuUse::default();
        used.read_stat("12 (a) b) R 1 2 3 4 5 6 70 8 90 10 110 120 0 0 20");
        assert_eq!((used.minor_faults, used.major_faults), (70, 90));
        assert_eq!(used.user, Duration::from_millis(1100));
        assert_eq!(used.system, Duration::from_millis(1200));
    }
}
