//! Which CPUs can have entries of a window.
