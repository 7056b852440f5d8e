"""The input pipeline: what each step of each iteration is trained on, by counters alone."""

import keras
import tensorflow as tf

from common.errors import UserError
from common.pixels import scale_pixels
from common.randomness import RandomStream
from common.training.step import DiscriminatorBatch


class BatchPipeline:
    """Real images, latents and the penalty's mixing factors of any step of any iteration.

    Each draw is made for the global batch, of which a replica gets its part: the batches do not
    depend on how many replicas there are.

    Args:
        source: the `ImageSource`.
        settings: the job's `Settings`.
        root_seed: the run's.

    Attributes:
        error: the `UserError` of an image that could not be read, or None. TensorFlow raises one of
            its own errors in its place.
    """

    def __init__(self, source, settings, root_seed):
        self._source = source
        self.error = None
        self._latent_dim = settings.latent_dim
        self._n_dis = settings.n_dis
        self.d_batch_size = settings.d_batch_size or settings.batch_size
        self.g_batch_size = settings.g_batch_size or settings.batch_size
        self._dtype = keras.config.floatx()
        self._indices = RandomStream(root_seed, "real images")
        self._latents = RandomStream(root_seed, "latents")
        self._mix = RandomStream(root_seed, "mixing factors")
        self._generator_latents = RandomStream(root_seed, "latents of generator steps")

    def discriminator_batches(self, first_iteration, replicas=1, local=range(1)):
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
                step // self._n_dis,
                step % self._n_dis,
                _Part(self.d_batch_size, replicas, replica),
            ),
        )

    def generator_latents(self, first_iteration, replicas=1, local=range(1)):
        """The latents of generator steps that redraw them, `[n, latent_dim]`; as above."""
        shape = [self.g_batch_size, self._latent_dim]
        return self._per_replica(
            first_iteration,
            local,
            lambda iteration, replica: _Part(self.g_batch_size, replicas, replica).of(
                self._generator_latents.normal(shape, iteration, dtype=self._dtype)
            ),
        )

    def _per_replica(self, first_step, local, make):
        replicas = tf.constant(list(local), tf.int64)
        counters = tf.data.Dataset.range(first_step * len(local), tf.int64.max)
        elements = counters.map(
            lambda k: make(k // len(local), replicas[k % len(local)]),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        return elements.prefetch(tf.data.AUTOTUNE)

    def _discriminator_batch(self, iteration, step, part):
        size, dtype = self.d_batch_size, self._dtype
        indices = self._indices.integers([size], len(self._source), iteration, step)
        latents = self._latents.normal([size, self._latent_dim], iteration, step, dtype=dtype)
        mix = self._mix.uniform([size, 1, 1, 1], iteration, step, dtype=dtype)
        return DiscriminatorBatch(self._images(part.of(indices)), part.of(latents), part.of(mix))

    def _images(self, indices):
        pixels = tf.numpy_function(self._read, [indices], tf.uint8, stateful=False)
        pixels.set_shape([indices.shape[0], *self._source.image_shape])
        return scale_pixels(pixels, self._dtype)

    def _read(self, indices):
        try:
            return self._source.read(indices)
        except UserError as error:
            self.error = error
            raise


class _Part:
    """One replica's part of a global batch of `size`."""

    def __init__(self, size, replicas, replica):
        self._length = size // replicas
        self._start = tf.cast(replica, tf.int32) * self._length

    def of(self, batch):
        part = batch[self._start : self._start + self._length]
        part.set_shape([self._length, *batch.shape[1:]])
        return part
