//! Hazard: an image that loses what was written, or one that cannot be used and says nothing
//! useful about it.

extern crate alloc;

mod rig;

use alloc::sync::Arc;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use pageless_block::{
    Bio, BytePos, FrameAccess, LayoutError, MapError, MapPolicy, Pmem, PmemFrames, PmemOpenError,
    Sector,
};
use pageless_pfn::{ByteLen, Pfn, PfnFlags};

fn base() -> Pfn {
    rig::pfn(rig::PMEM_BASE)
}

fn open(path: &Path) -> Result<PmemFrames, PmemOpenError> {
    PmemFrames::open(base(), path)
}

fn image(dir: &Path, len: u64) -> std::path::PathBuf {
    let path = dir.join("image");
    File::create(&path).unwrap().set_len(len).unwrap();
    path
}

/// Writes `text` to sector 3 and flushes.
fn write_and_flush(frames: PmemFrames, text: &[u8; 512]) {
    let ram = rig::ram(1);
    let device = Pmem::new(Arc::new(frames), Arc::clone(&ram));
    let buffer = rig::segment(&ram, 0, 512);
    ram.write_bytes(buffer, text).unwrap();
    rig::run(&device, Bio::write(Sector::new(3), buffer));
    rig::run(&device, Bio::flush());
}

#[test]
fn what_was_written_is_in_the_file_and_there_again_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new");
    let text = [0x5a; 512];
    write_and_flush(
        PmemFrames::create(base(), &path, ByteLen::new(1 << 20)).unwrap(),
        &text,
    );
    let mut read = [0; 512];
    File::open(&path)
        .unwrap()
        .read_exact_at(&mut read, 3 * 512)
        .unwrap();
    assert_eq!(read, text);

    let frames = open(&path).unwrap();
    assert!(frames.is_image());
    assert_eq!(frames.len().get(), 1 << 20);
    let again = frames
        .segment(BytePos::new(3 * 512), ByteLen::new(512), PfnFlags::DEV)
        .unwrap();
    assert_eq!(rig::bytes_of(&frames, again), text);
}

/// KiB of the mapping of `path` that have been changed since they were last written back.
fn dirty_kib(path: &Path) -> u64 {
    let maps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut ours = false;
    let mut dirty = 0;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("Shared_Dirty:" | "Private_Dirty:"), Some(kib)) if ours => {
                dirty += kib.parse::<u64>().unwrap();
            }
            (Some(range), _) if range.contains('-') => {
                ours = line.ends_with(path.to_str().unwrap());
            }
            _ => {}
        }
    }
    dirty
}

fn is_tmpfs(path: &Path) -> bool {
    /// `TMPFS_MAGIC` of `linux/magic.h`.
    const TMPFS: i64 = 0x0102_1994;
    rustix::fs::statfs(path).unwrap().f_type == TMPFS
}

#[test]
fn a_flush_leaves_nothing_unwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), 1 << 20).canonicalize().unwrap();
    let ram = rig::ram(256);
    let device = Pmem::new(open(&path).unwrap(), Arc::clone(&ram));
    let whole = rig::segment(&ram, 0, 1 << 20);
    ram.write_bytes(whole, &[3; 1 << 20]).unwrap();
    rig::run(&device, Bio::write(Sector::new(0), whole));
    let before = dirty_kib(&path);
    rig::run(&device, Bio::flush());
    let after = dirty_kib(&path);
    if is_tmpfs(&path) {
        // Not `eprintln!`: what a passing test prints is not shown.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: {} is on tmpfs, where pages stay dirty",
            path.display()
        );
        return;
    }
    assert!(before > 0, "nothing was dirty to begin with");
    assert_eq!(after, 0, "KiB are dirty after a flush, {before} before");
}

#[test]
fn an_image_seen_through_windows_keeps_what_was_written_through_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), 1 << 20);
    let policy = MapPolicy {
        direct_limit: ByteLen::ZERO,
        window: ByteLen::new(8192),
        windows: 1,
    };
    let frames = PmemFrames::open_with(base(), &path, None, policy).unwrap();
    let ram = rig::ram(256);
    let device = Pmem::new(Arc::new(frames), Arc::clone(&ram));
    let whole = rig::segment(&ram, 0, 1 << 20);
    let data: Vec<u8> = (0..1_u32 << 20)
        .map(|n| (n / 4096) as u8 ^ n as u8)
        .collect();
    ram.write_bytes(whole, &data).unwrap();
    rig::run(&device, Bio::write(Sector::new(0), whole));
    rig::run(&device, Bio::flush());
    assert!(fs::read(&path).unwrap() == data);
}

#[test]
fn bytes_of_the_file_beyond_the_device_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), 8192);
    let frames = PmemFrames::open_sized(base(), &path, ByteLen::new(4096)).unwrap();
    assert_eq!(frames.range().count().get(), 1);
    assert_eq!(
        frames.segment(BytePos::new(4096), ByteLen::new(1), PfnFlags::DEV),
        None
    );
}

#[test]
fn a_missing_image_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nowhere");
    let error = open(&path).unwrap_err();
    assert!(matches!(&error, PmemOpenError::Missing { path: p } if *p == path));
    assert!(error.to_string().contains("nowhere"));
}

#[test]
fn a_directory_is_no_image() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        open(dir.path()),
        Err(PmemOpenError::Directory { .. })
    ));
}

#[test]
fn a_character_device_is_no_image() {
    assert!(matches!(
        open(Path::new("/dev/null")),
        Err(PmemOpenError::NotAFile { .. })
    ));
}

#[test]
fn an_image_that_nobody_may_write_is_refused_for_root_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), 4096);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    assert!(matches!(open(&path), Err(PmemOpenError::ReadOnly { .. })));
}

#[test]
fn a_short_image_says_how_long_it_is_and_should_be() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), 8192);
    match PmemFrames::open_sized(base(), &path, ByteLen::new(1 << 20)) {
        Err(error @ PmemOpenError::TooShort { .. }) => {
            let text = error.to_string();
            assert!(text.contains("8192") && text.contains("1048576"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn sizes_that_are_no_device_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        open(&image(dir.path(), 0)),
        Err(PmemOpenError::Empty { .. })
    ));
    assert!(matches!(
        open(&image(dir.path(), 4097)),
        Err(PmemOpenError::PartialFrame { .. })
    ));
    let memfd = |size| PmemFrames::memfd(base(), ByteLen::new(size));
    assert!(matches!(memfd(0), Err(PmemOpenError::Empty { .. })));
    assert!(matches!(
        memfd(512),
        Err(PmemOpenError::PartialFrame { .. })
    ));
    assert!(matches!(
        memfd((1 << 50) + 4096),
        Err(PmemOpenError::TooLarge { .. })
    ));
    assert!(matches!(memfd(!4095), Err(PmemOpenError::TooLarge { .. })));
}

#[test]
fn frames_without_numbers_are_refused() {
    let last = Pfn::MAX;
    assert!(PmemFrames::memfd(last, ByteLen::new(4096)).is_ok());
    let beyond = PmemFrames::memfd(last, ByteLen::new(8192));
    assert!(matches!(beyond, Err(PmemOpenError::Range(_))));
}

#[test]
fn an_existing_file_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), 4096);
    let created = PmemFrames::create(base(), &path, ByteLen::new(8192));
    assert!(matches!(created, Err(PmemOpenError::Exists { .. })));
    assert_eq!(fs::metadata(&path).unwrap().len(), 4096);
}

#[test]
fn an_image_that_could_not_be_made_is_not_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new");
    let refused = PmemFrames::create(Pfn::MAX, &path, ByteLen::new(8192));
    assert!(matches!(refused, Err(PmemOpenError::Range(_))));
    assert!(!path.exists());
    assert!(PmemFrames::create(base(), &path, ByteLen::new(8192)).is_ok());
}

#[test]
fn more_than_the_address_space_is_refused_with_the_number() {
    let whole = MapPolicy {
        direct_limit: ByteLen::new(1 << 50),
        ..MapPolicy::default()
    };
    match PmemFrames::memfd_with(base(), ByteLen::new(1 << 50), whole) {
        Err(PmemOpenError::Map(MapError::AddressSpace { bytes })) => {
            assert_eq!(bytes.get(), 1 << 50);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn windows_that_are_none_are_refused() {
    let none = ByteLen::ZERO;
    for (window, windows) in [(4095, 8), (0, 8), (2048, 8), (8192, 0)] {
        let policy = MapPolicy {
            direct_limit: none,
            window: ByteLen::new(window),
            windows,
        };
        let built = PmemFrames::memfd_with(base(), ByteLen::new(1 << 20), policy);
        assert!(
            matches!(built, Err(PmemOpenError::Policy { .. })),
            "{window} {windows}"
        );
    }
}

#[test]
fn layout_takes_blocks_for_exactly_the_range_and_keeps_contents() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), 1 << 20);
    let frames = open(&path).unwrap();
    let at = frames
        .segment(BytePos::new(70_000), ByteLen::new(3), PfnFlags::DEV)
        .unwrap();
    frames.write_bytes(at, b"abc").unwrap();
    frames
        .layout(BytePos::new(65_536), ByteLen::new(131_072))
        .unwrap();
    assert_eq!(rig::bytes_of(&frames, at), b"abc");
    let blocks = fs::metadata(&path).unwrap().blocks() * 512;
    assert!(
        (131_072..400_000).contains(&blocks),
        "{blocks} bytes of blocks"
    );
}

#[test]
fn layout_of_a_memfd_beyond_memory_is_an_error_with_both_numbers() {
    let frames = rig::memfd(1 << 49);
    match frames.layout(BytePos::new(0), ByteLen::new(1 << 49)) {
        Err(LayoutError::NoMemory { needed, available }) => {
            assert!(needed > available && available.get() > 0);
        }
        other => panic!("{other:?}"),
    }
    frames
        .layout(BytePos::new(1 << 48), ByteLen::new(1 << 20))
        .unwrap();
    let past = frames.layout(BytePos::new(1 << 49), ByteLen::new(1));
    assert!(matches!(past, Err(LayoutError::PastEnd { .. })));
    let wrapped = frames.layout(BytePos::new(u64::MAX), ByteLen::new(u64::MAX));
    assert!(matches!(wrapped, Err(LayoutError::PastEnd { .. })));
}

#[test]
fn discard_gives_blocks_back_and_reads_as_zeroes() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), 4 << 20);
    let ram = rig::ram(1024);
    let device = Pmem::new(Arc::new(open(&path).unwrap()), Arc::clone(&ram));
    let whole = rig::segment(&ram, 0, 4 << 20);
    ram.write_bytes(whole, &vec![1; 4 << 20]).unwrap();
    rig::run(&device, Bio::write(Sector::new(0), whole));
    rig::run(&device, Bio::flush());
    let before = fs::metadata(&path).unwrap().blocks();
    rig::run(&device, Bio::discard(Sector::new(0), ByteLen::new(1 << 20)));
    rig::run(
        &device,
        Bio::write_zeroes(Sector::new(4096), ByteLen::new((1 << 20) + 512)),
    );
    rig::run(
        &device,
        Bio::write_zeroes(Sector::new(8000), ByteLen::new(512)),
    );
    rig::run(&device, Bio::flush());
    let after = fs::metadata(&path).unwrap().blocks();
    assert!(
        after + 4000 < before,
        "{before} blocks before, {after} after"
    );
    rig::run(&device, Bio::read(Sector::new(0), whole));
    let mut expected = vec![1_u8; 4 << 20];
    expected[..1 << 20].fill(0);
    expected[2 << 20..(3 << 20) + 512].fill(0);
    expected[8000 * 512..8001 * 512].fill(0);
    assert!(rig::bytes_of(&ram, whole) == expected);
}
