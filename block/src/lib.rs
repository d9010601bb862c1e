//! Block I/O over typed frame numbers: bio, queues, drivers; no page descriptors.
#![cfg_attr(not(feature = "std"), no_std)]
