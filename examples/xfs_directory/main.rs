//! Lists a directory of an XFS image by walking its btree, of which every block stands together from wherever its pieces lie: the frames of
//! the device, which have no descriptors, mapped one behind the other. With `--recover` the log is put back first.
//!
//! `cargo run --release --example xfs_directory -- IMAGE PATH`

extern crate alloc;

mod disk;
mod mapped;
#[path = "../stdout/mod.rs"]
mod stdout;
mod xfs;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use pageless_fault::Protection;

use disk::{Disk, Image};
use mapped::Mapper;
use xfs::directory::Directory;
use xfs::inode::Fork;
use xfs::log::{Log, Recovered, State, recover};
use xfs::object::Objects;
use xfs::volume::{Source, Volume};

/// Lists a directory of an XFS image (version 5) that is not mounted.
///
/// An image with directory blocks of 64 KiB and no need to mount it comes from
///
///   truncate -s 512m IMAGE
///   mkfs.xfs -n size=65536 -p PROTOTYPE IMAGE
///
/// (mkfs.xfs(8) has the format of PROTOTYPE.) One that is scattered, with changes that are only in its log, is in
/// tests/xfs_directory/interrupted.tar.xz; its directory is /scattered.
///
/// The image has to be writable: it is opened as a device of persistent memory.
#[derive(Debug, Parser)]
#[command(verbatim_doc_comment, arg_required_else_help = true, after_help = STATUS)]
struct Arguments {
    /// The image
    image: PathBuf,
    /// A directory, from the root of the volume on
    path: String,
    /// Look for these names instead of listing all
    names: Vec<String>,
    /// Put back what the log says about the directory's blocks first. Changes the image
    #[arg(long)]
    recover: bool,
    /// Hold the btree, the entries and the index of room against each other
    #[arg(long)]
    check: bool,
    /// Only count
    #[arg(long, short)]
    quiet: bool,
}

const STATUS: &str = "\
Exit status: 0 done, and all of NAMES are there; 1 not read, not sound, or one of NAMES is missing; 2 wrong usage.";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    stdout::speaking(|out| run(&arguments, out))
}

fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<(), Box<dyn core::error::Error>> {
    let image = Image::open(&arguments.image)?;
    // Errors of the image say where in it; which one it is, is known here.
    look(arguments, &image, out).map_err(|error| match error.is::<io::Error>() {
        true => error,
        false => format!("{}: {error}", arguments.image.display()).into(),
    })
}

/// The directory that was asked for.
fn open<'v, S: Source, O: Objects>(
    volume: &'v mut Volume<S>,
    objects: &'v O,
    path: &str,
) -> Result<Directory<'v, S, O>, String> {
    Directory::open(volume, objects, path).map_err(|error| format!("{path}: {error}"))
}

fn look(
    arguments: &Arguments,
    image: &Image,
    out: &mut dyn Write,
) -> Result<(), Box<dyn core::error::Error>> {
    let disk = image.disk()?;
    let mut volume = Volume::open(&disk)?;
    put_back(arguments, image, &disk, &mut volume, out)?;

    let mapper = Mapper::new(image.frames(), Protection::Read)?;
    let objects = &mapper;
    let mut directory = open(&mut volume, &objects, &arguments.path)?;
    let shown = |name: &[u8]| name.escape_ascii().to_string();
    if arguments.names.is_empty() {
        let entries = directory.entries_by_hash()?;
        for entry in entries.iter().filter(|_| !arguments.quiet) {
            writeln!(out, "{:>12} {}", entry.inode, shown(&entry.name))?;
        }
        writeln!(
            out,
            "{} entries, in the order of their hashes",
            entries.len()
        )?;
    }
    let mut missing = Vec::new();
    for name in &arguments.names {
        match directory.lookup(name.as_bytes())? {
            Some(inode) => writeln!(out, "{inode:>12} {}", shown(name.as_bytes()))?,
            None => {
                writeln!(out, "{:>12} {}", "-", shown(name.as_bytes()))?;
                missing.push(shown(name.as_bytes()));
            }
        }
    }

    if arguments.check {
        check(&mut directory, out)?;
    }
    let inode = directory.inode();
    match &inode.fork {
        Fork::Local(bytes) => writeln!(
            out,
            "inode {}: all of it in the inode, {} bytes",
            inode.number,
            bytes.len()
        )?,
        Fork::Extents { list, levels } => writeln!(
            out,
            "inode {}: {} extents, {}",
            inode.number,
            list.len(),
            match levels {
                0 => "listed in the inode".to_owned(),
                levels => format!("in a tree with {levels} level(s) below the inode"),
            }
        )?,
    }
    let stood = directory.stood();
    writeln!(
        out,
        "{} directory blocks mapped as one object each: {} pieces of the device, {} in the most scattered one; {} frames, \
         no descriptors",
        stood.objects,
        stood.pieces,
        stood.most,
        mapper.mapped()
    )?;
    if !missing.is_empty() {
        let path = &arguments.path;
        return Err(format!("{path}: no entry {}", missing.join(", ")).into());
    }
    Ok(())
}

/// Whether the three parts of a directory agree.
fn check<S: Source, O: Objects>(
    directory: &mut Directory<'_, S, O>,
    out: &mut dyn Write,
) -> Result<(), Box<dyn core::error::Error>> {
    let (mut by_hash, mut by_place) = (directory.entries_by_hash()?, directory.entries()?);
    by_hash.sort();
    by_place.sort();
    if by_hash != by_place {
        return Err("the btree leads to other entries than there are".into());
    }
    let rooms = directory.check_rooms()?;
    writeln!(
        out,
        "the btree leads to each of {} entries, and the index of room is right about {rooms} blocks",
        by_place.len()
    )?;
    Ok(())
}

/// Says what the log has, and puts it back if that is wanted.
fn put_back<'d, 'i>(
    arguments: &Arguments,
    image: &Image,
    disk: &'d Disk<'i>,
    volume: &mut Volume<&'d Disk<'i>>,
    out: &mut dyn Write,
) -> Result<(), Box<dyn core::error::Error>> {
    let log = Log::open(volume)?;
    if log.state() == State::Clean {
        return Ok(());
    }
    let records = log.records(volume)?;
    if !arguments.recover {
        writeln!(
            out,
            "the log has {} records that may be newer than the device: --recover puts back what is, and leaves the log as it is",
            records.len()
        )?;
        return Ok(());
    }
    let mapper = Mapper::new(image.frames(), Protection::ReadWrite)?;
    let objects = &mapper;
    let directory = open(volume, &objects, &arguments.path)?;
    let count = records.len();
    let Recovered {
        others,
        cancelled,
        seen,
        items,
        bytes,
        blocks,
        most,
    } = recover(records, &directory, &objects)?;
    disk.flush().map_err(String::from)?;
    writeln!(
        out,
        "{count} records of the log: {items} changes put back, {bytes} bytes in {blocks} directory blocks, of up to {most} pieces each"
    )?;
    writeln!(
        out,
        "{seen} the device had seen, {cancelled} were cancelled; {others} are about other things, and are left alone"
    )?;
    Ok(())
}
