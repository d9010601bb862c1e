//! Many pieces of a device as one run of bytes.

use super::error::{Place, XfsError};
use super::inode::Piece;

/// Whoever can make pieces that lie scattered on a device appear one behind the other.
pub(crate) trait Objects {
    /// What they appear as, for as long as it lives.
    type Object: Object;

    /// Stands `pieces` together. `place` is what they are, for the error.
    fn object(&self, pieces: &[Piece], place: Place) -> Result<Self::Object, XfsError>;
}

/// One run of bytes.
pub(crate) trait Object {
    /// Shows all of them.
    fn look<R>(&self, look: impl FnOnce(&[u8]) -> R) -> Result<R, XfsError>;
}

/// One run of bytes that can be changed where it is: on the device.
pub(crate) trait Change: Object {
    /// Writes `bytes` from byte `at` on.
    fn change(&mut self, at: usize, bytes: &[u8]) -> Result<(), XfsError>;
}
