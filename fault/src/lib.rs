//! The machine under a lazily faulted memmap: windows, faults, unmapping and the flush debt.
#![cfg_attr(not(feature = "std"), no_std)]
