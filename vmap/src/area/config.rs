//! How an address space of areas is set up.

use pageless_pfn::{ByteLen, FrameCount};

/// How an address space of areas is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct VmallocConfig {
    /// How much may wait for a shootdown before somebody who may sleep purges: addresses, guard pages included.
    pub lazy_max: ByteLen,
    /// How many nodes share the space: each has books and locks of its own. At least 1.
    pub nodes: u16,
    /// Whether each area is followed by a page that is never mapped.
    pub guard: bool,
    /// Whether every unmapping is shot down at once (by those who may sleep), as with Linux's `debug_pagealloc`: what is used after
    /// it is unmapped is seen at once.
    pub always_eager: bool,
    /// Pages of the blocks that small mappings come from; rounded to 128, 256, 512 or 1024.
    pub ram_block: FrameCount,
}

impl VmallocConfig {
    /// Linux's figures (mm/vmalloc.c) for a machine of `cpus` CPUs: `lazy_max` is `fls(cpus)` times 32 MiB, there are as many nodes as
    /// CPUs but at most 128, and blocks have 1024 pages.
    ///
    /// ```
    /// use pageless_vmap::area::VmallocConfig;
    /// assert_eq!(VmallocConfig::for_cpus(1).lazy_max.get(), 32 << 20);
    /// assert_eq!(VmallocConfig::for_cpus(64).lazy_max.get(), 224 << 20);
    /// ```
    #[must_use]
    pub const fn for_cpus(cpus: u16) -> Self {
        let fls = (u16::BITS - cpus.leading_zeros()) as u64;
        let fls = if fls == 0 { 1 } else { fls };
        let nodes = match cpus {
            0 => 1,
            1..=128 => cpus,
            _ => 128,
        };
        VmallocConfig {
            lazy_max: ByteLen::new(fls * (32 << 20)),
            nodes,
            guard: true,
            always_eager: false,
            ram_block: FrameCount::new(1024),
        }
    }

    /// With this cap on what waits.
    #[must_use]
    pub const fn lazy_max(mut self, bytes: ByteLen) -> Self {
        self.lazy_max = bytes;
        self
    }

    /// With so many nodes.
    #[must_use]
    pub const fn nodes(mut self, nodes: u16) -> Self {
        self.nodes = nodes;
        self
    }

    /// Without guard pages.
    #[must_use]
    pub const fn without_guard(mut self) -> Self {
        self.guard = false;
        self
    }

    /// With a shootdown for every unmapping.
    #[must_use]
    pub const fn eager(mut self) -> Self {
        self.always_eager = true;
        self
    }

    /// With blocks of so many pages for small mappings.
    #[must_use]
    pub const fn ram_block(mut self, pages: FrameCount) -> Self {
        self.ram_block = pages;
        self
    }
}
