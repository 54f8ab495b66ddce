"""How far a study's trainings are, and how long the rest takes."""

import os
from pathlib import Path
from statistics import median

from trained_binarization.records import Record, read_data, status
from trained_binarization.study import FULL_PRECISION, Run, Study

JOBS = "TRAINED_BINARIZATION_JOBS"
"""Environment variable: how many trainings run side by side. Snakemake sets it; otherwise it is one."""


def progress(results: Path, study: Study, overhead: float = 0.0) -> str:
    """How many runs are done and about how long the others take, such as `5 of 21 runs done, about 2 min left`.

    `overhead` is what a run takes beside its training, in seconds. The time is left out until there is a record of each
    kind of training that is left: full precision, or binary.
    """
    checksum = read_data(results, study).checksum
    found = {run: status(results, study, run, checksum) for run in study.runs()}
    done = {run: one.record for run, one in found.items() if one.record}
    left = [run for run in found if run not in done]
    text = f"{len(done)} of {len(found)} runs done"
    seconds = [_seconds(run, done) for run in left]
    if not left or None in seconds:
        return text
    total = sum(one + overhead for one in seconds if one is not None)
    return f"{text}, about {duration(total / min(_jobs(), len(left)))} left"


def _jobs() -> int:
    value = os.environ.get(JOBS, "1")
    return max(1, int(value)) if value.isdecimal() else 1


def _seconds(run: Run, done: dict[Run, Record]) -> float | None:
    """The median time of the finished trainings of the same network and kind; None without one."""
    kind = run.variant == FULL_PRECISION
    alike = [
        record.wall_seconds
        for other, record in done.items()
        if other.network == run.network and (other.variant == FULL_PRECISION) == kind
    ]
    return median(alike) if alike else None


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
