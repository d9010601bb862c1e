//! Sets of CPUs.
