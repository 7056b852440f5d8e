"""The training loop."""

import contextlib
import logging
from collections.abc import Callable

import tensorflow as tf
from tqdm import tqdm

from common.configuration.settings import Settings
from common.errors import UserError
from common.metrics.evaluation import Evaluator
from common.results.events import EventLog
from common.results.progress import ProgressFile
from common.results.run_folder import RunFolder
from common.training.batches import BatchPipeline
from common.training.checkpoints import Checkpoints
from common.training.errors import InterruptedRunError
from common.training.iterations import CompiledIterations
from common.training.parts import Part
from common.training.parts.checkpointing import Checkpointing, is_checkpoint_due
from common.training.parts.divergence import DivergenceWatch
from common.training.parts.grids import Grids
from common.training.parts.metrics import Metrics
from common.training.parts.summaries import Summaries
from common.training.parts.times import Times
from common.training.plain_step import PlainStep
from common.training.sampling import Sampler
from common.training.schedule import ChunkPlanner
from common.training.start_up import StartUp

_LOG = logging.getLogger(__name__)


class Trainer:
    """Trains one job to its end, from its last checkpoint if there is one.

    Args:
        settings: the job's `Settings`.
        folder: its `RunFolder`, started.
        strategy: the `tf.distribute.Strategy` under whose scope the step's models were built.
        step: the `PlainStep` or `FusedStep`.
        pipeline: the `BatchPipeline`.
        sampler: the `Sampler` of the step's generator.
        evaluator: an `Evaluator`, or None to train without metrics.
        strict_metrics: whether a failure to compute them ends the training, see `Metrics`.
        start_up: a `StartUp`, which the first iteration ends.
    """

    def __init__(
        self,
        settings: Settings,
        folder: RunFolder,
        *,
        strategy: tf.distribute.Strategy,
        step: PlainStep,
        pipeline: BatchPipeline,
        sampler: Sampler,
        evaluator: Evaluator | None = None,
        strict_metrics: bool = False,
        start_up: StartUp | None = None,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._strategy = strategy
        self._step = step
        self._pipeline = pipeline
        self._start_up = start_up
        self._stop_requested: Callable[[], bool] = lambda: False
        self._events = EventLog(folder.checkpoints)
        self._checkpoints = Checkpoints(
            folder.checkpoints,
            folder.restore_from,
            lambda global_id: is_checkpoint_due(settings, global_id),
            **_trackables(step),
        )
        watch = DivergenceWatch(step.discriminator, step.generator, folder, self._checkpoints)
        self._times = Times(folder.times_path, settings.iteration)
        self._checkpointing = Checkpointing(settings, self._checkpoints, self._events, watch)
        self._parts: list[Part] = [
            Summaries(settings, self._events, watch),
            self._times,
            Grids(settings, folder.samples, sampler, pipeline.g_batch_size, watch),
            self._checkpointing,
        ]
        if evaluator is not None:
            metrics = Metrics(
                settings,
                folder,
                evaluator=evaluator,
                sampler=sampler,
                events=self._events,
                checkpoints=self._checkpoints,
                watch=watch,
                stop_requested=self._is_stop_requested,
                strict=strict_metrics,
            )
            self._parts.append(metrics)

    def train(self, stop_requested: Callable[[], bool] = lambda: False) -> None:
        """Trains all iterations that are left.

        Args:
            stop_requested: asked between iterations; when true, a checkpoint is written and
                training ends. Also asked between the metrics' batches, unless several hosts train:
                what is missing then is measured on resuming.

        Raises:
            InterruptedRunError: it was asked to stop before the end.
            DivergedError: a logged value, or a sample, became NaN or infinite.
            UserError: what there is cannot be continued, or results cannot be written.
        """
        self._stop_requested = stop_requested
        try:
            with contextlib.closing(self._events):
                self._train(self._resume())
        except OSError as error:
            raise UserError(
                f"{self._folder.path}: results cannot be written ({error}). What the last "
                "checkpoint holds is safe: mend the cause, and the same command goes on."
            ) from error

    def _train(self, done: int) -> None:
        """Trains all iterations after `done`."""
        total = self._settings.iteration
        n_dis = self._settings.n_dis
        iterations = CompiledIterations(self._strategy, self._step, self._pipeline, n_dis, done + 1)
        planner = ChunkPlanner(self._chunk_ends_at, iterations.common_limit)
        progress = ProgressFile(self._folder.progress_path, total, done + 1)
        with self._progress_bar(done) as bar:
            for first, last in planner.chunks(done + 1, total):
                self._times.before(first)
                rows = iterations.run(last - first + 1)
                if self._start_up and first == done + 1:
                    self._start_up.finish("first iteration")
                for part in self._parts:
                    part.after(first, rows)
                bar.update(len(rows))
                progress.update(last + 1)
                if iterations.any_worker(self._stop_requested()) and last + 1 < total:
                    self._stop(last)

    def _resume(self) -> int:
        """Restores the last checkpoint; returns the last iteration it holds, -1 if none."""
        done, written = self._checkpoints.restore()
        self._checkpoints.set_aside_damaged()
        if done >= 0:
            _LOG.info("Loaded from global_id %d", done)
        for part in self._parts:
            part.resume(done, written)
        return done

    def _chunk_ends_at(self, global_id: int) -> bool:
        return any(part.is_due(global_id) for part in self._parts)

    def _is_stop_requested(self) -> bool:
        return self._stop_requested()

    def _progress_bar(self, done: int) -> tqdm:
        return tqdm(
            total=self._settings.iteration,
            initial=done + 1,
            desc="training",
            unit="it",
            mininterval=1.0,
            disable=None,  # where there is no terminal, as in a sweep, progress.json tells
        )

    def _stop(self, global_id: int) -> None:
        self._checkpointing.stop(global_id)
        raise InterruptedRunError(
            f"stopped after iteration {global_id}, with a checkpoint: the same command goes on."
        )


def _trackables(step: PlainStep) -> dict[str, object]:
    """Everything that training changes, by the names that checkpoints have for it."""
    trackables = {
        "generator": step.generator,
        "discriminator": step.discriminator,
        "generator_optimizer": step.optimizers.generator,
        "discriminator_optimizer": step.optimizers.discriminator,
    }
    if step.average is not None:
        trackables["average"] = step.average
    return trackables | _random_states(step)


def _random_states(step: PlainStep) -> dict[str, object]:
    """The states of users' dropout and noise layers, which Keras keeps out of a model's weights."""
    states: dict[str, object] = {}
    for name in ("generator", "discriminator"):
        model = getattr(step, name)
        weights = {id(weight) for weight in model.weights}
        hidden = [variable for variable in model.variables if id(variable) not in weights]
        states |= {f"{name}_random_state_{i}": v.value for i, v in enumerate(hidden)}
    return states
