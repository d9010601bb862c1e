//! Hazard: a zone that can be written where it must not, or a limit on open or active zones that
//! does not hold, because some way from one condition to another was forgotten.

use pageless_block::{
    BlkError, Op, Sector, Zone, ZoneCond, ZoneConfig, ZoneConfigError, ZoneFault, ZoneFaultError,
    ZoneType, Zones,
};
use pageless_pfn::ByteLen;
use proptest::prelude::*;

/// Sectors of a zone, and of what can be written of it.
const ZONE: u64 = 8;
const WRITABLE: u64 = 6;
const ZONES: u64 = 6;
const NR_CONV: u64 = 1;

fn bytes(sectors: u64) -> ByteLen {
    ByteLen::new(sectors * 512)
}

fn config() -> ZoneConfig {
    let mut config = ZoneConfig::new(bytes(ZONES * ZONE), bytes(ZONE));
    config.zone_capacity = bytes(WRITABLE);
    config.nr_conv = NR_CONV as u32;
    config
}

fn zones() -> Zones {
    Zones::new(config()).unwrap()
}

fn start(zone: u64) -> Sector {
    Sector::new(zone * ZONE)
}

fn zone(zones: &Zones, n: u64) -> Zone {
    zones.report(start(n), 1).next().unwrap()
}

fn cond(zones: &Zones, n: u64) -> ZoneCond {
    zone(zones, n).cond
}

/// Zones of which number 1 is in this condition, two sectors in where it can be.
fn in_condition(cond: ZoneCond) -> Zones {
    let mut all = zones();
    let one = start(1);
    match cond {
        ZoneCond::NotWp => unreachable!("asked of zone 0"),
        ZoneCond::Empty => {}
        ZoneCond::ImplicitOpen => all.write(one, bytes(2)).unwrap(),
        ZoneCond::ExplicitOpen => {
            all.write(one, bytes(2)).unwrap();
            all.manage(Op::ZoneOpen, one).unwrap();
        }
        ZoneCond::Closed => {
            all.write(one, bytes(2)).unwrap();
            all.manage(Op::ZoneClose, one).unwrap();
        }
        ZoneCond::Full => all.write(one, bytes(WRITABLE)).unwrap(),
        ZoneCond::ReadOnly => _ = all.set_condition(one, ZoneFault::ReadOnly).unwrap(),
        ZoneCond::Offline => _ = all.set_condition(one, ZoneFault::Offline).unwrap(),
    }
    assert_eq!(self::cond(&all, 1), cond);
    all
}

#[test]
fn every_operation_in_every_condition_does_what_linux_does() {
    use ZoneCond::{Closed, Empty, ExplicitOpen, Full, ImplicitOpen, Offline, ReadOnly};
    let io = Err(BlkError::Io);
    // Condition, then what becomes of it by a write at its write pointer, open, close, finish, reset.
    let table = [
        (
            Empty,
            [Ok(ImplicitOpen), Ok(ExplicitOpen), io, Ok(Full), Ok(Empty)],
        ),
        (
            ImplicitOpen,
            [
                Ok(ImplicitOpen),
                Ok(ExplicitOpen),
                Ok(Closed),
                Ok(Full),
                Ok(Empty),
            ],
        ),
        (
            ExplicitOpen,
            [
                Ok(ExplicitOpen),
                Ok(ExplicitOpen),
                Ok(Closed),
                Ok(Full),
                Ok(Empty),
            ],
        ),
        (
            Closed,
            [
                Ok(ImplicitOpen),
                Ok(ExplicitOpen),
                Ok(Closed),
                Ok(Full),
                Ok(Empty),
            ],
        ),
        (Full, [io, io, io, Ok(Full), Ok(Empty)]),
        (ReadOnly, [io; 5]),
        (Offline, [io; 5]),
    ];
    for (from, row) in table {
        for (column, expected) in row.into_iter().enumerate() {
            let mut all = in_condition(from);
            let wp = zone(&all, 1).wp;
            let outcome = match column {
                0 => all.write(wp.unwrap_or(start(1)), bytes(1)),
                n => all.manage(
                    [Op::ZoneOpen, Op::ZoneClose, Op::ZoneFinish, Op::ZoneReset][n - 1],
                    start(1),
                ),
            };
            let now = outcome.map(|()| cond(&all, 1));
            assert_eq!(now, expected, "{from:?}, column {column}");
            if expected.is_err() {
                assert_eq!(cond(&all, 1), from, "an error that changed something");
                assert_eq!(zone(&all, 1).wp, wp);
            }
            all.self_check().unwrap();
        }
        // An append is a write that is always at the right place.
        let mut all = in_condition(from);
        let wp = zone(&all, 1).wp;
        let appended = all.append(start(1), bytes(1));
        match row[0] {
            Ok(to) => {
                assert_eq!(appended, Ok(wp.unwrap()));
                assert_eq!(cond(&all, 1), to);
            }
            Err(error) => assert_eq!(appended, Err(error), "append in {from:?}"),
        }
        // Everything can be read but what is offline.
        let read = all.read(start(1), bytes(1));
        assert_eq!(read.is_err(), from == Offline, "read in {from:?}");
    }
}

#[test]
fn conventional_zones_are_written_anywhere_and_managed_never() {
    let mut all = zones();
    for at in [5, 0, 3] {
        all.write(Sector::new(at), bytes(3)).unwrap();
    }
    for op in [Op::ZoneOpen, Op::ZoneClose, Op::ZoneFinish, Op::ZoneReset] {
        assert_eq!(all.manage(op, start(0)), Err(BlkError::Io), "{op}");
    }
    assert_eq!(all.append(start(0), bytes(1)), Err(BlkError::Io));
    assert_eq!(
        all.write(Sector::new(7), bytes(2)),
        Err(BlkError::Io),
        "into the next zone"
    );
    let first = zone(&all, 0);
    assert_eq!(
        (first.kind, first.cond),
        (ZoneType::Conventional, ZoneCond::NotWp)
    );
    assert_eq!((first.capacity, first.wp), (ZONE, Some(start(1))));
    all.self_check().unwrap();
}

#[test]
fn writes_away_from_the_write_pointer_or_past_the_capacity_change_nothing() {
    let mut all = zones();
    all.write(start(1), bytes(4)).unwrap();
    for (at, len) in [
        (ZONE, 1),
        (ZONE + 3, 1),
        (ZONE + 5, 1),
        (ZONE + 4, 3),
        (2 * ZONE + 1, 1),
        (2 * ZONE, 7),
        (u64::MAX, 1),
        (ZONES * ZONE - 1, 2),
        (ZONES * ZONE, 1),
    ] {
        let at = Sector::new(at);
        assert_eq!(all.write(at, bytes(len)), Err(BlkError::Io), "{at}+{len}");
        assert_eq!(all.check_write(at, bytes(len)), Err(BlkError::Io));
    }
    assert_eq!(all.append(start(1), bytes(3)), Err(BlkError::Io));
    assert_eq!(
        all.append(Sector::new(ZONE + 4), bytes(1)),
        Err(BlkError::Io)
    );
    for len in [0, 100, 513] {
        let len = ByteLen::new(len);
        assert_eq!(
            all.write(Sector::new(ZONE + 4), len),
            Err(BlkError::Invalid)
        );
    }
    assert_eq!(
        all.check_append(start(1), bytes(2)),
        Ok(Sector::new(ZONE + 4))
    );
    assert_eq!(zone(&all, 1).wp, Some(Sector::new(ZONE + 4)));
    assert_eq!((all.open(), all.active()), (1, 1));
    all.write(Sector::new(ZONE + 4), bytes(2)).unwrap();
    assert_eq!(cond(&all, 1), ZoneCond::Full);
}

#[test]
fn a_zone_too_many_closes_one_that_was_opened_by_a_write_in_turn() {
    let mut limited = config();
    limited.max_open = 2;
    let mut all = Zones::new(limited).unwrap();
    all.write(start(1), bytes(1)).unwrap();
    all.write(start(2), bytes(1)).unwrap();
    all.write(start(3), bytes(1)).unwrap();
    let conds = |all: &Zones| [1, 2, 3, 4].map(|n| cond(all, n));
    use ZoneCond::{Closed, Empty, ExplicitOpen, ImplicitOpen};
    assert_eq!(conds(&all), [Closed, ImplicitOpen, ImplicitOpen, Empty]);
    all.write(start(4), bytes(1)).unwrap();
    assert_eq!(conds(&all), [Closed, Closed, ImplicitOpen, ImplicitOpen]);
    all.manage(Op::ZoneOpen, start(1)).unwrap();
    assert_eq!(conds(&all), [ExplicitOpen, Closed, Closed, ImplicitOpen]);
    all.manage(Op::ZoneOpen, start(4)).unwrap();
    // Nothing is left that may be closed.
    for op in [Op::ZoneOpen, Op::ZoneFinish] {
        assert_eq!(
            all.manage(op, start(2)),
            Err(BlkError::ZoneOpenResource),
            "{op}"
        );
    }
    assert_eq!(
        all.write(Sector::new(2 * ZONE + 1), bytes(1)),
        Err(BlkError::ZoneOpenResource)
    );
    assert_eq!(
        all.append(start(5), bytes(1)),
        Err(BlkError::ZoneOpenResource)
    );
    assert_eq!(conds(&all), [ExplicitOpen, Closed, Closed, ExplicitOpen]);
    all.self_check().unwrap();
}

#[test]
fn the_limit_on_active_zones_is_looked_at_before_that_on_open_ones() {
    let mut limited = config();
    limited.max_open = 1;
    limited.max_active = 2;
    let mut all = Zones::new(limited).unwrap();
    all.write(start(1), bytes(1)).unwrap();
    all.write(start(2), bytes(1)).unwrap();
    assert_eq!((all.open(), all.active()), (1, 2));
    assert_eq!(
        all.write(start(3), bytes(1)),
        Err(BlkError::ZoneActiveResource)
    );
    assert_eq!(
        all.manage(Op::ZoneFinish, start(3)),
        Err(BlkError::ZoneActiveResource)
    );
    // A closed zone is active already; yet null_blk closes none for it at the limit.
    assert_eq!(
        all.manage(Op::ZoneOpen, start(1)),
        Err(BlkError::ZoneOpenResource)
    );
    all.manage(Op::ZoneReset, start(2)).unwrap();
    all.write(start(3), bytes(1)).unwrap();
    all.self_check().unwrap();
}

#[test]
fn a_zone_that_fails_gives_back_what_it_was_counted_as_even_at_the_limits() {
    for fault in [ZoneFault::ReadOnly, ZoneFault::Offline] {
        let mut limited = config();
        limited.max_open = 1;
        limited.max_active = 2;
        let mut all = Zones::new(limited).unwrap();
        all.write(start(1), bytes(1)).unwrap();
        all.manage(Op::ZoneOpen, start(2)).unwrap();
        assert_eq!(all.active(), 2);
        // Closed, with no room to open or finish it.
        assert_eq!(all.set_condition(start(1), fault), Ok(fault.cond()));
        assert_eq!(
            all.set_condition(Sector::new(2 * ZONE + 3), fault),
            Ok(fault.cond())
        );
        assert_eq!((all.open(), all.active()), (0, 0));
        all.self_check().unwrap();
        all.reset_all();
        assert_eq!(cond(&all, 1), fault.cond(), "no reset mends it");
        assert_eq!(zone(&all, 1).wp, None);
        assert_eq!(zone(&all, 1).to_bytes()[16..24], [0xff; 8]);
        // Said again, it is mended, and empty.
        assert_eq!(all.set_condition(start(1), fault), Ok(ZoneCond::Empty));
        all.write(start(1), bytes(1)).unwrap();
    }
    let mut all = zones();
    let conventional = ZoneFaultError::Conventional { at: Sector::new(3) };
    assert_eq!(
        all.set_condition(Sector::new(3), ZoneFault::Offline),
        Err(conventional)
    );
    let past = all.set_condition(start(ZONES), ZoneFault::Offline);
    assert!(
        matches!(past, Err(ZoneFaultError::PastEnd { .. })),
        "{past:?}"
    );
}

#[test]
fn a_transfer_that_fails_leaves_the_write_pointer_where_it_was() {
    let mut all = zones();
    let failed = all.write_with(start(1), bytes(2), || Err(BlkError::Medium));
    assert_eq!(failed, Err(BlkError::Medium));
    assert_eq!(cond(&all, 1), ZoneCond::ImplicitOpen);
    assert_eq!(zone(&all, 1).wp, Some(start(1)));
    let mut at = None;
    let appended = all.append_with(start(1), bytes(2), |sector| {
        at = Some(sector);
        Ok(())
    });
    assert_eq!((appended, at), (Ok(start(1)), Some(start(1))));
    // A write that is refused moves nothing.
    let refused = all.write_with(start(1), bytes(1), || panic!("moved bytes"));
    assert_eq!(refused, Err(BlkError::Io));
    // Opened, and nothing written: it is closed to EMPTY.
    all.manage(Op::ZoneOpen, start(2)).unwrap();
    all.manage(Op::ZoneClose, start(2)).unwrap();
    assert_eq!(cond(&all, 2), ZoneCond::Empty);
    all.self_check().unwrap();
}

#[test]
fn a_read_past_the_write_pointer_says_how_much_of_it_was_written() {
    let mut all = zones();
    all.write(start(1), bytes(3)).unwrap();
    let read = |all: &Zones, at, len| all.read(Sector::new(at), bytes(len)).map(|l| l.get() / 512);
    assert_eq!(read(&all, ZONE, 2), Ok(2));
    assert_eq!(read(&all, ZONE, 5), Ok(3));
    assert_eq!(read(&all, ZONE + 4, 2), Ok(0));
    assert_eq!(
        read(&all, 0, ZONE + 8),
        Ok(ZONE + 3),
        "from the conventional zone on"
    );
    assert_eq!(read(&all, ZONES * ZONE, 1), Err(BlkError::Io));
    all.set_condition(start(1), ZoneFault::ReadOnly).unwrap();
    assert_eq!(
        read(&all, ZONE, 8),
        Ok(8),
        "nobody knows how far it was written"
    );
    all.set_condition(start(2), ZoneFault::Offline).unwrap();
    assert_eq!(
        read(&all, ZONE, 9),
        Err(BlkError::Io),
        "into a zone that is offline"
    );
}

#[test]
fn resets_name_the_ranges_whose_contents_are_gone() {
    let mut all = zones();
    all.write(start(1), bytes(1)).unwrap();
    all.write(start(3), bytes(WRITABLE)).unwrap();
    all.set_condition(start(4), ZoneFault::ReadOnly).unwrap();
    let mut gone = vec![];
    all.manage_with(Op::ZoneResetAll, start(0), |at, len| gone.push((at, len)))
        .unwrap();
    assert_eq!(gone, [(start(1), bytes(ZONE)), (start(3), bytes(ZONE))]);
    gone.clear();
    all.manage_with(Op::ZoneReset, start(1), |at, len| gone.push((at, len)))
        .unwrap();
    assert!(gone.is_empty(), "it was empty");
    assert_eq!(
        all.manage(Op::ZoneReset, Sector::new(ZONE + 1)),
        Err(BlkError::Io)
    );
    assert_eq!(all.manage(Op::ZoneReset, start(ZONES)), Err(BlkError::Io));
    assert_eq!(
        all.manage(Op::Discard, start(1)),
        Err(BlkError::NotSupported)
    );
}

#[test]
fn a_report_has_the_kernels_layout() {
    let mut all = zones();
    all.write(start(1), bytes(2)).unwrap();
    let report: Vec<Zone> = all.report(Sector::new(ZONE + 7), 2).collect();
    assert_eq!(report.len(), 2);
    let mut expected = [0; 64];
    expected[0] = 8; // start
    expected[8] = 8; // len
    expected[16] = 10; // wp
    expected[24] = 2; // SEQWRITE_REQ
    expected[25] = 2; // IMP_OPEN
    expected[32] = 6; // capacity
    assert_eq!(report[0].to_bytes(), expected);
    assert_eq!(all.report(start(ZONES), 9).count(), 0);
    assert_eq!(all.report(start(0), usize::MAX).count() as u64, ZONES);
    let numbers = ZoneCond::ALL.map(|cond| cond as u8);
    assert_eq!(numbers, [0, 1, 2, 3, 4, 0xD, 0xE, 0xF]);
}

#[test]
fn a_layout_that_cannot_be_is_refused_with_the_numbers_in_it() {
    let refused = |change: fn(&mut ZoneConfig)| {
        let mut config = config();
        change(&mut config);
        Zones::new(config).unwrap_err()
    };
    assert!(matches!(
        refused(|c| c.zone_size = bytes(3)),
        ZoneConfigError::Size { .. }
    ));
    assert!(matches!(
        refused(|c| c.zone_size = ByteLen::new(256)),
        ZoneConfigError::Size { .. }
    ));
    assert!(matches!(
        refused(|c| c.zone_capacity = ByteLen::new(700)),
        ZoneConfigError::Sectors {
            what: "zone_capacity",
            ..
        }
    ));
    assert!(matches!(
        refused(|c| c.capacity = ByteLen::ZERO),
        ZoneConfigError::Sectors {
            what: "capacity",
            ..
        }
    ));
    assert!(matches!(
        refused(|c| c.capacity = bytes(4)),
        ZoneConfigError::LargerThanDevice { .. }
    ));
    assert!(matches!(
        refused(|c| c.zone_capacity = bytes(9)),
        ZoneConfigError::Capacity { .. }
    ));
    assert!(matches!(
        refused(|c| c.capacity = bytes(50)),
        ZoneConfigError::ShortLastZone { .. }
    ));
    assert!(matches!(
        refused(|c| c.nr_conv = 6),
        ZoneConfigError::Conventional {
            nr_conv: 6,
            zones: 6
        }
    ));
    assert!(matches!(
        refused(|c| (c.max_open, c.max_active) = (3, 2)),
        ZoneConfigError::OpenAboveActive {
            max_open: 3,
            max_active: 2
        }
    ));
    assert!(matches!(
        refused(|c| c.capacity = ByteLen::new(1 << 63)),
        ZoneConfigError::TooMany { .. }
    ));
}

#[test]
fn the_last_zone_may_be_short_and_zones_may_begin_full() {
    let mut config = ZoneConfig::new(bytes(2 * ZONE + 3), bytes(ZONE));
    config.full = true;
    let mut all = Zones::new(config).unwrap();
    let last = zone(&all, 2);
    assert_eq!((last.len, last.capacity, last.cond), (3, 3, ZoneCond::Full));
    assert_eq!(all.write(start(2), bytes(1)), Err(BlkError::Io));
    all.reset_all();
    assert_eq!(all.write(start(2), bytes(4)), Err(BlkError::Io));
    all.write(start(2), bytes(3)).unwrap();
    assert_eq!(cond(&all, 2), ZoneCond::Full);
    all.self_check().unwrap();
}

#[test]
fn appends_are_as_long_as_the_limit_says() {
    let mut limited = config();
    limited.append_max = bytes(2);
    let mut all = Zones::new(limited).unwrap();
    assert_eq!(all.append(start(1), bytes(3)), Err(BlkError::Io));
    assert_eq!(all.append(start(1), bytes(2)), Ok(start(1)));
    limited.append_max = ByteLen::new(1 << 40);
    assert_eq!(limited.limits().max_append, bytes(WRITABLE));
    limited.append_max = ByteLen::ZERO;
    let mut none = Zones::new(limited).unwrap();
    assert_eq!(none.append(start(1), bytes(1)), Err(BlkError::NotSupported));
}

/// The same device, said as plainly as possible: conditions in a list, counted anew each time.
struct Oracle {
    config: ZoneConfig,
    zones: Vec<(ZoneCond, u64)>,
    turn: usize,
}

impl Oracle {
    fn new(config: ZoneConfig) -> Self {
        let zones = (0..ZONES)
            .map(|n| match n < NR_CONV {
                true => (ZoneCond::NotWp, ZONE),
                false => (ZoneCond::Empty, 0),
            })
            .collect();
        Self {
            config,
            zones,
            turn: NR_CONV as usize,
        }
    }

    fn count(&self, conds: &[ZoneCond]) -> u32 {
        self.zones
            .iter()
            .filter(|zone| conds.contains(&zone.0))
            .count() as u32
    }

    /// May zone `n` be opened, or counted as if it were? Closes another one for it.
    fn room(&mut self, n: usize) -> Result<(), BlkError> {
        use ZoneCond::{Closed, Empty, ExplicitOpen, ImplicitOpen};
        let active = self.count(&[ImplicitOpen, ExplicitOpen, Closed]);
        let open = self.count(&[ImplicitOpen, ExplicitOpen]);
        let most = |limit: u32| if limit == 0 { u32::MAX } else { limit };
        let cond = self.zones[n].0;
        if cond == Empty && active >= most(self.config.max_active) {
            return Err(BlkError::ZoneActiveResource);
        }
        if matches!(cond, Empty | Closed) && open >= most(self.config.max_open) {
            if active >= most(self.config.max_active) || self.count(&[ImplicitOpen]) == 0 {
                return Err(BlkError::ZoneOpenResource);
            }
            while self.zones[self.turn].0 != ImplicitOpen {
                self.step();
            }
            self.zones[self.turn].0 = if self.zones[self.turn].1 == 0 {
                Empty
            } else {
                Closed
            };
            self.step();
        }
        Ok(())
    }

    fn step(&mut self) {
        self.turn += 1;
        if self.turn == ZONES as usize {
            self.turn = NR_CONV as usize;
        }
    }

    fn write(&mut self, n: usize, at: Option<u64>, len: u64, fails: bool) -> Result<u64, BlkError> {
        use ZoneCond::{Closed, Empty, ExplicitOpen, Full, ImplicitOpen};
        let (cond, wp) = self.zones[n];
        if !matches!(cond, Empty | Closed | ImplicitOpen | ExplicitOpen) {
            return Err(BlkError::Io);
        }
        if at.is_some_and(|at| at != wp) || wp + len > WRITABLE {
            return Err(BlkError::Io);
        }
        self.room(n)?;
        if cond != ExplicitOpen {
            self.zones[n].0 = ImplicitOpen;
        }
        if fails {
            return Err(BlkError::Medium);
        }
        self.zones[n].1 += len;
        if wp + len == WRITABLE {
            self.zones[n].0 = Full;
        }
        Ok(wp)
    }

    fn manage(&mut self, op: Op, n: usize) -> Result<(), BlkError> {
        use ZoneCond::{Closed, Empty, ExplicitOpen, Full, NotWp, Offline, ReadOnly};
        let (cond, wp) = self.zones[n];
        if matches!(cond, NotWp | ReadOnly | Offline) {
            return Err(BlkError::Io);
        }
        match op {
            Op::ZoneOpen if cond == Full => return Err(BlkError::Io),
            Op::ZoneOpen => {
                self.room(n)?;
                self.zones[n].0 = ExplicitOpen;
            }
            Op::ZoneClose if matches!(cond, Empty | Full) => return Err(BlkError::Io),
            Op::ZoneClose if wp == 0 => self.zones[n].0 = Empty,
            Op::ZoneClose => self.zones[n].0 = Closed,
            Op::ZoneFinish if cond == Full => {}
            Op::ZoneFinish => {
                self.room(n)?;
                self.zones[n] = (Full, ZONE);
            }
            _ => self.zones[n] = (Empty, 0),
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// At the write pointer plus this much.
    Write {
        zone: usize,
        off: u64,
        len: u64,
        fails: bool,
    },
    Append {
        zone: usize,
        len: u64,
        fails: bool,
    },
    Manage {
        op: Op,
        zone: usize,
    },
    ResetAll,
    Fault {
        zone: usize,
        fault: ZoneFault,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let zone = 0..ZONES as usize;
    let ops = prop::sample::select(vec![
        Op::ZoneOpen,
        Op::ZoneClose,
        Op::ZoneFinish,
        Op::ZoneReset,
    ]);
    let faults = prop::sample::select(vec![ZoneFault::ReadOnly, ZoneFault::Offline]);
    prop_oneof![
        8 => (zone.clone(), prop_oneof![9 => Just(0), 1 => 1..3_u64], 1..5_u64, prop::bool::weighted(0.1))
            .prop_map(|(zone, off, len, fails)| Step::Write { zone, off, len, fails }),
        4 => (zone.clone(), 1..4_u64, prop::bool::weighted(0.1))
            .prop_map(|(zone, len, fails)| Step::Append { zone, len, fails }),
        8 => (ops, zone.clone()).prop_map(|(op, zone)| Step::Manage { op, zone }),
        1 => Just(Step::ResetAll),
        2 => (zone, faults).prop_map(|(zone, fault)| Step::Fault { zone, fault }),
    ]
}

proptest! {
    #[test]
    fn zones_are_what_a_plain_list_of_them_is(
        (max_open, max_active) in prop_oneof![
            Just((0, 0)), Just((1, 0)), Just((2, 0)), Just((0, 2)), Just((1, 2)), Just((2, 3)),
        ],
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut config = config();
        (config.max_open, config.max_active) = (max_open, max_active);
        let mut all = Zones::new(config).unwrap();
        let mut oracle = Oracle::new(config);
        for step in steps {
            match step.clone() {
                Step::Write { zone, off, len, fails } => {
                    let within = oracle.zones[zone].1 + off;
                    let at = Sector::new(zone as u64 * ZONE + within.min(ZONE - 1));
                    if zone == 0 {
                        continue;
                    }
                    let outcome = all.write_with(at, bytes(len), || match fails {
                        true => Err(BlkError::Medium),
                        false => Ok(()),
                    });
                    let expected = oracle.write(zone, Some(within), len, fails).map(|_| ());
                    prop_assert_eq!(outcome, expected, "{:?}", step);
                }
                Step::Append { zone, len, fails } => {
                    let outcome = all.append_with(start(zone as u64), bytes(len), |_| match fails {
                        true => Err(BlkError::Medium),
                        false => Ok(()),
                    });
                    let expected = oracle.write(zone, None, len, fails)
                        .map(|at| Sector::new(zone as u64 * ZONE + at));
                    prop_assert_eq!(outcome, expected, "{:?}", step);
                }
                Step::Manage { op, zone } => {
                    let outcome = all.manage(op, start(zone as u64));
                    prop_assert_eq!(outcome, oracle.manage(op, zone), "{:?}", step);
                }
                Step::ResetAll => {
                    all.reset_all();
                    for zone in 0..ZONES as usize {
                        let _ = oracle.manage(Op::ZoneReset, zone);
                    }
                }
                Step::Fault { zone, fault } => {
                    let outcome = all.set_condition(start(zone as u64), fault);
                    if zone == 0 {
                        prop_assert!(outcome.is_err());
                        continue;
                    }
                    oracle.zones[zone] = match oracle.zones[zone].0 == fault.cond() {
                        true => (ZoneCond::Empty, 0),
                        false => (fault.cond(), 0),
                    };
                    prop_assert_eq!(outcome, Ok(oracle.zones[zone].0));
                }
            }
            all.self_check().map_err(TestCaseError::fail)?;
            for (n, (seen, (cond, wp))) in all.report(start(0), 99).zip(&oracle.zones).enumerate() {
                prop_assert_eq!(seen.cond, *cond, "zone {} after {:?}", n, step);
                let faulty = matches!(cond, ZoneCond::ReadOnly | ZoneCond::Offline);
                let wp = (!faulty).then_some(Sector::new(n as u64 * ZONE + wp));
                prop_assert_eq!(seen.wp, wp, "zone {} after {:?}", n, step);
            }
        }
    }
}
