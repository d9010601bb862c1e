//! Lists a directory of an XFS image by walking its btree, of which every block stands together from wherever its pieces lie: the frames of
//! the device, which have no descriptors, mapped one behind the other. With `--recover` the log is put back first.
//!
//! `cargo run --release --example xfs_directory -- IMAGE PATH`

extern crate alloc;

mod disk;
mod mapped;
mod xfs;

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
/// The image has to be writable: it is opened as a device of persistent memory.
#[derive(Debug, Parser)]
#[command(verbatim_doc_comment, arg_required_else_help = true)]
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

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xfs_directory: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn core::error::Error>> {
    let image = Image::open(&arguments.image)?;
    let disk = image.disk()?;
    let mut volume = Volume::open(&disk)?;
    put_back(arguments, &image, &disk, &mut volume)?;

    let mapper = Mapper::new(image.frames(), Protection::Read)?;
    let objects = &mapper;
    let mut directory = Directory::open(&mut volume, &objects, &arguments.path)?;
    let shown = |name: &[u8]| name.escape_ascii().to_string();
    if arguments.names.is_empty() {
        let entries = directory.entries_by_hash()?;
        for entry in entries.iter().filter(|_| !arguments.quiet) {
            println!("{:>12} {}", entry.inode, shown(&entry.name));
        }
        println!("{} entries, in the order of their hashes", entries.len());
    }
    for name in &arguments.names {
        match directory.lookup(name.as_bytes())? {
            Some(inode) => println!("{inode:>12} {}", shown(name.as_bytes())),
            None => println!("{:>12} {}", "-", shown(name.as_bytes())),
        }
    }

    if arguments.check {
        check(&mut directory)?;
    }
    let inode = directory.inode();
    match &inode.fork {
        Fork::Local(bytes) => println!(
            "inode {}: all of it in the inode, {} bytes",
            inode.number,
            bytes.len()
        ),
        Fork::Extents { list, levels } => println!(
            "inode {}: {} extents, {}",
            inode.number,
            list.len(),
            match levels {
                0 => "listed in the inode".to_owned(),
                levels => format!("in a tree with {levels} level(s) below the inode"),
            }
        ),
    }
    let stood = directory.stood();
    println!(
        "{} directory blocks mapped as one object each: {} pieces of the device, {} in the most scattered one; {} frames, \
         no descriptors",
        stood.objects,
        stood.pieces,
        stood.most,
        mapper.mapped()
    );
    Ok(())
}

/// Whether the three parts of a directory agree.
fn check<S: Source, O: Objects>(
    directory: &mut Directory<'_, S, O>,
) -> Result<(), Box<dyn core::error::Error>> {
    let (mut by_hash, mut by_place) = (directory.entries_by_hash()?, directory.entries()?);
    by_hash.sort();
    by_place.sort();
    if by_hash != by_place {
        return Err("the btree leads to other entries than there are".into());
    }
    let rooms = directory.check_rooms()?;
    println!(
        "the btree leads to each of {} entries, and the index of room is right about {rooms} blocks",
        by_place.len()
    );
    Ok(())
}

/// Says what the log has, and puts it back if that is wanted.
fn put_back<'d, 'i>(
    arguments: &Arguments,
    image: &Image,
    disk: &'d Disk<'i>,
    volume: &mut Volume<&'d Disk<'i>>,
) -> Result<(), Box<dyn core::error::Error>> {
    let log = Log::open(volume)?;
    if log.state() == State::Clean {
        return Ok(());
    }
    let records = log.records(volume)?;
    if !arguments.recover {
        println!(
            "the log has {} records that may not be on the device: what follows may be old, --recover puts them back",
            records.len()
        );
        return Ok(());
    }
    let mapper = Mapper::new(image.frames(), Protection::ReadWrite)?;
    let objects = &mapper;
    let directory = Directory::open(volume, &objects, &arguments.path)?;
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
    println!(
        "{count} records of the log: {items} changes put back, {bytes} bytes in {blocks} directory blocks, of up to {most} pieces each"
    );
    println!(
        "{seen} the device had seen, {cancelled} were cancelled; {others} are about other things, and are left alone"
    );
    Ok(())
}
