//! The order of a directory's btree.

/// The hash of a name: 7 bits of rotation, then the next byte.
pub(crate) fn hash(name: &[u8]) -> u32 {
    name.iter()
        .fold(0_u32, |hash, byte| hash.rotate_left(7) ^ u32::from(*byte))
}
