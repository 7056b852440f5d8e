"""What the user sees while a sweep runs."""

import contextlib
import logging
import shutil
import time

from common.results.progress import read_progress
from common.sweeps.status import describe_counts, format_seconds, last_fid, to_reader

_LIVE_SECONDS = 0.5
_PLAIN_SECONDS = 60


def open_view(stream, names):
    """A `LiveView` on a terminal, otherwise a `PlainView`.

    Args:
        stream: where it is shown.
        names: `{job's name: short name}`.
    """
    return (LiveView if stream.isatty() else PlainView)(stream, names)


class PlainView:
    """Lines: each event, and once a minute how far the running jobs are."""

    seconds = _PLAIN_SECONDS

    def __init__(self, stream, names, clock=time.monotonic):
        self._stream = stream
        self._names = names
        self._clock = clock
        self._shown = clock()

    def event(self, text, level):
        """Something has happened."""
        del level
        self._write(f"{text}\n")

    def update(self, states, running):
        """Shows where the sweep stands, if that was not shown lately.

        Args:
            states: `{job's name: state}`.
            running: `{device: RunFolder}` of the running jobs.
        """
        if self._clock() - self._shown >= self.seconds:
            self._shown = self._clock()
            self._show([describe_counts(states.values()), *self._lines(running)])

    def close(self):
        """Ends the view."""

    def _show(self, lines):
        self._write("".join(f"{line}\n" for line in lines))

    def _write(self, text):
        """Jobs go on when the terminal or the reader is gone; scheduler.log has the events."""
        with contextlib.suppress(OSError), to_reader(self._stream):
            self._stream.write(text)

    def _lines(self, running):
        """One line for each running job."""
        for device, folder in sorted(running.items()):
            name = self._names.get(folder.path.name, folder.path.name)
            yield f"  {device}  {describe_progress(folder)}  {name}"


class LiveView(PlainView):
    """A few lines that stay at the bottom of the terminal; failures scroll by above them."""

    seconds = _LIVE_SECONDS

    def __init__(self, stream, names, clock=time.monotonic):
        super().__init__(stream, names, clock)
        self._height = 0

    def event(self, text, level):
        """Something has happened; what is no failure shows in the counts."""
        if level >= logging.WARNING:
            self.close()
            super().event(text, level)

    def close(self):
        """Removes the lines."""
        if self._height:
            self._write(f"\x1b[{self._height}F\x1b[J")
        self._height = 0

    def _show(self, lines):
        width, height = shutil.get_terminal_size()
        room = max(height - 1, 2)
        if len(lines) > room:
            lines = [*lines[: room - 1], f"  and {len(lines) - room + 1} more"]
        self.close()
        super()._show([line[: width - 1] for line in lines])
        self._height = len(lines)


def describe_progress(folder):
    """`1,200/400,000 (0 %)  10.5 it/s  10:31:12 left  FID 23.41` of a running job."""
    progress = read_progress(folder.progress_path)
    if progress is None:
        return "preparing"
    share = 100 * progress.iteration // max(progress.iterations, 1)
    parts = [f"{progress.iteration:,}/{progress.iterations:,} ({share} %)"]
    if progress.rate:
        parts += [f"{progress.rate:.3g} it/s", f"{format_seconds(progress.seconds_left)} left"]
    fid = last_fid(folder.metrics_path)
    return "  ".join(parts if fid is None else [*parts, f"FID {fid:.2f}"])
