//! The options of a job file, by name: what is honoured, what has no meaning here, and what is
//! fio's but would silently change the workload if it were left out.

use super::error::JobErrorKind;
use super::nearest::nearest;

/// An option that the engine honours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each variant is the option of that name")]
pub enum Opt {
    Access,
    BlockSize,
    BlockRange,
    BlockSplit,
    BlockAlign,
    Size,
    IoSize,
    FileSize,
    Offset,
    OffsetIncrement,
    Filename,
    NrFiles,
    IoDepth,
    NumJobs,
    Runtime,
    TimeBased,
    RampTime,
    StartDelay,
    NumberIos,
    Loops,
    RwMixRead,
    RwMixWrite,
    Distribution,
    NoRandomMap,
    RandRepeat,
    RandSeed,
    Verify,
    VerifyPattern,
    VerifyInterval,
    VerifyFatal,
    DoVerify,
    Fsync,
    Fdatasync,
    EndFsync,
    RateIops,
    Rate,
    ThinkTime,
    ThinkTimeSpin,
    ThinkTimeBlocks,
    Stonewall,
    NewGroup,
    GroupReporting,
    Percentiles,
    ClatPercentiles,
    LatPercentiles,
    Name,
    Description,
    KbBase,
    IoEngine,
}

impl Opt {
    /// Whether the option may stand alone, which means `=1`.
    #[must_use]
    pub const fn is_flag(self) -> bool {
        matches!(
            self,
            Self::TimeBased
                | Self::NoRandomMap
                | Self::Stonewall
                | Self::NewGroup
                | Self::GroupReporting
        )
    }
}

/// What becomes of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It is honoured.
    Honoured(Opt),
    /// It says how fio reaches a kernel device or prepares a file; here there is nothing for it
    /// to act on.
    WithoutMeaning,
}

/// Longer names are nobody's slip of the finger.
const LONGEST_TYPO: usize = 64;

/// Finds the option called `name`.
///
/// # Errors
/// [`JobErrorKind::NotImplemented`] for fio's other options and [`JobErrorKind::UnknownOption`]
/// with the nearest known name for the rest.
pub fn lookup(name: &str) -> Result<Known, JobErrorKind> {
    if let Some((_, opt)) = HONOURED.iter().find(|(known, _)| *known == name) {
        return Ok(Known::Honoured(*opt));
    }
    if WITHOUT_MEANING.contains(&name) {
        return Ok(Known::WithoutMeaning);
    }
    if NOT_IMPLEMENTED.contains(&name) {
        return Err(JobErrorKind::NotImplemented(name.to_owned()));
    }
    Err(JobErrorKind::UnknownOption {
        name: name.to_owned(),
        // Comparing takes time that grows with the square of the length, and no option is long.
        nearest: (name.chars().count() <= LONGEST_TYPO)
            .then(|| nearest(name, names()))
            .flatten(),
    })
}

/// The names of all honoured options, aliases included.
pub fn honoured_names() -> impl Iterator<Item = &'static str> + Clone {
    HONOURED.iter().map(|(name, _)| *name)
}

fn names() -> impl Iterator<Item = &'static str> + Clone {
    honoured_names()
        .chain(WITHOUT_MEANING.iter().copied())
        .chain(NOT_IMPLEMENTED.iter().copied())
}

const HONOURED: &[(&str, Opt)] = &[
    ("rw", Opt::Access),
    ("readwrite", Opt::Access),
    ("bs", Opt::BlockSize),
    ("blocksize", Opt::BlockSize),
    ("bsrange", Opt::BlockRange),
    ("blocksize_range", Opt::BlockRange),
    ("bssplit", Opt::BlockSplit),
    ("ba", Opt::BlockAlign),
    ("blockalign", Opt::BlockAlign),
    ("size", Opt::Size),
    ("io_size", Opt::IoSize),
    ("io_limit", Opt::IoSize),
    ("filesize", Opt::FileSize),
    ("offset", Opt::Offset),
    ("fileoffset", Opt::Offset),
    ("offset_increment", Opt::OffsetIncrement),
    ("filename", Opt::Filename),
    ("nrfiles", Opt::NrFiles),
    ("nr_files", Opt::NrFiles),
    ("iodepth", Opt::IoDepth),
    ("numjobs", Opt::NumJobs),
    ("runtime", Opt::Runtime),
    ("timeout", Opt::Runtime),
    ("time_based", Opt::TimeBased),
    ("ramp_time", Opt::RampTime),
    ("startdelay", Opt::StartDelay),
    ("number_ios", Opt::NumberIos),
    ("loops", Opt::Loops),
    ("rwmixread", Opt::RwMixRead),
    ("rwmixwrite", Opt::RwMixWrite),
    ("random_distribution", Opt::Distribution),
    ("norandommap", Opt::NoRandomMap),
    ("randrepeat", Opt::RandRepeat),
    ("allrandrepeat", Opt::RandRepeat),
    ("randseed", Opt::RandSeed),
    ("verify", Opt::Verify),
    ("verify_pattern", Opt::VerifyPattern),
    ("verify_interval", Opt::VerifyInterval),
    ("verify_fatal", Opt::VerifyFatal),
    ("do_verify", Opt::DoVerify),
    ("fsync", Opt::Fsync),
    ("fdatasync", Opt::Fdatasync),
    ("end_fsync", Opt::EndFsync),
    ("rate_iops", Opt::RateIops),
    ("rate", Opt::Rate),
    ("thinktime", Opt::ThinkTime),
    ("thinktime_spin", Opt::ThinkTimeSpin),
    ("thinktime_blocks", Opt::ThinkTimeBlocks),
    ("stonewall", Opt::Stonewall),
    ("wait_for_previous", Opt::Stonewall),
    ("new_group", Opt::NewGroup),
    ("group_reporting", Opt::GroupReporting),
    ("percentile_list", Opt::Percentiles),
    ("clat_percentiles", Opt::ClatPercentiles),
    ("lat_percentiles", Opt::LatPercentiles),
    ("name", Opt::Name),
    ("description", Opt::Description),
    ("kb_base", Opt::KbBase),
    ("ioengine", Opt::IoEngine),
];

const WITHOUT_MEANING: &[&str] = &[
    "allow_file_create",
    "allow_mounted_write",
    "buffer_compress_chunk",
    "buffer_compress_percentage",
    "buffer_pattern",
    "buffered",
    "clocksource",
    "cpumask",
    "cpus_allowed",
    "cpus_allowed_policy",
    "create_fsync",
    "create_on_open",
    "create_serialize",
    "dedupe_global",
    "dedupe_mode",
    "dedupe_percentage",
    "dedupe_working_set_percentage",
    "direct",
    "directory",
    "disable_bw",
    "disable_bw_measurement",
    "disable_clat",
    "disable_lat",
    "disable_slat",
    "disk_util",
    "fadvise_hint",
    "fallocate",
    "file_service_type",
    "filename_format",
    "fixedbufs",
    "force_async",
    "fsync_on_close",
    "gtod_cpu",
    "gtod_reduce",
    "hipri",
    "hugepage-size",
    "invalidate",
    "io_submit_mode",
    "iodepth_batch",
    "iodepth_batch_complete",
    "iodepth_batch_complete_max",
    "iodepth_batch_complete_min",
    "iodepth_batch_submit",
    "iodepth_low",
    "iomem",
    "ioscheduler",
    "lockfile",
    "lockmem",
    "mem",
    "nice",
    "nonvectored",
    "nowait",
    "numa_cpu_nodes",
    "numa_mem_policy",
    "opendir",
    "openfiles",
    "overwrite",
    "pre_read",
    "prio",
    "prioclass",
    "random_generator",
    "refill_buffers",
    "registerfiles",
    "scramble_buffers",
    "significant_figures",
    "slat_percentiles",
    "sqthread_poll",
    "sqthread_poll_cpu",
    "stats",
    "thread",
    "uncached",
    "unique_filename",
    "unit_base",
    "unlink",
    "unlink_each_loop",
    "userspace_reap",
    "verify_async",
    "verify_async_cpus",
    "verify_dump",
    "write_hint",
    "zero_buffers",
];

const NOT_IMPLEMENTED: &[&str] = &[
    "atomic",
    "block_error_percentiles",
    "blocksize_unaligned",
    "bs_is_seq_rand",
    "bs_unaligned",
    "bwavgtime",
    "cgroup",
    "cgroup_nodelete",
    "cgroup_weight",
    "continue_on_error",
    "create_only",
    "error_dump",
    "exec_postrun",
    "exec_prerun",
    "exit_what",
    "exitall",
    "exitall_on_error",
    "experimental_verify",
    "file_append",
    "fill_device",
    "fill_fs",
    "flow",
    "flow_id",
    "flow_sleep",
    "flow_watermark",
    "gid",
    "ignore_error",
    "ignore_zone_limits",
    "iopsavgtime",
    "job_max_open_zones",
    "latency_percentile",
    "latency_run",
    "latency_target",
    "latency_window",
    "log_alternate_epoch",
    "log_alternate_epoch_clock_id",
    "log_avg_msec",
    "log_compression",
    "log_compression_cpus",
    "log_entries",
    "log_hist_coarseness",
    "log_hist_msec",
    "log_max_value",
    "log_offset",
    "log_prio",
    "log_store_compressed",
    "log_unix_epoch",
    "max_latency",
    "max_open_zones",
    "merge_blktrace_file",
    "merge_blktrace_iters",
    "merge_blktrace_scalars",
    "offset_align",
    "per_job_logs",
    "percentage_random",
    "profile",
    "rate_cycle",
    "rate_ignore_thinktime",
    "rate_iops_min",
    "rate_min",
    "rate_process",
    "ratecycle",
    "ratemin",
    "read_beyond_wp",
    "read_iolog",
    "read_iolog_chunked",
    "replay_align",
    "replay_no_stall",
    "replay_redirect",
    "replay_scale",
    "replay_skip",
    "replay_time_scale",
    "rw_sequencer",
    "serialize_overlap",
    "ss",
    "ss_dur",
    "ss_ramp",
    "steadystate",
    "steadystate_duration",
    "steadystate_ramp_time",
    "sync",
    "sync_file_range",
    "thinktime_blocks_type",
    "thinktime_iotime",
    "trim_backlog",
    "trim_backlog_batch",
    "trim_percentage",
    "trim_verify_zero",
    "uid",
    "unified_rw_reporting",
    "verify_backlog",
    "verify_backlog_batch",
    "verify_offset",
    "verify_only",
    "verify_state_load",
    "verify_state_save",
    "wait_for",
    "write_barrier",
    "write_bw_log",
    "write_hist_log",
    "write_iolog",
    "write_iops_log",
    "write_lat_log",
    "zone_reset_frequency",
    "zone_reset_threshold",
    "zonecapacity",
    "zonemode",
    "zonerange",
    "zonesize",
    "zoneskip",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_stands_in_two_lists() {
        let mut all: Vec<_> = names().collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn a_typo_is_answered_with_the_nearest_name() {
        for (name, close) in [
            ("rwmixred", "rwmixread"),
            ("io_depth", "iodepth"),
            ("blok_size", "blocksize"),
        ] {
            match lookup(name) {
                Err(JobErrorKind::UnknownOption { nearest, .. }) => {
                    assert_eq!(nearest, Some(close));
                }
                other => panic!("{name}: {other:?}"),
            }
        }
        match lookup(&"x".repeat(65)) {
            Err(JobErrorKind::UnknownOption { nearest, .. }) => assert_eq!(nearest, None),
            other => panic!("{other:?}"),
        }
        let error = lookup("verify_backlog").expect_err("not implemented");
        assert!(error.to_string().contains("not implemented here"));
    }
}
