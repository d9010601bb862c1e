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
    use std::fs::File;
    use std::process::Stdio;

    use crate::example::{example, example_into, said};
    use crate::interrupted::interrupted;
    use crate::volumes::{LARGE, names, volume};

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
        assert!(complaint.contains(image), "{complaint}");
        let expected = "superblock at byte 0x0: magic number 0x0, not 0x58465342";
        assert!(complaint.contains(expected), "{complaint}");
    }

    #[test]
    fn what_is_not_there_is_named_with_its_image_and_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let Some(image) = volume(directory.path(), LARGE, &names(3)) else {
            return;
        };
        let image = image.to_str().unwrap();
        let name = &names(1)[0];
        let (code, told, complaint) = said(&example("xfs_directory", &[image, "/big", name]));
        assert_eq!(code, Some(0), "{complaint}");
        assert!(told.contains(name), "{told}");

        let (code, told, complaint) = said(&example("xfs_directory", &[image, "/big", "x", name]));
        assert_eq!(code, Some(1), "{told}");
        assert!(told.contains(name), "{told}");
        assert_eq!(
            complaint,
            format!("xfs_directory: {image}: /big: no entry x\n")
        );

        let file = format!("/big/{name}");
        for (path, reason) in [
            ("/no", "has no entry \"no\""),
            (&file, "is not a directory"),
        ] {
            let (code, _, complaint) = said(&example("xfs_directory", &[image, path]));
            assert_eq!(code, Some(1));
            assert!(
                complaint.contains(&format!("{image}: {path}: ")),
                "{complaint}"
            );
            assert!(complaint.contains(reason), "{complaint}");
        }
    }

    #[test]
    fn a_full_disk_is_an_error_and_a_reader_that_goes_away_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let Some(image) = volume(directory.path(), LARGE, &names(3)) else {
            return;
        };
        let image = image.to_str().unwrap();
        let into = |out: Stdio| said(&example_into(out, "xfs_directory", &[image, "/big"]));
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (code, _, complaint) = into(full.into());
        assert_eq!(code, Some(1));
        assert!(
            complaint.starts_with("xfs_directory: standard output: No space"),
            "{complaint}"
        );

        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (code, _, complaint) = into(writer.into());
        assert_eq!((code, complaint.as_str()), (Some(0), ""));
    }

    #[test]
    fn the_readme_shows_what_comes_out() {
        let directory = tempfile::tempdir().unwrap();
        let Some(image) = interrupted(directory.path()) else {
            return;
        };
        let image = image.to_str().unwrap();
        let arguments = [image, "/scattered", "--quiet", "--check", "--recover"];
        let (code, told, complaint) = said(&example("xfs_directory", &arguments));
        assert_eq!(code, Some(0), "{complaint}");
        let readme = include_str!("../../README.md");
        assert!(readme.contains(told.trim_end()), "{told}");
    }
}
