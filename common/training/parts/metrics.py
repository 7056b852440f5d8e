"""The metrics during training: rows of `metrics.csv`, and scalars in the event files."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from common.configuration.settings import Settings
from common.metrics import InvalidSamplesError
from common.metrics.evaluation import Evaluation, Evaluator
from common.metrics.generated import GeneratedImages
from common.results.events import EventLog
from common.results.metrics_table import MetricsTable
from common.results.run_folder import RunFolder
from common.training.checkpoints import Checkpoints
from common.training.devices import is_one_of_several_workers
from common.training.errors import InterruptedRunError
from common.training.iterations import Row
from common.training.parts.divergence import DivergenceWatch
from common.training.sampling import Sampler
from common.training.schedule import is_due

_LOG = logging.getLogger(__name__)


class Metrics:
    """Measures the generator every so often; a `Part`.

    Args:
        settings: the job's `Settings`.
        folder: its `RunFolder`.
        evaluator: the `Evaluator`.
        sampler: makes the samples.
        events: the run's `EventLog`.
        checkpoints: its `Checkpoints`.
        watch: tells of samples that are not as they must be.
        stop_requested: asked between batches, unless several hosts train; when true, the
            evaluation is given up.
        strict: whether a failure ends the training; otherwise it is logged and recorded, its row
            left out, the checkpoint kept, and training goes on.
    """

    def __init__(
        self,
        settings: Settings,
        folder: RunFolder,
        *,
        evaluator: Evaluator,
        sampler: Sampler,
        events: EventLog,
        checkpoints: Checkpoints,
        watch: DivergenceWatch,
        stop_requested: Callable[[], bool],
        strict: bool = False,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._evaluator = evaluator
        self._sampler = sampler
        self._events = events
        self._checkpoints = checkpoints
        self._watch = watch
        self._stop_requested = stop_requested
        self._strict = strict
        self._table = MetricsTable(folder.metrics_path, evaluator.columns)

    def resume(self, done: int, written: Mapping[str, Any]) -> None:
        """Removes the rows of later iterations, and makes the one that is due and missing."""
        del written
        self._table.drop_after(done)
        if done >= 0 and self.is_due(done):
            self._measure(done)
        elif done < 0 and self._settings.initial_metrics:
            self._measure(-1)

    def is_due(self, global_id: int) -> bool:
        """Whether metrics are due."""
        return is_due(self._settings.metric_freq, global_id)

    def after(self, first: int, rows: Sequence[Row]) -> None:
        """Measures if it is due.

        Raises:
            InterruptedRunError: it was asked to stop; what is missing is measured on resuming.
            DivergedError: a sample is not as it must be.
        """
        last = first + len(rows) - 1
        if self.is_due(last):
            self._measure(last)

    def _measure(self, global_id: int) -> None:
        """Adds the metrics of the network as it stands, unless the table has them already."""
        if global_id not in self._table.ids:
            evaluation = self._evaluate(global_id)
            if evaluation is None:
                self._leave_for_later(global_id)
                return
            self._table.add(global_id, evaluation.values, evaluation.record)
            _LOG.info("global_id %d: %s", global_id, evaluation.values)
        self._folder.note_metrics(made=[global_id])
        scalars = {f"metric/{name}": value for name, value in self._table.row(global_id).items()}
        self._events.write(global_id, scalars, time.time())

    def _evaluate(self, global_id: int) -> Evaluation | None:
        """An `Evaluation`, or None if it failed, which need not cost the training."""
        samples = self._sampler.metric_samples(global_id)

        def generate(numbers: np.ndarray) -> tf.Tensor:
            if self._stop_requested() and not is_one_of_several_workers():
                raise InterruptedRunError(
                    f"stopped in the metrics after iteration {global_id}, which the same command "
                    "makes anew."
                )
            return samples.read(numbers)

        try:
            return self._evaluator.evaluate(GeneratedImages("samples", generate, len(samples)))
        except InterruptedRunError:
            raise
        except InvalidSamplesError as error:
            raise self._watch.error(f"iteration {global_id}: {error}") from error
        except Exception:
            if self._strict:
                raise
            _LOG.exception("global_id %d: the metrics failed; their row is left out", global_id)
            return None

    def _leave_for_later(self, global_id: int) -> None:
        """Keeps what `fill_metrics` needs; before the first iteration, that is the seed."""
        if global_id >= 0:
            self._checkpoints.keep(global_id)
        self._folder.note_metrics(missing=[global_id])
