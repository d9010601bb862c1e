//! Struct-page-free block I/O with a lazily faulted memmap.
