//! All of it on this process's own memory and MMU, put together.

use alloc::sync::Arc;

use pageless_fault::host::{
    BackingError, HostFrames, HostMachine, HostRam, HostVspace, HostWindow,
};
use pageless_fault::{ReserveError, Vspace, WindowLen};
use pageless_memmap::{AttachError, Config, Memmap};
use pageless_pfn::{FrameCount, PAGE_SIZE, Pfn, PfnOutOfRange, PfnRange, RangeOutOfRange};

use crate::area::{AreaSpace, Vmalloc, VmallocConfig};
use crate::compound::Pages;
use crate::frames::{FrameAllocator, FrameConfig, FrameConfigError};

/// Blocks of pages of this process.
pub type HostPages = Pages<HostRam, HostVspace, HostWindow>;
/// The vmalloc address space of this process.
pub type HostVmalloc = Vmalloc<HostVspace, Arc<Memmap<HostWindow>>>;

/// What [`HostMm`] is made with.
#[derive(Debug)]
pub struct HostMmConfig {
    /// What the first frame of memory is called.
    pub first: Pfn,
    /// Frames of memory. They take memory when they are first touched.
    pub frames: FrameCount,
    /// Bytes of address space for areas; they cost nothing.
    pub addresses: u64,
    /// How frames are allocated.
    pub allocator: FrameConfig,
    /// How descriptors are kept.
    pub descriptors: Config,
    /// Frames of others that areas may show as well: a device's.
    pub others: HostFrames,
}

impl HostMmConfig {
    /// `frames` frames of memory, the first of which is number 2^20 (4 GiB), 64 GiB of addresses, and the defaults for the rest.
    ///
    /// # Errors
    ///
    /// Never, as it is: 2^20 is a frame number.
    pub fn new(frames: FrameCount) -> Result<Self, PfnOutOfRange> {
        Ok(HostMmConfig {
            first: Pfn::try_new(1 << 20)?,
            frames,
            addresses: 64 << 30,
            allocator: FrameConfig::default(),
            descriptors: Config::default(),
            others: HostFrames::new(),
        })
    }
}

/// Why it could not be put together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostMmError {
    /// There are no such frame numbers.
    #[error(transparent)]
    Number(#[from] PfnOutOfRange),
    /// There are not so many frame numbers.
    #[error(transparent)]
    Range(#[from] RangeOutOfRange),
    /// No memory or no addresses.
    #[error(transparent)]
    Reserve(#[from] ReserveError),
    /// The frames of others are in the way.
    #[error(transparent)]
    Backing(#[from] BackingError),
    /// No allocator.
    #[error(transparent)]
    Allocator(#[from] FrameConfigError),
    /// No memmap.
    #[error(transparent)]
    Memmap(#[from] AttachError),
    /// More addresses than there are.
    #[error("{bytes} bytes of address space: that is more than there are")]
    Addresses {
        /// What was asked for.
        bytes: u64,
    },
}

/// Memory of this process, an allocator of its frames, descriptors for them, and address space to see them in.
///
/// ```
/// use pageless_fault::MaySleep;
/// use pageless_pfn::FrameCount;
/// use pageless_vmap::frames::{Gfp, Order};
/// use pageless_vmap::host::HostMm;
///
/// let mm = HostMm::new(FrameCount::new(4096))?;
/// let ctx = MaySleep::claim();
/// // 64 KiB in one piece: physically if that can be had, virtually if not.
/// let gfp = Gfp::kernel(&ctx).virtual_fallback();
/// let block = mm.pages().alloc(&gfp, Order::try_new(4)?)?;
/// block.write(65_530, b"bytes.")?;
/// assert_eq!(mm.pages().virt_to_head_page(block.address()), Some(block.head()));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct HostMm {
    pages: HostPages,
    vmalloc: HostVmalloc,
}

impl HostMm {
    /// `frames` frames of memory, and the defaults for the rest.
    ///
    /// # Errors
    ///
    /// See [`HostMmError`].
    pub fn new(frames: FrameCount) -> Result<Self, HostMmError> {
        Self::with(HostMmConfig::new(frames)?)
    }

    /// Memory as `config` says.
    ///
    /// # Errors
    ///
    /// See [`HostMmError`].
    pub fn with(config: HostMmConfig) -> Result<Self, HostMmError> {
        let pfns = PfnRange::try_new(config.first, config.frames)?;
        let ram = HostRam::new(pfns)?;
        let mut shown = config.others;
        shown.add_ram(&ram)?;
        let bytes = config.addresses.max(PAGE_SIZE);
        let len = WindowLen::covering(bytes).ok_or(HostMmError::Addresses { bytes })?;
        let space = HostVspace::reserve(Arc::new(shown), len)?;
        let memmap = Memmap::attach(&HostMachine::new()?, pfns, config.descriptors)?;
        let memmap = Arc::new(memmap);
        let frames = FrameAllocator::new(Arc::new(ram), config.allocator)?;
        let areas = VmallocConfig::for_cpus(pageless_fault::Cpus::cpus(&space));
        let areas = Arc::new(AreaSpace::new(space, areas));
        Ok(HostMm {
            vmalloc: Vmalloc::over(Arc::clone(&areas), Arc::clone(&memmap)),
            pages: Pages::new(Arc::new(frames), memmap, areas),
        })
    }

    /// Blocks of pages.
    #[must_use]
    pub fn pages(&self) -> &HostPages {
        &self.pages
    }

    /// Areas.
    #[must_use]
    pub fn vmalloc(&self) -> &HostVmalloc {
        &self.vmalloc
    }

    /// Frames.
    #[must_use]
    pub fn frames(&self) -> &Arc<FrameAllocator<HostRam>> {
        self.pages.frames()
    }

    /// Bytes of address space that areas can be in.
    #[must_use]
    pub fn addresses(&self) -> u64 {
        self.vmalloc.space().len().get()
    }
}
