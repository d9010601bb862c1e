//! Which page of the device is stored where.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;

use pageless_fault::sync::{Mutex, MutexGuard};
use pageless_vmap::compress::Stored;

/// Pages that share a lock, and an allocation: 2 MiB of the device.
const GROUP: u64 = 512;

type Group = Box<[Option<Stored>]>;

/// A place for each page. Only groups in which something was ever stored take memory.
#[derive(Debug)]
pub(super) struct Table {
    groups: Box<[Mutex<Option<Group>>]>,
}

impl Table {
    /// For so many pages; `None` if there is no memory for it.
    pub(super) fn try_new(pages: u64) -> Option<Self> {
        let count = usize::try_from(pages.div_ceil(GROUP)).ok()?;
        let mut groups = Vec::new();
        groups.try_reserve_exact(count).ok()?;
        groups.resize_with(count, || Mutex::new(None));
        Some(Self {
            groups: groups.into_boxed_slice(),
        })
    }

    fn group(&self, page: u64) -> Option<MutexGuard<'_, Option<Group>>> {
        let group = usize::try_from(page / GROUP).ok()?;
        Some(self.groups.get(group)?.lock())
    }

    /// Shows `look` what is stored of `page`; it stays as long as `look` runs.
    pub(super) fn with<R>(&self, page: u64, look: impl FnOnce(Option<&Stored>) -> R) -> R {
        let group = self.group(page);
        let places = group.as_ref().and_then(|group| group.as_ref());
        look(places.and_then(|places| places.get((page % GROUP) as usize)?.as_ref()))
    }

    /// Stores `stored` for `page`, and answers what there was; or `stored` itself, if there is no memory or no such page.
    pub(super) fn replace(&self, page: u64, stored: Stored) -> Result<Option<Stored>, Stored> {
        let Some(mut group) = self.group(page) else {
            return Err(stored);
        };
        if group.is_none() {
            let mut places = Vec::new();
            if places.try_reserve_exact(GROUP as usize).is_err() {
                return Err(stored);
            }
            places.resize_with(GROUP as usize, || None);
            *group = Some(places.into_boxed_slice());
        }
        match group
            .as_mut()
            .and_then(|places| places.get_mut((page % GROUP) as usize))
        {
            Some(place) => Ok(place.replace(stored)),
            None => Err(stored),
        }
    }

    /// Empties the places of `pages`, and hands what was there to `freed`. A group without anything in it stays allocated.
    pub(super) fn clear(&self, pages: Range<u64>, mut freed: impl FnMut(Stored)) {
        let mut page = pages.start;
        while page < pages.end {
            let next = ((page / GROUP + 1) * GROUP).min(pages.end);
            if let Some(mut group) = self.group(page)
                && let Some(places) = group.as_mut()
            {
                let last = (next - 1) % GROUP;
                let places = places.get_mut((page % GROUP) as usize..=last as usize);
                let stored = places.into_iter().flatten().filter_map(Option::take);
                stored.for_each(&mut freed);
            }
            page = next;
        }
    }

    /// Empties every place, and gives the groups' memory back.
    pub(super) fn reset(&mut self, mut freed: impl FnMut(Stored)) {
        for group in &self.groups {
            let places = group.lock().take();
            let stored = places.into_iter().flatten().flatten();
            stored.for_each(&mut freed);
        }
    }
}
