"""The adversarial losses, as pure functions of the discriminator's scores (specification, 3)."""

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

SLOPE_EPSILON = 1e-8


@dataclass(frozen=True)
class AdversarialLoss:
    """What the discriminator minimises; the generator's loss is the same for both.

    Attributes:
        name: "hinge" or "wgan_gp".
        real: `f(scores of real images [n, 1]) -> scalar`.
        fake: `f(scores of generated images [n, 1]) -> scalar`.
        gradient_penalty: whether `d_gp_coe * gradient_penalty(...)` is added.
    """

    name: str
    real: Callable
    fake: Callable
    gradient_penalty: bool = False


HINGE = AdversarialLoss(
    "hinge",
    real=lambda scores: tf.reduce_mean(tf.nn.relu(1.0 - scores)),
    fake=lambda scores: tf.reduce_mean(tf.nn.relu(1.0 + scores)),
)

WGAN_GP = AdversarialLoss(
    "wgan_gp",
    real=lambda scores: -tf.reduce_mean(scores),
    fake=tf.reduce_mean,
    gradient_penalty=True,
)

LOSSES = {loss.name: loss for loss in (HINGE, WGAN_GP)}


def generator_loss(scores):
    """`-mean(D(G(z)))`, a scalar; `scores` `[n, 1]` of generated images."""
    return -tf.reduce_mean(scores)


def slopes(gradients):
    """Norms of input gradients: `[n, h, w, c] -> [n]`, `sqrt(sum of squares + 1e-8)`."""
    return tf.sqrt(tf.reduce_sum(tf.square(gradients), axis=[1, 2, 3]) + SLOPE_EPSILON)


def gradient_penalty(discriminator, real, fake, mix):
    """`mean((slope - 1)^2)` at random points between real and generated images.

    Differentiable with respect to the discriminator's variables (Gulrajani et al. 2017).

    Args:
        discriminator: a model `[n, h, w, c] -> [n, 1]`.
        real, fake: images `[n, h, w, c]` in [-1, 1].
        mix: `[n, 1, 1, 1]` in [0, 1): the interpolates are `real + mix * (fake - real)`.

    Returns:
        A scalar.
    """
    interpolates = real + mix * (fake - real)
    with tf.GradientTape() as tape:
        tape.watch(interpolates)
        scores = discriminator(interpolates, training=True)
    gradients = tape.gradient(scores, interpolates)
    return tf.reduce_mean(tf.square(slopes(gradients) - 1.0))
