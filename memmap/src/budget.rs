//! How much memory the descriptors may take, and where reclaim begins and ends.

use pageless_fault::LEAF_TABLE_BYTES;

use crate::geometry::ChunkSize;
use crate::reclaim::RECLAIM_BATCH;

/// A bound on the bytes of live chunks, of chunks on their way out, of the reserve and of the leaf page
/// tables that exist for them, together with two watermarks.
///
/// Above `high` a caller that may sleep (or the background reclaimer) brings the sum down to `low`.
/// Nothing is ever filled beyond `bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    bytes: u64,
    high: u64,
    low: u64,
}

/// Not a budget that a memmap can work with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    /// Less than one chunk and its leaf table.
    #[error("a budget of {bytes} bytes is less than one chunk and its page table, {least} bytes")]
    TooSmall {
        /// What was asked for.
        bytes: u64,
        /// The least there can be.
        least: u64,
    },
    /// The watermarks are not `low <= high <= bytes`.
    #[error(
        "watermarks {low} (low) and {high} (high) are not in order below the budget of {bytes}"
    )]
    Watermarks {
        /// The budget.
        bytes: u64,
        /// Where reclaim begins.
        high: u64,
        /// Where it ends.
        low: u64,
    },
}

impl Budget {
    /// A budget of `bytes` with watermarks one reclaim batch apart, for chunks of this size.
    ///
    /// # Errors
    ///
    /// [`BudgetError::TooSmall`].
    pub fn new(bytes: u64, chunk: ChunkSize) -> Result<Self, BudgetError> {
        let batch = (chunk.bytes()).saturating_mul(RECLAIM_BATCH as u64);
        let margin = batch.min(bytes / 8);
        Self::with_watermarks(
            bytes,
            bytes - margin / 4,
            bytes - margin / 4 - margin,
            chunk,
        )
    }

    /// A budget with watermarks of one's own, in bytes.
    ///
    /// # Errors
    ///
    /// See [`BudgetError`].
    pub fn with_watermarks(
        bytes: u64,
        high: u64,
        low: u64,
        chunk: ChunkSize,
    ) -> Result<Self, BudgetError> {
        let least = chunk.bytes() + LEAF_TABLE_BYTES;
        if bytes < least {
            return Err(BudgetError::TooSmall { bytes, least });
        }
        if low > high || high > bytes {
            return Err(BudgetError::Watermarks { bytes, high, low });
        }
        Ok(Budget { bytes, high, low })
    }

    /// No bound at all.
    #[must_use]
    pub const fn unlimited() -> Self {
        Budget {
            bytes: u64::MAX,
            high: u64::MAX,
            low: u64::MAX,
        }
    }

    /// The bound, in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.bytes
    }

    /// Where reclaim begins, in bytes.
    #[must_use]
    pub const fn high(self) -> u64 {
        self.high
    }

    /// Where it ends, in bytes.
    #[must_use]
    pub const fn low(self) -> u64 {
        self.low
    }
}
