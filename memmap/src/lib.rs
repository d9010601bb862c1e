//! Page descriptors on demand: window, chunk, refcount, least-recently-allocated reclaim, budget.
#![cfg_attr(not(feature = "std"), no_std)]
