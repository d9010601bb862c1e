//! A job section understood: every option typed and checked.

use core::time::Duration;

use super::direction::{Direction, PerDirection};
use super::error::{JobError, JobErrorKind, Place, ValueError};
use super::ini::{Entry, IniFile, RawSection};
use super::options::{Known, Opt, lookup};
use super::size::{Bytes, Extent, KbBase, job_extent, job_size};
use super::time::{BareUnit, job_time};
use super::verify::{Method, Pattern};
use super::workload::{Access, BlockSizes, Distribution, Rates};

/// A whole job file, understood.
#[derive(Debug, Clone)]
pub struct Job {
    /// The file's name as given.
    pub file: String,
    /// What `[global]` says, as written, in order.
    pub global: Vec<(String, String)>,
    /// The sections in the file's order.
    pub sections: Vec<Section>,
    /// Options that were accepted and have no meaning here, each once, in order.
    pub without_meaning: Vec<String>,
}

/// `startdelay`: a time, or a range to draw one from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StartDelay {
    /// At least this long.
    pub low: Duration,
    /// At most this long.
    pub high: Duration,
}

/// `thinktime` and its companions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThinkTime {
    /// How long to pause.
    pub pause: Duration,
    /// How much of it to spin instead of sleep.
    pub spin: Duration,
    /// After how many requests.
    pub every: u64,
}

/// `verify` and its companions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyOptions {
    /// How blocks are checked.
    pub method: Method,
    /// What they are filled with, if the job says.
    pub pattern: Option<Pattern>,
    /// One header for so many bytes; `None` is one for each request.
    pub interval: Option<u32>,
    /// Whether the first mismatch ends the section.
    pub fatal: bool,
    /// Whether to read back what has been written.
    pub read_back: bool,
}

/// One section of a job, with everything it inherits.
#[derive(Debug, Clone)]
pub struct Section {
    /// `name=`, or the header.
    pub name: String,
    /// Where its header stands.
    pub place: Place,
    /// What the section itself says, as written (for the report).
    pub given: Vec<(String, String)>,
    /// `description`.
    pub description: Option<String>,
    /// `rw`.
    pub access: Access,
    /// `bs`, `bsrange`, `bssplit`: the strongest that is set.
    pub sizes: PerDirection<BlockSizes>,
    /// `blockalign`.
    pub align: Option<PerDirection<u32>>,
    /// `size`.
    pub size: Option<Extent>,
    /// `io_size`.
    pub io_size: Option<Extent>,
    /// Where `io_size` stands.
    pub io_size_place: Option<Place>,
    /// `filesize`.
    pub file_size: Option<Bytes>,
    /// `offset`.
    pub offset: Extent,
    /// `offset_increment`.
    pub offset_increment: Extent,
    /// `filename`.
    pub filename: Option<String>,
    /// `iodepth`.
    pub iodepth: u32,
    /// `numjobs`.
    pub numjobs: u32,
    /// `runtime`; none is unlimited.
    pub runtime: Option<Duration>,
    /// `time_based`.
    pub time_based: bool,
    /// `ramp_time`.
    pub ramp_time: Duration,
    /// `startdelay`.
    pub start_delay: StartDelay,
    /// `number_ios`.
    pub number_ios: Option<u64>,
    /// `loops`.
    pub loops: u32,
    /// `rwmixread`.
    pub reads_percent: u8,
    /// `random_distribution`.
    pub distribution: PerDirection<Distribution>,
    /// `norandommap`.
    pub without_map: bool,
    /// `randrepeat`.
    pub repeat: bool,
    /// `randseed`.
    pub seed: Option<u64>,
    /// `verify`.
    pub verify: Option<VerifyOptions>,
    /// `fsync` or `fdatasync`: a flush after so many writes.
    pub flush_every: Option<u64>,
    /// `end_fsync`.
    pub flush_at_end: bool,
    /// `rate`, `rate_iops`.
    pub rates: Rates,
    /// `thinktime`.
    pub think: Option<ThinkTime>,
    /// `stonewall`.
    pub stonewall: bool,
    /// `new_group`.
    pub new_group: bool,
    /// `group_reporting`.
    pub group_reporting: bool,
    /// `percentile_list`, ascending.
    pub percentiles: Vec<f64>,
    /// `clat_percentiles`.
    pub clat_percentiles: bool,
    /// `lat_percentiles`.
    pub lat_percentiles: bool,
    /// `ioengine=null`: requests go to a device that moves no bytes.
    pub null_device: bool,
}

/// The block size all requests must be a multiple of, in bytes.
const SECTOR: u32 = 512;

/// The one `ioengine` that means something here.
const NULL_ENGINE: &str = "null";

/// fio's default `percentile_list`.
const PERCENTILES: [f64; 17] = [
    1.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95,
    99.99,
];

impl Job {
    /// Understands a file that has been read.
    ///
    /// # Errors
    /// The first mistake, with file, line and value.
    pub fn from_ini(file: &IniFile) -> Result<Self, JobError> {
        let mut without_meaning = Vec::new();
        // Mistakes in [global] are reported even where no section inherits them.
        for entry in &file.global {
            lookup(&entry.key).map_err(|kind| entry.place.error(kind))?;
        }
        let sections = file
            .sections
            .iter()
            .map(|raw| Section::from_raw(raw, &mut without_meaning))
            .collect::<Result<Vec<_>, _>>()?;
        let global = as_given(&file.global);
        Ok(Self {
            file: file.name.to_string(),
            global,
            sections,
            without_meaning,
        })
    }
}

fn as_given(entries: &[Entry]) -> Vec<(String, String)> {
    entries
        .iter()
        .map(|e| {
            (
                e.key.clone(),
                e.value.clone().unwrap_or_else(|| "1".to_owned()),
            )
        })
        .collect()
}

/// What stands in the section, before the options are weighed against each other.
#[derive(Default)]
struct Draft {
    bs: Option<PerDirection<BlockSizes>>,
    range: Option<PerDirection<Option<BlockSizes>>>,
    split: Option<PerDirection<Option<BlockSizes>>>,
    verify: Option<Method>,
    pattern: Option<Pattern>,
    interval: Option<u32>,
    fatal: bool,
    skip_read_back: bool,
    fsync: u64,
    fdatasync: u64,
    think: Duration,
    think_spin: Duration,
    think_blocks: Option<u64>,
}

impl Section {
    fn empty(raw: &RawSection) -> Self {
        Self {
            name: raw.name.clone(),
            place: raw.place.clone(),
            given: as_given(&raw.own),
            description: None,
            access: Access::DEFAULT,
            sizes: PerDirection::all(BlockSizes::Fixed(4096)),
            align: None,
            size: None,
            io_size: None,
            io_size_place: None,
            file_size: None,
            offset: Extent::Bytes(Bytes::ZERO),
            offset_increment: Extent::Bytes(Bytes::ZERO),
            filename: None,
            iodepth: 1,
            numjobs: 1,
            runtime: None,
            time_based: false,
            ramp_time: Duration::ZERO,
            start_delay: StartDelay::default(),
            number_ios: None,
            loops: 1,
            reads_percent: 50,
            distribution: PerDirection::all(Distribution::Uniform),
            without_map: false,
            repeat: true,
            seed: None,
            verify: None,
            flush_every: None,
            flush_at_end: false,
            rates: Rates::default(),
            think: None,
            stonewall: false,
            new_group: false,
            group_reporting: false,
            percentiles: PERCENTILES.to_vec(),
            clat_percentiles: true,
            lat_percentiles: false,
            null_device: false,
        }
    }

    fn from_raw(raw: &RawSection, without_meaning: &mut Vec<String>) -> Result<Self, JobError> {
        let mut section = Self::empty(raw);
        let mut draft = Draft::default();
        let entries = || raw.inherited.iter().chain(&raw.own);
        // kb_base rules the whole section, also what stands above it, as in fio.
        let mut base = KbBase::default();
        for entry in entries().filter(|e| e.key == "kb_base") {
            base = match value_of(entry)? {
                "1024" => KbBase::Binary,
                "1000" => KbBase::Decimal,
                _ => return Err(bad(entry, ValueError::NotOneOf("1024, 1000"))),
            };
        }
        for entry in entries() {
            match lookup(&entry.key).map_err(|kind| entry.place.error(kind))? {
                Known::Honoured(opt) => {
                    if entry.value.is_none() && !opt.is_flag() {
                        let kind = JobErrorKind::MissingValue(entry.key.clone());
                        return Err(entry.place.error(kind));
                    }
                    let value = entry.value.as_deref().unwrap_or("1");
                    let other_engine = opt == Opt::IoEngine && value != NULL_ENGINE;
                    if other_engine && !without_meaning.contains(&entry.key) {
                        without_meaning.push(entry.key.clone());
                    }
                    if opt == Opt::IoSize {
                        section.io_size_place = Some(entry.place.clone());
                    }
                    section
                        .apply(&mut draft, opt, value, base)
                        .map_err(|why| bad(entry, why))?;
                }
                Known::WithoutMeaning => {
                    if !without_meaning.contains(&entry.key) {
                        without_meaning.push(entry.key.clone());
                    }
                }
            }
        }
        section.weigh(draft).map_err(|what| {
            let kind = JobErrorKind::Contradiction {
                section: raw.name.clone(),
                what,
            };
            raw.place.error(kind)
        })?;
        Ok(section)
    }

    fn apply(
        &mut self,
        draft: &mut Draft,
        opt: Opt,
        value: &str,
        base: KbBase,
    ) -> Result<(), ValueError> {
        let int = |low: u64, high: u64| integer(value, base, low, high);
        let flag = || flag(value);
        let seconds = || job_time(value, BareUnit::Seconds);
        let micros = || job_time(value, BareUnit::Microseconds);
        let nothing = None;
        match opt {
            Opt::KbBase => {}
            Opt::Name => value.clone_into(&mut self.name),
            Opt::Description => self.description = Some(value.to_owned()),
            Opt::Access => self.access = Access::parse(value, base)?,
            Opt::BlockSize => {
                draft.bs = Some(PerDirection::parse(value, &BlockSizes::Fixed(4096), |t| {
                    BlockSizes::parse_fixed(t, base).and_then(sectors)
                })?);
            }
            Opt::BlockRange => {
                draft.range = Some(PerDirection::parse(value, &None, |t| {
                    BlockSizes::parse_range(t, base).and_then(sectors).map(Some)
                })?);
            }
            Opt::BlockSplit => {
                draft.split = Some(PerDirection::parse(value, &None, |t| {
                    BlockSizes::parse_split(t, base).and_then(sectors).map(Some)
                })?);
            }
            Opt::BlockAlign => {
                self.align = Some(PerDirection::parse(value, &SECTOR, |t| {
                    let align = small(t, base, u64::from(SECTOR), 1 << 30)?;
                    if align % SECTOR == 0 {
                        Ok(align)
                    } else {
                        Err(ValueError::PartialSector)
                    }
                })?);
            }
            Opt::Size => self.size = Some(nonzero(job_extent(value, base)?)?),
            Opt::IoSize => self.io_size = Some(nonzero(job_extent(value, base)?)?),
            Opt::FileSize => {
                let (low, _) = value.split_once('-').map_or((value, ""), |(a, b)| (b, a));
                self.file_size = Some(job_size(low, base)?);
            }
            Opt::Offset => self.offset = job_extent(value, base)?,
            Opt::OffsetIncrement => self.offset_increment = job_extent(value, base)?,
            Opt::Filename => {
                if value.is_empty() {
                    return Err(ValueError::Empty);
                }
                self.filename = Some(value.to_owned());
            }
            Opt::NrFiles => {
                if int(0, u64::MAX)? != 1 {
                    return Err(ValueError::Unsupported(
                        "only 1 is supported, a section works on one file",
                    ));
                }
            }
            Opt::IoDepth => self.iodepth = small(value, base, 1, 4096)?,
            Opt::NumJobs => self.numjobs = small(value, base, 1, 256)?,
            Opt::Runtime => self.runtime = Some(seconds()?).filter(|t| !t.is_zero()),
            Opt::TimeBased => self.time_based = flag()?,
            Opt::RampTime => self.ramp_time = seconds()?,
            Opt::StartDelay => {
                let (low, high) = value.split_once('-').unwrap_or((value, value));
                let (low, high) = (
                    job_time(low, BareUnit::Seconds)?,
                    job_time(high, BareUnit::Seconds)?,
                );
                self.start_delay = StartDelay {
                    low: low.min(high),
                    high: low.max(high),
                };
            }
            Opt::NumberIos => self.number_ios = Some(int(1, u64::MAX)?),
            Opt::Loops => self.loops = small(value, base, 1, u64::from(u32::MAX))?,
            Opt::RwMixRead => self.reads_percent = percent(value, base)?,
            Opt::RwMixWrite => self.reads_percent = 100 - percent(value, base)?,
            Opt::Distribution => {
                self.distribution = distributions(value, base)?;
            }
            Opt::NoRandomMap => self.without_map = flag()?,
            Opt::RandRepeat => self.repeat = flag()?,
            Opt::RandSeed => self.seed = Some(int(0, u64::MAX)?),
            Opt::Verify => draft.verify = Method::parse(value)?,
            Opt::VerifyPattern => draft.pattern = Some(Pattern::parse(value)?),
            Opt::VerifyInterval => {
                let interval = small(value, base, u64::from(SECTOR), 1 << 30)?;
                if interval % SECTOR != 0 {
                    return Err(ValueError::PartialSector);
                }
                draft.interval = Some(interval);
            }
            Opt::VerifyFatal => draft.fatal = flag()?,
            Opt::DoVerify => draft.skip_read_back = !flag()?,
            Opt::Fsync => draft.fsync = int(0, u64::MAX)?,
            Opt::Fdatasync => draft.fdatasync = int(0, u64::MAX)?,
            Opt::EndFsync => self.flush_at_end = flag()?,
            Opt::RateIops => {
                self.rates.iops = PerDirection::parse(value, &nothing, |t| rate(t, base))?;
            }
            Opt::Rate => {
                self.rates.bytes = PerDirection::parse(value, &nothing, |t| rate(t, base))?;
            }
            Opt::ThinkTime => draft.think = micros()?,
            Opt::ThinkTimeSpin => draft.think_spin = micros()?,
            Opt::ThinkTimeBlocks => draft.think_blocks = Some(int(1, u64::MAX)?),
            Opt::Stonewall => self.stonewall = flag()?,
            Opt::NewGroup => self.new_group = flag()?,
            Opt::GroupReporting => self.group_reporting = flag()?,
            Opt::Percentiles => self.percentiles = percentiles(value)?,
            Opt::ClatPercentiles => self.clat_percentiles = flag()?,
            Opt::LatPercentiles => self.lat_percentiles = flag()?,
            // The others say how fio reaches a kernel device; there is only one way here.
            Opt::IoEngine => self.null_device = value == NULL_ENGINE,
        }
        Ok(())
    }

    /// Resolves what several options say together.
    fn weigh(&mut self, draft: Draft) -> Result<(), String> {
        let bs = draft.bs.unwrap_or_else(|| self.sizes.clone());
        self.sizes = PerDirection::from_fn(|d: Direction| {
            let stronger = |from: &Option<PerDirection<Option<BlockSizes>>>| {
                from.as_ref().and_then(|sizes| sizes[d].clone())
            };
            stronger(&draft.split)
                .or_else(|| stronger(&draft.range))
                .unwrap_or_else(|| bs[d].clone())
        });
        if self.time_based && self.runtime.is_none() {
            return Err("time_based needs runtime=".to_owned());
        }
        if let Some(method) = draft.verify {
            if self.null_device {
                return Err("verify= needs a device that keeps what is written, which \
                            ioengine=null does not"
                    .to_owned());
            }
            if method == Method::Pattern && draft.pattern.is_none() {
                return Err("verify=pattern needs verify_pattern=".to_owned());
            }
            self.verify = Some(VerifyOptions {
                method,
                pattern: draft.pattern,
                interval: draft.interval,
                fatal: draft.fatal,
                read_back: !draft.skip_read_back,
            });
        }
        // Either asks for the same here: a flush of the device's cache, which has no metadata.
        self.flush_every = [draft.fsync, draft.fdatasync]
            .into_iter()
            .filter(|n| *n > 0)
            .min();
        if !draft.think.is_zero() {
            self.think = Some(ThinkTime {
                pause: draft.think,
                spin: draft.think_spin.min(draft.think),
                every: draft.think_blocks.unwrap_or(1),
            });
        }
        Ok(())
    }

    /// The longest request in bytes.
    #[must_use]
    pub fn longest_request(&self) -> u32 {
        let used = Direction::ALL.into_iter().filter(|d| self.access.has(*d));
        used.map(|d| self.sizes[d].max()).max().unwrap_or(1)
    }

    /// The shortest request in bytes.
    #[must_use]
    pub fn shortest_request(&self) -> u32 {
        let used = Direction::ALL.into_iter().filter(|d| self.access.has(*d));
        used.map(|d| self.sizes[d].min()).min().unwrap_or(1)
    }
}

fn value_of(entry: &Entry) -> Result<&str, JobError> {
    entry.value.as_deref().ok_or_else(|| {
        entry
            .place
            .error(JobErrorKind::MissingValue(entry.key.clone()))
    })
}

fn bad(entry: &Entry, why: ValueError) -> JobError {
    let value = entry.value.clone().unwrap_or_default();
    entry.place.error(JobErrorKind::BadValue {
        option: entry.key.clone(),
        value,
        why,
    })
}

fn integer(text: &str, base: KbBase, low: u64, high: u64) -> Result<u64, ValueError> {
    let number = job_size(text, base)?.get();
    if (low..=high).contains(&number) {
        Ok(number)
    } else {
        Err(ValueError::OutOfRange {
            low: low.to_string(),
            high: high.to_string(),
        })
    }
}

fn small(text: &str, base: KbBase, low: u64, high: u64) -> Result<u32, ValueError> {
    let number = integer(text, base, low, high)?;
    u32::try_from(number).map_err(|_| ValueError::TooLarge)
}

fn percent(text: &str, base: KbBase) -> Result<u8, ValueError> {
    let number = integer(text.strip_suffix('%').unwrap_or(text), base, 0, 100)?;
    Ok(u8::try_from(number).unwrap_or(100))
}

fn flag(text: &str) -> Result<bool, ValueError> {
    match text {
        "0" => Ok(false),
        "1" => Ok(true),
        "" => Err(ValueError::Empty),
        _ => Err(ValueError::NotOneOf("0, 1")),
    }
}

fn nonzero(extent: Extent) -> Result<Extent, ValueError> {
    match extent {
        Extent::Bytes(Bytes::ZERO) | Extent::Percent(0) => Err(ValueError::OutOfRange {
            low: "1 byte".into(),
            high: "what the device has".into(),
        }),
        other => Ok(other),
    }
}

fn sectors(sizes: BlockSizes) -> Result<BlockSizes, ValueError> {
    if sizes.lengths().all(|n| n.is_multiple_of(SECTOR)) {
        Ok(sizes)
    } else {
        Err(ValueError::PartialSector)
    }
}

fn rate(text: &str, base: KbBase) -> Result<Option<u64>, ValueError> {
    integer(text, base, 0, u64::MAX).map(|n| Some(n).filter(|n| *n > 0))
}

fn distributions(text: &str, base: KbBase) -> Result<PerDirection<Distribution>, ValueError> {
    // Only zones differ by direction; the parts behind a comma repeat no name.
    let name = text.split_once(':').map_or("", |(name, _)| name);
    if !name.starts_with("zoned") {
        return Distribution::parse(text, base).map(PerDirection::all);
    }
    PerDirection::parse(text, &Distribution::Uniform, |part| {
        if part.starts_with("zoned") {
            Distribution::parse(part, base)
        } else {
            Distribution::parse(&format!("{name}:{part}"), base)
        }
    })
}

fn percentiles(text: &str) -> Result<Vec<f64>, ValueError> {
    const SHAPE: ValueError = ValueError::Shape("50:99:99.9, each from 0 to 100, at most 20");
    let mut list = text
        .split(':')
        .map(|p| {
            p.parse::<f64>()
                .ok()
                .filter(|p| (0.0..=100.0).contains(p))
                .ok_or(SHAPE)
        })
        .collect::<Result<Vec<_>, _>>()?;
    if list.len() > 20 {
        return Err(SHAPE);
    }
    list.sort_by(f64::total_cmp);
    list.dedup();
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::workload::{Mix, Order};

    fn job(text: &str) -> Result<Job, String> {
        let ini = IniFile::parse("j.fio", text, |_| None).map_err(|e| e.to_string())?;
        Job::from_ini(&ini).map_err(|e| e.to_string())
    }

    fn section(options: &str) -> Section {
        job(&format!("[a]\n{options}\n"))
            .expect(options)
            .sections
            .remove(0)
    }

    #[test]
    fn sections_override_what_they_inherit() {
        let job = job("[global]\nbs=8k\nrw=randread\n[a]\nbs=4k\n[b]\n").expect("parses");
        assert_eq!(
            job.sections[0].sizes[Direction::Read],
            BlockSizes::Fixed(4096)
        );
        assert_eq!(
            job.sections[1].sizes[Direction::Read],
            BlockSizes::Fixed(8192)
        );
        assert_eq!(job.sections[1].access.mix, Mix::Only(Direction::Read));
        assert_eq!(job.sections[1].access.order, Order::Random { run: 1 });
        assert_eq!(job.global.len(), 2);
        assert_eq!(job.sections[0].given, [("bs".to_owned(), "4k".to_owned())]);
    }

    #[test]
    fn a_split_outranks_a_range_and_a_range_a_size_in_any_order() {
        let s = section("bsrange=1k-2k\nbs=8k");
        assert_eq!(
            s.sizes[Direction::Write],
            BlockSizes::Range {
                min: 1024,
                max: 2048
            }
        );
        let s = section("bssplit=,4k/50:8k/50,\nbsrange=1k-2k\nbs=8k");
        assert_eq!(
            s.sizes[Direction::Read],
            BlockSizes::Range {
                min: 1024,
                max: 2048
            }
        );
        assert_eq!(s.sizes[Direction::Write].max(), 8192);
    }

    #[test]
    fn kb_base_rules_the_whole_section() {
        assert_eq!(
            section("size=1k\nkb_base=1000").size,
            Some(Extent::Bytes(Bytes::new(1000)))
        );
        assert_eq!(
            section("size=1kib\nkb_base=1000").size,
            Some(Extent::Bytes(Bytes::new(1024)))
        );
    }

    #[test]
    fn options_without_meaning_are_listed_once() {
        let job = job("[global]\nioengine=libaio\ndirect=1\n[a]\nthread\n[b]\ndirect=0\n");
        assert_eq!(
            job.expect("parses").without_meaning,
            ["ioengine", "direct", "thread"]
        );
    }

    #[test]
    fn of_all_engines_only_null_has_a_meaning() {
        let both = job("[global]\nioengine=null\n[a]\n[b]\nioengine=mmap\n").expect("parses");
        assert!(both.sections[0].null_device && !both.sections[1].null_device);
        assert_eq!(both.without_meaning, ["ioengine"]);
        let null = job("[a]\nioengine=null\n").expect("parses");
        assert!(null.without_meaning.is_empty());
        let error = job("[a]\nioengine=null\nverify=crc32c\n").expect_err("nothing is kept");
        assert!(error.contains("ioengine=null does not"), "{error}");
    }

    #[test]
    fn every_wrong_value_is_named_with_its_line() {
        for (option, needle) in [
            ("rw=foo", "rw=foo: must be one of read, write"),
            ("bs=0", "bs=0: must be between 512 and 1 GiB"),
            (
                "bs=511",
                "bs=511: must be a multiple of the 512-byte sector",
            ),
            ("bs=1,2,3,4", "at most three parts"),
            ("bssplit=4k/60:8k/60", "the percentages add up to 120"),
            ("bsrange=4k", "must look like 1k-4k"),
            (
                "size=1.5g",
                "fractions are not read here (fio would silently read it as 1)",
            ),
            ("size=10q", "`q` is no unit"),
            ("size=0", "size=0"),
            ("size", "option `size` needs a value"),
            ("size=", "size=: no value"),
            ("offset=101%", "between 0% and 100%"),
            ("iodepth=0", "between 1 and 4096"),
            ("numjobs=0", "between 1 and 256"),
            ("runtime=0.3", "silently read it as 0 s"),
            ("ramp_time=0.3", "silently read it as 0 s"),
            ("time_based=yes", "must be one of 0, 1"),
            ("rwmixread=101", "between 0 and 100"),
            ("random_distribution=zipf:1", "theta above 0, not 1"),
            ("verify=foo", "must be one of crc32c"),
            ("verify_pattern=zz", "verify_pattern=zz"),
            ("percentile_list=101", "each from 0 to 100"),
            ("nrfiles=2", "only 1 is supported"),
            ("rate_iops=x", "not a number"),
            ("kb_base=7", "must be one of 1024, 1000"),
            ("rwmixred=4", "the nearest known one is `rwmixread`"),
            ("verify_backlog=4", "not implemented here"),
        ] {
            let error = job(&format!("[a]\nname=x\n{option}\n")).expect_err(option);
            assert!(error.starts_with("j.fio:3: "), "{option}: {error}");
            assert!(error.contains(needle), "{option}: {error}");
        }
    }

    #[test]
    fn options_that_contradict_are_named_with_their_section() {
        let error = job("[a]\ntime_based\n").expect_err("no runtime");
        assert_eq!(error, "j.fio:1: section [a]: time_based needs runtime=");
        let error = job("[a]\nverify=pattern\n").expect_err("no pattern");
        assert!(error.contains("needs verify_pattern="), "{error}");
    }

    #[test]
    fn a_mistake_in_global_is_found() {
        let error = job("[a]\n[global]\nfoo=1\n").expect_err("unknown");
        assert!(
            error.starts_with("j.fio:3: unknown option `foo`"),
            "{error}"
        );
    }
}
