"""Losses against closed forms."""

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from common.training.losses import HINGE, WGAN_GP, generator_loss, gradient_penalty, slopes

SCORES = st.lists(st.floats(-10, 10), min_size=1, max_size=8)


@settings(deadline=None, max_examples=50)
@given(SCORES)
def test_losses_are_those_of_the_formulas(values):
    scores = tf.constant(values, tf.float64)[:, None]
    x = np.array(values)
    np.testing.assert_allclose(HINGE.real(scores), np.maximum(0, 1 - x).mean(), rtol=1e-12)
    np.testing.assert_allclose(HINGE.fake(scores), np.maximum(0, 1 + x).mean(), rtol=1e-12)
    np.testing.assert_allclose(WGAN_GP.real(scores), -x.mean(), rtol=1e-12)
    np.testing.assert_allclose(WGAN_GP.fake(scores), x.mean(), rtol=1e-12)
    np.testing.assert_allclose(generator_loss(scores), -x.mean(), rtol=1e-12)


def test_slopes_are_norms_over_each_image():
    gradients = np.random.default_rng(0).normal(size=(3, 4, 5, 2))
    expected = np.sqrt((gradients**2).sum(axis=(1, 2, 3)) + 1e-8)
    np.testing.assert_allclose(slopes(gradients), expected, rtol=1e-12)
    np.testing.assert_allclose(slopes(np.zeros((1, 2, 2, 3))), [1e-4], rtol=1e-12)


def test_gradient_penalty_of_a_linear_discriminator():
    """Its slope is the norm of its weight everywhere."""
    weight = tf.Variable(np.random.default_rng(0).normal(size=(4, 4, 3)))

    def discriminator(images, training):
        del training
        return tf.reduce_sum(images * weight, axis=[1, 2, 3])[:, None]

    rng = np.random.default_rng(1)
    real, fake = (tf.constant(rng.uniform(-1, 1, (5, 4, 4, 3))) for _ in range(2))
    with tf.GradientTape() as tape:
        penalty = gradient_penalty(discriminator, real, fake, rng.uniform(size=(5, 1, 1, 1)))
    norm = np.sqrt((weight.numpy() ** 2).sum() + 1e-8)
    np.testing.assert_allclose(penalty, (norm - 1) ** 2, rtol=1e-12)
    by_weight = 2 * (norm - 1) * weight.numpy() / norm
    np.testing.assert_allclose(tape.gradient(penalty, weight), by_weight, rtol=1e-12)


def test_interpolates_lie_between_real_and_fake():
    """For D(x) = sum(x^2)/2 the slope is the interpolate's own norm."""

    def discriminator(images, training):
        del training
        return tf.reduce_sum(images**2, axis=[1, 2, 3])[:, None] / 2

    rng = np.random.default_rng(1)
    real, fake = rng.uniform(-1, 1, (2, 5, 4, 4, 3))
    mix = rng.uniform(size=(5, 1, 1, 1))
    between = real + mix * (fake - real)
    norms = np.sqrt((between**2).sum(axis=(1, 2, 3)) + 1e-8)
    penalty = gradient_penalty(discriminator, *map(tf.constant, (real, fake, mix)))
    np.testing.assert_allclose(penalty, ((norms - 1) ** 2).mean(), rtol=1e-12)
