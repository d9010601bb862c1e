//! Typed page frame numbers: Pfn, PfnT and its flags, segments, scatter-gather tables, the physical map.
#![cfg_attr(not(feature = "std"), no_std)]
