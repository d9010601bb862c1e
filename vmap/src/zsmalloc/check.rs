//! The books against themselves.

use alloc::collections::BTreeSet;

use pageless_fault::sync::atomic::Ordering;

use super::pool::{Class, Zsmalloc};
use super::slot;
use super::source::FrameSource;
use super::table::FREE;
use super::zspage::{Group, Lists, Zspage};

/// What one class was found to have.
#[derive(Default)]
struct Found {
    groups: [u32; Group::COUNT],
    zspages: u32,
    used: u64,
    bytes: u64,
}

/// What must not be found twice.
#[derive(Default)]
struct Seen {
    frames: BTreeSet<u64>,
    slots: BTreeSet<u32>,
}

impl<F: FrameSource> Zsmalloc<F> {
    /// Checks lists, counts, headers and slots against each other. Reads every header.
    ///
    /// # Errors
    ///
    /// Names what does not hold. Only while nobody uses the pool is an error one.
    pub fn self_check(&self) -> Result<(), &'static str> {
        let mut seen = Seen::default();
        for class in self.classes() {
            self.check_class(class, &class.lists.lock(), &mut seen)?;
        }
        let slots = 0..self.slots.len();
        let used = slots
            .filter(|slot| self.slot(*slot).load(Ordering::Relaxed) & FREE != FREE)
            .count();
        if used != seen.slots.len() {
            return Err("a slot without an object");
        }
        Ok(())
    }

    fn check_class(
        &self,
        class: &Class,
        lists: &Lists,
        seen: &mut Seen,
    ) -> Result<(), &'static str> {
        if [Group::ASIDE, Group::SOURCE]
            .iter()
            .any(|group| lists.head(*group).is_some())
        {
            return Err("a compaction has left a zspage aside");
        }
        let mut found = Found::default();
        for group in Group::all() {
            let (mut next, mut before) = (lists.head(group), None);
            while let Some(id) = next {
                let zspage = self.zspage(class, id);
                if zspage.group() != group || zspage.fullness() != group {
                    return Err("a zspage in a list of others");
                }
                if Lists::before(&zspage) != before {
                    return Err("a list that does not lead back");
                }
                self.check_zspage(class, &zspage, &mut found, seen)?;
                (before, next) = (Some(id), Lists::behind(&zspage));
            }
        }
        if found.groups != lists.groups || found.zspages != lists.zspages {
            return Err("zspages are miscounted");
        }
        if found.groups[Group::EMPTY.index()] != 0 {
            return Err("a zspage without objects");
        }
        if found.used != lists.used || found.bytes != lists.bytes {
            return Err("objects are miscounted");
        }
        Ok(())
    }

    fn check_zspage(
        &self,
        class: &Class,
        zspage: &Zspage<'_>,
        found: &mut Found,
        seen: &mut Seen,
    ) -> Result<(), &'static str> {
        found.zspages += 1;
        found.groups[zspage.fullness().index()] += 1;
        for nth in 0..class.shape.pages {
            if !seen.frames.insert(zspage.pfn(nth.into()).get()) {
                return Err("a frame in two places");
            }
        }
        let mut used = 0;
        let mut next = zspage.next_used(0);
        while let Some(index) = next {
            let owner = self.owner(zspage, index);
            let Some(owner) = owner.map_err(|_| "a frame that the memory does not have")? else {
                return Err("an object without a header");
            };
            if owner >= self.slots.len() || !seen.slots.insert(owner) {
                return Err("two objects of one handle, or of none");
            }
            let slot = self.slot(owner);
            let location = slot::peek(slot);
            if (location.zspage, location.index) != (zspage.id, index) {
                return Err("a handle that leads elsewhere");
            }
            if usize::from(location.len) > class.shape.capacity() {
                return Err("an object larger than its place");
            }
            if !slot::is_unpinned(slot) {
                return Err("an object that somebody holds");
            }
            used += 1;
            found.bytes += u64::from(location.len);
            next = zspage.next_used(index + 1);
        }
        if used != u64::from(zspage.inuse()) {
            return Err("a zspage that miscounts its objects");
        }
        found.used += used;
        Ok(())
    }
}
