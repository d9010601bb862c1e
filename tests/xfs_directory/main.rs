//! Hazard: a directory block whose pieces lie scattered on a device is read, or changed, as if they were apart. Volumes are made by
//! `mkfs.xfs`; what is in them is what `xfs_db` says, and whether they are sound is what `xfs_repair` says.

#![cfg(target_os = "linux")]

extern crate alloc;

mod damage;
#[path = "../../examples/xfs_directory/disk.rs"]
mod disk;
#[path = "../example/mod.rs"]
mod example;
mod interrupted;
mod listing;
#[path = "../../examples/xfs_directory/mapped.rs"]
mod mapped;
mod patched;
mod recovery;
mod scattered;
mod tool;
mod volumes;
mod written;
#[path = "../../examples/xfs_directory/xfs/mod.rs"]
mod xfs;

/// The example, from the outside.
mod program {
    use crate::example::{example, said};

    #[test]
    fn it_explains_itself_without_arguments() {
        let (code, _, complaint) = said(&example("xfs_directory", &[]));
        assert_eq!(code, Some(2));
        assert!(complaint.contains("Usage:"), "{complaint}");
    }

    #[test]
    fn what_is_no_volume_is_an_error_that_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("zeroes");
        std::fs::write(&image, vec![0; 1 << 20]).unwrap();
        let image = image.to_str().unwrap();
        let (code, _, complaint) = said(&example("xfs_directory", &[image, "/"]));
        assert_eq!(code, Some(1));
        let expected = "superblock at byte 0x0: magic number 0x0, not 0x58465342";
        assert!(complaint.contains(expected), "{complaint}");
    }
}
