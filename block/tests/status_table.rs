//! Hazard: a status that means something else to whoever knows Linux's numbers.

use pageless_block::{Action, BioFlags, BlkError, Features, Op};

#[test]
fn statuses_have_linux_numbers_and_errnos() {
    // (status, number, errno on x86-64)
    let table = [
        (BlkError::NotSupported, 1, 95),
        (BlkError::Timeout, 2, 110),
        (BlkError::NoSpace, 3, 28),
        (BlkError::Transport, 4, 67),
        (BlkError::Target, 5, 121),
        (BlkError::ReservationConflict, 6, 52),
        (BlkError::Medium, 7, 61),
        (BlkError::Protection, 8, 84),
        (BlkError::Resource, 9, 12),
        (BlkError::Io, 10, 5),
        (BlkError::Requeue, 11, 78),
        (BlkError::Again, 12, 11),
        (BlkError::DeviceResource, 13, 16),
        (BlkError::ZoneOpenResource, 14, 109),
        (BlkError::ZoneActiveResource, 15, 75),
        (BlkError::Offline, 16, 19),
        (BlkError::DurationLimit, 17, 62),
        (BlkError::Invalid, 19, 22),
    ];
    assert_eq!(table.map(|(status, ..)| status), BlkError::ALL);
    for (status, code, errno) in table {
        assert_eq!((status.code(), status.errno()), (code, errno), "{status:?}");
    }
}

#[test]
fn a_result_takes_one_byte() {
    assert_eq!(size_of::<Result<(), BlkError>>(), 1);
}

#[test]
fn operations_have_linux_numbers_and_no_other_number_is_one() {
    let named = [
        (0, Op::Read),
        (1, Op::Write),
        (2, Op::Flush),
        (3, Op::Discard),
        (5, Op::SecureErase),
        (7, Op::ZoneAppend),
        (9, Op::WriteZeroes),
        (11, Op::ZoneOpen),
        (13, Op::ZoneClose),
        (15, Op::ZoneFinish),
        (17, Op::ZoneReset),
        (19, Op::ZoneResetAll),
        (34, Op::DriverIn),
        (35, Op::DriverOut),
    ];
    assert_eq!(named.map(|(_, op)| op), Op::ALL);
    for code in 0..=u8::MAX {
        let expected = named.iter().find(|(n, _)| *n == code).map(|(_, op)| *op);
        assert_eq!(Op::try_from(code).ok(), expected);
    }
}

#[test]
fn flags_have_linux_bits() {
    // `enum req_flag_bits` from bit 8 on, in its order.
    let names = [
        "FAILFAST_DEV",
        "FAILFAST_TRANSPORT",
        "FAILFAST_DRIVER",
        "SYNC",
        "META",
        "PRIO",
        "NOMERGE",
        "IDLE",
        "INTEGRITY",
        "FUA",
        "PREFLUSH",
        "RAHEAD",
        "BACKGROUND",
        "NOWAIT",
        "POLLED",
        "ALLOC_CACHE",
        "SWAP",
        "DRV",
        "FS_PRIVATE",
        "ATOMIC",
        "NOUNMAP",
    ];
    let ours: Vec<_> = BioFlags::all()
        .iter_names()
        .map(|(name, flag)| (name, flag.bits()))
        .collect();
    let linux: Vec<_> = names.into_iter().zip((8..).map(|bit| 1 << bit)).collect();
    assert_eq!(ours, linux);
}

#[test]
fn features_have_linux_bits_and_ours_keep_clear_of_them() {
    let ours: Vec<_> = Features::all()
        .iter_names()
        .map(|(name, feature)| (name, feature.bits().trailing_zeros()))
        .collect();
    let expected = [
        ("WRITE_CACHE", 0),
        ("FUA", 1),
        ("ROTATIONAL", 2),
        ("ADD_RANDOM", 3),
        ("IO_STAT", 4),
        ("STABLE_WRITES", 5),
        ("SYNCHRONOUS", 6),
        ("NOWAIT", 7),
        ("DAX", 8),
        ("POLL", 9),
        ("ZONED", 10),
        ("PCI_P2PDMA", 12),
        ("PAGELESS", 24),
        ("READ_ONLY", 25),
    ];
    assert_eq!(ours, expected);
}

#[test]
fn actions_have_the_numbers_of_blktrace() {
    let numbers = Action::ALL.map(|action| action as u8);
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16]);
}
