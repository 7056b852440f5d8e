"""From a job's settings to its networks, and how they are called."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from common.configuration.settings import Settings
from common.errors import UserError
from common.networks import NETWORKS, ImageShape, NetworkSpec
from common.networks.normalization import WeightNormalization
from common.randomness import initializer_seed

# The keys that normalise, and their values where nothing does.
_UNNORMALIZED = {"sn_mode": "none", "scale": 1.0, "gamma": "none", "g_sn_mode": "none"}


class Networks(NamedTuple):
    """The networks of a job.

    Attributes:
        generator: a Keras model `[n, latent_dim]` (with labels: `[latents, labels]`) to images.
        discriminator: a Keras model from images (with labels: `[images, labels]`) to scores.
        average: a generator that is the first one's moving average, or None without one.
    """

    generator: keras.Model
    discriminator: keras.Model
    average: keras.Model | None

    @property
    def sampled(self) -> keras.Model:
        """The generator that samples, metrics and exports are made by."""
        return self.generator if self.average is None else self.average


def build_networks(
    settings: Settings, root_seed: int, image_shape: ImageShape, classes: int | None
) -> Networks:
    """Builds the networks, with their initial values, under Keras' dtype policy.

    Args:
        settings: the job's `Settings`.
        root_seed: the run's; it determines the initial values.
        image_shape: (height, width, channels) of the images.
        classes: number of labels, for networks that take them; ignored by others.

    Raises:
        UserError: the settings name a normalisation, and the network takes no notice of it.
    """
    row = NETWORKS[settings.network]
    seed = initializer_seed(root_seed, "layers without seeds of their own")

    def build(
        function: Callable[[NetworkSpec], keras.Model], spec: NetworkSpec, shape: tuple[int, ...]
    ) -> keras.Model:
        keras.utils.set_random_seed(seed)  # for users' own layers
        model = function(spec)
        if spec.ignores_normalization:
            raise _ignored_normalization(settings)
        if not model.built:  # subclassed, or without a declared input: it has no variables yet
            labels = None if spec.classes is None else tf.zeros([1], tf.int64)
            inputs = tf.zeros([1, *shape], keras.config.floatx())
            call_network(model, inputs, labels, training=False)
        return model

    def spec(normalization: WeightNormalization) -> NetworkSpec:
        labels = classes if row.labelled else None
        return NetworkSpec(settings, image_shape, normalization, labels, root_seed)

    of_generator = spec(WeightNormalization.of_generator(settings))
    latents = (settings.latent_dim,)
    of_discriminator = spec(WeightNormalization.of_discriminator(settings))
    return Networks(
        build(row.generator, of_generator, latents),
        build(row.discriminator, of_discriminator, image_shape),
        None if settings.ema_decay is None else build(row.generator, of_generator, latents),
    )


def _ignored_normalization(settings: Settings) -> UserError:
    changed = {k: v for k, v in _UNNORMALIZED.items() if getattr(settings, k) != v}
    return UserError(
        f"network={settings.network} does not use spec.normalization, so that "
        f"{', '.join(f'{key}={getattr(settings, key)}' for key in changed)} would have no effect: "
        f"use it, or set {', '.join(f'{key}={value}' for key, value in changed.items())}."
    )


def call_network(model: keras.Model, inputs: Any, labels: Any, *, training: bool) -> Any:
    """A network's outputs for inputs `[n, ...]` and labels `[n]`, None for no labels."""
    return model(inputs if labels is None else [inputs, labels], training=training)
