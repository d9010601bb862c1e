//! Where a bio must be cut so that its pieces are within a device's limits.
