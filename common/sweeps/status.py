"""Where each job of a sweep stands, as the folder of its run tells."""

import contextlib
import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from common.configuration.sweep import Job
from common.errors import UserError
from common.results.metrics_table import read_metrics, values_of
from common.results.progress import Progress, read_progress
from common.results.run_folder import RunFolder

# In the order in which they are counted. "lost": an attempt ended without a word, see `RunFolder`.
STATES = ("done", "running", "failed", "interrupted", "lost", "queued", "unusable")


@dataclass(frozen=True)
class JobStatus:
    """Where a job stands; what is not known is None.

    Attributes:
        name: the job's, that of its folder.
        state: one of `STATES`.
        progress: how far its run has come.
        fid: the latest FID in its table.
        where: host and slot of the latest attempt.
        exit_code: of the latest attempt.
        reason: a line that says why it failed, or why the folder cannot be used.
        attempts: how many there were.
        missing_metrics: how many rows its table lacks as they could not be made.
    """

    name: str
    state: str
    progress: Progress | None = None
    fid: float | None = None
    where: str | None = None
    exit_code: int | None = None
    reason: str | None = None
    attempts: int = 0
    missing_metrics: int = 0


def read_status(name: str, folder: RunFolder) -> JobStatus:
    """Where the job of that name stands, by the folder of its run."""
    try:
        record = folder.record
    except UserError as error:
        return JobStatus(name, "unusable", reason=str(error))
    if record is None:
        return JobStatus(name, "running" if folder.is_in_use else "queued")
    state = record["state"]
    if state == "running" and not folder.is_in_use:
        state = "lost"
    where = [str(part) for part in (record.get("host"), record.get("device")) if part is not None]
    return JobStatus(
        name,
        state,
        progress=read_progress(folder.progress_path),
        fid=last_fid(folder.metrics_path),
        where=":".join(where) or None,
        exit_code=record.get("exit_code"),
        reason=record.get("reason"),
        attempts=record.get("attempts", 0),
        missing_metrics=len(record.get("missing_metrics", [])),
    )


def last_fid(path: Path) -> float | None:
    """The last value of the table's FID column, which a network's prefix may precede, or None."""
    try:
        return next(reversed(values_of(read_metrics(path), "fid")), None)
    except UserError:
        return None


def print_table(statuses: Sequence[JobStatus], stream: TextIO) -> None:
    """Prints a line for each job, why some failed, and how many are in each state."""
    header = ("state", "iteration", "left", "FID", "unmeasured", "exit", "tries", "where", "job")
    rows = [header, *(_row(status) for status in statuses)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip(), file=stream)
    for status in statuses:
        if status.reason:
            print(f"{status.name}: {status.reason}", file=stream)
    missing = sum(status.missing_metrics for status in statuses)
    if missing:
        text = f"{missing} row(s) of metrics are missing, as they failed (see worker.log): "
        print(f"{text}python -m common.evaluate --run=RESULTS_FOLDER adds them", file=stream)
    print(describe_counts(status.state for status in statuses), file=stream)


@contextlib.contextmanager
def to_reader(stream: TextIO) -> Iterator[None]:
    """For printing to a standard stream: a reader that goes away, as `| head` does, is no error."""
    try:
        yield
        stream.flush()
    except BrokenPipeError:  # Python's exit would flush once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _row(status: JobStatus) -> tuple[str, ...]:
    progress = status.progress
    left = progress.seconds_left if progress and status.state == "running" else None
    return (
        status.state,
        f"{progress.iteration:,}/{progress.iterations:,}" if progress else "-",
        format_seconds(left) if left else "-",
        "-" if status.fid is None else f"{status.fid:.2f}",
        str(status.missing_metrics or "-"),
        "-" if status.exit_code is None else str(status.exit_code),
        str(status.attempts),
        status.where or "-",
        status.name,
    )


def describe_counts(states: Iterable[str]) -> str:
    """`450 jobs: 440 done, 2 running, 8 queued`."""
    counts = Counter(states)
    known = [state for state in STATES if counts[state]]
    others = [state for state in counts if state not in STATES]
    parts = ", ".join(f"{counts[state]} {state}" for state in (*known, *others))
    total = counts.total()
    return f"{total} job{'s' if total != 1 else ''}: {parts}"


def format_seconds(seconds: float) -> str:
    """`H:MM:SS`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def short_names(jobs: Sequence[Job]) -> dict[str, str]:
    """`{name: what tells the job from the others}`, such as `run-3,scale-1.2`."""
    settings = [dataclasses.asdict(job.settings) for job in jobs]
    keys = [key for key in settings[0] if len({values[key] for values in settings}) > 1]
    return {
        job.folder: ",".join(f"{key}-{values[key]}" for key in sorted(keys)) or job.folder
        for job, values in zip(jobs, settings, strict=True)
    }
