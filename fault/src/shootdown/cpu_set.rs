//! Sets of CPUs: as a value, and as words that CPUs change together.
//!
//! | bit `n % 64` of word `n / 64` | meaning | written by |
//! |---|---|---|
//! | 0 | `cpu n` is not in the set | in an [`AtomicCpuSet`], whoever its owner says |
//! | 1 | it is | the same |
//!
//! The value is 128 bytes wide and lives where it is put: taking a snapshot allocates nothing.
#![forbid(unsafe_code)]

use alloc::boxed::Box;
use core::fmt;

use crate::sync::atomic::{AtomicU64, Ordering};

/// How many CPUs a machine can have.
pub const MAX_CPUS: u16 = 1024;

const WORDS: usize = MAX_CPUS as usize / 64;

/// A CPU of a machine: its index, from 0.
///
/// ```
/// use pageless_fault::shootdown::CpuId;
/// let cpu = CpuId::new(3);
/// assert_eq!(cpu.get(), 3);
/// assert_eq!(cpu.to_string(), "cpu 3");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuId(u16);

impl CpuId {
    /// The CPU with index `n`.
    ///
    /// # Panics
    ///
    /// `n` is [`MAX_CPUS`] or more.
    #[must_use]
    pub const fn new(n: u16) -> Self {
        assert!(n < MAX_CPUS, "a machine has at most 1024 CPUs");
        CpuId(n)
    }

    /// The index.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The index, to look into tables with.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    const fn word(self) -> usize {
        self.0 as usize / 64
    }

    const fn bit(self) -> u64 {
        1 << (self.0 % 64)
    }

    /// The CPU of bit `bit` in word `word`, both in range.
    const fn at(word: usize, bit: u32) -> Self {
        CpuId(word as u16 * 64 + bit as u16)
    }
}

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cpu {}", self.0)
    }
}

/// A set of CPUs, as a value.
///
/// ```
/// use pageless_fault::shootdown::{CpuId, CpuSet};
/// let mut set = CpuSet::all(3);
/// set.remove(CpuId::new(1));
/// assert_eq!(set.iter().map(CpuId::get).collect::<Vec<_>>(), [0, 2]);
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct CpuSet {
    words: [u64; WORDS],
    /// Bit `w` is set exactly if `words[w]` is not zero: a small set on a big machine is walked
    /// without looking at the words that are empty.
    filled: u16,
}

// One bit of `filled` for each word.
const _: () = assert!(WORDS <= u16::BITS as usize);

impl CpuSet {
    /// The set without members.
    #[must_use]
    pub const fn new() -> Self {
        CpuSet {
            words: [0; WORDS],
            filled: 0,
        }
    }

    /// CPUs 0 to `cpus - 1`.
    ///
    /// # Panics
    ///
    /// `cpus` is more than [`MAX_CPUS`].
    #[must_use]
    pub fn all(cpus: u16) -> Self {
        assert!(cpus <= MAX_CPUS, "a machine has at most {MAX_CPUS} CPUs");
        let mut set = CpuSet::new();
        for (w, word) in (0_u16..).zip(set.words.iter_mut()) {
            let members = cpus.saturating_sub(w * 64).min(64);
            if members > 0 {
                *word = u64::MAX >> (64 - members);
                set.filled |= 1 << w;
            }
        }
        set
    }

    fn set_word(&mut self, w: usize, word: u64) {
        self.words[w] = word;
        if word == 0 {
            self.filled &= !(1 << w);
        } else {
            self.filled |= 1 << w;
        }
    }

    /// Adds `cpu`; whether it is new.
    pub fn insert(&mut self, cpu: CpuId) -> bool {
        let old = self.words[cpu.word()];
        self.set_word(cpu.word(), old | cpu.bit());
        old & cpu.bit() == 0
    }

    /// Takes `cpu` out; whether it was in.
    pub fn remove(&mut self, cpu: CpuId) -> bool {
        let old = self.words[cpu.word()];
        self.set_word(cpu.word(), old & !cpu.bit());
        old & cpu.bit() != 0
    }

    /// Adds all members of `other`.
    pub fn insert_all(&mut self, other: &CpuSet) {
        for w in bits(u64::from(other.filled)) {
            self.set_word(w as usize, self.words[w as usize] | other.words[w as usize]);
        }
    }

    /// Takes all members of `other` out.
    pub fn remove_all(&mut self, other: &CpuSet) {
        for w in bits(u64::from(other.filled)) {
            self.set_word(
                w as usize,
                self.words[w as usize] & !other.words[w as usize],
            );
        }
    }

    /// Whether `cpu` is a member.
    #[must_use]
    pub const fn contains(&self, cpu: CpuId) -> bool {
        self.words[cpu.word()] & cpu.bit() != 0
    }

    /// Whether there are no members.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// How many members there are.
    #[must_use]
    pub fn len(&self) -> usize {
        bits(u64::from(self.filled))
            .map(|w| self.words[w as usize].count_ones() as usize)
            .sum()
    }

    /// The members, lowest first.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        Iter {
            set: self,
            filled: self.filled,
            word: 0,
            bits: 0,
        }
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(CpuId::get)).finish()
    }
}

impl Extend<CpuId> for CpuSet {
    fn extend<T: IntoIterator<Item = CpuId>>(&mut self, cpus: T) {
        for cpu in cpus {
            self.insert(cpu);
        }
    }
}

impl FromIterator<CpuId> for CpuSet {
    fn from_iter<T: IntoIterator<Item = CpuId>>(cpus: T) -> Self {
        let mut set = CpuSet::new();
        set.extend(cpus);
        set
    }
}

impl<'a> IntoIterator for &'a CpuSet {
    type Item = CpuId;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The members of a [`CpuSet`], lowest first.
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    set: &'a CpuSet,
    /// Words not yet begun.
    filled: u16,
    /// The word begun last.
    word: usize,
    /// What is left of it.
    bits: u64,
}

impl Iterator for Iter<'_> {
    type Item = CpuId;

    #[inline]
    fn next(&mut self) -> Option<CpuId> {
        if self.bits == 0 {
            if self.filled == 0 {
                return None;
            }
            self.word = self.filled.trailing_zeros() as usize;
            self.filled &= self.filled - 1;
            self.bits = self.set.words[self.word];
        }
        let bit = self.bits.trailing_zeros();
        self.bits &= self.bits - 1;
        Some(CpuId::at(self.word, bit))
    }
}

/// The positions of the ones in `word`, lowest first.
fn bits(mut word: u64) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        let bit = word.trailing_zeros();
        // Clears the lowest one; stays zero at the end.
        word &= word.wrapping_sub(1);
        (bit < u64::BITS).then_some(bit)
    })
}

/// A set of CPUs that CPUs change together.
///
/// Each membership is one bit and is read and written as one; a walk over several words is not one
/// instant. [`insert`](Self::insert) orders nothing: who publishes membership to be *seen* fences behind it
/// ([`Residency`](super::Residency) does).
pub struct AtomicCpuSet {
    words: Box<[AtomicU64]>,
    cpus: u16,
}

impl AtomicCpuSet {
    /// No members, and room for CPUs 0 to `cpus - 1`.
    ///
    /// # Panics
    ///
    /// `cpus` is more than [`MAX_CPUS`].
    #[must_use]
    pub fn new(cpus: u16) -> Self {
        assert!(cpus <= MAX_CPUS, "a machine has at most {MAX_CPUS} CPUs");
        AtomicCpuSet {
            words: (0..cpus.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            cpus,
        }
    }

    /// The word of `cpu`.
    fn word(&self, cpu: CpuId) -> &AtomicU64 {
        assert!(cpu.get() < self.cpus, "{cpu} of {}", self.cpus);
        &self.words[cpu.word()]
    }

    /// Adds `cpu`; whether it is new.
    ///
    /// # Panics
    ///
    /// There is no room for `cpu`. So with the other methods that take one.
    pub fn insert(&self, cpu: CpuId) -> bool {
        // Relaxed: orders nothing by itself. As a read-modify-write it continues the release sequence
        // of a `remove` in the same word.
        self.word(cpu).fetch_or(cpu.bit(), Ordering::Relaxed) & cpu.bit() == 0
    }

    /// Takes `cpu` out; whether it was in. Whoever sees it gone sees what was done before.
    pub fn remove(&self, cpu: CpuId) -> bool {
        // Release: pairs with the Acquire of `contains`, `snapshot` and `for_each`.
        self.word(cpu).fetch_and(!cpu.bit(), Ordering::Release) & cpu.bit() != 0
    }

    /// Whether `cpu` is a member.
    #[must_use]
    pub fn contains(&self, cpu: CpuId) -> bool {
        // Acquire: pairs with the Release in `remove`.
        self.word(cpu).load(Ordering::Acquire) & cpu.bit() != 0
    }

    /// Whether `cpu` is a member, asked by the only one that adds it and takes it out: it sees its own
    /// last word on the matter, and needs no ordering for that.
    pub(super) fn contains_own(&self, cpu: CpuId) -> bool {
        self.word(cpu).load(Ordering::Relaxed) & cpu.bit() != 0
    }

    /// The members, each as of some moment during the call.
    #[must_use]
    pub fn snapshot(&self) -> CpuSet {
        let mut set = CpuSet::new();
        for (w, word) in self.words.iter().enumerate() {
            // Acquire: pairs with the Release in `remove`.
            set.set_word(w, word.load(Ordering::Acquire));
        }
        set
    }

    /// Calls `f` with each member, lowest first, each as of some moment during the call.
    pub fn for_each(&self, mut f: impl FnMut(CpuId)) {
        for (w, word) in self.words.iter().enumerate() {
            // Acquire: pairs with the Release in `remove`.
            for bit in bits(word.load(Ordering::Acquire)) {
                f(CpuId::at(w, bit));
            }
        }
    }
}

impl fmt::Debug for AtomicCpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot().fmt(f)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// The naive set that a [`CpuSet`] must agree with.
    fn agree(set: &CpuSet, oracle: &BTreeSet<u16>) {
        let members: Vec<u16> = set.iter().map(CpuId::get).collect();
        assert_eq!(members, oracle.iter().copied().collect::<Vec<_>>());
        assert_eq!(set.len(), oracle.len());
        assert_eq!(set.is_empty(), oracle.is_empty());
    }

    #[test]
    fn all_ends_where_it_should_on_every_side_of_a_word() {
        for n in [0, 1, 63, 64, 65, 127, 128, 1000, 1023, 1024] {
            agree(&CpuSet::all(n), &(0..n).collect());
        }
    }

    #[test]
    #[should_panic(expected = "cpu 2 of 2")]
    fn a_cpu_beyond_the_machine_is_no_silent_member() {
        AtomicCpuSet::new(2).insert(CpuId::new(2));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            cases: if cfg!(miri) { 2 } else { 256 },
            ..ProptestConfig::default()
        })]

        #[test]
        fn a_set_agrees_with_a_tree(ops in prop::collection::vec((any::<bool>(), 0..MAX_CPUS), 0..64)) {
            let (mut set, mut oracle) = (CpuSet::new(), BTreeSet::new());
            let shared = AtomicCpuSet::new(MAX_CPUS);
            for (insert, n) in ops {
                let cpu = CpuId::new(n);
                if insert {
                    let new = oracle.insert(n);
                    prop_assert_eq!(set.insert(cpu), new);
                    prop_assert_eq!(shared.insert(cpu), new);
                } else {
                    let old = oracle.remove(&n);
                    prop_assert_eq!(set.remove(cpu), old);
                    prop_assert_eq!(shared.remove(cpu), old);
                }
                prop_assert_eq!(set.contains(cpu), insert);
                prop_assert_eq!(shared.contains(cpu), insert);
            }
            agree(&set, &oracle);
            prop_assert_eq!(&shared.snapshot(), &set);
            let mut walked = CpuSet::new();
            shared.for_each(|cpu| assert!(walked.insert(cpu)));
            prop_assert_eq!(walked, set);
        }

        #[test]
        fn union_and_difference_agree_with_a_tree(
            a in prop::collection::btree_set(0..MAX_CPUS, 0..40),
            b in prop::collection::btree_set(0..MAX_CPUS, 0..40),
        ) {
            let set = |of: &BTreeSet<u16>| of.iter().copied().map(CpuId::new).collect::<CpuSet>();
            let mut union = set(&a);
            union.insert_all(&set(&b));
            agree(&union, &a.union(&b).copied().collect());
            let mut difference = set(&a);
            difference.remove_all(&set(&b));
            agree(&difference, &a.difference(&b).copied().collect());
        }
    }
}
