"""What the steps of an iteration take and return, and the optimisers that they update by."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from common.configuration.settings import Settings
from common.training.adam import Adam


class DiscriminatorBatch(NamedTuple):
    """What one discriminator step needs, for one replica.

    Attributes:
        images: real images `[n, h, w, c]` in [-1, 1].
        latents: `[n, latent_dim]`.
        mix: `[n, 1, 1, 1]` in [0, 1), for penalties between real and generated images.
        labels: int64 `[n]` of the real images, None for networks without labels.
        fake_labels: int64 `[n]` of the images to generate, likewise.
    """

    images: Any
    latents: Any
    mix: Any
    labels: Any = None
    fake_labels: Any = None


class GeneratorBatch(NamedTuple):
    """What one generator step needs, for one replica.

    Attributes:
        latents: `[n, latent_dim]`.
        labels: int64 `[n]`, None for networks without labels.
    """

    latents: Any
    labels: Any = None


class StepResult(NamedTuple):
    """What steps measure, scalars by name.

    Attributes:
        scalars: what is logged, by TensorBoard tag.
        diagnosis: what tells where values ceased to be finite, see `common.training.divergence`.
    """

    scalars: dict[str, Any]
    diagnosis: dict[str, Any]

    def joined(self, other: "StepResult") -> "StepResult":
        """Both in one."""
        return StepResult(self.scalars | other.scalars, self.diagnosis | other.diagnosis)


@dataclass(frozen=True)
class Optimizers:
    """Adam for each network; its learning rate is kept in Keras' floatx."""

    generator: keras.optimizers.Optimizer
    discriminator: keras.optimizers.Optimizer

    @classmethod
    def adam(cls, settings: Settings) -> "Optimizers":
        """From the settings' learning rates, betas and form of Adam.

        Where Keras' default dtype policy computes in float16, losses are scaled.
        """
        form: dict[str, Any] = {"epsilon": settings.adam_epsilon, "form": settings.adam_form}
        g_values = settings.g_lr, settings.g_beta1, settings.g_beta2
        d_values = settings.d_lr, settings.d_beta1, settings.d_beta2
        optimizers = [
            Adam(*g_values, name="generator_adam", **form),
            Adam(*d_values, name="discriminator_adam", **form),
        ]
        if keras.config.dtype_policy().compute_dtype == "float16":
            optimizers = [keras.optimizers.LossScaleOptimizer(x, name=x.name) for x in optimizers]
        return cls(*optimizers)


def full_precision(scores: tf.Tensor) -> tf.Tensor:
    """Scores in the variables' precision, so that losses are computed in it."""
    return tf.cast(scores, keras.config.dtype_policy().variable_dtype)
