//! Seeds: one for a whole job, derived for each thread and each purpose.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// Where a stream of random numbers begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(u64);

impl Seed {
    /// The seed of a job that names none and repeats (fio's `randrepeat=1`).
    pub const REPEATED: Self = Self(0x7061_6765_6c65_7373);

    /// The seed `n`.
    #[must_use]
    pub const fn new(n: u64) -> Self {
        Self(n)
    }

    /// The seed's number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// A seed for purpose `stream`, independent of the others derived from this one.
    #[must_use]
    pub const fn derive(self, stream: u64) -> Self {
        // The finaliser of splitmix64: every bit of the input reaches every bit of the output.
        let mut z = self.0 ^ stream.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self(z ^ (z >> 31))
    }

    /// The generator that begins here.
    #[must_use]
    pub fn rng(self) -> Xoshiro256PlusPlus {
        Xoshiro256PlusPlus::seed_from_u64(self.0)
    }
}

/// A number in `0..bound` (0 if `bound` is 0), by multiplication: the bias is below 2^-64 * bound.
#[must_use]
pub fn random_below(rng: &mut Xoshiro256PlusPlus, bound: u64) -> u64 {
    let wide = u128::from(rng.next_u64()) * u128::from(bound);
    (wide >> 64) as u64
}

/// A number in `0.0..1.0` with 53 random bits.
#[must_use]
pub fn unit_interval(rng: &mut Xoshiro256PlusPlus) -> f64 {
    (rng.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}
