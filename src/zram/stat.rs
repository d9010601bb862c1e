//! What a compressed block device says of itself, in the kernel's words.

use core::fmt;
use core::str::FromStr;

use pageless_pfn::ByteLen;
use thiserror::Error;

/// The nine numbers of `/sys/block/zram<n>/mm_stat`, with the kernel's meaning (drivers/block/zram/zram_drv.c, `mm_stat_show`).
///
/// ```
/// use pageless::zram::MmStat;
/// let line = "   36864     1201    12288        0    16384        3        0        1        2\n";
/// let stat: MmStat = line.parse()?;
/// assert_eq!((stat.mem_used_total.get(), stat.same_pages), (12288, 3));
/// assert_eq!(stat.to_string(), line.trim_end());
/// # Ok::<(), pageless::zram::NoMmStat>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MmStat {
    /// What is stored, before compression: same-filled pages are in it.
    pub orig_data_size: ByteLen,
    /// What is stored, after compression: an incompressible page counts as a page, a same-filled one as nothing.
    pub compr_data_size: ByteLen,
    /// Memory taken by zsmalloc, in whole pages: objects, fragmentation, and what is free in its zspages. Tables of the device are not
    /// in it.
    pub mem_used_total: ByteLen,
    /// The most it may take; 0 for no limit.
    pub mem_limit: ByteLen,
    /// The most it has taken.
    pub mem_used_max: ByteLen,
    /// Pages that are one word over and over, and take no memory.
    pub same_pages: u64,
    /// Pages that compaction has freed so far.
    pub pages_compacted: u64,
    /// Incompressible pages that are stored now.
    pub huge_pages: u64,
    /// Incompressible pages that have ever been stored.
    pub huge_pages_since: u64,
}

impl fmt::Display for MmStat {
    /// The kernel's line, without the newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:8} {:8} {:8} {:8} {:8} {:8} {:8} {:8} {:8}",
            self.orig_data_size.get(),
            self.compr_data_size.get(),
            self.mem_used_total.get(),
            self.mem_limit.get(),
            self.mem_used_max.get(),
            self.same_pages,
            self.pages_compacted,
            self.huge_pages,
            self.huge_pages_since,
        )
    }
}

/// A line that is not nine numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an mm_stat is nine numbers; number {field} is missing, or none")]
pub struct NoMmStat {
    /// Which one, from 1; above 9 if there are too many.
    pub field: u8,
}

impl FromStr for MmStat {
    type Err = NoMmStat;

    fn from_str(line: &str) -> Result<Self, NoMmStat> {
        let mut numbers = line.split_ascii_whitespace();
        let mut field = 0;
        let mut next = || {
            field += 1;
            let number = numbers.next().and_then(|number| number.parse().ok());
            number.ok_or(NoMmStat { field })
        };
        let stat = Self {
            orig_data_size: ByteLen::new(next()?),
            compr_data_size: ByteLen::new(next()?),
            mem_used_total: ByteLen::new(next()?),
            mem_limit: ByteLen::new(next()?),
            mem_used_max: ByteLen::new(next()?),
            same_pages: next()?,
            pages_compacted: next()?,
            huge_pages: next()?,
            huge_pages_since: next()?,
        };
        match numbers.next() {
            None => Ok(stat),
            Some(_) => Err(NoMmStat { field: 10 }),
        }
    }
}

/// The four numbers of `/sys/block/zram<n>/io_stat` (`io_stat_show`).
///
/// ```
/// use pageless::zram::IoStat;
/// let stat = IoStat { notify_free: 7, ..IoStat::default() };
/// assert_eq!(stat.to_string(), "       0        0 0        7");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoStat {
    /// Reads that failed.
    pub failed_reads: u64,
    /// Writes that failed, for want of memory or by the limit.
    pub failed_writes: u64,
    /// Requests that were not of whole pages. The kernel prints 0 since its block layer sees to that, and so does ours.
    pub invalid_io: u64,
    /// Pages that a discard or a write of zeroes was about.
    pub notify_free: u64,
}

impl fmt::Display for IoStat {
    /// The kernel's line, without the newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:8} {:8} {} {:8}",
            self.failed_reads, self.failed_writes, self.invalid_io, self.notify_free
        )
    }
}
