"""What a generator is looked at and measured by: latents and labels that counters alone decide."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from common import graph_optimizers
from common.configuration.settings import Settings
from common.latents import LATENTS
from common.metrics.generated import GeneratedImages
from common.networks.build import call_network
from common.randomness import RandomStream
from common.training.devices import on_all_replicas


class Sampler:
    """A generator in inference mode, shared out among all replicas.

    Args:
        strategy: the `tf.distribute.Strategy` under whose scope the generator was built.
        generator: a Keras model.
        settings: the job's `Settings`.
        root_seed: the run's.
        classes: number of labels that the generator takes, None if it takes none.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        generator: keras.Model,
        settings: Settings,
        root_seed: int,
        classes: int | None = None,
    ) -> None:
        # Before the first call: images must not depend on whether training or a measurement comes
        # first in a process, as it does after a resume.
        graph_optimizers.restrain()
        self._settings = settings
        self._classes = classes
        self._latents = RandomStream(root_seed, "latents of metrics")
        self._labels = RandomStream(root_seed, "labels of metrics")
        self._grid_latents = RandomStream(root_seed, "latents of sample grids")
        signature = [tf.TensorSpec([None, settings.latent_dim], keras.config.floatx())]
        if classes is not None:
            signature.append(tf.TensorSpec([None], tf.int64))
        function = tf.function(
            lambda latents, labels=None: call_network(generator, latents, labels, training=False),
            input_signature=signature,
            autograph=False,
        )
        self._generate = on_all_replicas(strategy, function)

    def generate(self, latents: Any, labels: Any = None) -> tf.Tensor:
        """Images `[n, h, w, c]` in [-1, 1] of latents `[n, latent_dim]`, labels `[n]` or None."""
        return self._generate(latents) if labels is None else self._generate(latents, labels)

    def metric_inputs(self, global_id: int, count: int | None = None) -> tuple[Any, Any]:
        """Latents and labels of an evaluation: new ones after every iteration.

        Labels are uniform over the classes, independent of everything else.

        Args:
            global_id: the iteration.
            count: how many; by default as many as the settings' metrics need.

        Returns:
            Latents `[count, latent_dim]`, and labels int64 `[count]` or None.
        """
        count = count or max(self._settings.is_samples, self._settings.fid_samples)
        latents = self._draw(self._latents, count, global_id)
        if self._classes is None:
            return latents, None
        return latents, self._labels.integers([count], self._classes, global_id)

    def metric_samples(
        self, global_id: int, count: int | None = None, record: dict[str, Any] | None = None
    ) -> GeneratedImages:
        """The images of an evaluation; arguments as of `metric_inputs`, and what to say of them."""
        latents, labels = self.metric_inputs(global_id, count)

        def generate(numbers: np.ndarray) -> tf.Tensor:
            chosen = None if labels is None else tf.gather(labels, numbers)
            return self.generate(tf.gather(latents, numbers), chosen)

        return GeneratedImages("samples", generate, len(latents), record)

    def grid(self, rows: int, columns: int, at_a_time: int) -> np.ndarray:
        """The images of a sample grid, row by row: always of the same latents and labels.

        With labels, a row shows one class and a column one latent; see `row_labels`.

        Args:
            rows, columns: of the grid.
            at_a_time: how many images are made at a time.

        Returns:
            Float `[rows * columns, h, w, c]` in [-1, 1].
        """
        latents, labels = self._draw(self._grid_latents, rows * columns), None
        if self._classes is not None:
            latents = tf.tile(latents[:columns], [rows, 1])
            labels = tf.constant(np.repeat(row_labels(rows, self._classes), columns), tf.int64)
        parts = [slice(i, i + at_a_time) for i in range(0, rows * columns, at_a_time)]
        images = [
            self.generate(latents[part], None if labels is None else labels[part]).numpy()
            for part in parts
        ]
        return np.concatenate(images)

    def _draw(self, stream: RandomStream, count: int, *counters: int) -> tf.Tensor:
        draw = LATENTS[self._settings.latents].draw
        shape = [count, self._settings.latent_dim]
        return draw(stream, shape, *counters, dtype=keras.config.floatx())


def row_labels(rows: int, classes: int) -> np.ndarray:
    """The label of each row of a grid, int64 `[rows]`.

    All classes in order, from the first again where there are more rows; where there are fewer,
    they are evenly spaced.
    """
    if rows < classes:
        return np.arange(rows) * classes // rows
    return np.arange(rows) % classes
