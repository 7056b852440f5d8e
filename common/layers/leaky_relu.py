"""Leaky ReLU whose second derivative costs nothing."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="bsn")
class LeakyReLU(keras.layers.Layer):
    """`x` where positive, `slope * x` elsewhere; any shape, in the compute dtype.

    Its values and gradients are `keras.layers.LeakyReLU`'s. Two things differ, for speed: the
    backward pass reads the outputs, so that the inputs' memory is free for them; and the gradient
    of the backward pass, which a gradient penalty takes, has no part by way of the inputs. That
    part is zero, but TensorFlow's op returns it as a tensor of zeros, which would be sent back
    through all layers below.

    Args:
        slope: of the negative side, in (0, 1).
    """

    takes_image_weights = True

    def __init__(self, slope: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 < slope < 1:
            raise ValueError(f"`slope` must be between 0 and 1. Received: slope={slope!r}")
        self.slope = float(slope)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return _leaky_relu(inputs, self.slope)

    def compute_output_shape(self, inputs_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return inputs_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "slope": self.slope}


def _leaky_relu(inputs: tf.Tensor, slope: float) -> tf.Tensor:
    @tf.custom_gradient
    def call(inputs: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
        outputs = tf.nn.leaky_relu(inputs, slope)

        @tf.custom_gradient
        def chain(upstream: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
            # The sign of the outputs is that of the inputs.
            back = tf.raw_ops.LeakyReluGrad(gradients=upstream, features=outputs, alpha=slope)
            return back, chain

        return outputs, chain

    return call(inputs)
