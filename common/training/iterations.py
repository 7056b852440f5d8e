"""Whole iterations as one compiled function: several per call, nothing copied in between."""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from common import graph_optimizers
from common.keras_private import is_multi_worker
from common.training.divergence import is_diagnosis
from common.training.errors import WorkerLostError


class Row(NamedTuple):
    """What one iteration computes; over several replicas, the means.

    Attributes:
        scalars: `{tag: float}`, what is logged.
        diagnosis: for each discriminator step, `{tag: float}` of `common.training.divergence`; with
            the last one's, the generator's.
    """

    scalars: dict
    diagnosis: list


class CompiledIterations:
    """Runs training iterations on all replicas of a strategy.

    Args:
        strategy: a `tf.distribute.Strategy`, under whose scope the step's models were built.
        step: the `TrainingStep`.
        pipeline: the `BatchPipeline`.
        n_dis: discriminator steps per iteration.
        first_iteration: id of the first iteration to run; the others follow in order.
        summary_freq: iterations between those whose summaries are wanted: where summaries take a
            pass of their own, the others go without it.
        jit_compile: whether XLA compiles the steps; for a strategy of one device.
    """

    def __init__(
        self,
        strategy,
        step,
        pipeline,
        n_dis,
        first_iteration,
        *,
        summary_freq=1,
        jit_compile=False,
    ):
        self._strategy = strategy
        self._step = step
        self._pipeline = pipeline
        self._n_dis = n_dis
        self._next = first_iteration
        self._summary_freq = summary_freq
        self._jit_compile = jit_compile
        self._batches = self._iterator(pipeline.discriminator_batches, first_iteration)
        self._latents = None
        if step.variant.redraw_latents:
            self._latents = self._iterator(pipeline.generator_latents, first_iteration)
        self._tags, self._earlier_tags = (), ()
        self._is_multi_worker = is_multi_worker(strategy)
        graph_optimizers.restrain()
        self._compiled = tf.function(
            self._run,
            input_signature=[
                tf.TensorSpec((), tf.int64, "first"),
                tf.TensorSpec((), tf.int32, "count"),
            ],
        )

    def _iterator(self, make_dataset, first_iteration):
        replicas = self._strategy.num_replicas_in_sync

        def dataset(context):
            local = replicas // context.num_input_pipelines
            first = context.input_pipeline_id * local
            return make_dataset(first_iteration, replicas, range(first, first + local))

        return iter(self._strategy.distribute_datasets_from_function(dataset))

    @property
    def common_limit(self):
        """The most iterations per call that all workers agree on: they cannot each choose."""
        return 1 if self._is_multi_worker else None

    def any_worker(self, flag):
        """Whether `flag` holds on any of the workers; each must ask after the same iteration."""
        if not self._is_multi_worker:
            return flag
        return self._with_all_workers(lambda: bool(self._any(tf.constant(float(flag)))))

    def _any(self, flag):
        votes = self._strategy.run(lambda: flag)
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, votes, axis=None) > 0

    def _with_all_workers(self, call):
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

    def run(self, count):
        """Trains the next `count` iterations.

        Returns:
            A list of `count` `Row`s.

        Raises:
            UserError: an image cannot be read.
            WorkerLostError: of several hosts, another one has gone.
        """
        ids = tf.constant(self._next, tf.int64), tf.constant(count)
        values = self._with_all_workers(lambda: self._compiled(*ids).numpy())
        self._next += count
        return [self._row(values) for values in values.tolist()]

    def _row(self, values):
        last = dict(zip(self._tags, values, strict=False))  # the earlier steps' values come after
        steps = np.reshape(values[len(last) :], (self._n_dis - 1, len(self._earlier_tags)))
        earlier = [dict(zip(self._earlier_tags, step, strict=True)) for step in steps.tolist()]
        diagnosis = {tag: last.pop(tag) for tag in self._tags if is_diagnosis(tag)}
        return Row(last, [*earlier, diagnosis])

    def _run(self, first, count):
        rows = tf.TensorArray(keras.config.floatx(), size=count)
        # TensorFlow overlaps a loop's iterations as far as their tensors allow, and lets one read
        # variables that the one before has yet to update.
        for index in tf.range(count):
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            earlier = self._earlier_steps() if self._n_dis > 1 else []
            summaries_due = (first + tf.cast(index, tf.int64) + 1) % self._summary_freq == 0
            rows = rows.write(index, tf.concat([self._last_steps(summaries_due), *earlier], 0))
        return rows.stack()

    def _earlier_steps(self):
        """All discriminator steps but the last; their diagnoses, one after another."""
        diagnoses = tf.TensorArray(keras.config.floatx(), size=self._n_dis - 1)
        for index in tf.range(self._n_dis - 1):
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            values = self._on_replicas(self._discriminator_step, next(self._batches))
            diagnoses = diagnoses.write(index, self._mean(values))
        return [tf.reshape(diagnoses.stack(), [(self._n_dis - 1) * len(self._earlier_tags)])]

    def _last_steps(self, summaries_due):
        latents = None if self._latents is None else next(self._latents)
        batch = next(self._batches)
        return self._mean(self._on_replicas(self._logged_step, batch, latents, summaries_due))

    def _mean(self, values):
        return self._strategy.reduce(tf.distribute.ReduceOp.MEAN, values, axis=None)

    def _on_replicas(self, function, *batches):
        # The steps have no control flow for AutoGraph, which would take seconds to find that out.
        if self._jit_compile:
            function = tf.function(function, jit_compile=True, autograph=False)
        else:
            function = tf.autograph.experimental.do_not_convert(function)
        return self._strategy.run(function, batches)

    def _discriminator_step(self, batch):
        scalars = self._step.discriminator_step(batch)
        self._earlier_tags = tuple(filter(is_diagnosis, scalars))
        return _stack(scalars[tag] for tag in self._earlier_tags)

    def _logged_step(self, *batches):
        scalars = self._step.last_steps(*batches)
        self._tags = tuple(scalars)
        return _stack(scalars.values())


def _stack(scalars):
    return tf.stack([tf.cast(value, keras.config.floatx()) for value in scalars])
