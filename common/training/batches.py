"""The input pipeline: what each step of each iteration is trained on, by counters alone."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from common.configuration.settings import Settings
from common.data import ImageSource
from common.errors import UserError
from common.latents import LATENTS
from common.networks import NETWORKS
from common.pixels import scale_pixels
from common.randomness import RandomStream
from common.sampling import SAMPLINGS
from common.training.step import DiscriminatorBatch, GeneratorBatch

Local = Sequence[int]  # indices of replicas


class BatchPipeline:
    """Real images, latents, labels and the penalty's mixing factors of any step of any iteration.

    Each draw is made for the global batch, of which a replica gets its part: the batches do not
    depend on how many replicas there are. Labels of generated images are uniform and independent of
    the real ones; networks without labels get none.

    Args:
        source: the `ImageSource`.
        settings: the job's `Settings`.
        root_seed: the run's.

    Attributes:
        error: the `UserError` of an image that could not be read, or None. TensorFlow raises one of
            its own errors in its place.

    Raises:
        UserError: the networks take labels and the images have none.
    """

    def __init__(self, source: ImageSource, settings: Settings, root_seed: int) -> None:
        self._source = source
        self.error: UserError | None = None
        self._n_dis = settings.n_dis
        self.d_batch_size = settings.d_batch_size or settings.batch_size
        self.g_batch_size = settings.g_batch_size or settings.batch_size
        self._dtype = keras.config.floatx()
        self._sampling = SAMPLINGS[settings.sampling].open(
            total=len(source),
            size=self.d_batch_size,
            keeps_last=settings.last_batch == "keep",
            root_seed=root_seed,
        )
        self._latents = _Latents(settings, root_seed, "latents")
        self._generator_latents = _Latents(settings, root_seed, "latents of generator steps")
        self._mix = RandomStream(root_seed, "mixing factors")
        self._flips = RandomStream(root_seed, "flips") if settings.flip else None
        self._labels: tf.Tensor | None = None
        self._classes = 0
        if NETWORKS[settings.network].labelled:
            self._labels, self._classes = labels_of(source)
        self._fake_labels = RandomStream(root_seed, "labels")
        self._generator_labels = RandomStream(root_seed, "labels of generator steps")

    def discriminator_batches(
        self, first_iteration: int, replicas: int = 1, local: Local = range(1)
    ) -> tf.data.Dataset:
        """The batches of all discriminator steps from an iteration on, without end.

        Args:
            first_iteration: id of the iteration to start with.
            replicas: number of replicas that share a batch.
            local: indices of the replicas this pipeline feeds, in order; an element is a replica's.

        Returns:
            A `tf.data.Dataset` of `DiscriminatorBatch`.
        """
        return self._per_replica(
            first_iteration * self._n_dis,
            local,
            lambda step, replica: self._discriminator_batch(
                step // self._n_dis, step % self._n_dis, replica, replicas
            ),
        )

    def generator_batches(
        self, first_iteration: int, replicas: int = 1, local: Local = range(1)
    ) -> tf.data.Dataset:
        """Likewise the `GeneratorBatch`es of generator steps that draw their own."""
        return self._per_replica(
            first_iteration,
            local,
            lambda iteration, replica: self._generator_batch(iteration, replica, replicas),
        )

    def _per_replica(
        self, first_step: int, local: Local, make: Callable[[Any, Any], Any]
    ) -> tf.data.Dataset:
        replicas = tf.constant(list(local), tf.int64)
        counters = tf.data.Dataset.range(first_step * len(local), tf.int64.max)
        elements = counters.map(
            lambda k: make(k // len(local), replicas[k % len(local)]),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        return elements.prefetch(tf.data.AUTOTUNE)

    def _discriminator_batch(
        self, iteration: Any, step: Any, replica: Any, replicas: int
    ) -> DiscriminatorBatch:
        indices = self._sampling.indices(iteration, step, self._n_dis)
        size = indices.shape[0] or tf.shape(indices)[0]
        part = _Part(size, replicas, replica)
        dtype = self._dtype
        mix = self._mix.uniform([size, 1, 1, 1], iteration, step, dtype=dtype)
        images = self._images(part.of(indices))
        if self._flips is not None:
            flips = self._flips.uniform([size], iteration, step) < 0.5
            images = tf.where(part.of(flips)[:, None, None, None], images[:, :, ::-1], images)
        labels = fake_labels = None
        if self._labels is not None:
            labels = tf.gather(self._labels, part.of(indices))
            fake_labels = part.of(
                self._fake_labels.integers([size], self._classes, iteration, step)
            )
        latents = part.of(self._latents.draw(size, iteration, step))
        return DiscriminatorBatch(images, latents, part.of(mix), labels, fake_labels)

    def _generator_batch(self, iteration: Any, replica: Any, replicas: int) -> GeneratorBatch:
        part = _Part(self.g_batch_size, replicas, replica)
        labels = None
        if self._labels is not None:
            labels = part.of(
                self._generator_labels.integers([self.g_batch_size], self._classes, iteration)
            )
        latents = self._generator_latents.draw(self.g_batch_size, iteration)
        return GeneratorBatch(part.of(latents), labels)

    def _images(self, indices: tf.Tensor) -> tf.Tensor:
        pixels = tf.numpy_function(self._read, [indices], tf.uint8, stateful=False)
        pixels.set_shape([indices.shape[0], *self._source.image_shape])
        return scale_pixels(pixels, self._dtype)

    def _read(self, indices: np.ndarray) -> np.ndarray:
        try:
            return self._source.read(indices)
        except UserError as error:
            self.error = error
            raise


def labels_of(source: ImageSource) -> tuple[tf.Tensor, int]:
    """The labels of all images, int64 `[N]` in `[0, classes)`, and the number of classes.

    Raises:
        UserError: the data set has none.
    """
    if source.labels is None or source.classes is None:
        raise UserError(
            f"data set {source.name} has no labels, and the network takes labels: choose a data "
            "set that has some, or a network without."
        )
    return tf.constant(source.labels, tf.int64), source.classes


class _Latents:
    """Latents of one purpose, from the settings' distribution."""

    def __init__(self, settings: Settings, root_seed: int, purpose: str) -> None:
        self._stream = RandomStream(root_seed, purpose)
        self._draw = LATENTS[settings.latents].draw
        self._length = settings.latent_dim

    def draw(self, count: Any, *counters: Any) -> tf.Tensor:
        """Latents `[count, latent_dim]`, addressed by counters."""
        dtype = keras.config.floatx()
        return self._draw(self._stream, [count, self._length], *counters, dtype=dtype)


class _Part:
    """One replica's part of a global batch of `size`, a number or a scalar tensor."""

    def __init__(self, size: Any, replicas: int, replica: Any) -> None:
        self._length = size // replicas
        self._start = tf.cast(replica, tf.int32) * self._length

    def of(self, batch: tf.Tensor) -> tf.Tensor:
        part = batch[self._start : self._start + self._length]
        length = self._length if isinstance(self._length, int) else None
        part.set_shape([length, *batch.shape[1:]])
        return part
