//! The zones of a host-managed zoned device: where each may be written, and how many at a time.
//!
//! A state machine and nothing else: it knows neither requests nor bytes. Whoever has it calls it
//! with a lock held ([`Zones`] takes `&mut self`), and moves the bytes in the closure it passes,
//! so that a zone's write pointer passes only what has been written.
//!
//! Conditions of a sequential zone, and what takes it from one to the next:
//!
//! | from | write, append | open | close | finish | reset |
//! |---|---|---|---|---|---|
//! | `EMPTY` | `IMP_OPEN`, counted | `EXP_OPEN`, counted | `IOERR` | `FULL`, counted | stays |
//! | `IMP_OPEN` | stays | `EXP_OPEN` | `CLOSED` | `FULL` | `EMPTY` |
//! | `EXP_OPEN` | stays | stays | `CLOSED` | `FULL` | `EMPTY` |
//! | `CLOSED` | `IMP_OPEN`, counted | `EXP_OPEN`, counted | stays | `FULL`, counted | `EMPTY` |
//! | `FULL` | `IOERR` | `IOERR` | `IOERR` | stays | `EMPTY` |
//! | `READONLY` | `IOERR` | `IOERR` | `IOERR` | `IOERR` | `IOERR` |
//! | `OFFLINE` | `IOERR`, reads too | `IOERR` | `IOERR` | `IOERR` | `IOERR` |
//! | `NOT_WP` (conventional) | as without zones; append `IOERR` | `IOERR` | `IOERR` | `IOERR` | `IOERR` |
//!
//! A write that reaches the zone's capacity leaves it `FULL`. Closing a zone to which nothing was
//! written leaves it `EMPTY`.
//!
//! *Counted* means that the limits are looked at first. From `EMPTY`, one more active zone than
//! allowed is `ZONE_ACTIVE_RESOURCE`. Then, one more open zone than allowed closes a zone that was
//! opened implicitly, in turn; without one it is `ZONE_OPEN_RESOURCE`. As in null_blk, and unlike
//! in the standards, none is closed for the sake of a `CLOSED` zone while the limit on active zones
//! is reached, and even finishing looks at the limits.
//!
//! Unlike in null_blk, a zone that becomes read-only or offline gives back what it was counted as
//! in every case, a management operation must name a zone's first sector (`IOERR`; the kernel looks
//! at that one layer up), and a write that runs out of the conventional zones is `IOERR`.
//!
//! Facts: drivers/block/null_blk/zoned.c; ZBC-2 and the NVMe Zoned Namespace command set.

mod config;
mod zone;

use alloc::vec::Vec;

use pageless_pfn::ByteLen;

pub use self::config::{ZoneConfig, ZoneConfigError, ZoneFaultError};
pub use self::zone::{Zone, ZoneCond, ZoneFault, ZoneType};
use crate::limits::ZoneLimits;
use crate::op::Op;
use crate::position::{SECTOR_SIZE, Sector};
use crate::status::BlkError;

/// The zones of a device.
///
/// ```
/// use pageless_block::{BlkError, Op, Sector, ZoneConfig, Zones};
/// use pageless_pfn::ByteLen;
/// let mib = ByteLen::new(1 << 20);
/// let mut zones = Zones::new(ZoneConfig::new(ByteLen::new(4 << 20), mib))?;
/// let (first, block) = (Sector::new(0), ByteLen::new(4096));
/// zones.write(first, block)?;
/// assert_eq!(zones.write(first, block), Err(BlkError::Io), "not at the write pointer");
/// assert_eq!(zones.append(first, block)?, Sector::new(8));
/// zones.manage(Op::ZoneReset, first)?;
/// zones.write(first, block)?;
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Zones {
    /// Valid.
    config: ZoneConfig,
    /// log2 of the sectors from one zone to the next.
    shift: u32,
    /// Sectors of the device.
    total: u64,
    /// Sectors of a sequential zone that can be written.
    writable: u64,
    states: Vec<State>,
    /// How many zones are `IMP_OPEN`, `EXP_OPEN` and `CLOSED`.
    implicit: u32,
    explicit: u32,
    closed: u32,
    /// Where the search for a zone to close begins: each is closed in turn.
    next_to_close: u32,
}

/// A zone's start, length and type follow from its number.
#[derive(Clone, Copy, Debug)]
struct State {
    /// The write pointer, a sector of the device; [`NO_WP`] if there is none.
    wp: u64,
    cond: ZoneCond,
}

/// The write pointer of a zone that cannot be written any more.
const NO_WP: u64 = u64::MAX;

impl Zones {
    /// The zones of a new device.
    ///
    /// # Errors
    /// [`ZoneConfigError`] if `config` makes no sense, or if there is no memory: 16 bytes each.
    pub fn new(config: ZoneConfig) -> Result<Self, ZoneConfigError> {
        let count = config.validate()?;
        let mut states = Vec::new();
        states
            .try_reserve_exact(count as usize)
            .map_err(|_| ZoneConfigError::Memory { zones: count })?;
        let mut zones = Self {
            config,
            shift: (config.zone_size.get() / SECTOR_SIZE).ilog2(),
            total: config.capacity.get() / SECTOR_SIZE,
            writable: config.zone_capacity.get() / SECTOR_SIZE,
            states,
            implicit: 0,
            explicit: 0,
            closed: 0,
            next_to_close: config.nr_conv,
        };
        for index in 0..count {
            let (cond, wp) = if index < config.nr_conv {
                (ZoneCond::NotWp, zones.end(index))
            } else if config.full {
                (ZoneCond::Full, zones.write_end(index))
            } else {
                (ZoneCond::Empty, zones.start(index))
            };
            zones.states.push(State { wp, cond });
        }
        Ok(zones)
    }

    /// What they were made from.
    pub const fn config(&self) -> &ZoneConfig {
        &self.config
    }

    /// What a queue has to know of them.
    pub fn limits(&self) -> ZoneLimits {
        self.config.limits()
    }

    /// How many zones.
    pub fn count(&self) -> u32 {
        // As many as validation has counted.
        self.states.len() as u32
    }

    /// How many zones are open, whether by a write or by request.
    pub const fn open(&self) -> u32 {
        self.implicit + self.explicit
    }

    /// How many zones are active: open or closed.
    pub const fn active(&self) -> u32 {
        self.open() + self.closed
    }

    /// Writes `len` bytes at `sector`.
    ///
    /// # Errors
    /// [`BlkError::Io`] past the end of the device or of what its zone can hold, away from the
    /// write pointer, or in a zone whose condition forbids it; [`BlkError::ZoneActiveResource`]
    /// and [`BlkError::ZoneOpenResource`] at the limits; [`BlkError::Invalid`] for no bytes or
    /// parts of sectors.
    pub fn write(&mut self, sector: Sector, len: ByteLen) -> Result<(), BlkError> {
        self.write_with(sector, len, || Ok(()))
    }

    /// Like [`Zones::write`]; `transfer` moves the bytes, after the zone was opened and before the
    /// write pointer moves on.
    ///
    /// # Errors
    /// Those of [`Zones::write`] and of `transfer`. A failed transfer leaves the write pointer
    /// where it was, and the zone open.
    pub fn write_with(
        &mut self,
        sector: Sector,
        len: ByteLen,
        transfer: impl FnOnce() -> Result<(), BlkError>,
    ) -> Result<(), BlkError> {
        let (index, sectors) = self.written(sector, len)?;
        if index < self.config.nr_conv {
            return transfer();
        }
        self.put(index, Some(sector.get()), sectors, |_| transfer())?;
        Ok(())
    }

    /// Looks whether a write could go there, without regard to the limits on open and active zones,
    /// and without opening a zone.
    ///
    /// # Errors
    /// Those of [`Zones::write`] but for the limits.
    pub fn check_write(&self, sector: Sector, len: ByteLen) -> Result<(), BlkError> {
        let (index, sectors) = self.written(sector, len)?;
        if index >= self.config.nr_conv {
            self.place(index, Some(sector.get()), sectors)?;
        }
        Ok(())
    }

    /// Writes `len` bytes to the zone that begins at `zone`, wherever its write pointer is, and
    /// says where that was.
    ///
    /// # Errors
    /// Those of [`Zones::write`]; [`BlkError::Io`] in a conventional zone, away from a zone's
    /// start, and for more than the longest append; [`BlkError::NotSupported`] if there are no
    /// appends.
    pub fn append(&mut self, zone: Sector, len: ByteLen) -> Result<Sector, BlkError> {
        self.append_with(zone, len, |_| Ok(()))
    }

    /// Like [`Zones::append`]; `transfer` moves the bytes to the sector it is called with.
    ///
    /// # Errors
    /// Those of [`Zones::append`] and of `transfer`, as with [`Zones::write_with`].
    pub fn append_with(
        &mut self,
        zone: Sector,
        len: ByteLen,
        transfer: impl FnOnce(Sector) -> Result<(), BlkError>,
    ) -> Result<Sector, BlkError> {
        let (index, sectors) = self.appended(zone, len)?;
        self.put(index, None, sectors, transfer)
    }

    /// Like [`Zones::check_write`] for an append; says where it would go.
    ///
    /// # Errors
    /// Those of [`Zones::append`] but for the limits.
    pub fn check_append(&self, zone: Sector, len: ByteLen) -> Result<Sector, BlkError> {
        let (index, sectors) = self.appended(zone, len)?;
        self.place(index, None, sectors).map(Sector::new)
    }

    /// Looks whether `len` bytes can be read at `sector`, and says how many of them, from the first
    /// on, have been written. null_blk fills the rest with ones.
    ///
    /// # Errors
    /// [`BlkError::Io`] in a zone that is offline and past the end of the device,
    /// [`BlkError::Invalid`] for no bytes or parts of sectors.
    pub fn read(&self, sector: Sector, len: ByteLen) -> Result<ByteLen, BlkError> {
        let (at, sectors) = self.range(sector, len)?;
        let (first, last) = (self.index(at), self.index(at + sectors - 1));
        let mut written = None;
        for index in first..=last {
            let state = self.state(index);
            if state.cond == ZoneCond::Offline {
                return Err(BlkError::Io);
            }
            if state.wp < self.end(index).min(at + sectors) {
                // Only the first gap matters.
                written.get_or_insert(state.wp.saturating_sub(at));
            }
        }
        let written = written.unwrap_or(sectors).min(sectors);
        Ok(ByteLen::new(written * SECTOR_SIZE))
    }

    /// Opens, closes, finishes or resets the zone that begins at `zone`, or resets all.
    ///
    /// # Errors
    /// [`BlkError::Io`] where the table in the module's documentation says so and past the end of
    /// the device and away from a zone's start;
    /// [`BlkError::ZoneActiveResource`] and [`BlkError::ZoneOpenResource`] at the limits;
    /// [`BlkError::NotSupported`] for any other operation.
    pub fn manage(&mut self, op: Op, zone: Sector) -> Result<(), BlkError> {
        self.manage_with(op, zone, |_, _| ())
    }

    /// Like [`Zones::manage`]; `emptied` is called for each zone whose contents are gone, with its
    /// start and its length.
    ///
    /// # Errors
    /// Those of [`Zones::manage`].
    pub fn manage_with(
        &mut self,
        op: Op,
        zone: Sector,
        mut emptied: impl FnMut(Sector, ByteLen),
    ) -> Result<(), BlkError> {
        if op == Op::ZoneResetAll {
            self.reset_all_with(emptied);
            return Ok(());
        }
        if !op.manages_zones() {
            return Err(BlkError::NotSupported);
        }
        let at = zone.get();
        let index = self.index(at.min(self.total - 1));
        if at != self.start(index) {
            return Err(BlkError::Io);
        }
        let cond = self.state(index).cond;
        match (op, cond) {
            (_, ZoneCond::NotWp | ZoneCond::ReadOnly | ZoneCond::Offline) => {
                return Err(BlkError::Io);
            }

            (Op::ZoneOpen, ZoneCond::ExplicitOpen) => {}
            (Op::ZoneOpen, ZoneCond::Full) => return Err(BlkError::Io),
            (Op::ZoneOpen, _) => {
                self.make_room(cond)?;
                self.set_cond(index, ZoneCond::ExplicitOpen);
            }

            (Op::ZoneClose, ZoneCond::Closed) => {}
            (Op::ZoneClose, ZoneCond::Empty | ZoneCond::Full) => return Err(BlkError::Io),
            (Op::ZoneClose, _) => self.close(index),

            (Op::ZoneFinish, ZoneCond::Full) => {}
            (Op::ZoneFinish, _) => {
                self.make_room(cond)?;
                self.set_cond(index, ZoneCond::Full);
                self.set_wp(index, self.end(index));
            }

            (_, ZoneCond::Empty) => {}
            (_, _) => self.empty(index, &mut emptied),
        }
        Ok(())
    }

    /// Empties every sequential zone that is neither empty nor read-only nor offline.
    pub fn reset_all(&mut self) {
        self.reset_all_with(|_, _| ());
    }

    /// Like [`Zones::reset_all`], with a closure as in [`Zones::manage_with`].
    pub fn reset_all_with(&mut self, mut emptied: impl FnMut(Sector, ByteLen)) {
        for index in self.config.nr_conv..self.count() {
            let cond = self.state(index).cond;
            if cond.is_active() || cond == ZoneCond::Full {
                self.empty(index, &mut emptied);
            }
        }
    }

    /// Makes the zone around `at` read-only or takes it offline, as null_blk's `zone_readonly` and
    /// `zone_offline` do: a zone that is so already becomes empty instead, its contents gone. Says
    /// which condition it has now.
    ///
    /// # Errors
    /// [`ZoneFaultError`] if there is no such zone or if it is conventional.
    pub fn set_condition(
        &mut self,
        at: Sector,
        fault: ZoneFault,
    ) -> Result<ZoneCond, ZoneFaultError> {
        if at.get() >= self.total {
            return Err(ZoneFaultError::PastEnd {
                at,
                capacity: self.config.capacity,
            });
        }
        let index = self.index(at.get());
        if index < self.config.nr_conv {
            return Err(ZoneFaultError::Conventional { at });
        }
        if self.state(index).cond == fault.cond() {
            self.empty(index, &mut |_, _| ());
        } else {
            self.set_cond(index, fault.cond());
            self.set_wp(index, NO_WP);
        }
        Ok(self.state(index).cond)
    }

    /// At most `most` zones, from the one around `from` on; none past the end.
    pub fn report(&self, from: Sector, most: usize) -> impl Iterator<Item = Zone> + '_ {
        let first = match from.get() < self.total {
            true => self.index(from.get()),
            false => self.count(),
        };
        (first..self.count())
            .take(most)
            .map(|index| self.zone(index))
    }

    /// Checks the counts and write pointers against the conditions.
    ///
    /// # Errors
    /// Names what does not hold.
    pub fn self_check(&self) -> Result<(), &'static str> {
        let (mut implicit, mut explicit, mut closed) = (0, 0, 0);
        for index in 0..self.count() {
            let State { wp, cond } = self.state(index);
            let (start, end) = (self.start(index), self.write_end(index));
            let holds = match cond {
                ZoneCond::NotWp => index < self.config.nr_conv && wp == self.end(index),
                ZoneCond::Empty => wp == start,
                ZoneCond::ImplicitOpen | ZoneCond::ExplicitOpen => (start..end).contains(&wp),
                ZoneCond::Closed => start < wp && wp < end,
                ZoneCond::Full => wp == end || wp == self.end(index),
                ZoneCond::ReadOnly | ZoneCond::Offline => wp == NO_WP,
            };
            if !holds {
                return Err("a write pointer does not go with its zone's condition");
            }
            if (cond == ZoneCond::NotWp) != (index < self.config.nr_conv) {
                return Err("a conventional zone has a condition, or a sequential one has none");
            }
            implicit += u32::from(cond == ZoneCond::ImplicitOpen);
            explicit += u32::from(cond == ZoneCond::ExplicitOpen);
            closed += u32::from(cond == ZoneCond::Closed);
        }
        if (implicit, explicit, closed) != (self.implicit, self.explicit, self.closed) {
            return Err("open and closed zones are miscounted");
        }
        let above = |count, most| most != 0 && count > most;
        if above(self.open(), self.config.max_open) {
            return Err("more zones are open than may be");
        }
        if above(self.active(), self.config.max_active) {
            return Err("more zones are active than may be");
        }
        Ok(())
    }

    /// The zone in which a write begins, and its sectors.
    fn written(&self, sector: Sector, len: ByteLen) -> Result<(u32, u64), BlkError> {
        let (at, sectors) = self.range(sector, len)?;
        let sequential = self.start(self.config.nr_conv);
        // Beyond the conventional zones other rules hold.
        if at < sequential && at + sectors > sequential {
            return Err(BlkError::Io);
        }
        Ok((self.index(at), sectors))
    }

    /// The zone an append goes to, and its sectors.
    fn appended(&self, zone: Sector, len: ByteLen) -> Result<(u32, u64), BlkError> {
        let longest = self.limits().max_append;
        if longest.is_zero() {
            return Err(BlkError::NotSupported);
        }
        let (at, sectors) = self.range(zone, len)?;
        let index = self.index(at);
        if at != self.start(index) || index < self.config.nr_conv || len > longest {
            return Err(BlkError::Io);
        }
        Ok((index, sectors))
    }

    /// Where in a sequential zone that many sectors go: to its write pointer, which must be `at` if
    /// there is one.
    fn place(&self, index: u32, at: Option<u64>, sectors: u64) -> Result<u64, BlkError> {
        let State { wp, cond } = self.state(index);
        let writable = matches!(
            cond,
            ZoneCond::Empty | ZoneCond::ImplicitOpen | ZoneCond::ExplicitOpen | ZoneCond::Closed
        );
        if !writable
            || at.is_some_and(|at| at != wp)
            || sectors > self.write_end(index).saturating_sub(wp)
        {
            return Err(BlkError::Io);
        }
        Ok(wp)
    }

    /// Writes where [`Zones::place`] says.
    fn put(
        &mut self,
        index: u32,
        at: Option<u64>,
        sectors: u64,
        transfer: impl FnOnce(Sector) -> Result<(), BlkError>,
    ) -> Result<Sector, BlkError> {
        let wp = self.place(index, at, sectors)?;
        let cond = self.state(index).cond;
        if !cond.is_open() {
            self.make_room(cond)?;
            self.set_cond(index, ZoneCond::ImplicitOpen);
        }
        transfer(Sector::new(wp))?;
        // Within the device, by `place`.
        self.set_wp(index, wp + sectors);
        if wp + sectors == self.write_end(index) {
            self.set_cond(index, ZoneCond::Full);
        }
        Ok(Sector::new(wp))
    }

    /// Sees to it that a zone of this condition can be opened within the limits.
    fn make_room(&mut self, cond: ZoneCond) -> Result<(), BlkError> {
        let ZoneConfig {
            max_open,
            max_active,
            ..
        } = self.config;
        let one_more_active = max_active == 0 || self.active() < max_active;
        match cond {
            ZoneCond::Empty if !one_more_active => return Err(BlkError::ZoneActiveResource),
            ZoneCond::Empty | ZoneCond::Closed => {}
            // Open already.
            _ => return Ok(()),
        }
        if max_open == 0 || self.open() < max_open {
            return Ok(());
        }
        if self.implicit == 0 || !one_more_active {
            return Err(BlkError::ZoneOpenResource);
        }
        self.close_an_implicit_one();
        Ok(())
    }

    fn close_an_implicit_one(&mut self) {
        let sequential = self.config.nr_conv..self.count();
        let next = self.next_to_close;
        let in_turn = (next..sequential.end).chain(sequential.start..next);
        for index in in_turn {
            if self.state(index).cond == ZoneCond::ImplicitOpen {
                self.close(index);
                self.next_to_close = match index + 1 < sequential.end {
                    true => index + 1,
                    false => sequential.start,
                };
                return;
            }
        }
    }

    /// Closes an open zone.
    fn close(&mut self, index: u32) {
        let cond = match self.state(index).wp == self.start(index) {
            true => ZoneCond::Empty,
            false => ZoneCond::Closed,
        };
        self.set_cond(index, cond);
    }

    fn empty(&mut self, index: u32, emptied: &mut impl FnMut(Sector, ByteLen)) {
        self.set_cond(index, ZoneCond::Empty);
        self.set_wp(index, self.start(index));
        let len = self.end(index) - self.start(index);
        emptied(
            Sector::new(self.start(index)),
            ByteLen::new(len * SECTOR_SIZE),
        );
    }

    fn zone(&self, index: u32) -> Zone {
        let State { wp, cond } = self.state(index);
        let start = self.start(index);
        Zone {
            start: Sector::new(start),
            len: self.end(index) - start,
            capacity: self.write_end(index) - start,
            wp: (wp != NO_WP).then_some(Sector::new(wp)),
            kind: match cond {
                ZoneCond::NotWp => ZoneType::Conventional,
                _ => ZoneType::SequentialRequired,
            },
            cond,
        }
    }

    /// `len` bytes from `sector` on, in sectors; at least one, and all within the device.
    fn range(&self, sector: Sector, len: ByteLen) -> Result<(u64, u64), BlkError> {
        let sectors = len.get() / SECTOR_SIZE;
        if len.is_zero() || !len.get().is_multiple_of(SECTOR_SIZE) {
            return Err(BlkError::Invalid);
        }
        if sectors > self.total || sector.get() > self.total - sectors {
            return Err(BlkError::Io);
        }
        Ok((sector.get(), sectors))
    }

    /// Which zone holds a sector of the device.
    fn index(&self, sector: u64) -> u32 {
        // Below the number of zones, which has 32 bits.
        (sector >> self.shift) as u32
    }

    fn start(&self, index: u32) -> u64 {
        u64::from(index) << self.shift
    }

    fn end(&self, index: u32) -> u64 {
        ((u64::from(index) + 1) << self.shift).min(self.total)
    }

    /// Where the writable part of a zone ends.
    fn write_end(&self, index: u32) -> u64 {
        match index < self.config.nr_conv {
            true => self.end(index),
            false => (self.start(index) + self.writable).min(self.total),
        }
    }

    fn state(&self, index: u32) -> State {
        self.states[index as usize]
    }

    fn set_wp(&mut self, index: u32, wp: u64) {
        self.states[index as usize].wp = wp;
    }

    /// The only place where a condition changes, so that the counts go with it.
    fn set_cond(&mut self, index: u32, cond: ZoneCond) {
        let was = core::mem::replace(&mut self.states[index as usize].cond, cond);
        if let Some(count) = self.count_of(was) {
            *count -= 1;
        }
        if let Some(count) = self.count_of(cond) {
            *count += 1;
        }
    }

    fn count_of(&mut self, cond: ZoneCond) -> Option<&mut u32> {
        match cond {
            ZoneCond::ImplicitOpen => Some(&mut self.implicit),
            ZoneCond::ExplicitOpen => Some(&mut self.explicit),
            ZoneCond::Closed => Some(&mut self.closed),
            _ => None,
        }
    }
}
