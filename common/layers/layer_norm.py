"""Layer normalisation with a gain and an offset per channel."""

from typing import Any

import keras
import tensorflow as tf

from common.layers.image_weights import weighted_bias_add, weighted_linear


@keras.saving.register_keras_serializable(package="bsn")
class LayerNorm(keras.layers.Layer):
    """Each image by itself: `(x - mean) / sqrt(variance + epsilon) * gamma + beta`.

    Mean and biased variance are those over height, width and channels, or over the units after a
    dense layer; gamma and beta have one value for each channel or unit (Ba et al. 2016; the
    comparison's specification, section 7). `keras.layers.LayerNormalization` over the same axes has
    one for each position too.

    Args:
        epsilon: added to the variance.
        **kwargs: as of `keras.layers.Layer`.

    Call arguments:
        inputs: `[n, c]` or `[n, h, w, c]`.

    Returns:
        A tensor of the inputs' shape, in the compute dtype. Statistics are at least float32.
    """

    takes_image_weights = True

    def __init__(self, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = float(epsilon)

    def build(self, inputs_shape: tuple[int | None, ...]) -> None:
        weight: dict[str, Any] = {"shape": (inputs_shape[-1],), "autocast": False}
        self.gamma = self.add_weight(name="gamma", initializer="ones", **weight)
        self.beta = self.add_weight(name="beta", initializer="zeros", **weight)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        inputs = tf.cast(inputs, self.variable_dtype)
        axes = list(range(1, inputs.shape.rank))
        mean, variance = tf.nn.moments(inputs, axes, keepdims=True)
        normalized = (inputs - mean) * tf.math.rsqrt(variance + self.epsilon)
        gamma, beta = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        outputs = weighted_linear(tf.multiply, normalized, gamma)
        outputs = weighted_bias_add(tf.add, outputs, beta)
        return tf.cast(outputs, self.compute_dtype)

    def compute_output_shape(self, inputs_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return inputs_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon}
