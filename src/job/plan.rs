//! Where every thread works: areas of the device, regions of areas, groups in time.
//!
//! One device stands for all files of a job. Sections that name the same `filename` share an
//! area of it; a section without one has an area for itself and each of its clones, as fio gives
//! each a file. Areas lie one behind the other in the order of the job file.

use super::direction::Direction;
use super::error::{JobError, JobErrorKind};
use super::quote::shown;
use super::section::{Job, Section};
use super::size::{Bytes, Extent};
use super::workload::{Generator, Limits, Next, Seed, Shape, TooManyBlocks};

/// What the command line adds to a job.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlanOptions {
    /// The device's size; none is what the sections need.
    pub device: Option<Bytes>,
    /// Replaces the job's seeds.
    pub seed: Option<u64>,
}

/// A piece of the device that stands for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Area {
    /// `filename`, or `section.clone` where the section names none.
    pub name: String,
    /// First byte on the device, a multiple of 4 KiB.
    pub start: Bytes,
    /// Length in bytes.
    pub len: Bytes,
}

/// Sections that run at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Indices into the plan's sections.
    pub sections: Vec<usize>,
}

/// One thread of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadPlan {
    /// Index of its section.
    pub section: usize,
    /// Which clone of the section it is, from 0.
    pub clone: u32,
    /// Index of its area.
    pub area: usize,
    /// Where its region begins, in bytes from the beginning of the area.
    pub offset: Bytes,
    /// How long its region is.
    pub len: Bytes,
    /// Bytes it issues in one pass.
    pub pass: Bytes,
    /// Where its random numbers begin.
    pub seed: Seed,
    /// Whether another thread that runs at the same time may change its blocks.
    pub disturbed: bool,
}

/// A job, placed on a device.
#[derive(Debug, Clone)]
pub struct Plan {
    job: Job,
    device: Bytes,
    areas: Vec<Area>,
    groups: Vec<Group>,
    threads: Vec<ThreadPlan>,
    notes: Vec<String>,
}

/// So many threads may run at the same time.
const MOST_THREADS: u32 = 1024;

/// Areas begin at multiples of a frame.
const FRAME: u64 = 4096;

impl Job {
    /// Places the job on a device.
    ///
    /// # Errors
    /// A [`JobError`] that names the section that does not fit, with what it needs and what there
    /// is.
    pub fn plan(self, options: &PlanOptions) -> Result<Plan, JobError> {
        let mut areas = needed_areas(&self)?;
        let device = place_areas(&self, &mut areas, options.device)?;
        let groups = groups(&self.sections);
        let mut threads = Vec::new();
        for (index, section) in self.sections.iter().enumerate() {
            for clone in 0..section.numjobs {
                let area = areas
                    .iter()
                    .position(|a| a.name == area_name(section, index, clone))
                    .unwrap_or_default();
                let thread = thread(
                    section,
                    index,
                    clone,
                    area,
                    areas[area].len,
                    threads.len(),
                    options,
                )?;
                threads.push(thread);
            }
        }
        let mut plan = Plan {
            device,
            areas: areas
                .into_iter()
                .map(|a| Area {
                    name: a.name,
                    start: a.start,
                    len: a.len,
                })
                .collect(),
            groups,
            threads,
            notes: Vec::new(),
            job: self,
        };
        plan.check_threads()?;
        plan.find_disturbed();
        plan.check_generators()?;
        plan.take_notes();
        Ok(plan)
    }
}

impl Plan {
    /// The job that was placed.
    #[must_use]
    pub const fn job(&self) -> &Job {
        &self.job
    }

    /// The sections in the file's order.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.job.sections
    }

    /// How large the device is.
    #[must_use]
    pub const fn device_size(&self) -> Bytes {
        self.device
    }

    /// The areas in the device's order.
    #[must_use]
    pub fn areas(&self) -> &[Area] {
        &self.areas
    }

    /// The groups in the order they run.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The threads of one section.
    pub fn threads_of(&self, section: usize) -> impl Iterator<Item = &ThreadPlan> {
        self.threads.iter().filter(move |t| t.section == section)
    }

    /// What the user should know before the run.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The request generator of `thread`.
    ///
    /// # Errors
    /// [`TooManyBlocks`], which planning has already ruled out.
    pub fn generator(&self, thread: &ThreadPlan) -> Result<Generator, TooManyBlocks> {
        Generator::new(&self.shape(thread), thread.seed)
    }

    fn shape(&self, thread: &ThreadPlan) -> Shape<'_> {
        let section = &self.job.sections[thread.section];
        Shape {
            access: section.access,
            sizes: &section.sizes,
            align: section.align,
            distribution: &section.distribution,
            without_map: section.without_map,
            reads_percent: section.reads_percent,
            region: thread.len.get(),
            limits: Limits {
                bytes: thread.pass.get(),
                ios: section.number_ios,
            },
        }
    }

    /// The pieces of the device that threads touch, merged and in order: (start, length). Those of
    /// a null device touch nothing.
    #[must_use]
    pub fn touched(&self) -> Vec<(Bytes, Bytes)> {
        let touching = |t: &&ThreadPlan| !self.job.sections[t.section].null_device;
        let mut pieces: Vec<(u64, u64)> = self
            .threads
            .iter()
            .filter(touching)
            .map(|t| {
                let start = self.areas[t.area].start.get() + t.offset.get();
                (start, start + t.len.get())
            })
            .collect();
        pieces.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (start, end) in pieces {
            match merged.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        merged
            .into_iter()
            .map(|(s, e)| (Bytes::new(s), Bytes::new(e - s)))
            .collect()
    }

    fn find_disturbed(&mut self) {
        let spans: Vec<_> = self
            .threads
            .iter()
            .map(|t| {
                (
                    t.section,
                    t.area,
                    t.offset.get(),
                    t.offset.get() + t.len.get(),
                )
            })
            .collect();
        for (index, thread) in self.threads.iter_mut().enumerate() {
            let me = spans[index];
            let together = self.groups.iter().find(|g| g.sections.contains(&me.0));
            thread.disturbed = spans.iter().enumerate().any(|(other, span)| {
                other != index
                    && together.is_some_and(|g| g.sections.contains(&span.0))
                    && changes(&self.job.sections[span.0])
                    && span.1 == me.1
                    && span.2 < me.3
                    && me.2 < span.3
            });
        }
    }

    fn check_threads(&self) -> Result<(), JobError> {
        for group in &self.groups {
            let threads: u32 = group
                .sections
                .iter()
                .map(|s| self.job.sections[*s].numjobs)
                .sum();
            if threads > MOST_THREADS {
                let first = &self.job.sections[group.sections[0]];
                let what = format!(
                    "{threads} threads would run at the same time, at most {MOST_THREADS} can: \
                     part them with stonewall"
                );
                return Err(contradiction(first, what));
            }
        }
        Ok(())
    }

    fn check_generators(&self) -> Result<(), JobError> {
        for thread in &self.threads {
            let section = &self.job.sections[thread.section];
            let mut generator = self
                .generator(thread)
                .map_err(|e| contradiction(section, e.to_string()))?;
            if generator.next_request() == Next::PassOver {
                return Err(no_work(section, thread));
            }
        }
        Ok(())
    }

    fn take_notes(&mut self) {
        if !self.job.without_meaning.is_empty() {
            self.notes.push(format!(
                "accepted without effect, because they say how fio reaches a kernel device or \
                 prepares files and buffers: {}",
                self.job.without_meaning.join(", ")
            ));
        }
        let null = self.job.sections.iter().filter(|s| s.null_device);
        let null: Vec<_> = null.map(|s| format!("[{}]", shown(&s.name))).collect();
        if !null.is_empty() {
            self.notes.push(format!(
                "no bytes move in {}: ioengine=null",
                null.join(", ")
            ));
        }
        for (index, section) in self.job.sections.iter().enumerate() {
            if section.verify.is_some() && self.threads_of(index).any(|t| t.disturbed) {
                let note = format!(
                    "section [{}] verifies blocks that other threads change at the same time: a \
                     mismatch there can be the job's own doing",
                    shown(&section.name)
                );
                self.notes.push(note);
            }
        }
    }
}

fn changes(section: &Section) -> bool {
    use super::direction::Direction::{Trim, Write};
    section.access.has(Write) || section.access.has(Trim)
}

fn contradiction(section: &Section, what: String) -> JobError {
    section.place.error(JobErrorKind::Contradiction {
        section: section.name.clone(),
        what,
    })
}

fn no_work(section: &Section, thread: &ThreadPlan) -> JobError {
    let shortest = section.shortest_request();
    let what = match &section.io_size_place {
        Some(_) => format!(
            "io_size= comes to {} bytes, in which no request fits: the shortest has {shortest}",
            thread.pass.get()
        ),
        None => format!(
            "no request fits into its {} bytes: the shortest has {shortest}",
            thread.len.get()
        ),
    };
    let place = section.io_size_place.as_ref().unwrap_or(&section.place);
    place.error(JobErrorKind::Contradiction {
        section: section.name.clone(),
        what,
    })
}

fn area_name(section: &Section, index: usize, clone: u32) -> String {
    match &section.filename {
        Some(name) => name.clone(),
        // The index keeps sections of the same name apart.
        None => format!("{}.{index}.{clone}", section.name),
    }
}

struct AreaDraft {
    name: String,
    start: Bytes,
    len: Bytes,
    /// The section that is to blame when the area has no length.
    first: usize,
    needed: u64,
    /// Some section takes its size from the area.
    open: bool,
}

fn needed_areas(job: &Job) -> Result<Vec<AreaDraft>, JobError> {
    let mut areas: Vec<AreaDraft> = Vec::new();
    for (index, section) in job.sections.iter().enumerate() {
        for clone in 0..section.numjobs {
            let name = area_name(section, index, clone);
            let at = areas
                .iter()
                .position(|a| a.name == name)
                .unwrap_or_else(|| {
                    let first = index;
                    let (start, len) = (Bytes::ZERO, Bytes::ZERO);
                    areas.push(AreaDraft {
                        name,
                        start,
                        len,
                        first,
                        needed: 0,
                        open: false,
                    });
                    areas.len() - 1
                });
            let area = &mut areas[at];
            let absolute = |extent| match extent {
                Extent::Bytes(bytes) => Some(bytes.get()),
                Extent::Percent(_) => None,
            };
            let offset = absolute(section.offset);
            let step = absolute(section.offset_increment);
            let size = section
                .size
                .or(section.file_size.map(Extent::Bytes))
                .and_then(absolute);
            match (offset, step, size) {
                (Some(offset), Some(step), Some(size)) => {
                    let end = u64::from(clone)
                        .checked_mul(step)
                        .and_then(|n| n.checked_add(offset))
                        .and_then(|n| n.checked_add(size))
                        .filter(|n| *n <= MOST)
                        .ok_or_else(|| contradiction(section, too_far()))?;
                    area.needed = area.needed.max(end);
                }
                _ => area.open = true,
            }
            if let Some(file) = section.file_size {
                area.needed = area.needed.max(file.get());
            }
        }
    }
    Ok(areas)
}

/// The most a device may have: a pfn has 52 bits, and frames are 4 KiB; half of that is ample.
const MOST: u64 = 1 << 62;

fn too_far() -> String {
    format!("offset and size reach beyond {}", Bytes::new(MOST))
}

fn place_areas(
    job: &Job,
    areas: &mut [AreaDraft],
    device: Option<Bytes>,
) -> Result<Bytes, JobError> {
    let rounded = |n: u64| n.next_multiple_of(FRAME);
    let fixed: u64 = if areas.len() == 1 {
        0
    } else {
        areas
            .iter()
            .filter(|a| !a.open)
            .try_fold(0u64, |sum, a| sum.checked_add(rounded(a.needed)))
            .filter(|n| *n <= MOST)
            .ok_or_else(|| contradiction(&job.sections[0], too_far()))?
    };
    let open = areas.iter().filter(|a| a.open).count();
    let alone = areas.len() == 1;
    let mut start = 0;
    for area in areas.iter_mut() {
        let section = &job.sections[area.first];
        let len = match device {
            Some(device) if alone => device.get(),
            Some(device) if area.open && open == 1 => {
                let left = device.get().saturating_sub(fixed);
                left - left % FRAME
            }
            Some(_) if area.open => {
                let what = format!(
                    "it takes its size from the device, and so do {} other files: give it size=",
                    open - 1
                );
                return Err(contradiction(section, what));
            }
            _ if area.needed == 0 => {
                let what = "it needs size=, or the device --size".to_owned();
                return Err(contradiction(section, what));
            }
            _ => area.needed,
        };
        if len < area.needed {
            let what = format!(
                "it needs {} ({} bytes), and the device has {} ({len} bytes)",
                Bytes::new(area.needed),
                area.needed,
                Bytes::new(len)
            );
            return Err(contradiction(section, what));
        }
        area.start = Bytes::new(start);
        area.len = Bytes::new(len);
        start = rounded(start.saturating_add(len));
    }
    match device {
        Some(device) if !alone && start > device.get().next_multiple_of(FRAME) => {
            let what = format!(
                "{} files need {} together, and the device has {}: let sections share one with \
                 filename=, or make it larger",
                areas.len(),
                Bytes::new(start),
                device
            );
            Err(contradiction(&job.sections[0], what))
        }
        Some(device) => Ok(device),
        None => Ok(Bytes::new(start)),
    }
}

fn groups(sections: &[Section]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (index, section) in sections.iter().enumerate() {
        match groups.last_mut() {
            Some(group) if !section.stonewall => group.sections.push(index),
            _ => groups.push(Group {
                sections: vec![index],
            }),
        }
    }
    groups
}

fn thread(
    section: &Section,
    index: usize,
    clone: u32,
    area: usize,
    file: Bytes,
    number: usize,
    options: &PlanOptions,
) -> Result<ThreadPlan, JobError> {
    let offset = section.offset.of(file).get();
    let step = section.offset_increment.of(file).get();
    let offset = u64::from(clone)
        .checked_mul(step)
        .and_then(|n| n.checked_add(offset))
        .map(|n| n - n % 512)
        .ok_or_else(|| contradiction(section, too_far()))?;
    let room = file
        .get()
        .checked_sub(offset)
        .filter(|room| *room > 0)
        .ok_or_else(|| {
            let what = format!(
                "its offset {offset} lies behind the end, {} bytes",
                file.get()
            );
            contradiction(section, what)
        })?;
    let len = match section.size.or(section.file_size.map(Extent::Bytes)) {
        Some(size) => size.of(file).get(),
        None => room,
    };
    if len > room {
        let what = format!(
            "it needs {len} bytes from offset {offset} on, and there are {} bytes in all",
            file.get()
        );
        return Err(contradiction(section, what));
    }
    let shortest = section.longest_request();
    if len < u64::from(shortest) {
        let what = format!("its size, {len} bytes, is smaller than its block, {shortest} bytes");
        return Err(contradiction(section, what));
    }
    for direction in Direction::ALL {
        let zones = section.distribution[direction].absolute_bytes();
        if zones > len {
            let what = format!("its zones take {zones} bytes, and its size is {len} bytes");
            return Err(contradiction(section, what));
        }
    }
    let pass = section
        .io_size
        .map_or(len, |extent| extent.of(Bytes::new(len)).get());
    let base = match (options.seed, section.seed, section.repeat) {
        (Some(seed), _, _) | (None, Some(seed), _) => Seed::new(seed),
        (None, None, true) => Seed::REPEATED,
        (None, None, false) => fresh_seed(),
    };
    Ok(ThreadPlan {
        section: index,
        clone,
        area,
        offset: Bytes::new(offset),
        len: Bytes::new(len),
        pass: Bytes::new(pass),
        seed: base.derive(0x7468 + number as u64),
        disturbed: false,
    })
}

fn fresh_seed() -> Seed {
    // The standard library keys its hashers from the system's entropy.
    use core::hash::{BuildHasher, Hasher};
    let hasher = std::collections::hash_map::RandomState::new().build_hasher();
    Seed::new(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::IniFile;

    fn plan_on(text: &str, device: Option<u64>) -> Result<Plan, String> {
        let ini = IniFile::parse("j.fio", text, |_| None).map_err(|e| e.to_string())?;
        let job = Job::from_ini(&ini).map_err(|e| e.to_string())?;
        let options = PlanOptions {
            device: device.map(Bytes::new),
            seed: None,
        };
        job.plan(&options).map_err(|e| e.to_string())
    }

    #[test]
    fn sections_that_name_one_file_share_it_and_others_have_their_own() {
        let shared = "[global]\nfilename=f\n[a]\nsize=1m\n[b]\noffset=1m\nsize=3m\n";
        let plan = plan_on(shared, None).expect("fits");
        assert_eq!(plan.device_size(), Bytes::new(4 << 20));
        assert_eq!(plan.areas().len(), 1);
        let own = plan_on("[a]\nsize=1m\nnumjobs=2\n[b]\nsize=3m\n", None).expect("fits");
        assert_eq!(own.device_size(), Bytes::new(5 << 20));
        assert_eq!(own.areas().len(), 3);
        assert_eq!(own.threads[2].offset, Bytes::ZERO);
        assert_eq!(own.areas()[2].start, Bytes::new(2 << 20));
    }

    #[test]
    fn a_section_without_size_takes_the_device() {
        let plan = plan_on("[a]\nrw=read\n[b]\nfilename=x\nsize=1m\n", Some(8 << 20));
        let plan = plan.expect("fits");
        assert_eq!(plan.threads[0].len, Bytes::new(7 << 20));
        let percent = plan_on("[a]\noffset=25%\nsize=50%\n", Some(8 << 20)).expect("fits");
        assert_eq!(percent.threads[0].offset, Bytes::new(2 << 20));
        assert_eq!(percent.threads[0].len, Bytes::new(4 << 20));
        assert_eq!(
            percent.touched(),
            [(Bytes::new(2 << 20), Bytes::new(4 << 20))]
        );
    }

    #[test]
    fn clones_step_by_the_increment() {
        let text = "[a]\nfilename=x\nsize=1m\noffset_increment=1m\nnumjobs=4\n";
        let plan = plan_on(text, None).expect("fits");
        let offsets: Vec<_> = plan.threads_of(0).map(|t| t.offset.get() >> 20).collect();
        assert_eq!(offsets, [0, 1, 2, 3]);
        assert_eq!(plan.device_size(), Bytes::new(4 << 20));
    }

    #[test]
    fn stonewalls_part_groups() {
        let text = "[global]\nsize=1m\n[a]\n[b]\n[c]\nstonewall\n[d]\n";
        let groups: Vec<_> = plan_on(text, None)
            .expect("fits")
            .groups()
            .iter()
            .map(|g| g.sections.clone())
            .collect();
        assert_eq!(groups, [vec![0, 1], vec![2, 3]]);
    }

    #[test]
    fn what_does_not_fit_is_named_with_both_sizes() {
        for (text, device, needle) in [
            (
                "[a]\nsize=2m\n",
                Some(1 << 20),
                "section [a]: it needs 2 MiB (2097152 bytes)",
            ),
            (
                "[a]\nrw=read\n",
                None,
                "it needs size=, or the device --size",
            ),
            ("[a]\n[b]\n", Some(1 << 20), "so do 1 other files"),
            (
                "[a]\nsize=2k\nbs=4k\n",
                None,
                "smaller than its block, 4096 bytes",
            ),
            ("[a]\noffset=100%\n", Some(1 << 20), "lies behind the end"),
            (
                "[a]\noffset=50%\nsize=1m\n",
                Some(1 << 20),
                "it needs 1048576 bytes from offset",
            ),
            (
                "[a]\nsize=1m\n[b]\nsize=1m\n",
                Some(1 << 20),
                "2 files need 2 MiB together",
            ),
            ("[a]\nsize=16000p\n", None, "reach beyond 4 EiB"),
            (
                "[a]\nsize=1000p\nrw=randread\nbsrange=512-4k\n",
                None,
                "norandommap",
            ),
        ] {
            let error = plan_on(text, device).expect_err(text);
            assert!(
                error.starts_with("j.fio:1: section [a]: "),
                "{text}: {error}"
            );
            assert!(error.contains(needle), "{text}: {error}");
        }
    }

    #[test]
    fn writers_of_the_same_blocks_disturb_each_other() {
        let text =
            "[global]\nfilename=f\nsize=1m\nrw=randwrite\nverify=crc32c\n[a]\n[b]\noffset=1m\n";
        let plan = plan_on(text, None).expect("fits");
        assert!(plan.threads.iter().all(|t| !t.disturbed));
        let plan = plan_on(&format!("{text}numjobs=2\n"), None).expect("fits");
        assert_eq!(
            plan.threads.iter().map(|t| t.disturbed).collect::<Vec<_>>(),
            [false, true, true]
        );
        assert!(plan.notes()[0].contains("section [b] verifies blocks that other threads change"));
    }
}
