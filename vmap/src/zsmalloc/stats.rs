//! What is stored, and what it takes.

use alloc::vec::Vec;
use core::fmt;

use pageless_fault::sync::atomic::Ordering;
use pageless_pfn::{ByteLen, FrameCount, PAGE_SIZE};

use super::class::ClassShape;
use super::compact::freeable;
use super::pool::{Class, Zsmalloc};
use super::source::FrameSource;
use super::zspage::Group;

/// One class (Linux: a line of `/sys/kernel/debug/zsmalloc/<pool>/classes`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassStats {
    /// Its sizes.
    pub shape: ClassShape,
    /// Zspages by how many of their objects are in use: none, less than 10 %, and so on by tens, less than 100 %, all.
    pub groups: [u64; Group::COUNT],
    /// Objects that there is room for.
    pub objects_allocated: u64,
    /// Objects in use.
    pub objects_used: u64,
    /// Bytes asked for by those in use.
    pub bytes_stored: ByteLen,
    /// Frames.
    pub pages_used: FrameCount,
    /// Frames that compaction would give back.
    pub freeable: FrameCount,
}

/// A pool and its classes. Each class is as it was at one time, but not all at the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolStats {
    /// The classes, smallest first.
    pub classes: Vec<ClassStats>,
    /// Frames.
    pub pages_used: FrameCount,
    /// Frames that compaction has given back since the pool was made.
    pub pages_compacted: FrameCount,
    /// Objects in use.
    pub objects_used: u64,
    /// Bytes asked for by those in use.
    pub bytes_stored: ByteLen,
    /// Memory beside the frames: slots, records of zspages, the pool itself.
    pub metadata: ByteLen,
}

impl PoolStats {
    /// All memory that the pool takes, with its books.
    #[must_use]
    pub fn memory_used(&self) -> ByteLen {
        let frames = self.pages_used.get().saturating_mul(PAGE_SIZE);
        ByteLen::new(frames.saturating_add(self.metadata.get()))
    }
}

impl<F: FrameSource> Zsmalloc<F> {
    /// What is stored now.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        let classes: Vec<_> = self.classes().iter().map(class_stats).collect();
        let sum = |of: fn(&ClassStats) -> u64| classes.iter().map(of).sum::<u64>();
        PoolStats {
            pages_used: FrameCount::new(sum(|class| class.pages_used.get())),
            pages_compacted: FrameCount::new(self.compacted.load(Ordering::Relaxed)),
            objects_used: sum(|class| class.objects_used),
            bytes_stored: ByteLen::new(sum(|class| class.bytes_stored.get())),
            metadata: self.metadata(),
            classes,
        }
    }

    /// Frames in use (Linux: `zs_get_total_pages`).
    #[must_use]
    pub fn pages_used(&self) -> FrameCount {
        let pages =
            |class: &Class| u64::from(class.lists.lock().zspages) * u64::from(class.shape.pages);
        FrameCount::new(self.classes().iter().map(pages).sum())
    }

    /// Memory beside the frames.
    #[must_use]
    pub fn metadata(&self) -> ByteLen {
        let classes = size_of_val(self.classes()) + size_of_val(self.class_table().shapes());
        let fixed = size_of::<Self>() + size_of_val(self.records()) + classes;
        let records = self.records().iter().chain([&self.slots]);
        let tables: u64 = records.map(|table| table.bytes()).sum();
        ByteLen::new(tables + fixed as u64)
    }
}

fn class_stats(class: &Class) -> ClassStats {
    let lists = class.lists.lock();
    let (zspages, pages) = (u64::from(lists.zspages), u64::from(class.shape.pages));
    ClassStats {
        shape: class.shape,
        groups: lists.groups.map(u64::from),
        objects_allocated: zspages * u64::from(class.shape.objects),
        objects_used: lists.used,
        bytes_stored: ByteLen::new(lists.bytes),
        pages_used: FrameCount::new(zspages * pages),
        freeable: FrameCount::new(freeable(class, &lists)),
    }
}

impl fmt::Display for PoolStats {
    /// One line for each class that has frames, in Linux's columns, and the sums.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>5} {:>5}", "class", "size")?;
        for percent in (10..100).step_by(10).chain([99, 100]) {
            write!(f, " {percent:>7}%")?;
        }
        writeln!(
            f,
            " {:>13} {:>10} {:>10} {:>16} {:>8}",
            "obj_allocated", "obj_used", "pages_used", "pages_per_zspage", "freeable"
        )?;
        let used = self.classes.iter().filter(|c| !c.pages_used.is_zero());
        for class in used {
            write!(f, "{:>5} {:>5}", class.shape.number, class.shape.size)?;
            for zspages in &class.groups[1..] {
                write!(f, " {zspages:>8}")?;
            }
            writeln!(
                f,
                " {:>13} {:>10} {:>10} {:>16} {:>8}",
                class.objects_allocated,
                class.objects_used,
                class.pages_used.get(),
                class.shape.pages,
                class.freeable.get()
            )?;
        }
        let sum = |of: fn(&ClassStats) -> u64| self.classes.iter().map(of).sum::<u64>();
        write!(f, "{:>11}", "total")?;
        for group in 1..Group::COUNT {
            let zspages: u64 = self.classes.iter().map(|class| class.groups[group]).sum();
            write!(f, " {zspages:>8}")?;
        }
        writeln!(
            f,
            " {:>13} {:>10} {:>10} {:>16} {:>8}",
            sum(|class| class.objects_allocated),
            self.objects_used,
            self.pages_used.get(),
            "",
            sum(|class| class.freeable.get())
        )
    }
}
