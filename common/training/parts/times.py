"""`time.txt`: when some iterations started and ended."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.results.times import drop_times_after, is_timed, record_time
from common.training.iterations import Row


class Times:
    """Writes the times of the first, the last and every 1,000th iteration; a `Part`.

    Args:
        path: the file.
        iterations: how many there are to be.
    """

    def __init__(self, path: Path, iterations: int) -> None:
        self._path = path
        self._iterations = iterations

    def resume(self, done: int, written: Mapping[str, Any]) -> None:
        """Removes the lines of later iterations."""
        del written
        drop_times_after(self._path, done)

    def is_due(self, global_id: int) -> bool:
        """Whether an iteration is timed: it is a chunk of its own."""
        return any(is_timed(i, self._iterations) for i in (global_id, global_id + 1))

    def before(self, first: int) -> None:
        """Notes that a chunk begins."""
        if is_timed(first, self._iterations):
            record_time(self._path, first, "starts")

    def after(self, first: int, rows: Sequence[Row]) -> None:
        """Notes that a chunk has ended."""
        last = first + len(rows) - 1
        if is_timed(last, self._iterations):
            record_time(self._path, last, "ends")
