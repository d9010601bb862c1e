//! The bios of a request, in the order of their bytes: one nearly always, so the first has a place of its own.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::bio;

/// One bio, or several that were merged.
#[derive(Default)]
pub(crate) struct Bios {
    /// `None` only in a request that is not in use, or has none: a flush, or a nested one.
    first: Option<Box<bio::Inner>>,
    #[expect(clippy::vec_box, reason = "the boxes are what was handed in")]
    rest: Vec<Box<bio::Inner>>,
}

impl Bios {
    pub(crate) const fn new() -> Self {
        Self {
            first: None,
            rest: Vec::new(),
        }
    }

    /// Makes it one bio, where there was none.
    #[inline]
    pub(crate) fn set(&mut self, bio: Box<bio::Inner>) {
        debug_assert!(self.first.is_none(), "the request is in use");
        self.first = Some(bio);
    }

    pub(crate) fn push_back(&mut self, bio: Box<bio::Inner>) {
        match self.first {
            Some(_) => self.rest.push(bio),
            None => self.first = Some(bio),
        }
    }

    pub(crate) fn push_front(&mut self, bio: Box<bio::Inner>) {
        if let Some(second) = self.first.replace(bio) {
            self.rest.insert(0, second);
        }
    }

    #[inline]
    pub(crate) fn first(&self) -> Option<&bio::Inner> {
        self.first.as_deref()
    }

    pub(crate) fn last(&self) -> Option<&bio::Inner> {
        self.rest.last().map(|bio| &**bio).or(self.first())
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    /// Those after the first.
    #[inline]
    pub(crate) fn rest(&self) -> &[Box<bio::Inner>] {
        &self.rest
    }

    #[inline]
    pub(crate) fn take_first(&mut self) -> Option<Box<bio::Inner>> {
        self.first.take()
    }

    /// Those after the first, to be taken out. The room stays, if it is given back.
    #[expect(clippy::vec_box, reason = "the boxes are what was handed in")]
    pub(crate) fn rest_mut(&mut self) -> &mut Vec<Box<bio::Inner>> {
        &mut self.rest
    }
}
