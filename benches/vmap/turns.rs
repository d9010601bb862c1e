//! Samples of several sides that each answer several figures.

use super::ratios::{Figure, Pairs};

/// Takes `pairs` samples of either side, in the order A B, B A, ..., after one of each that is not kept: for each of the `N` figures
/// that a sample has, the pairs of it.
pub(crate) fn alternate<const N: usize>(
    pairs: usize,
    mut ours: impl FnMut() -> [f64; N],
    mut theirs: impl FnMut() -> [f64; N],
) -> [Pairs; N] {
    ours();
    theirs();
    let mut taken: Vec<([f64; N], [f64; N])> = Vec::with_capacity(pairs);
    for pair in 0..pairs {
        if pair % 2 == 0 {
            let one = ours();
            taken.push((one, theirs()));
        } else {
            let other = theirs();
            taken.push((ours(), other));
        }
    }
    core::array::from_fn(|n| {
        Pairs::taken(
            taken.iter().map(|(ours, _)| ours[n]).collect(),
            taken.iter().map(|(_, theirs)| theirs[n]).collect(),
        )
    })
}

/// Takes `rounds` samples of each of `sides`, each round beginning with another one, after a round that is not kept.
pub(crate) fn in_turn<const N: usize>(
    rounds: usize,
    sides: [&mut dyn FnMut() -> f64; N],
) -> [Vec<f64>; N] {
    let mut taken = [const { Vec::new() }; N];
    for round in 0..=rounds {
        for n in 0..N {
            let side = (n + round) % N;
            let sample = sides[side]();
            if round > 0 {
                taken[side].push(sample);
            }
        }
    }
    taken
}

/// The median.
pub(crate) fn median(values: &[f64]) -> f64 {
    let ones = vec![1.0; values.len()];
    Pairs::taken(values.to_vec(), ones)
        .figure(Figure::Cost)
        .median
}
