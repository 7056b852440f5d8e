"""What the user sees while a sweep runs."""

import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TextIO

from common.results.progress import read_progress
from common.results.run_folder import RunFolder
from common.sweeps.status import describe_counts, format_seconds, last_fid, to_reader

_LIVE_SECONDS = 0.5
_PLAIN_SECONDS = 60


def open_view(stream: TextIO, names: Mapping[str, str]) -> "PlainView":
    """A `LiveView` on a terminal, otherwise a `PlainView`.

    Args:
        stream: where it is shown.
        names: `{job's name: short name}`.
    """
    return (LiveView if stream.isatty() else PlainView)(stream, names)


class PlainView:
    """Lines: each event, and once a minute how far the running jobs are."""

    seconds: float = _PLAIN_SECONDS

    def __init__(
        self,
        stream: TextIO,
        names: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._names = names
        self._clock = clock
        self._shown = clock()

    def event(self, text: str, level: int) -> None:
        """Something has happened; `level` is one of `logging`'s."""
        del level
        self._write(f"{text}\n")

    def update(self, states: Mapping[str, str], running: Mapping[str, RunFolder]) -> None:
        """Shows where the sweep stands, if that was not shown lately.

        Args:
            states: `{job's name: state}`.
            running: `{where: folder}` of the running jobs' runs.
        """
        if self._clock() - self._shown >= self.seconds:
            self._shown = self._clock()
            self._show([describe_counts(states.values()), *self._lines(running)])

    def close(self) -> None:
        """Ends the view."""

    def _show(self, lines: Sequence[str]) -> None:
        self._write("".join(f"{line}\n" for line in lines))

    def _write(self, text: str) -> None:
        """Jobs go on when the terminal or the reader is gone; scheduler.log has the events."""
        with contextlib.suppress(OSError), to_reader(self._stream):
            self._stream.write(text)

    def _lines(self, running: Mapping[str, RunFolder]) -> Iterator[str]:
        """One line for each running job."""
        for where, folder in sorted(running.items()):
            name = self._names.get(folder.path.name, folder.path.name)
            yield f"  {where}  {describe_progress(folder)}  {name}"


class LiveView(PlainView):
    """A few lines that stay at the bottom of the terminal; failures scroll by above them."""

    seconds = _LIVE_SECONDS

    def __init__(
        self,
        stream: TextIO,
        names: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(stream, names, clock)
        self._height = 0

    def event(self, text: str, level: int) -> None:
        """Something has happened; what is no failure shows in the counts."""
        if level >= logging.WARNING:
            self.close()
            super().event(text, level)

    def close(self) -> None:
        """Removes the lines."""
        if self._height:
            self._write(f"\x1b[{self._height}F\x1b[J")
        self._height = 0

    def _show(self, lines: Sequence[str]) -> None:
        width, height = shutil.get_terminal_size()
        room = max(height - 1, 2)
        if len(lines) > room:
            lines = [*lines[: room - 1], f"  and {len(lines) - room + 1} more"]
        self.close()
        super()._show([line[: width - 1] for line in lines])
        self._height = len(lines)


def describe_progress(folder: RunFolder) -> str:
    """`1,200/400,000 (0 %)  10.5 it/s  10:31:12 left  FID 23.41` of a running job's run."""
    progress = read_progress(folder.progress_path)
    if progress is None:
        return "preparing"
    share = 100 * progress.iteration // max(progress.iterations, 1)
    parts = [f"{progress.iteration:,}/{progress.iterations:,} ({share} %)"]
    if progress.rate and (left := progress.seconds_left) is not None:
        parts += [f"{progress.rate:.3g} it/s", f"{format_seconds(left)} left"]
    fid = last_fid(folder.metrics_path)
    return "  ".join(parts if fid is None else [*parts, f"FID {fid:.2f}"])
