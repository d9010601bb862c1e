//! The result of the one access that anybody makes without holding a reference.

/// Why an access had no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultReason {
    /// The window is reserved here, but nothing has been made present.
    NotPresent,
    /// The window itself does not exist for this process: a forked child inherits the handle but
    /// not the address space.
    NotMapped,
}

/// What a [`Word::fetch_add`](crate::Word::fetch_add) found: the old value, or a fault.
///
/// One 64-bit word, so that a single comparison on the hot path tells the common case from all
/// others:
///
/// | bits | meaning |
/// |---|---|
/// | `0 ..= u32::MAX` | the access happened, this was the old value |
/// | `FAULT_NOT_PRESENT` (bit 63) | it had no effect: [`FaultReason::NotPresent`] |
/// | `FAULT_NOT_MAPPED` (bits 63 and 0) | it had no effect: [`FaultReason::NotMapped`] |
///
/// ```
/// use pageless_fault::{FaultReason, Fetched};
/// assert_eq!(Fetched::old(7).get(), Ok(7));
/// assert_eq!(Fetched::fault(FaultReason::NotPresent).get(), Err(FaultReason::NotPresent));
/// assert!(Fetched::fault(FaultReason::NotMapped).raw() > u64::from(u32::MAX));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetched(u64);

impl Fetched {
    const FAULT_NOT_PRESENT: u64 = 1 << 63;
    const FAULT_NOT_MAPPED: u64 = 1 << 63 | 1;

    /// The access happened and found `old`.
    #[inline]
    #[must_use]
    pub const fn old(old: u32) -> Self {
        Fetched(old as u64)
    }

    /// The access had no effect.
    #[inline]
    #[must_use]
    pub const fn fault(reason: FaultReason) -> Self {
        match reason {
            FaultReason::NotPresent => Fetched(Self::FAULT_NOT_PRESENT),
            FaultReason::NotMapped => Fetched(Self::FAULT_NOT_MAPPED),
        }
    }

    /// From the register that the access, or the fault handler in its place, left behind.
    #[inline]
    #[must_use]
    pub const fn from_register(register: u64) -> Self {
        Fetched(register)
    }

    /// The word itself: at most `u32::MAX` if the access happened, above it if not.
    #[inline]
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The old value, or why there is none.
    ///
    /// # Errors
    ///
    /// The reason, when the access had no effect.
    #[inline]
    pub const fn get(self) -> Result<u32, FaultReason> {
        if self.0 <= u32::MAX as u64 {
            Ok(self.0 as u32)
        } else if self.0 == Self::FAULT_NOT_MAPPED {
            Err(FaultReason::NotMapped)
        } else {
            Err(FaultReason::NotPresent)
        }
    }
}
