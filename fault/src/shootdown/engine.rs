//! The engine: sends what a policy says, serves what others have sent, and tells how far a shootdown has come.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::counters::{Counters, ShootdownCounters, add};
use super::cpu_set::{CpuId, CpuSet};
use super::flush::{Flush, Invalidation};
use super::mailbox::{Letter, Mailbox, Receipt, Served, Stamp};
use super::pending::{Pending, WaitError};
use super::policy::{Delivery, Plan, PolicyKind, Targets, Until};
use super::presence::{Awake, Bumped, Generation, Presence, SpaceGeneration, SpaceId};
use super::processor::{Moment, Processor, Signal};
use super::proof::Reached;
use super::record::Records;
use super::residency::Residency;
use super::ticket::Tickets;
use crate::debt::Completion;
use crate::mutant::Mutant;
use crate::sync::atomic::{AtomicU64, Ordering};

/// CPUs that one interrupt message can reach: a logical x2APIC cluster (Intel SDM vol. 3A, 12.12.10).
const INTERRUPT_GROUP: u16 = 16;

/// What one CPU has of its own.
#[derive(Debug)]
struct Station {
    mailbox: Mailbox,
    /// The same for the interconnect: what is in it is executed whether interrupts are on or not.
    fabric: Mailbox,
    presence: Presence,
    /// Tickets that this CPU has taken itself since it last served; its own.
    own_tickets: AtomicU64,
}

/// How a machine is laid out.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// CPUs.
    pub cpus: u16,
    /// Address spaces.
    pub spaces: u32,
    /// Windows that a [`Residency`] is kept for.
    pub windows: u16,
    /// Letters that a mailbox has room for: a power of two.
    pub mailbox: u16,
    /// Records for lazy sweeps.
    pub records: u16,
    /// Turns of waiting after which an initiator gives up. Giving up proves nothing, and is not taken for it.
    pub patience: u32,
}

/// What is shot at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The address space; [`SpaceId::EVERY`] for a kernel's windows.
    pub space: SpaceId,
    /// The window, if residency is kept for it.
    pub window: Option<u16>,
}

/// Shootdowns of one machine.
///
/// Every method that takes a CPU panics if the machine has no such CPU.
#[derive(Debug)]
pub struct Shootdown {
    stations: Box<[Station]>,
    /// One for each space, and the last for what is in every space.
    generations: Box<[SpaceGeneration]>,
    residency: Box<[Residency]>,
    tickets: Tickets,
    /// Of shootdowns that are put off until somebody purges.
    deferred: Tickets,
    records: Records,
    patience: u32,
    counters: Counters,
}

impl Shootdown {
    /// Nothing under way, all CPUs gone.
    ///
    /// # Panics
    ///
    /// `layout.mailbox` is not a power of two, or there are more CPUs than a [`CpuSet`] holds.
    #[must_use]
    pub fn new(layout: &Layout) -> Self {
        Shootdown {
            stations: (0..layout.cpus)
                .map(|_| Station {
                    mailbox: Mailbox::new(layout.mailbox),
                    fabric: Mailbox::new(layout.mailbox),
                    presence: Presence::gone(SpaceId::new(0)),
                    own_tickets: AtomicU64::new(0),
                })
                .collect(),
            generations: (0..=layout.spaces)
                .map(|_| SpaceGeneration::new())
                .collect(),
            residency: (0..layout.windows)
                .map(|_| Residency::new(layout.cpus))
                .collect(),
            tickets: Tickets::new(layout.cpus),
            deferred: Tickets::new(layout.cpus),
            records: Records::new(layout.cpus, usize::from(layout.records)),
            patience: layout.patience,
            counters: Counters::default(),
        }
    }

    fn station(&self, cpu: CpuId) -> &Station {
        &self.stations[cpu.index()]
    }

    fn cpus(&self) -> impl Iterator<Item = CpuId> + use<> {
        (0..self.stations.len() as u16).map(CpuId::new)
    }

    fn generation(&self, space: SpaceId) -> &SpaceGeneration {
        let last = self.generations.len() - 1;
        &self.generations[(space.get() as usize).min(last)]
    }

    /// Whether residency is kept and `cpu` is said to be in `window`; for looking.
    #[must_use]
    pub fn is_resident(&self, cpu: CpuId, window: u16) -> bool {
        self.residency
            .get(usize::from(window))
            .is_some_and(|residency| residency.contains(cpu))
    }

    /// On `cpu`, before a walk reads an entry of `window`.
    pub fn enter(&self, cpu: CpuId, window: usize) {
        if let Some(residency) = self.residency.get(window) {
            residency.enter(cpu);
        }
    }

    /// On `cpu`, after it has flushed everything.
    pub fn leave(&self, cpu: CpuId, window: usize) {
        if let Some(residency) = self.residency.get(window) {
            residency.leave(cpu);
        }
    }

    /// The state words, for a CPU that changes its own.
    #[must_use]
    pub fn presence(&self, cpu: CpuId) -> &Presence {
        &self.station(cpu).presence
    }

    /// The generation of what is mapped in `space`, or in every space, read before a full flush.
    #[must_use]
    pub fn current(&self, space: SpaceId) -> Generation {
        self.generation(space).current()
    }

    /// On a CPU that has woken, with `space` loaded and flushed up to these generations: whether it was left out of
    /// anything, and so must flush everything before its first translation.
    #[must_use]
    pub fn missed_asleep(
        &self,
        awake: &Awake,
        space: SpaceId,
        flushed: (Generation, Generation),
    ) -> bool {
        let behind = awake.behind(self.generation(space), flushed.0).is_some()
            || awake
                .behind(self.generation(SpaceId::EVERY), flushed.1)
                .is_some();
        if behind {
            add(&self.counters.caught_up, 1);
        }
        behind
    }

    /// On a CPU in the middle of a switch to a space that it has flushed up to `flushed`: whether it must flush
    /// what it still has of it.
    #[must_use]
    pub fn missed_away(&self, switch: &super::presence::Switch, flushed: Generation) -> bool {
        let behind = switch
            .behind(self.generation(switch.space()), flushed)
            .is_some();
        if behind {
            add(&self.counters.caught_up, 1);
        }
        behind
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> ShootdownCounters {
        self.counters.read()
    }

    /// Whom a shootdown of `place` would ask if it were begun now. Only a mutant asks before it has cleared its entries.
    #[cfg_attr(loom, expect(dead_code, reason = "the modelled machine is not there"))]
    pub(crate) fn aim(&self, kind: PolicyKind, by: CpuId, place: Place) -> CpuSet {
        let plan = kind.plan();
        let bumped = self.generation(place.space).bump();
        self.targets(&plan, by, place, &bumped)
    }

    fn targets(&self, plan: &Plan, by: CpuId, place: Place, bumped: &Bumped) -> CpuSet {
        let mut targets = CpuSet::new();
        match plan.targets {
            Targets::All => targets = CpuSet::all(self.stations.len() as u16),
            Targets::Loaded => {
                for cpu in self.cpus() {
                    if self.presence(cpu).has_loaded(place.space, bumped) {
                        targets.insert(cpu);
                    }
                }
            }
            Targets::Running => {
                for cpu in self.cpus() {
                    if self.presence(cpu).must_interrupt(place.space, bumped) {
                        targets.insert(cpu);
                    }
                }
            }
            Targets::Resident => match place
                .window
                .and_then(|window| self.residency.get(usize::from(window)))
            {
                Some(residency) => targets = residency.targets(),
                None => targets = CpuSet::all(self.stations.len() as u16),
            },
            Targets::Nobody => {}
        }
        if Mutant::NoRemoteFlush.active() {
            targets = CpuSet::new();
        }
        targets.remove(by);
        targets
    }

    /// Begins a shootdown: the entries have been cleared.
    pub fn begin(
        &self,
        cpu: &impl Processor,
        kind: PolicyKind,
        flush: &Flush,
        place: Place,
    ) -> Pending {
        self.begin_aimed(cpu, kind, flush, place, None)
    }

    /// [`begin`](Self::begin), for the mutant that has [aimed](Self::aim) before it cleared its entries: whoever names other targets
    /// than the policy gets a proof of nothing.
    pub(crate) fn begin_aimed(
        &self,
        cpu: &impl Processor,
        kind: PolicyKind,
        flush: &Flush,
        place: Place,
        aimed: Option<CpuSet>,
    ) -> Pending {
        let mut plan = kind.plan();
        if flush.frees_tables() && kind.is_safe() && !Mutant::TableFreedUnflushed.active() {
            // Paging-structure caches of all CPUs may point into a table: idle ones, and those that never walked into this
            // window, are no exception. And it cannot be put off.
            plan.targets = Targets::All;
            plan.until = Until::Executed;
            if matches!(
                plan.delivery,
                Delivery::Record | Delivery::Deferred | Delivery::Nothing
            ) {
                plan.delivery = Delivery::Interrupt;
            }
        }
        let by = cpu.id();
        let others = self.stations.len() as u64 - 1;
        add(&self.counters.shootdowns, 1);
        add(&self.counters.sent, others);
        cpu.at(Moment::Setup {
            scanned: self.stations.len() as u32,
        });
        let bumped = self.generation(place.space).bump();
        let targets = aimed.unwrap_or_else(|| self.targets(&plan, by, place, &bumped));
        let mut pending = Pending {
            kind,
            until: plan.until,
            window: place.window,
            by,
            receipts: Vec::new(),
            over_fabric: false,
            ticket: None,
            deferred: false,
            record: None,
            ticks_then: cpu.ticks(),
        };
        let asked = targets.len() as u64;
        let left_out = others - asked;
        if plan.delivery == Delivery::Deferred {
            add(&self.counters.deferred, others);
        } else {
            add(&self.counters.skipped, left_out);
        }
        if plan.local_first {
            self.flush_own(cpu, flush);
        }
        match plan.delivery {
            Delivery::Interrupt => self.post(cpu, flush, &targets, &mut pending),
            Delivery::Ticket => {
                let ticket = self.tickets.take();
                self.station(by).own_tickets.fetch_add(1, Ordering::Relaxed);
                pending.ticket = Some(ticket);
                self.ring(cpu, &targets);
            }
            Delivery::Record => {
                cpu.at(Moment::Record);
                if targets.is_empty() {
                    // Nobody to wait for.
                } else if let Some(record) = self.records.leave(flush, &targets) {
                    add(&self.counters.deferred, asked);
                    pending.record = Some(record);
                } else {
                    add(&self.counters.fallbacks, 1);
                    self.post(cpu, flush, &targets, &mut pending);
                }
            }
            Delivery::Broadcast => {
                pending.over_fabric = true;
                cpu.at(Moment::FabricPost);
                for target in targets.iter() {
                    let receipt = self
                        .station(target)
                        .fabric
                        .post(letter(flush, by), Stamp::new(cpu.now()));
                    pending.receipts.push((target, receipt));
                }
                for target in targets.iter() {
                    cpu.signal(target, Signal::Fabric);
                }
                add(&self.counters.fabric, 1);
            }
            // The ticket is taken now, so that any full flush from here on counts.
            Delivery::Deferred => {
                pending.ticket = Some(self.deferred.take());
                pending.deferred = true;
            }
            Delivery::Nothing => {}
        }
        if !plan.local_first && plan.delivery != Delivery::Deferred {
            self.flush_own(cpu, flush);
        }
        if plan.delivery == Delivery::Ticket {
            self.serve_tickets(cpu);
        }
        pending
    }

    fn flush_own(&self, cpu: &impl Processor, flush: &Flush) {
        if !Mutant::NoLocalFlush.active() {
            cpu.invalidate(flush.invalidation());
        }
    }

    fn post(&self, cpu: &impl Processor, flush: &Flush, targets: &CpuSet, pending: &mut Pending) {
        for target in targets.iter() {
            cpu.at(Moment::Post(target));
            let receipt = self
                .station(target)
                .mailbox
                .post(letter(flush, cpu.id()), Stamp::new(cpu.now()));
            if matches!(receipt, Receipt::Everything { .. }) {
                add(&self.counters.overflows, 1);
            }
            pending.receipts.push((target, receipt));
        }
        self.ring(cpu, targets);
    }

    fn ring(&self, cpu: &impl Processor, targets: &CpuSet) {
        let mut group = None;
        for target in targets.iter() {
            let of = target.get() / INTERRUPT_GROUP;
            cpu.at(Moment::Kick {
                target,
                message: group != Some(of),
            });
            group = Some(of);
            cpu.signal(target, Signal::Interrupt);
            add(&self.counters.interrupts, 1);
        }
    }

    /// The handler: executes and acknowledges everything that others have asked of this CPU.
    pub fn serve(&self, cpu: &impl Processor) {
        let station = self.station(cpu.id());
        cpu.at(Moment::HandlerEntry);
        station.mailbox.enter(Stamp::new(cpu.now()));
        let answered = station.mailbox.serve(Stamp::new(cpu.now()), |served| {
            cpu.at(Moment::Take {
                from: sender(served),
            });
            execute(cpu, served);
            cpu.at(Moment::Acked);
            Stamp::new(cpu.now())
        });
        add(&self.counters.received, answered);
        self.serve_tickets(cpu);
        cpu.at(Moment::HandlerExit);
    }

    fn serve_tickets(&self, cpu: &impl Processor) {
        let id = cpu.id();
        let before = self.tickets.done_by(id);
        if self
            .tickets
            .serve(id, || cpu.invalidate(Invalidation::Everything))
        {
            let own = self.station(id).own_tickets.swap(0, Ordering::Relaxed);
            let others = (self.tickets.done_by(id) - before).saturating_sub(own);
            add(&self.counters.received, others);
        }
        self.deferred
            .serve(id, || cpu.invalidate(Invalidation::Everything));
    }

    /// What the interconnect has brought: executed by the hardware, whatever the software is doing.
    pub fn serve_fabric(&self, cpu: &impl Processor) {
        let station = self.station(cpu.id());
        let answered = station.fabric.serve(Stamp::new(cpu.now()), |served| {
            execute(cpu, served);
            Stamp::new(cpu.now())
        });
        add(&self.counters.received, answered);
    }

    /// A tick: executes what others have recorded.
    pub fn sweep(&self, cpu: &impl Processor) {
        let (seen, _executed) = self
            .records
            .sweep(cpu.id(), |flush| cpu.invalidate(flush.invalidation()));
        if seen > 0 {
            cpu.at(Moment::Sweep { records: seen });
        }
    }

    /// How far `pending` has come; `None`: not every target has entered its handler. Never waits.
    #[must_use]
    pub fn reached(&self, cpu: &impl Processor, pending: &Pending) -> Option<Reached> {
        let over = Some(Reached(Completion::WalkQuiescent));
        match pending.until {
            Until::Issued => return over,
            Until::TwoTicks => return over.filter(|_| cpu.ticks() >= pending.ticks_then + 2),
            Until::Alone => {
                let alone = pending
                    .window
                    .and_then(|window| self.residency.get(usize::from(window)))
                    .is_some_and(|residency| {
                        residency.targets().iter().all(|cpu| cpu == pending.by)
                    });
                return over.filter(|_| alone);
            }
            Until::Entered | Until::Executed => {}
        }
        if pending.ticket.is_some() {
            return over.filter(|_| self.without_ticket(pending).next().is_none());
        }
        if let Some(record) = pending.record {
            // Who sleeps, or is away, flushes before it can use the translation.
            let away = |cpu| self.presence(cpu).is_away();
            return over.filter(|_| self.records.is_done(record, away));
        }
        let mut least = Completion::WalkQuiescent;
        for (cpu, receipt) in &pending.receipts {
            let mailbox = self.mailbox(*cpu, pending);
            if mailbox.is_acked(*receipt) {
                continue;
            }
            if !mailbox.is_entered(*receipt) {
                return None;
            }
            least = Completion::Entered;
        }
        if least == Completion::Entered
            && (pending.until == Until::Entered || Mutant::ReuseOnEarlyAck.active())
        {
            return over;
        }
        Some(Reached(least))
    }

    fn mailbox(&self, cpu: CpuId, pending: &Pending) -> &Mailbox {
        let station = self.station(cpu);
        if pending.over_fabric {
            &station.fabric
        } else {
            &station.mailbox
        }
    }

    fn missing(&self, pending: &Pending) -> u32 {
        let unanswered = pending
            .receipts
            .iter()
            .filter(|(cpu, receipt)| !self.mailbox(*cpu, pending).is_acked(*receipt));
        (unanswered.count() + self.without_ticket(pending).count()) as u32
    }

    /// Has everything flushed on every CPU, so that shootdowns put off until now can end. What lazy purging and flushing at reuse come
    /// down to; one for all of them.
    pub fn purge(&self, cpu: &impl Processor, pending: &Pending) {
        let mut targets: CpuSet = self.without_ticket(pending).collect();
        targets.remove(cpu.id());
        self.ring(cpu, &targets);
        self.serve_tickets(cpu);
    }

    /// The CPUs that have not served the ticket of `pending`.
    fn without_ticket<'a>(&'a self, pending: &Pending) -> impl Iterator<Item = CpuId> + use<'a> {
        let tickets = if pending.deferred {
            &self.deferred
        } else {
            &self.tickets
        };
        let ticket = pending.ticket;
        self.cpus()
            .filter(move |cpu| ticket.is_some_and(|ticket| !tickets.is_done(*cpu, ticket)))
    }

    /// Waits, with interrupts on, until `pending` has reached `grade`. The CPU serves others meanwhile; it must hold no lock that
    /// one of them could be waiting for with interrupts off.
    ///
    /// # Errors
    ///
    /// [`WaitError`]. What was unmapped is as good as mapped then.
    pub fn wait(
        &self,
        cpu: &impl Processor,
        pending: &Pending,
        grade: Completion,
    ) -> Result<Reached, WaitError> {
        if !cpu.interrupts_on() && !Mutant::WaitsUninterruptible.active() {
            return Err(WaitError::InterruptsOff { cpu: cpu.id() });
        }
        if pending.deferred {
            self.purge(cpu, pending);
        }
        let mut turn = 0;
        cpu.at(Moment::Wait);
        loop {
            let reached = self.reached(cpu, pending);
            if let Some(reached) = reached.filter(|reached| reached.0 >= grade) {
                self.read_answers(cpu, pending, grade);
                return Ok(reached);
            }
            if turn >= self.patience {
                if Mutant::LostInterruptAssumedDone.active() {
                    return Ok(Reached(grade));
                }
                add(&self.counters.given_up, 1);
                return Err(WaitError::Unanswered {
                    reached: reached.map(|reached| reached.0),
                    missing: self.missing(pending),
                    turns: turn,
                });
            }
            cpu.relax(turn);
            turn += 1;
        }
    }

    /// What waiting has cost on the CPU's clock: the answers are read one after the other, each when it is there; those of the
    /// interconnect come all at once.
    fn read_answers(&self, cpu: &impl Processor, pending: &Pending, grade: Completion) {
        if pending.over_fabric {
            cpu.at(Moment::FabricSync);
        }
        if pending.ticket.is_some() {
            for from in self.cpus().filter(|target| *target != cpu.id()) {
                let there = cpu.now();
                cpu.at(Moment::AckRead { from, there });
            }
        }
        for (target, receipt) in &pending.receipts {
            let mailbox = self.mailbox(*target, pending);
            let there = if grade == Completion::Entered {
                mailbox.entered_at(*receipt)
            } else {
                mailbox.acked_at(*receipt)
            };
            let (from, there) = (*target, there.map_or(0, Stamp::get));
            if pending.over_fabric {
                cpu.advance_to(there);
            } else {
                cpu.at(Moment::AckRead { from, there });
            }
        }
    }
}

/// What is to be flushed, and in the last word who asks.
fn letter(flush: &Flush, by: CpuId) -> Letter {
    let [first, second, third, _] = flush.encode();
    Letter([first, second, third, u64::from(by.get())])
}

/// Who has written it; `None` if several have.
fn sender(served: Served) -> Option<CpuId> {
    match served {
        Served::Request { letter, .. } => Some(CpuId::new(letter.0[3] as u16)),
        Served::Everything { .. } => None,
    }
}

fn execute(cpu: &impl Processor, served: Served) {
    match served {
        Served::Request { letter, .. } => {
            cpu.invalidate(Flush::decode(letter.0).invalidation());
        }
        Served::Everything { .. } => cpu.invalidate(Invalidation::Everything),
    }
}
