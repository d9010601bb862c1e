//! One scheduler for all simulated CPUs: deterministic from a seed.
