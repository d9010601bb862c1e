//! A random order of the numbers below a bound, in constant memory.

use super::seed::Seed;

/// A bijection of `0..n`, picked by a seed.
///
/// Multiplications by odd numbers and xor-shifts are bijections of the numbers of `b` bits; values
/// that fall outside `0..n` go round again, less than once on average because `2^b < 2n`.
#[derive(Debug, Clone, Copy)]
pub struct Permutation {
    n: u64,
    mask: u64,
    shift: u32,
    add: u64,
    odd: [u64; 3],
}

impl Permutation {
    /// A permutation of `0..n`; `n` of 0 is taken for 1.
    #[must_use]
    pub fn new(n: u64, seed: Seed) -> Self {
        let n = n.max(1);
        let bits = (64 - (n - 1).leading_zeros()).max(1);
        let mask = u64::MAX >> (64 - bits);
        let odd = [0, 1, 2].map(|i| seed.derive(i).get() | 1);
        Self {
            n,
            mask,
            shift: bits.div_ceil(2),
            add: seed.derive(3).get(),
            odd,
        }
    }

    /// How many numbers there are.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.n
    }

    /// Always false: there is at least one number.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// The number at position `index` (taken modulo the length).
    #[inline]
    #[must_use]
    pub const fn at(&self, index: u64) -> u64 {
        let mut x = if index < self.n {
            index
        } else {
            index % self.n
        };
        loop {
            x = x.wrapping_add(self.add) & self.mask;
            x = x.wrapping_mul(self.odd[0]) & self.mask;
            x ^= x >> self.shift;
            x = x.wrapping_mul(self.odd[1]) & self.mask;
            x ^= x >> self.shift;
            x = x.wrapping_mul(self.odd[2]) & self.mask;
            x ^= x >> self.shift;
            if x < self.n {
                return x;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_occurs_exactly_once() {
        for n in [1u64, 2, 3, 5, 8, 100, 255, 256, 257, 1000, 4096, 65_537] {
            for seed in 0..8 {
                let permutation = Permutation::new(n, Seed::new(seed));
                let mut seen = vec![false; usize::try_from(n).expect("small")];
                for i in 0..n {
                    let at = usize::try_from(permutation.at(i)).expect("small");
                    assert!(
                        !core::mem::replace(&mut seen[at], true),
                        "{at} twice of {n}"
                    );
                }
            }
        }
    }

    #[test]
    fn neighbours_are_scattered_and_seeds_differ() {
        let n = 1u64 << 20;
        let a = Permutation::new(n, Seed::new(1));
        let b = Permutation::new(n, Seed::new(2));
        let near = (0..10_000)
            .filter(|i| a.at(*i).abs_diff(a.at(i + 1)) < n / 100)
            .count();
        assert!(
            near < 600,
            "{near} of 10000 neighbours stay within 1 %, 200 expected"
        );
        let same = (0..10_000).filter(|i| a.at(*i) == b.at(*i)).count();
        assert!(same < 10, "{same} equal positions");
    }
}
