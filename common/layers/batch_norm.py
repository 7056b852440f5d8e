"""Batch normalisation with the numbers of TF1's fused op (specification, section 2)."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

_advances: contextvars.ContextVar[int] = contextvars.ContextVar(
    "moving_average_advances", default=1
)


@contextlib.contextmanager
def moving_average_advances(times: int) -> Iterator[None]:
    """Sets how many times the moving averages advance in the training-mode calls inside.

    A call that serves `n` passes over the same batch advances them `n` times; 0 leaves them as
    they are.

    Args:
        times: integer >= 0, by default (outside this context) 1.
    """
    token = _advances.set(times)
    try:
        yield
    finally:
        _advances.reset(token)


@keras.saving.register_keras_serializable(package="bsn")
class BatchNorm(keras.layers.Layer):
    """Batch normalisation over all axes but the last.

    It normalises by the batch's mean and biased variance; the moving variance receives the
    unbiased one. With several replicas each normalises by its own statistics and the first
    replica's reach the moving averages. `keras.layers.BatchNormalization` feeds the biased
    variance, has another default epsilon, and averages the replicas.

    Args:
        momentum: share of the moving averages that is kept at each advance.
        epsilon: added to the variance; TF1's fused op raises 1e-5 to 1.001e-5.

    Call arguments:
        inputs: `[n, c]` or `[n, h, w, c]`.
        training: whether to use the batch's statistics and to advance the moving averages (see
            `moving_average_advances`), or to use the moving averages.

    Returns:
        A tensor of the inputs' shape, in the compute dtype. Statistics are at least float32.
    """

    takes_image_weights = False  # statistics of the batch couple its images

    def __init__(self, momentum: float = 0.9, epsilon: float = 1.001e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.momentum = momentum
        self.epsilon = epsilon

    def build(self, inputs_shape: tuple[int | None, ...]) -> None:
        weight: dict[str, Any] = {"shape": (inputs_shape[-1],), "autocast": False}
        self.gamma = self.add_weight(name="gamma", initializer="ones", **weight)
        self.beta = self.add_weight(name="beta", initializer="zeros", **weight)
        moving = {**weight, "trainable": False, "aggregation": "only_first_replica"}
        self.moving_mean = self.add_weight(name="moving_mean", initializer="zeros", **moving)
        self.moving_variance = self.add_weight(name="moving_variance", initializer="ones", **moving)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        inputs = tf.cast(inputs, self.compute_dtype)
        if not training:
            return self._normalize(inputs, self.moving_mean, self.moving_variance)
        # The fused kernel is several times faster but has no float64 form.
        batch_norm = self._composed if inputs.dtype == tf.float64 else self._fused
        outputs, mean, unbiased_variance = batch_norm(inputs)
        self._advance(mean, unbiased_variance)
        return outputs

    def _normalize(self, inputs: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor) -> tf.Tensor:
        dtype = self.variable_dtype
        factor = self.gamma * tf.math.rsqrt(tf.convert_to_tensor(variance) + self.epsilon)
        outputs = (tf.cast(inputs, dtype) - mean) * factor + self.beta
        return tf.cast(outputs, inputs.dtype)

    def _composed(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        axes = list(range(inputs.shape.rank - 1))
        mean, variance = tf.nn.moments(inputs, axes)
        outputs = self._normalize(inputs, mean, variance)
        count = tf.cast(tf.size(inputs) / tf.size(mean), variance.dtype)
        return outputs, mean, variance * count / tf.maximum(count - 1, 1)

    def _fused(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        images = inputs if inputs.shape.rank == 4 else inputs[:, None, None, :]
        outputs, mean, unbiased_variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=images,
            scale=tf.convert_to_tensor(self.gamma),
            offset=tf.convert_to_tensor(self.beta),
            mean=tf.zeros([0], self.variable_dtype),
            variance=tf.zeros([0], self.variable_dtype),
            epsilon=self.epsilon,
            is_training=True,
        )
        return tf.reshape(outputs, tf.shape(inputs)), mean, unbiased_variance

    def _advance(self, mean: tf.Tensor, variance: tf.Tensor) -> None:
        # n advances with the same statistics m: old * momentum^n + m * (1 - momentum^n).
        kept = self.momentum ** _advances.get()
        if kept == 1.0:
            return
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            old = tf.convert_to_tensor(moving)
            moving.assign(old * kept + value * (1.0 - kept))

    def compute_output_shape(self, inputs_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return inputs_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.momentum, "epsilon": self.epsilon}
