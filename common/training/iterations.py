"""Whole iterations as one compiled function: several per call, nothing copied in between."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import keras
import numpy as np
import tensorflow as tf

from common import graph_optimizers
from common.keras_private import is_multi_worker
from common.training.batches import BatchPipeline
from common.training.errors import WorkerLostError
from common.training.plain_step import PlainStep
from common.training.step import StepResult

Returned = TypeVar("Returned")


class Row(NamedTuple):
    """What one iteration computes; over several replicas, the means.

    Attributes:
        scalars: `{tag: float}`, what is logged.
        diagnosis: for each discriminator step, `{name: float}` of `common.training.divergence`;
            with the last one's, the generator's.
    """

    scalars: dict[str, float]
    diagnosis: list[dict[str, float]]


class CompiledIterations:
    """Runs training iterations on all replicas of a strategy.

    Args:
        strategy: a `tf.distribute.Strategy`, under whose scope the step's models were built.
        step: the `PlainStep` or `FusedStep`.
        pipeline: the `BatchPipeline`.
        n_dis: discriminator steps per iteration.
        first_iteration: id of the first iteration to run; the others follow in order.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        step: PlainStep,
        pipeline: BatchPipeline,
        n_dis: int,
        first_iteration: int,
    ) -> None:
        self._strategy = strategy
        self._step = step
        self._settings = step.settings
        self._pipeline = pipeline
        self._n_dis = n_dis
        self._next = first_iteration
        self._batches = self._iterator(pipeline.discriminator_batches, first_iteration)
        self._generator_batches = None
        if step.settings.redraw_latents:
            self._generator_batches = self._iterator(pipeline.generator_batches, first_iteration)
        self._is_multi_worker = is_multi_worker(strategy)
        graph_optimizers.restrain()
        # Each has a signature, by which it is traced once, and its outputs' structure is known.
        self._earlier_step = tf.function(self._discriminator_step, [], autograph=False)
        due = tf.TensorSpec((), tf.bool, "summaries_due")
        self._last_steps = tf.function(self._logged_steps, [due], autograph=False)
        counts = [tf.TensorSpec((), tf.int64, "first"), tf.TensorSpec((), tf.int32, "count")]
        self._compiled = tf.function(self._run, counts)

    def _iterator(self, make_dataset: Callable[..., tf.data.Dataset], first_iteration: int) -> Any:
        replicas = self._strategy.num_replicas_in_sync

        def dataset(context: tf.distribute.InputContext) -> tf.data.Dataset:
            local = replicas // context.num_input_pipelines
            first = context.input_pipeline_id * local
            return make_dataset(first_iteration, replicas, range(first, first + local))

        return iter(self._strategy.distribute_datasets_from_function(dataset))

    @property
    def common_limit(self) -> int | None:
        """The most iterations per call that all workers agree on: they cannot each choose."""
        return 1 if self._is_multi_worker else None

    def any_worker(self, flag: bool) -> bool:
        """Whether `flag` holds on any of the workers; each must ask after the same iteration."""
        if not self._is_multi_worker:
            return flag
        return self._with_all_workers(lambda: bool(self._any(tf.constant(float(flag)))))

    def _any(self, flag: tf.Tensor) -> tf.Tensor:
        votes = self._strategy.run(lambda: flag)
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, votes, axis=None) > 0

    def _with_all_workers(self, call: Callable[[], Returned]) -> Returned:
        """What `call()` returns, bad images and lost workers being told from other errors."""
        try:
            return call()
        except tf.errors.OpError as error:
            if self._pipeline.error is not None:
                raise self._pipeline.error from None
            if not self._is_multi_worker:
                raise
            raise WorkerLostError(
                "another worker was lost, or could not be reached: start all of them again, and "
                f"training goes on from the last checkpoint. ({str(error).splitlines()[0]})"
            ) from error

    def run(self, count: int) -> list[Row]:
        """Trains the next `count` iterations.

        Returns:
            A list of `count` `Row`s.

        Raises:
            UserError: an image cannot be read.
            WorkerLostError: of several hosts, another one has gone.
        """
        ids = tf.constant(self._next, tf.int64), tf.constant(count)
        last, earlier = self._with_all_workers(
            lambda: [values.numpy() for values in self._compiled(*ids)]
        )
        self._next += count
        return [self._row(*values) for values in zip(last, earlier, strict=True)]

    def _row(self, last: np.ndarray, earlier: np.ndarray) -> Row:
        result = _unpacked(self._last_steps, last)
        steps = [_unpacked(self._earlier_step, values) for values in earlier]
        return Row(result.scalars, [*steps, result.diagnosis])

    def _run(self, first: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Packed results of the last steps and of the earlier ones, `[count, ...]` each."""
        dtype = keras.config.floatx()
        last = tf.TensorArray(dtype, size=count)
        earlier = tf.TensorArray(dtype, size=count)
        # TensorFlow overlaps a loop's iterations as far as their tensors allow, and lets one read
        # variables that the one before has yet to update.
        for index in tf.range(count):
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            earlier = earlier.write(index, self._earlier_steps())
            done = first + tf.cast(index, tf.int64) + 1
            last = last.write(
                index, _packed(self._last_steps(done % self._settings.summary_freq == 0))
            )
        return last.stack(), earlier.stack()

    def _earlier_steps(self) -> tf.Tensor:
        """All discriminator steps but the last, `[n_dis - 1, ...]`."""
        count = self._n_dis - 1
        if count == 0:
            return tf.zeros([0, 0], keras.config.floatx())
        results = tf.TensorArray(keras.config.floatx(), size=count)
        for index in tf.range(count):
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            results = results.write(index, _packed(self._earlier_step()))
        return results.stack()

    def _discriminator_step(self) -> dict[str, tf.Tensor]:
        return self._on_replicas(
            lambda batch: self._step.discriminator_step(batch).diagnosis, next(self._batches)
        )

    def _logged_steps(self, summaries_due: tf.Tensor) -> StepResult:
        generator_batch = self._generator_batches and next(self._generator_batches)
        batch = next(self._batches)
        result = self._on_replicas(self._step.last_steps, batch, generator_batch, summaries_due)
        self._step.update_average()
        return result

    def _on_replicas(self, function: Callable[..., Returned], *batches: Any) -> Returned:
        """What a step returns, a structure of scalars: the mean over the replicas."""
        if self._settings.jit_compile:
            function = tf.function(function, jit_compile=True, autograph=False)
        results = self._strategy.run(function, batches)
        packed = self._strategy.run(_packed, (results,))
        mean = self._strategy.reduce(tf.distribute.ReduceOp.MEAN, packed, axis=None)
        return tf.nest.pack_sequence_as(results, tf.unstack(mean))


def _packed(results: Any) -> tf.Tensor:
    """All values of a structure as one vector, in Keras' floatx."""
    return tf.stack([tf.cast(value, keras.config.floatx()) for value in tf.nest.flatten(results)])


def _unpacked(function: Any, values: np.ndarray) -> Any:
    """The structure that a function of one signature returns, of the values of `_packed`."""
    structure = function.get_concrete_function().structured_outputs
    return tf.nest.pack_sequence_as(structure, values.tolist())
