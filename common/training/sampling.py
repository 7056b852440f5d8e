"""What a generator is measured by: its images of latents that counters alone decide."""

import keras
import tensorflow as tf

from common.metrics.generated import GeneratedImages
from common.randomness import RandomStream
from common.training.devices import on_all_replicas


class Sampler:
    """A generator in inference mode, shared out among all replicas.

    Args:
        strategy: the `tf.distribute.Strategy` under whose scope the generator was built.
        generator: a Keras model.
        settings: the job's `Settings`.
        root_seed: the run's.
    """

    def __init__(self, strategy, generator, settings, root_seed):
        self._settings = settings
        self._latents = RandomStream(root_seed, "latents of metrics")
        latents = tf.TensorSpec([None, settings.latent_dim], keras.config.floatx())
        function = tf.function(
            lambda latents: generator(latents, training=False), input_signature=[latents]
        )
        self.generate = on_all_replicas(strategy, function)

    def metric_latents(self, global_id, count=None):
        """The latents `[count, latent_dim]` of an evaluation: new ones after every iteration.

        By default they are as many as the settings' metrics need.
        """
        count = count or max(self._settings.is_samples, self._settings.fid_samples)
        shape = [count, self._settings.latent_dim]
        return self._latents.normal(shape, global_id, dtype=keras.config.floatx())

    def metric_samples(self, global_id):
        """The images of an evaluation, `GeneratedImages`."""
        latents = self.metric_latents(global_id)
        return GeneratedImages(
            "samples", lambda numbers: self.generate(tf.gather(latents, numbers)), len(latents)
        )
