"""TF1's Adam as a Keras optimiser, and PyTorch's."""

from collections.abc import Callable
from typing import Any, Literal

import keras
import tensorflow as tf

from common.keras_private import adam_moments

# What the kernel below adds to `sqrt(v)`, of epsilon and `beta2^t`: PyTorch adds epsilon to the
# corrected `sqrt(v) / sqrt(1 - beta2^t)`.
_ADDED: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "keras": lambda epsilon, beta2_power: epsilon,
    "pytorch": lambda epsilon, beta2_power: epsilon * tf.sqrt(1 - beta2_power),
}


@keras.saving.register_keras_serializable(package="bsn")
class Adam(keras.optimizers.Adam):
    """`keras.optimizers.Adam` with the original's numbers, in one fused kernel per variable.

    Keras' own step rounds the betas to float32 even in float64, reads and writes every variable
    several times, and has another default epsilon (1e-7).

    Args:
        learning_rate, beta_1, beta_2: as in Keras.
        epsilon: TF1's default.
        form: where epsilon stands. "keras", also TF1's and Chainer's, as at the end of section 2 of
            Kingma and Ba: `lr * sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + epsilon)`;
            "pytorch", as in their algorithm 1:
            `lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon)`.
        **kwargs: as of `keras.optimizers.Adam`, but `amsgrad`.

    Raises:
        ValueError: an unknown form, or `amsgrad`.
    """

    def __init__(
        self,
        learning_rate: float,
        beta_1: float,
        beta_2: float,
        epsilon: float = 1e-8,
        form: Literal["keras", "pytorch"] = "keras",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, **kwargs)
        if self.amsgrad:
            raise ValueError("This Adam has no `amsgrad`; use `keras.optimizers.Adam` for it.")
        if form not in _ADDED:
            raise ValueError(f"`form` must be one of {list(_ADDED)}. Received: {form!r}")
        self.form = form

    def update_step(
        self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor
    ) -> None:
        m, v = adam_moments(self, variable)
        dtype = variable.dtype
        beta1, beta2 = tf.constant(self.beta_1, dtype), tf.constant(self.beta_2, dtype)
        step = tf.cast(self.iterations.value + 1, dtype)
        beta2_power = tf.pow(beta2, step)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=m.value.handle,
            v=v.value.handle,
            beta1_power=tf.pow(beta1, step),
            beta2_power=beta2_power,
            lr=tf.cast(learning_rate, dtype),
            beta1=beta1,
            beta2=beta2,
            epsilon=_ADDED[self.form](tf.constant(self.epsilon, dtype), beta2_power),
            grad=tf.cast(gradient, dtype),
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "form": self.form}
