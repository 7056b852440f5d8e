"""Penalties on the discriminator's slopes, the norms of its input gradients."""

import tensorflow as tf

from common.losses import PenaltyInputs

SLOPE_EPSILON = 1e-8


def slopes(gradients: tf.Tensor) -> tf.Tensor:
    """Norms of input gradients: `[n, h, w, c] -> [n]`, `sqrt(sum of squares + 1e-8)`.

    The epsilon is the original's (FIDELITY section 3).
    """
    return tf.sqrt(tf.reduce_sum(tf.square(gradients), axis=[1, 2, 3]) + SLOPE_EPSILON)


def two_sided(inputs: PenaltyInputs) -> tf.Tensor:
    """`mean((slope - 1)²)` at random points between real and generated images.

    The points are `real + mix * (fake - real)`, with the labels of the real ones (Gulrajani et al.
    2017; FIDELITY section 3).
    """
    return tf.reduce_mean(tf.square(_slopes_between(inputs) - 1.0))


def one_sided(inputs: PenaltyInputs) -> tf.Tensor:
    """`mean(max(0, slope - 1)²)` at the same points (Gulrajani et al. 2017, section 4)."""
    return tf.reduce_mean(tf.square(tf.nn.relu(_slopes_between(inputs) - 1.0)))


def r1(inputs: PenaltyInputs) -> tf.Tensor:
    """`mean(sum of squared input gradients) / 2` at the real images (Mescheder et al. 2018)."""
    gradients = _input_gradients(inputs, inputs.real)
    return 0.5 * tf.reduce_mean(tf.reduce_sum(tf.square(gradients), axis=[1, 2, 3]))


def _slopes_between(inputs: PenaltyInputs) -> tf.Tensor:
    return slopes(_input_gradients(inputs, inputs.real + inputs.mix * (inputs.fake - inputs.real)))


def _input_gradients(inputs: PenaltyInputs, images: tf.Tensor) -> tf.Tensor:
    with tf.GradientTape() as tape:
        tape.watch(images)
        scores = inputs.score(images, inputs.real_labels)
    return tape.gradient(scores, images)
