//! Hazard: a status that means something else to whoever knows Linux's numbers.

use pageless_block::{BlkError, Op};

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
        (9, Op::WriteZeroes),
    ];
    for code in 0..=u8::MAX {
        let expected = named.iter().find(|(n, _)| *n == code).map(|(_, op)| *op);
        assert_eq!(Op::try_from(code).ok(), expected);
    }
}
