//! What one CPU does all the time: maps frames in every way there is, lets others read them, takes them back, unmaps them in every way
//! there is, and reads what others publish.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering};

use pageless_fault::sim::Cpu;
use pageless_fault::{FrameMemory, MaySleep, Protection, VirtAddr, Vspace, WindowOffset};
use pageless_pfn::{FrameCount, Pfn, PfnFlags, PfnT};
use pageless_vmap::area::{Aliased, AreaKind, RamMapping, VunmapError};
use pageless_vmap::frames::{Context, Gfp, Order, PageBlock};
use pageless_vmap::zsmalloc::{Handle, MapPolicy};

use crate::slots::{Lease, Slot};
use crate::world::{Returned, World};

/// Slots of each CPU.
pub(crate) const SLOTS: usize = 2;
/// Bytes of an object that crosses from one frame into the next.
const OBJECT: usize = 3000;

/// What is unmapped, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Vunmap,
    VunmapAtomic,
    Vfree,
    VfreeAtomic,
    VmUnmapRam,
    CompoundPut,
    CompoundDropAtomic,
    CompoundSplit,
    PairUnmap,
}

impl Kind {
    pub(crate) const ALL: [Kind; 9] = [
        Kind::Vunmap,
        Kind::VunmapAtomic,
        Kind::Vfree,
        Kind::VfreeAtomic,
        Kind::VmUnmapRam,
        Kind::CompoundPut,
        Kind::CompoundDropAtomic,
        Kind::CompoundSplit,
        Kind::PairUnmap,
    ];
}

/// What all CPUs did together, and what they saw. Relaxed: read when all have ended.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Of each kind of unmapping, how often.
    unmapped: [AtomicU64; Kind::ALL.len()],
    mapped: AtomicU64,
    read: AtomicU64,
    refused: AtomicU64,
    /// Reads, within a lease, of something else than was written there.
    wrong: AtomicU64,
    /// Accesses, within a lease, that found no translation.
    faults: AtomicU64,
}

impl Tally {
    pub(crate) fn unmapped(&self, kind: Kind) -> u64 {
        self.unmapped[kind as usize].load(Ordering::Relaxed)
    }

    /// Mappings, unmappings and looks at what is mapped.
    pub(crate) fn operations(&self) -> u64 {
        let unmapped: u64 = Kind::ALL.iter().map(|kind| self.unmapped(*kind)).sum();
        unmapped + self.mapped.load(Ordering::Relaxed) + self.read.load(Ordering::Relaxed)
    }

    /// Mappings that came to nothing: no memory, no addresses, no window.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// What a lease must rule out.
    pub(crate) fn wrong(&self) -> u64 {
        self.wrong.load(Ordering::Relaxed) + self.faults.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, other: &Tally) {
        let add = |to: &AtomicU64, from: &AtomicU64| {
            to.fetch_add(from.load(Ordering::Relaxed), Ordering::Relaxed);
        };
        for (to, from) in self.unmapped.iter().zip(&other.unmapped) {
            add(to, from);
        }
        add(&self.mapped, &other.mapped);
        add(&self.read, &other.read);
        add(&self.refused, &other.refused);
        add(&self.wrong, &other.wrong);
        add(&self.faults, &other.faults);
    }
}

fn count(what: &AtomicU64) {
    what.fetch_add(1, Ordering::Relaxed);
}

/// What a CPU has mapped.
enum Mine {
    /// An area with references to frames.
    Mapped(VirtAddr),
    /// An area that owns its frames.
    Allocated(VirtAddr),
    Ram(RamMapping, Vec<PageBlock>),
    Block(Pfn),
}

/// A CPU at work.
pub(crate) struct Worker<'w> {
    world: &'w World,
    slots: &'w [Slot],
    tally: &'w Tally,
    cpu: &'w Cpu,
    ctx: MaySleep,
    random: fastrand::Rng,
    mine: [Option<Mine>; SLOTS],
    /// Small mappings that wait for a purge.
    limbo: Vec<Aliased<Vec<PageBlock>>>,
    objects: Vec<(Handle, u8)>,
    made: u64,
}

impl<'w> Worker<'w> {
    pub(crate) fn new(
        world: &'w World,
        slots: &'w [Slot],
        tally: &'w Tally,
        cpu: &'w Cpu,
        seed: u64,
    ) -> Self {
        let seed = seed ^ (u64::from(cpu.id().get()) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Worker {
            world,
            slots,
            tally,
            cpu,
            ctx: MaySleep::claim(),
            random: fastrand::Rng::with_seed(seed),
            mine: [const { None }; SLOTS],
            limbo: Vec::new(),
            objects: Vec::new(),
            made: 0,
        }
    }

    pub(crate) fn work(&mut self, turns: u64) {
        for _ in 0..turns {
            match self.random.u32(..32) {
                0..17 => self.look(),
                17..28 => self.turn_over(),
                28..30 => self.pair(),
                30 => {
                    // Told by the books: another CPU's shootdown may have failed.
                    let _ = self.world.areas.purge(&self.ctx);
                }
                _ if self.random.u32(..8) == 0 => self.cpu.idle(self.random.u32(1..3)),
                _ => drop(self.world.store.compact()),
            }
        }
    }

    /// Gives everything back.
    pub(crate) fn end(mut self) {
        for n in 0..SLOTS {
            self.take_back(n);
        }
        for (handle, _) in core::mem::take(&mut self.objects) {
            if self.world.store.free(handle).is_err() {
                count(&self.tally.wrong);
            }
        }
        let _ = self.world.areas.purge(&self.ctx);
        self.collect();
        let all = self.limbo.is_empty() || !self.world.all_proved;
        assert!(all, "a purge that covers not all of it");
    }

    fn own(&self, n: usize) -> &'w Slot {
        &self.slots[self.cpu.id().index() * SLOTS + n]
    }

    fn token(&mut self) -> u64 {
        self.made += 1;
        (u64::from(self.cpu.id().get()) + 1) << 48 | self.made << 8
    }

    // ---- what others have published ----

    fn look(&mut self) {
        let slot = &self.slots[self.random.usize(..self.slots.len())];
        if let Some((head, token)) = slot.head()
            && self.random.bool()
        {
            return self.look_by_reference(slot, head, token);
        }
        let Some(reader) = slot.enter() else {
            return;
        };
        count(&self.tally.read);
        let Lease { at, pages, token } = reader.lease;
        let page = self.random.u64(..pages);
        self.expect(at, page, token);
        // A word that is this CPU's own as long as it reads.
        let own = 64 + 8 * u64::from(self.cpu.id().get());
        let Some(at) = at.checked_add(page * 4096 + own) else {
            return;
        };
        let tag = self.random.u64(..).to_le_bytes();
        let space = self.world.areas.space();
        let mut seen = [0; 8];
        if space.write(at, &tag).is_err() || space.read(at, &mut seen).is_err() {
            count(&self.tally.faults);
        } else if seen != tag {
            count(&self.tally.wrong);
        }
    }

    fn expect(&self, at: WindowOffset, page: u64, token: u64) {
        let mut seen = [0; 8];
        let at = at.checked_add(page * 4096).expect("a page of a lease");
        match self.world.areas.space().read(at, &mut seen) {
            Ok(()) if u64::from_le_bytes(seen) == token + page => {}
            Ok(()) => count(&self.tally.wrong),
            Err(_) => count(&self.tally.faults),
        }
    }

    /// A reference of one's own to a block, which may be ending.
    fn look_by_reference(&mut self, slot: &Slot, head: u64, token: u64) {
        let pfn = Pfn::try_new(head).expect("the head of a block");
        let Some(page) = self.world.pages.get_page(pfn) else {
            return;
        };
        // Still the same block? Then it stays until the reference goes.
        if slot.head() == Some((head, token)) {
            count(&self.tally.read);
            let n = self.random.u64(..page.order().frames().get());
            let mut seen = [0; 8];
            match page.read(n * 4096, &mut seen) {
                Ok(()) if u64::from_le_bytes(seen) == token + n => {}
                Ok(()) => count(&self.tally.wrong),
                Err(_) => count(&self.tally.faults),
            }
        }
        // It may be the last one.
        if self.random.bool() {
            page.put(&self.ctx);
        } else {
            self.cpu.with_interrupts_off(|| drop(page));
        }
    }

    // ---- mapping and unmapping ----

    fn turn_over(&mut self) {
        let n = self.random.usize(..SLOTS);
        if self.mine[n].is_some() {
            self.take_back(n);
        }
        let token = self.token();
        let published = match self.random.u32(..5) {
            0 => self.vmap(token),
            1 => self.vmalloc(token),
            2 => self.map_ram(token),
            _ => self.compound(token),
        };
        match published {
            Some((mine, lease, head)) => {
                count(&self.tally.mapped);
                self.mine[n] = Some(mine);
                self.own(n).publish(lease, head);
            }
            None => count(&self.tally.refused),
        }
    }

    /// Single frames, each with its token in it.
    fn blocks(&mut self, gfp: &Gfp<'_>, token: u64) -> Option<Vec<PageBlock>> {
        let mut blocks = Vec::new();
        for n in 0..self.random.u64(1..5) {
            match self.world.frames.alloc(gfp, Order::ZERO) {
                Ok(block) => {
                    self.write_token(block.pfn(), token + n);
                    blocks.push(block);
                }
                Err(_) => {
                    for block in blocks {
                        self.world.frames.free(block);
                    }
                    return None;
                }
            }
        }
        Some(blocks)
    }

    /// Not through any translation.
    fn write_token(&self, pfn: Pfn, token: u64) {
        let memory = self.world.frames.memory();
        memory.write(pfn.phys(), &token.to_le_bytes()).unwrap();
    }

    fn lease(&self, address: VirtAddr, pages: u64, token: u64) -> Lease {
        let at = self.world.areas.space().offset_of(address);
        Lease {
            at: at.expect("an address of the space"),
            pages,
            token,
        }
    }

    /// References of the mapping alone keep the frames.
    fn vmap(&mut self, token: u64) -> Option<(Mine, Lease, Option<u64>)> {
        let ctx = MaySleep::claim();
        let blocks = self.blocks(&Gfp::kernel(&ctx), token)?;
        let shares: Vec<_> = blocks
            .into_iter()
            .map(|block| self.world.sharing.share(block))
            .collect();
        let list: Vec<_> = shares
            .iter()
            .map(|share| PfnT::new(share.pfn(), PfnFlags::empty()))
            .collect();
        let mapped = self
            .world
            .vmalloc
            .vmap(&self.ctx, &list, Protection::ReadWrite);
        drop(shares);
        let address = mapped.ok()?;
        let lease = self.lease(address, list.len() as u64, token);
        Some((Mine::Mapped(address), lease, None))
    }

    fn vmalloc(&mut self, token: u64) -> Option<(Mine, Lease, Option<u64>)> {
        let atomic = self.random.bool();
        let ctx = MaySleep::claim();
        let gfp = if atomic {
            Gfp::atomic()
        } else {
            Gfp::kernel(&ctx)
        };
        let blocks = self.blocks(&gfp, token)?;
        let (frames, cpu) = (&self.world.frames, self.cpu);
        let runs: Vec<_> = blocks.iter().map(PageBlock::frames).collect();
        let pages = runs.len() as u64;
        let owned = Box::new(Returned {
            frames: alloc::sync::Arc::clone(frames),
            blocks,
        });
        let map = |context: Context<'_>| {
            self.world.vmalloc.map_owned(
                context,
                FrameCount::new(pages),
                runs,
                Protection::ReadWrite,
                AreaKind::Alloc,
                owned,
            )
        };
        let address = if atomic {
            cpu.with_interrupts_off(|| map(Context::Atomic)).ok()?
        } else {
            map(Context::MaySleep(&self.ctx)).ok()?
        };
        let lease = self.lease(address, pages, token);
        Some((Mine::Allocated(address), lease, None))
    }

    fn map_ram(&mut self, token: u64) -> Option<(Mine, Lease, Option<u64>)> {
        let ctx = MaySleep::claim();
        let blocks = self.blocks(&Gfp::kernel(&ctx), token)?;
        let list: Vec<_> = blocks
            .iter()
            .map(|block| PfnT::new(block.pfn(), PfnFlags::empty()))
            .collect();
        match self
            .world
            .vmalloc
            .vm_map_ram(&self.ctx, &list, Protection::ReadWrite)
        {
            Ok(mapping) => {
                let lease = self.lease(mapping.address(), list.len() as u64, token);
                Some((Mine::Ram(mapping, blocks), lease, None))
            }
            Err(_) => {
                // What was mapped of it, if anything, waits for a shootdown.
                if self.world.areas.purge(&self.ctx).is_ok() {
                    for block in blocks {
                        self.world.frames.free(block);
                    }
                }
                None
            }
        }
    }

    fn compound(&mut self, token: u64) -> Option<(Mine, Lease, Option<u64>)> {
        let order = Order::try_new(self.random.u8(1..3)).unwrap();
        let atomic = self.random.u32(..4) == 0;
        let pages = &self.world.pages;
        let page = if atomic {
            let gfp = Gfp::atomic().virtual_fallback();
            self.cpu
                .with_interrupts_off(|| pages.alloc(&gfp, order).ok())?
        } else {
            let gfp = Gfp::kernel(&self.ctx).virtual_fallback();
            pages.alloc(&gfp, order).ok()?
        };
        let many = order.frames().get();
        for n in 0..many {
            let nth = page.nth(n).expect("a page of the block");
            self.write_token(nth, token + n);
        }
        let lease = self.lease(page.address(), many, token);
        let head = page.into_raw();
        Some((Mine::Block(head), lease, Some(head.get())))
    }

    fn take_back(&mut self, n: usize) {
        let Some(mine) = self.mine[n].take() else {
            return;
        };
        self.own(n).take_back(self.cpu);
        let areas = &self.world.areas;
        let atomic = self.random.bool();
        let kind = match mine {
            Mine::Mapped(address) | Mine::Allocated(address) if atomic => {
                let unmapped = self
                    .cpu
                    .with_interrupts_off(|| areas.unmap_at_atomic(address));
                let _backlog = unmapped.expect("an area of one's own");
                if matches!(mine, Mine::Mapped(_)) {
                    Kind::VunmapAtomic
                } else {
                    Kind::VfreeAtomic
                }
            }
            Mine::Mapped(address) | Mine::Allocated(address) => {
                match areas.unmap_at(&self.ctx, address) {
                    Ok(()) => {}
                    Err(VunmapError::Unproved(_)) if !self.world.all_proved => {}
                    Err(error) => panic!("an area of one's own: {error}"),
                }
                if matches!(mine, Mine::Mapped(_)) {
                    Kind::Vunmap
                } else {
                    Kind::Vfree
                }
            }
            Mine::Ram(mapping, blocks) => {
                let aliased = areas.unmap_ram(mapping, blocks);
                let aliased = aliased.map_err(|(_, _, error)| error);
                self.limbo.push(aliased.expect("a mapping of one's own"));
                self.collect();
                if self.limbo.len() > 3 {
                    let _ = areas.purge(&self.ctx);
                    self.collect();
                }
                Kind::VmUnmapRam
            }
            Mine::Block(head) => self.end_block(head, atomic),
        };
        count(&self.tally.unmapped[kind as usize]);
    }

    fn end_block(&mut self, head: Pfn, atomic: bool) -> Kind {
        let pages = &self.world.pages;
        let page = pages.assume(head).expect("a block of one's own");
        if atomic {
            self.cpu.with_interrupts_off(|| drop(page));
            return Kind::CompoundDropAtomic;
        }
        if self.random.u32(..4) > 0 {
            page.put(&self.ctx);
            return Kind::CompoundPut;
        }
        // Others may refer to it as well: then it ends with them.
        if let Ok(singles) = pages.split_page(&self.ctx, page) {
            for (single, n) in singles.iter().zip(0_u64..) {
                // Somebody else's from now on, as far as anybody with an old translation is concerned.
                self.write_token(single.head(), n);
            }
            for single in singles {
                single.put(&self.ctx);
            }
        }
        Kind::CompoundSplit
    }

    /// Frames of small mappings that no CPU can see any more.
    fn collect(&mut self) {
        for aliased in core::mem::take(&mut self.limbo) {
            match self.world.areas.unaliased(aliased) {
                Ok(blocks) => {
                    for block in blocks {
                        self.world.frames.free(block);
                    }
                }
                Err(aliased) => self.limbo.push(aliased),
            }
        }
    }

    // ---- objects in windows that are one CPU's own ----

    fn pair(&mut self) {
        if self.objects.len() > 2 || (self.objects.len() > 1 && self.random.bool()) {
            let n = self.random.usize(..self.objects.len());
            let (handle, _) = self.objects.swap_remove(n);
            if self.world.store.free(handle).is_err() {
                count(&self.tally.wrong);
            }
        }
        let tag = self.random.u8(..);
        match self.world.store.malloc(&Gfp::kernel(&self.ctx), OBJECT) {
            Ok(handle) => {
                if self.world.store.write(&handle, &[tag; OBJECT]).is_err() {
                    count(&self.tally.wrong);
                }
                self.objects.push((handle, tag));
            }
            Err(_) => count(&self.tally.refused),
        }
        let Ok(window) = self.world.windows.claim(&self.ctx) else {
            count(&self.tally.refused);
            return;
        };
        let mut window = window.with_policy(MapPolicy::Always);
        for (handle, tag) in &self.objects {
            count(&self.tally.mapped);
            let mut seen = 0;
            match window.map(&self.world.store, handle, Protection::Read) {
                Ok(mapping) => {
                    for at in [0, OBJECT / 2, OBJECT - 1] {
                        let mut byte = [0];
                        match mapping.read(at, &mut byte) {
                            Ok(()) => seen += u64::from(byte[0] == *tag),
                            Err(_) => count(&self.tally.faults),
                        }
                    }
                    count(&self.tally.read);
                    if mapping.unmap().is_err() {
                        count(&self.tally.wrong);
                    }
                }
                Err(_) => count(&self.tally.faults),
            }
            if seen != 3 {
                count(&self.tally.wrong);
            }
            count(&self.tally.unmapped[Kind::PairUnmap as usize]);
        }
        // The handler of a non-maskable interrupt reads where its CPU last was. That must not be a window that is another CPU's by then:
        // whoever gives a window up keeps no address of it, anywhere.
        self.be_elsewhere();
        drop(window);
    }

    /// Touches a descriptor.
    fn be_elsewhere(&self) {
        let pfn = self.world.frames.memory().frames().start();
        let paged = PfnT::new(pfn, PfnFlags::empty()).paged().expect("a page");
        drop(self.world.pages.memmap().get(&self.ctx, paged));
    }
}
