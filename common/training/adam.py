"""TF1's Adam as a Keras optimiser."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="bsn")
class Adam(keras.optimizers.Adam):
    """`keras.optimizers.Adam` with the original's numbers, in one fused kernel per variable.

    Keras' own step rounds the betas to float32 even in float64, reads and writes every variable
    several times, and has another default epsilon (1e-7).

    Args:
        learning_rate, beta_1, beta_2: as in Keras.
        epsilon: TF1's default.
        **kwargs: as of `keras.optimizers.Adam`, but `amsgrad`.
    """

    def __init__(self, learning_rate, beta_1, beta_2, epsilon=1e-8, **kwargs):
        super().__init__(learning_rate, beta_1, beta_2, epsilon, **kwargs)
        if self.amsgrad:
            raise ValueError("This Adam has no `amsgrad`; use `keras.optimizers.Adam` for it.")

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        dtype = variable.dtype
        beta1, beta2 = tf.constant(self.beta_1, dtype), tf.constant(self.beta_2, dtype)
        step = tf.cast(self.iterations.value + 1, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(beta1, step),
            beta2_power=tf.pow(beta2, step),
            lr=tf.cast(learning_rate, dtype),
            beta1=beta1,
            beta2=beta2,
            epsilon=tf.constant(self.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )
