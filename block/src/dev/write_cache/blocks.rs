//! The blocks that a cache keeps: by number, and by age.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

use crate::flags::BioFlags;
use crate::op::Op;

/// What a block will be once it has gone down.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Data(Box<[u8]>),
    Zeroes { nounmap: bool },
    Discarded,
}

impl Content {
    /// How it goes down.
    pub(super) fn kind(&self) -> (Op, BioFlags) {
        match self {
            Self::Data(_) => (Op::Write, BioFlags::empty()),
            Self::Zeroes { nounmap: false } => (Op::WriteZeroes, BioFlags::empty()),
            Self::Zeroes { nounmap: true } => (Op::WriteZeroes, BioFlags::NOUNMAP),
            Self::Discarded => (Op::Discard, BioFlags::empty()),
        }
    }
}

/// Blocks by number. Each is in `by_age` as well, under the age it is noted with here.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    by_number: BTreeMap<u64, (u64, Content)>,
    by_age: BTreeMap<u64, u64>,
    /// The age of the next.
    next: u64,
}

impl Blocks {
    pub(super) fn len(&self) -> usize {
        self.by_number.len()
    }

    pub(super) fn get(&self, number: u64) -> Option<&Content> {
        self.by_number.get(&number).map(|(_, content)| content)
    }

    /// The first that is kept, from `number` on.
    pub(super) fn next_from(&self, number: u64) -> Option<u64> {
        self.by_number.range(number..).next().map(|(&at, _)| at)
    }

    /// The same, and the very first if there is none.
    pub(super) fn next_around(&self, number: u64) -> Option<u64> {
        self.next_from(number).or_else(|| self.next_from(0))
    }

    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.by_number.keys().copied()
    }

    /// The one that was written last longest ago.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.by_age.first_key_value().map(|(_, &number)| number)
    }

    pub(super) fn put(&mut self, number: u64, content: Content) {
        let age = self.next;
        self.next += 1;
        if let Some((old, _)) = self.by_number.insert(number, (age, content)) {
            self.by_age.remove(&old);
        }
        self.by_age.insert(age, number);
    }

    pub(super) fn take(&mut self, number: u64) {
        if let Some((age, _)) = self.by_number.remove(&number) {
            self.by_age.remove(&age);
        }
    }

    pub(super) fn clear(&mut self) {
        self.by_number.clear();
        self.by_age.clear();
    }
}
