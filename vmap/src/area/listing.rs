//! What there is, for people to read: `/proc/vmallocinfo`.

use core::fmt;
use core::panic::Location;

use pageless_fault::VirtAddr;
use pageless_pfn::{ByteLen, FrameCount};

/// What an area is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AreaKind {
    /// Frames that somebody else owns (`vmap`).
    Map,
    /// Frames of its own (`vmalloc`).
    Alloc,
    /// A block that small mappings come from (`vm_map_ram`).
    RamBlock,
    /// A virtual compound page.
    Compound,
    /// A window for objects that cross a page boundary.
    Pair,
}

impl fmt::Display for AreaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AreaKind::Map => "vmap",
            AreaKind::Alloc => "vmalloc",
            AreaKind::RamBlock => "vm_map_ram",
            AreaKind::Compound => "vcompound",
            AreaKind::Pair => "pair",
        })
    }
}

/// How far an area has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AreaState {
    /// In use.
    Busy,
    /// Unmapped, not yet shot down.
    Lazy,
    /// Its shootdown failed.
    Quarantined,
}

/// One area, as it was at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AreaInfo {
    /// Its first address.
    pub start: VirtAddr,
    /// One past its last address, guard page included.
    pub end: VirtAddr,
    /// Pages that it shows.
    pub pages: FrameCount,
    /// Of them, those that are referenced through their descriptor.
    pub referenced: FrameCount,
    /// What it is for.
    pub kind: AreaKind,
    /// How far it has come.
    pub state: AreaState,
    /// Who asked for it.
    pub caller: &'static Location<'static>,
}

impl AreaInfo {
    /// Addresses that it takes, guard page included.
    #[must_use]
    pub const fn size(&self) -> ByteLen {
        ByteLen::new(self.end.get() - self.start.get())
    }
}

/// A line as in `/proc/vmallocinfo`: addresses, bytes, who asked, pages, what for.
impl fmt::Display for AreaInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}-{} {:>8} {}:{} pages={}",
            self.start,
            self.end,
            self.size().get(),
            self.caller.file(),
            self.caller.line(),
            self.pages.get(),
        )?;
        if self.referenced.get() > 0 {
            write!(f, " referenced={}", self.referenced.get())?;
        }
        write!(f, " {}", self.kind)?;
        match self.state {
            AreaState::Busy => Ok(()),
            AreaState::Lazy => f.write_str(" unpurged"),
            AreaState::Quarantined => f.write_str(" quarantined"),
        }
    }
}
