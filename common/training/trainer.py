"""The training loop, and what it leaves behind."""

import contextlib
import logging
import math
import time

import keras
import numpy as np
from tqdm import tqdm

from common.errors import UserError
from common.metrics import InvalidSamplesError
from common.metrics.generated import GeneratedImages
from common.randomness import RandomStream
from common.results.events import EventLog
from common.results.grid import make_grid, save_png
from common.results.metrics_table import MetricsTable
from common.results.progress import ProgressFile
from common.results.times import drop_times_after, is_timed, record_time
from common.training.checkpoints import Checkpoints
from common.training.devices import is_one_of_several_workers
from common.training.divergence import first_few, where_it_began
from common.training.errors import DivergedError, InterruptedRunError
from common.training.iterations import CompiledIterations
from common.training.memory import memory_scalars
from common.training.sampling import Sampler
from common.training.schedule import ChunkPlanner, is_due

_LOG = logging.getLogger(__name__)


class Trainer:
    """Trains one job to its end, from its last checkpoint if there is one.

    Args:
        settings: the job's `Settings`.
        folder: its `RunFolder`, started.
        strategy: the `tf.distribute.Strategy` under whose scope the step's models were built.
        step: the `TrainingStep`.
        pipeline: the `BatchPipeline`.
        root_seed: the run's.
        evaluator: an `Evaluator`, or None to train without metrics.
        strict_metrics: whether a failure to compute them ends the training; otherwise it is
            logged and recorded, its row left out, the checkpoint kept, and training goes on.
        start_up: a `StartUp`, which the first iteration ends.
    """

    def __init__(
        self,
        settings,
        folder,
        *,
        strategy,
        step,
        pipeline,
        root_seed,
        evaluator=None,
        strict_metrics=False,
        start_up=None,
    ):
        self._settings = settings
        self._folder = folder
        self._strategy = strategy
        self._step = step
        self._pipeline = pipeline
        self._evaluator = evaluator
        self._strict_metrics = strict_metrics
        self._start_up = start_up
        self._grid_latents = RandomStream(root_seed, "latents of sample grids")
        self._sampler = Sampler(strategy, step.generator, settings, root_seed)
        self._events = EventLog(folder.checkpoints)
        columns = evaluator.columns if evaluator else []
        self._table = MetricsTable(folder.metrics_path, columns) if evaluator else None
        self._checkpoints = Checkpoints(
            folder.checkpoints,
            folder.restore_from,
            self._is_checkpoint_due,
            generator=step.generator,
            discriminator=step.discriminator,
            generator_optimizer=step.optimizers.generator,
            discriminator_optimizer=step.optimizers.discriminator,
        )

    def train(self, stop_requested=lambda: False):
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
                self._train(self._resume(), stop_requested)
        except OSError as error:
            raise UserError(
                f"{self._folder.path}: results cannot be written ({error}). What the last "
                "checkpoint holds is safe: mend the cause, and the same command goes on."
            ) from error

    def _train(self, done, stop_requested):
        """Trains all iterations after `done`."""
        settings = self._settings
        iterations = CompiledIterations(
            self._strategy,
            self._step,
            self._pipeline,
            settings.n_dis,
            done + 1,
            summary_freq=settings.summary_freq,
            jit_compile=settings.jit_compile,
        )
        progress = ProgressFile(self._folder.progress_path, settings.iteration, done + 1)
        with self._progress_bar(done) as bar:
            planner = ChunkPlanner(self._chunk_ends_at, iterations.common_limit)
            for first, last in planner.chunks(done + 1, settings.iteration):
                if is_timed(first, settings.iteration):
                    record_time(self._folder.times_path, first, "starts")
                rows = iterations.run(last - first + 1)
                if self._start_up and first == done + 1:
                    self._start_up.finish("first iteration")
                self._log(first, rows)
                self._after(last)
                bar.update(last - first + 1)
                progress.update(last + 1)
                if iterations.any_worker(stop_requested()) and last + 1 < settings.iteration:
                    self._stop(last)

    def _resume(self):
        """Restores the last checkpoint; returns the last iteration it holds, -1 if none."""
        done, written = self._checkpoints.restore()
        self._checkpoints.set_aside_damaged()
        self._events.rewind(written.get("events", {}))
        drop_times_after(self._folder.times_path, done)
        if self._table:
            self._table.drop_after(done)
        if done >= 0:
            _LOG.info("Loaded from global_id %d", done)
            self._checkpoint_if_due(done, missing_only=True)
            self._measure_if_due(done)
        elif self._settings.initial_metrics:
            self._sample(-1)
            self._measure(-1)
        return done

    def _progress_bar(self, done):
        return tqdm(
            total=self._settings.iteration,
            initial=done + 1,
            desc="training",
            unit="it",
            mininterval=1.0,
            disable=None,  # where there is no terminal, as in a sweep, progress.json tells
        )

    def _chunk_ends_at(self, global_id):
        settings = self._settings
        frequencies = (
            settings.vis_freq,
            settings.metric_freq,
            settings.save_checkpoint_freq,
            settings.extra_checkpoint_freq,
        )
        timed = any(is_timed(i, settings.iteration) for i in (global_id, global_id + 1))
        return timed or any(is_due(frequency, global_id) for frequency in frequencies)

    def _log(self, first, rows):
        """Writes the summaries of consecutive iterations, the first being `first`."""
        now = time.time()
        for global_id, row in enumerate(rows, start=first):
            if is_due(self._settings.summary_freq, global_id):
                self._events.write(global_id, row.scalars, now)
            if self._step.variant.memory_summaries:
                self._events.write(global_id, memory_scalars(), now)
            self._refuse_non_finite(global_id, row)
        self._events.flush()

    def _refuse_non_finite(self, global_id, row):
        bad = [tag for tag, value in row.scalars.items() if not math.isfinite(value)]
        if bad:
            bad.sort(key=lambda tag: "sigma" not in tag)
            what = f"iteration {global_id}: not finite: {first_few(bad)}"
            raise self._divergence(what, where_it_began(row.diagnosis))

    def _divergence(self, what, began=None):
        if began is None:
            models = (self._step.discriminator, self._step.generator)  # in the order of the updates
            layers = [f"{m.name} {first_few(_layers_not_finite(m))}" for m in models]
            place = f"Layers whose weights are not finite now: {'; '.join(layers)}"
        else:
            place = f"It began in {began}"
        return DivergedError(
            f"{what}; training has diverged. {place}. What was measured up to then is in "
            f"{self._folder.path}; the last good checkpoint is "
            f"{self._checkpoints.latest or 'none'}."
        )

    def _after(self, global_id):
        """Does what is due after an iteration.

        A checkpoint precedes the metrics, which may take long: resuming from it measures what is
        missing, and what it says of the event files is without the metrics.
        """
        settings = self._settings
        if is_timed(global_id, settings.iteration):
            record_time(self._folder.times_path, global_id, "ends")
        if is_due(settings.vis_freq, global_id):
            self._sample(global_id)
        self._checkpoint_if_due(global_id)
        self._measure_if_due(global_id)

    def _checkpoint_if_due(self, global_id, *, missing_only=False):
        is_kept = is_due(self._settings.extra_checkpoint_freq, global_id)
        for permanent, due in ((False, self._is_checkpoint_due(global_id)), (True, is_kept)):
            if due and not (missing_only and self._checkpoints.has(global_id, permanent=permanent)):
                self._checkpoint(global_id, permanent=permanent)

    def _is_checkpoint_due(self, global_id):
        settings = self._settings
        return (
            is_due(settings.save_checkpoint_freq, global_id)
            or is_due(settings.metric_freq, global_id)
            or global_id == settings.iteration - 1
        )

    def _checkpoint(self, global_id, *, permanent=False):
        if any(map(_layers_not_finite, (self._step.generator, self._step.discriminator))):
            raise self._divergence(f"iteration {global_id}: weights or averages are not finite")
        written = {"events": self._events.sizes()}
        self._checkpoints.save(global_id, written, permanent=permanent)

    def _stop(self, global_id):
        if not self._is_checkpoint_due(global_id):
            self._checkpoint(global_id)
        raise InterruptedRunError(
            f"stopped after iteration {global_id}, with a checkpoint: the same command goes on."
        )

    def _sample(self, global_id):
        rows, columns = self._settings.vis_num_h, self._settings.vis_num_w
        latents = self._grid_latents.normal(
            [rows * columns, self._settings.latent_dim], dtype=keras.config.floatx()
        )
        images = self._generate(latents)
        if not np.isfinite(images).all():
            raise self._divergence(f"iteration {global_id}: samples are not finite")
        path = self._folder.samples / f"global_id-{global_id}.png"
        save_png(path, make_grid(images, rows, columns))

    def _generate(self, latents):
        """Images of latents `[n, latent_dim]`, in inference mode: float array `[n, h, w, 3]`."""
        size = self._pipeline.g_batch_size
        parts = [latents[i : i + size] for i in range(0, len(latents), size)]
        return np.concatenate([self._sampler.generate(part).numpy() for part in parts])

    def _measure_if_due(self, global_id):
        if is_due(self._settings.metric_freq, global_id):
            self._measure(global_id)

    def _measure(self, global_id):
        """Adds the metrics of the network as it stands, unless the table has them already."""
        if self._evaluator is None:
            return
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

    def _evaluate(self, global_id):
        """An `Evaluation`, or None if it failed, which need not cost the training."""
        samples = self._sampler.metric_samples(global_id)

        def generate(numbers):
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
            raise self._divergence(f"iteration {global_id}: {error}") from error
        except Exception:
            if self._strict_metrics:
                raise
            _LOG.exception("global_id %d: the metrics failed; their row is left out", global_id)
            return None

    def _leave_for_later(self, global_id):
        """Keeps what `fill_metrics` needs; before the first iteration, that is the seed."""
        if global_id >= 0:
            self._checkpoints.keep(global_id)
        self._folder.note_metrics(missing=[global_id])


def _layers_not_finite(model):
    """Names of the layers that have weights with NaN or infinity, in the order of the layers."""
    return [
        layer.name
        for layer in model.layers
        if not all(np.isfinite(weight).all() for weight in layer.get_weights())
    ]
