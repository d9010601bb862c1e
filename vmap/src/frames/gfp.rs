//! How memory is asked for: what the caller may do meanwhile, and what it wants.

use pageless_fault::MaySleep;

/// What an allocation may do while it looks for memory.
#[derive(Debug, Clone, Copy)]
pub enum Context<'c> {
    /// Reclaim, purge, wait for shootdowns.
    MaySleep(&'c MaySleep),
    /// None of it: under a spin lock, with interrupts off, in a signal handler's thread. It may go below the low watermark instead.
    Atomic,
}

/// Which zone memory has to come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ZoneKind {
    /// What old devices can address.
    Dma,
    /// All the rest. What cannot be had there may come from [`Dma`](Self::Dma).
    Normal,
}

/// How memory is asked for (Linux: include/linux/gfp_types.h).
///
/// ```
/// use pageless_fault::MaySleep;
/// use pageless_vmap::frames::Gfp;
/// let ctx = MaySleep::claim();
/// let gfp = Gfp::kernel(&ctx).zeroed().no_retry();
/// assert!(gfp.is_zeroed() && !gfp.retries());
/// assert!(Gfp::atomic().may_sleep().is_none());
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Gfp<'c> {
    context: Context<'c>,
    zone: ZoneKind,
    zeroed: bool,
    retry: bool,
    virtual_fallback: bool,
}

impl<'c> Gfp<'c> {
    /// May sleep and reclaim, and tries again after it (`GFP_KERNEL`).
    #[must_use]
    pub const fn kernel(ctx: &'c MaySleep) -> Self {
        Self::new(Context::MaySleep(ctx))
    }

    /// Never sleeps (`GFP_ATOMIC`).
    #[must_use]
    pub const fn atomic() -> Self {
        Self::new(Context::Atomic)
    }

    const fn new(context: Context<'c>) -> Self {
        Gfp {
            context,
            zone: ZoneKind::Normal,
            zeroed: false,
            retry: true,
            virtual_fallback: false,
        }
    }

    /// Filled with zeroes (`__GFP_ZERO`).
    #[must_use]
    pub const fn zeroed(mut self) -> Self {
        self.zeroed = true;
        self
    }

    /// Fails where it would have to reclaim (`__GFP_NORETRY`).
    #[must_use]
    pub const fn no_retry(mut self) -> Self {
        self.retry = false;
        self
    }

    /// From the zone that old devices can address (`GFP_DMA`).
    #[must_use]
    pub const fn dma(mut self) -> Self {
        self.zone = ZoneKind::Dma;
        self
    }

    /// What cannot be had in one piece may stand together through a mapping instead (`__GFP_VFALLBACK` of 2007).
    #[must_use]
    pub const fn virtual_fallback(mut self) -> Self {
        self.virtual_fallback = true;
        self
    }

    /// The same without the fallback.
    #[must_use]
    pub const fn contiguous_only(mut self) -> Self {
        self.virtual_fallback = false;
        self
    }

    /// What it may do meanwhile.
    #[must_use]
    pub const fn context(&self) -> Context<'c> {
        self.context
    }

    /// The right to sleep, if it has it.
    #[must_use]
    pub const fn may_sleep(&self) -> Option<&'c MaySleep> {
        match self.context {
            Context::MaySleep(ctx) => Some(ctx),
            Context::Atomic => None,
        }
    }

    /// The zone.
    #[must_use]
    pub const fn zone(&self) -> ZoneKind {
        self.zone
    }

    /// Whether the frames are to be zeroed.
    #[must_use]
    pub const fn is_zeroed(&self) -> bool {
        self.zeroed
    }

    /// Whether it reclaims and tries again.
    #[must_use]
    pub const fn retries(&self) -> bool {
        self.retry
    }

    /// Whether a virtually contiguous block will do.
    #[must_use]
    pub const fn falls_back(&self) -> bool {
        self.virtual_fallback
    }
}
