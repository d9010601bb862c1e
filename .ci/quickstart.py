"""Checks the JSON of the quickstart: fio's own shape, and in each job an object `pageless`."""

import json
import sys

WAYS = ("pfn", "lazy", "eager")
SECTIONS = ("seq", "hot", "uniform")
NUMBERS = (
    "attach_ns",
    "descriptor_faults",
    "descriptor_bytes_peak",
    "page_table_bytes_peak",
    "page_table_bytes_end",
    "descriptor_budget_bytes",
    "chunks_populated",
    "chunks_reclaimed",
    "shootdowns",
    "pinned_peak",
    "eager_memmap_bytes",
)
failures = []


def check(holds, what):
    if not holds:
        failures.append(what)


def number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


with open(sys.argv[1], encoding="utf-8") as file:
    result = json.load(file)

check(isinstance(result.get("fio version"), str), "no fio version")
check(isinstance(result.get("global options"), dict), "no global options")
jobs = result.get("jobs", [])
seen = sorted((job.get("jobname"), job.get("pageless", {}).get("memmap")) for job in jobs)
check(
    seen == sorted((section, way) for section in SECTIONS for way in WAYS),
    f"not one entry for each section and way: {seen}",
)

for job in jobs:
    own = job.get("pageless", {})
    name = f"{job.get('jobname')} ({own.get('memmap')})"
    check(job.get("error") == 0, f"{name}: error {job.get('error')}")
    for direction in ("read", "write"):
        part = job.get(direction, {})
        for key in ("io_bytes", "bw_bytes", "iops", "runtime", "total_ios"):
            check(number(part.get(key)), f"{name}: {direction}.{key}")
        for key in ("lat_ns", "clat_ns", "slat_ns"):
            for figure in ("min", "max", "mean", "stddev", "N"):
                check(number(part.get(key, {}).get(figure)), f"{name}: {direction}.{key}.{figure}")
        check(
            "99.000000" in part.get("clat_ns", {}).get("percentile", {}),
            f"{name}: {direction}.clat_ns.percentile",
        )
        check(part.get("total_ios", 0) > 0, f"{name}: nothing was {direction}")
    for key in NUMBERS:
        check(isinstance(own.get(key), int) and own[key] >= 0, f"{name}: pageless.{key}")
    if failures:
        continue
    way = own["memmap"]
    if way == "pfn":
        for key in ("descriptor_faults", "descriptor_bytes_peak", "chunks_populated", "pinned_peak"):
            check(own[key] == 0, f"{name}: {key} is {own[key]}: a descriptor was touched")
    elif way == "lazy":
        held = own["descriptor_bytes_peak"] + own["page_table_bytes_end"]
        budget = own["descriptor_budget_bytes"]
        check(0 < held <= budget, f"{name}: {held} bytes under a budget of {budget}")
        check(own["pinned_peak"] > 0, f"{name}: nothing was pinned")
    else:
        check(
            own["descriptor_bytes_peak"] == own["eager_memmap_bytes"],
            f"{name}: an eager memmap that is not all there",
        )
    if (job["jobname"], way) == ("uniform", "lazy"):
        check(
            own["eager_memmap_bytes"] == 16 * own["descriptor_budget_bytes"],
            f"{name}: not 16 times the budget",
        )
        for key in ("descriptor_faults", "chunks_reclaimed", "shootdowns"):
            check(own[key] > 1000, f"{name}: only {own[key]} {key}")

for failure in failures:
    print(f"FAILED: {failure}")
print(f"{len(jobs)} job entries looked at, {len(failures)} failures")
sys.exit(1 if failures else 0)
