"""When checkpoints are written, and what is written beside them."""

from collections.abc import Mapping, Sequence
from typing import Any

from common.configuration.settings import Settings
from common.results.events import EventLog
from common.training.checkpoints import Checkpoints
from common.training.iterations import Row
from common.training.parts.divergence import DivergenceWatch
from common.training.schedule import is_due


class Checkpointing:
    """Writes checkpoints every so often, at the end, and before the metrics; a `Part`.

    A checkpoint precedes the metrics, which may take long: resuming from it measures what is
    missing, and what it says of the event files is without the metrics.

    Args:
        settings: the job's `Settings`.
        checkpoints: the run's `Checkpoints`.
        events: its `EventLog`, whose sizes a checkpoint holds.
        watch: refuses weights that are not finite.
    """

    def __init__(
        self,
        settings: Settings,
        checkpoints: Checkpoints,
        events: EventLog,
        watch: DivergenceWatch,
    ) -> None:
        self._settings = settings
        self._checkpoints = checkpoints
        self._events = events
        self._watch = watch

    def resume(self, done: int, written: Mapping[str, Any]) -> None:
        """Writes the copies that are due at the checkpoint and were not made any more."""
        del written
        if done >= 0:
            self._save_due(done, missing_only=True)

    def is_due(self, global_id: int) -> bool:
        """Whether a checkpoint is due."""
        return is_checkpoint_due(self._settings, global_id) or self._is_kept(global_id)

    def after(self, first: int, rows: Sequence[Row]) -> None:
        """Writes what is due.

        Raises:
            DivergedError: weights are not finite.
            UserError: it cannot be written.
        """
        self._save_due(first + len(rows) - 1)

    def stop(self, global_id: int) -> None:
        """Writes a checkpoint because the run must stop, unless there is one."""
        if not is_checkpoint_due(self._settings, global_id):
            self._save(global_id, permanent=False)

    def _is_kept(self, global_id: int) -> bool:
        return is_due(self._settings.extra_checkpoint_freq, global_id)

    def _save_due(self, global_id: int, *, missing_only: bool = False) -> None:
        due = ((False, is_checkpoint_due(self._settings, global_id)),
               (True, self._is_kept(global_id)))  # fmt: skip
        for permanent, is_wanted in due:
            is_there = missing_only and self._checkpoints.has(global_id, permanent=permanent)
            if is_wanted and not is_there:
                self._save(global_id, permanent=permanent)

    def _save(self, global_id: int, *, permanent: bool) -> None:
        self._watch.refuse_weights(global_id)
        written = {"events": self._events.sizes()}
        self._checkpoints.save(global_id, written, permanent=permanent)


def is_checkpoint_due(settings: Settings, global_id: int) -> bool:
    """Whether the schedule asks for a checkpoint after an iteration."""
    return (
        is_due(settings.save_checkpoint_freq, global_id)
        or is_due(settings.metric_freq, global_id)
        or global_id == settings.iteration - 1
    )
