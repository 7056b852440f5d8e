"""Sum over all positions of an image."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="bsn")
class SumPooling(keras.layers.Layer):
    """Sums over height and width: `[n, h, w, c]` to `[n, c]`, in the compute dtype."""

    takes_image_weights = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return keras.ops.sum(inputs, axis=(1, 2))

    def compute_output_shape(self, inputs_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (inputs_shape[0], inputs_shape[-1])
