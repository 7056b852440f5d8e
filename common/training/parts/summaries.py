"""TensorBoard's scalars of every iteration, and the refusal of those that are not finite."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from common.configuration.settings import Settings
from common.results.events import EventLog
from common.training.iterations import Row
from common.training.memory import memory_scalars
from common.training.parts.divergence import DivergenceWatch
from common.training.schedule import is_due


class Summaries:
    """Writes what iterations measure to the event files; a `Part`.

    Args:
        settings: the job's `Settings`.
        events: the run's `EventLog`.
        watch: refuses values that are not finite, after they were written.
    """

    def __init__(self, settings: Settings, events: EventLog, watch: DivergenceWatch) -> None:
        self._settings = settings
        self._events = events
        self._watch = watch

    def resume(self, done: int, written: Mapping[str, Any]) -> None:
        """Cuts the event files to what they held."""
        del done
        self._events.rewind(written.get("events", {}))

    def is_due(self, global_id: int) -> bool:
        """Never: the rows of a chunk are written together."""
        del global_id
        return False

    def after(self, first: int, rows: Sequence[Row]) -> None:
        """Writes the rows that are due; all are looked at.

        Raises:
            DivergedError: a value is not finite.
        """
        now = time.time()
        for global_id, row in enumerate(rows, start=first):
            if is_due(self._settings.summary_freq, global_id):
                self._events.write(global_id, row.scalars, now)
            if self._settings.memory_summaries:
                self._events.write(global_id, memory_scalars(), now)
            self._watch.refuse_values(global_id, row)
        self._events.flush()
