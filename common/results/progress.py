"""`progress.json`: how far a run has come, for whoever watches it."""

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from common.files import atomic_write

_EVERY = 1.0  # seconds
_WEIGHT = 0.2  # of the newest measurement in the rate
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
        iteration: iterations that are done.
        iterations: how many there are to be.
        rate: iterations per second, lately; None if not yet known.
    """

    iteration: int
    iterations: int
    rate: float | None = None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last iteration at this rate, or None."""
        return (self.iterations - self.iteration) / self.rate if self.rate else None


class ProgressFile:
    """Writes the file, about once a second.

    The first iterations, in which functions are compiled, do not count in the rate. That the file
    cannot be written is a warning, once: training goes on without it.

    Args:
        path: the file.
        iterations: how many there are to be.
        done: how many are done already.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        path: str | Path,
        iterations: int,
        done: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._iterations = iterations
        self._clock = clock
        self._rate: float | None = None
        self._is_warm = False
        self._warned = False
        self._written = (done, clock())
        self._write(done)

    def update(self, done: int) -> None:
        """`done` iterations are done; the last one is always written."""
        before, then = self._written
        seconds = self._clock() - then
        if seconds < _EVERY and done < self._iterations and self._is_warm:
            return
        if self._is_warm:
            rate = (done - before) / max(seconds, 1e-9)
            self._rate = rate if self._rate is None else self._rate + _WEIGHT * (rate - self._rate)
        self._is_warm = True
        self._written = (done, then + seconds)
        self._write(done)

    def _write(self, done: int) -> None:
        try:
            with atomic_write(self._path, durable=False) as file:
                json.dump(asdict(Progress(done, self._iterations, self._rate)), file)
        except OSError as error:
            if not self._warned:
                _LOG.warning("%s cannot be written: %s", self._path, error.strerror)
            self._warned = True


def read_progress(path: str | Path) -> Progress | None:
    """The `Progress` that a file holds, or None if there is none that makes sense."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        progress = Progress(*(values[name] for name in Progress.__dataclass_fields__))
        counts = (progress.iteration, progress.iterations)
        rate_is_usable = progress.rate is None or (
            math.isfinite(progress.rate) and progress.rate >= 0
        )
        is_usable = all(type(n) is int and n >= 0 for n in counts) and rate_is_usable
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return progress if is_usable else None
