//! A cache of objects of one size.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use pageless_fault::sync::Mutex;
use pageless_fault::sync::atomic::Ordering;
use pageless_fault::{FrameMemory, MaySleep, VirtAddr, Vspace, Window};
use pageless_pfn::{FrameCount, Pfn};

use super::config::SlabConfig;
use super::counters::{Counts, SlabStatistics, count, read};
use super::error::{SlabAllocError, SlabConfigError, SlabFreeError};
use super::layout::Layout;
use super::node::{CpuSlab, Held, Node};
use super::record::{Freelist, Slab};
use crate::compound::Pages;
use crate::frames::Gfp;

/// A cache of objects of one size.
///
/// Dropped, it gives back the slabs of which nobody has an object; the others stay out for good, since somebody may write to them.
pub struct SlabCache<M, S, W>(pub(super) Shared<M, S, W>)
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static;

pub(super) struct Shared<M: FrameMemory, S: Vspace, W: Window> {
    pub(super) pages: Arc<Pages<M, S, W>>,
    pub(super) config: SlabConfig,
    pub(super) layout: Layout,
    /// By CPU. Who finds one locked goes without it.
    pub(super) cpus: Box<[Mutex<Option<CpuSlab>>]>,
    pub(super) node: Mutex<Node>,
    counts: Counts,
}

impl<M, S, W> SlabCache<M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    /// A cache without slabs.
    ///
    /// # Errors
    ///
    /// See [`SlabConfigError`].
    pub fn new(pages: Arc<Pages<M, S, W>>, config: SlabConfig) -> Result<Self, SlabConfigError> {
        let layout = Layout::of(&config)?;
        let cpus = pages.areas().space().cpus();
        Ok(SlabCache(Shared {
            pages,
            config,
            layout,
            cpus: (0..cpus.max(1)).map(|_| Mutex::new(None)).collect(),
            node: Mutex::new(Node::default()),
            counts: Counts::default(),
        }))
    }

    /// An object. What `gfp` says is meant for a new slab, if there has to be one; it may stand together through a mapping in any case.
    ///
    /// # Errors
    ///
    /// See [`SlabAllocError`].
    #[track_caller]
    pub fn alloc(&self, gfp: &Gfp<'_>) -> Result<VirtAddr, SlabAllocError> {
        let cache = &self.0;
        if gfp.is_zeroed() && cache.config.constructor.is_some() {
            return Err(SlabAllocError::ZeroedConstructed);
        }
        let object = match cache.take() {
            Some(object) => object,
            None => cache.grow(gfp)?,
        };
        count(&cache.counts.allocated);
        if gfp.is_zeroed() {
            cache.clear(object);
        }
        Ok(object)
    }

    /// Takes an object back. Never sleeps; if its slab goes back with it, that does not either.
    ///
    /// # Errors
    ///
    /// See [`SlabFreeError`].
    pub fn free(&self, object: VirtAddr) -> Result<(), SlabFreeError> {
        let cache = &self.0;
        let nobody = SlabFreeError::NotAnObject { address: object };
        let head = cache.pages.virt_to_head_page(object).ok_or(nobody)?;
        if let Some(mut own) = cache.cpus[cache.current()].try_lock()
            && let Some(own) = own.as_mut()
            && own.slab.head == head
        {
            let given = cache.give(&own.slab, &mut own.free, object);
            if has_come_back(given) {
                count(&cache.counts.freed_here);
                count(&cache.counts.freed);
            }
            return given;
        }
        let mut node = cache.node.lock();
        let held = node.slabs.get_mut(&head).ok_or(nobody)?;
        let given = cache.give(&held.slab, &mut held.free, object);
        let is_everybodys = held.cpu.is_none();
        let mut gone = None;
        if has_come_back(given) {
            count(&cache.counts.freed);
            if is_everybodys {
                let serial = held.slab.serial;
                if node.partial.len() >= cache.config.min_partial {
                    gone = node.remove_empty(head, cache.layout.objects);
                }
                if gone.is_none() {
                    node.partial.insert(serial, head);
                }
            }
        }
        drop(node);
        cache.give_back(gone);
        given
    }

    /// Takes their slabs from all CPUs, and gives back every slab that is empty (`kmem_cache_shrink`). Answers how many frames that was;
    /// those of slabs that stood together through a mapping wait for a shootdown.
    pub fn shrink(&self, _ctx: &MaySleep) -> FrameCount {
        let cache = &self.0;
        for slot in &cache.cpus {
            let mut slot = slot.lock();
            if let Some(own) = slot.take() {
                cache.thaw(own);
            }
        }
        let mut node = cache.node.lock();
        let heads: Vec<Pfn> = node.partial.values().copied().collect();
        let objects = cache.layout.objects;
        let gone: Vec<Pfn> = heads
            .into_iter()
            .filter_map(|head| node.remove_empty(head, objects))
            .collect();
        drop(node);
        let frames = gone.len() as u64 * cache.layout.order.frames().get();
        cache.give_back(gone);
        FrameCount::new(frames)
    }

    /// What it has, and what it has done so far.
    pub fn statistics(&self) -> SlabStatistics {
        let cache = &self.0;
        let node = cache.node.lock();
        let slabs = node.slabs.values();
        SlabStatistics {
            name: cache.config.name,
            object: cache.config.object,
            objects_per_slab: cache.layout.objects,
            order: cache.layout.order,
            slabs: node.slabs.len() as u64,
            cpu_slabs: slabs.clone().filter(|held| held.cpu.is_some()).count() as u64,
            partial: node.partial.len() as u64,
            out: slabs.clone().map(|held| u64::from(held.slab.out())).sum(),
            damaged: slabs.map(|held| u64::from(held.slab.damaged())).sum(),
            allocated: read(&cache.counts.allocated),
            allocated_here: read(&cache.counts.allocated_here),
            freed: read(&cache.counts.freed),
            freed_here: read(&cache.counts.freed_here),
            overruns: read(&cache.counts.overruns),
            slabs_made: read(&cache.counts.slabs_made),
            slabs_freed: read(&cache.counts.slabs_freed),
        }
    }
}

/// An object that was written beyond its end is back all the same.
fn has_come_back(given: Result<(), SlabFreeError>) -> bool {
    matches!(given, Ok(()) | Err(SlabFreeError::Overrun { .. }))
}

impl<M, S, W> Shared<M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    /// Whose slab to look at first.
    fn current(&self) -> usize {
        let cpu = self.pages.areas().space().current();
        usize::from(cpu.get()) % self.cpus.len()
    }

    /// An object of the slabs there are.
    fn take(&self) -> Option<VirtAddr> {
        let cpu = self.current();
        let Some(mut slot) = self.cpus[cpu].try_lock() else {
            return self.take_of_all();
        };
        loop {
            if let Some(own) = slot.as_mut()
                && let Some(object) = self.pop(&own.slab, &mut own.free)
            {
                count(&self.counts.allocated_here);
                return Some(object);
            }
            let mut node = self.node.lock();
            if let Some(own) = slot.as_mut() {
                let held = node.held(own.slab.head);
                if held.free.len > 0 {
                    // What others gave back meanwhile.
                    own.free = core::mem::take(&mut held.free);
                    continue;
                }
                held.cpu = None;
            }
            *slot = node.freeze(cpu);
            if slot.is_none() {
                return None;
            }
        }
    }

    /// An object of a slab that no CPU has to itself.
    fn take_of_all(&self) -> Option<VirtAddr> {
        let mut node = self.node.lock();
        loop {
            let (&serial, &head) = node.partial.first_key_value()?;
            let held = node.held(head);
            let object = self.pop(&held.slab, &mut held.free);
            if held.free.len == 0 {
                node.partial.remove(&serial);
            }
            if object.is_some() {
                return object;
            }
        }
    }

    /// An object of a new slab. Its maker has the first one before anybody sees the slab, so nobody makes slabs for others for ever.
    #[track_caller]
    fn grow(&self, gfp: &Gfp<'_>) -> Result<VirtAddr, SlabAllocError> {
        let gfp = gfp.virtual_fallback();
        let block = self.pages.alloc(&gfp, self.layout.order);
        let block = block.map_err(SlabAllocError::Slab)?;
        let base = block.address();
        let serial = self.counts.slabs_made.fetch_add(1, Ordering::Relaxed);
        let objects = self.layout.objects;
        let slab = Arc::new(Slab::new(serial, block.into_raw(), base, objects));
        let mut free = Freelist::default();
        for index in (0..self.layout.objects).rev() {
            let object = self.layout.address(base, index);
            self.construct(object);
            self.set_link(object, free.first);
            free.first = index + 1;
            free.len += 1;
        }
        let Some(object) = self.pop(&slab, &mut free) else {
            unreachable!("a new slab without objects");
        };
        self.publish(slab, free);
        Ok(object)
    }

    /// Shows a new slab to everybody, or to this CPU if that has none.
    fn publish(&self, slab: Arc<Slab>, free: Freelist) {
        let cpu = self.current();
        let slot = self.cpus[cpu].try_lock();
        let slot = slot.filter(|slot| slot.is_none());
        let mut node = self.node.lock();
        let head = slab.head;
        let mut held = Held {
            slab: Arc::clone(&slab),
            free,
            cpu: None,
        };
        if let Some(mut slot) = slot {
            held.cpu = Some(cpu);
            held.free = Freelist::default();
            *slot = Some(CpuSlab { slab, free });
        } else if free.len > 0 {
            node.partial.insert(held.slab.serial, head);
        }
        node.slabs.insert(head, held);
    }

    /// The first object of a list that is fit to be given out. Objects that are not are withdrawn.
    fn pop(&self, slab: &Slab, free: &mut Freelist) -> Option<VirtAddr> {
        loop {
            let index = self.unlink(slab, free)?;
            let object = self.layout.address(slab.base, index);
            if self.is_untouched(object) {
                return Some(object);
            }
            slab.withdraw(index);
        }
    }

    /// Takes the first object off a list. A link that leads to none, or to one that is out, has been overwritten: what was behind it is lost.
    fn unlink(&self, slab: &Slab, free: &mut Freelist) -> Option<u32> {
        let lose = |free: &mut Freelist| {
            slab.lost.fetch_add(free.len, Ordering::Relaxed);
            *free = Freelist::default();
        };
        let index = free.first.checked_sub(1)?;
        if index >= self.layout.objects || !slab.take(index) {
            lose(free);
            return None;
        }
        free.first = self.link(self.layout.address(slab.base, index));
        free.len -= 1;
        if (free.first == 0) != (free.len == 0) {
            lose(free);
        }
        Some(index)
    }

    /// Puts an object in front of a list.
    fn give(
        &self,
        slab: &Slab,
        free: &mut Freelist,
        object: VirtAddr,
    ) -> Result<(), SlabFreeError> {
        let index = self.layout.index(slab.base, object);
        let index = index.ok_or(SlabFreeError::NotAnObject { address: object })?;
        if !slab.give(index) {
            return Err(SlabFreeError::AlreadyFree { address: object });
        }
        let is_sound = self.settle(object);
        self.set_link(object, free.first);
        free.first = index + 1;
        free.len += 1;
        if is_sound {
            Ok(())
        } else {
            count(&self.counts.overruns);
            Err(SlabFreeError::Overrun { address: object })
        }
    }

    /// What a CPU had to itself is everybody's again.
    fn thaw(&self, mut own: CpuSlab) {
        let mut node = self.node.lock();
        let head = own.slab.head;
        let held = node.held(head);
        while let Some(index) = self.unlink(&own.slab, &mut own.free) {
            let object = self.layout.address(own.slab.base, index);
            own.slab.give(index);
            self.set_link(object, held.free.first);
            held.free.first = index + 1;
            held.free.len += 1;
        }
        held.cpu = None;
        if held.free.len > 0 {
            node.partial.insert(own.slab.serial, head);
        }
    }

    /// Slabs that nobody can find any more go back to where they came from.
    fn give_back(&self, gone: impl IntoIterator<Item = Pfn>) {
        for head in gone {
            count(&self.counts.slabs_freed);
            drop(self.pages.assume(head));
        }
    }

    fn clear(&self, object: VirtAddr) {
        const ZEROES: [u8; 256] = [0; 256];
        let mut done = 0;
        while let Some(left) = self
            .layout
            .object
            .checked_sub(done)
            .filter(|&left| left > 0)
        {
            let step = left.min(ZEROES.len() as u64);
            if let Some(at) = object.checked_add(done) {
                self.put(at, &ZEROES[..step as usize]);
            }
            done += step;
        }
    }
}

impl<M, S, W> Drop for SlabCache<M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    fn drop(&mut self) {
        let cache = &self.0;
        let slabs = core::mem::take(&mut cache.node.lock().slabs);
        let unused = slabs.into_iter().filter(|(_, held)| held.slab.out() == 0);
        cache.give_back(unused.map(|(head, _)| head));
    }
}

impl<M, S, W> fmt::Debug for SlabCache<M, S, W>
where
    M: FrameMemory + 'static,
    S: Vspace + 'static,
    W: Window + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SlabCache")
            .field(&self.statistics())
            .finish()
    }
}
