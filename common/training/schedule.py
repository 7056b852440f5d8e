"""When things are due, said once for the whole training loop."""

import time
from collections.abc import Callable, Iterator


def is_due(frequency: int, global_id: int) -> bool:
    """Whether something done every `frequency` iterations is due after iteration `global_id`.

    Ids count from 0, so with a frequency of 200 it is due after 199, 399, ...
    """
    return (global_id + 1) % frequency == 0


class ChunkPlanner:
    """Cuts the iterations into chunks, each run by one call of the compiled function.

    A chunk ends where something is due, and otherwise lasts about a second, so that progress shows
    and a request to stop is heard. How iterations are cut does not change what they compute.

    Args:
        ends_at: `f(global_id) -> bool`, whether the chunk must end after that iteration.
        longest: the most iterations that a chunk may have, None for as many as take a second.
        seconds: about how long a chunk may last.
    """

    def __init__(
        self, ends_at: Callable[[int], bool], longest: int | None = None, seconds: float = 1.0
    ) -> None:
        self._ends_at = ends_at
        self._longest = longest or float("inf")
        self._seconds = seconds
        self._limit = 1

    def chunks(self, first: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yields `(first, last)` ids of chunks that cover `[first, stop)`, timing each."""
        while first < stop:
            last = first
            while not (self._ends_at(last) or last + 1 >= min(stop, first + self._limit)):
                last += 1
            started = time.perf_counter()
            yield first, last
            self._adapt(last - first + 1, time.perf_counter() - started)
            first = last + 1

    def _adapt(self, count: int, seconds: float) -> None:
        if count < self._limit:
            return  # cut short by something due, whose own duration was measured too
        if seconds < self._seconds / 2:
            self._limit = int(min(2 * self._limit, self._longest))
        elif seconds > self._seconds:
            self._limit = max(1, self._limit // 2)
