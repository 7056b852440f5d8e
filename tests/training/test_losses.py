"""Losses and penalties against closed forms."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from common.losses import LOSSES, PENALTIES, PenaltyInputs
from common.losses.penalties import slopes

SCORES = st.lists(st.floats(-10, 10), min_size=1, max_size=8)
SOFTPLUS = np.logaddexp
FORMULAS = {
    "hinge": (
        lambda x: np.maximum(0, 1 - x).mean(),
        lambda x: np.maximum(0, 1 + x).mean(),
        lambda x: -x.mean(),
    ),
    "wasserstein": (lambda x: -x.mean(), lambda x: x.mean(), lambda x: -x.mean()),
    "wgan_gp": (lambda x: -x.mean(), lambda x: x.mean(), lambda x: -x.mean()),
    "non_saturating": (
        lambda x: SOFTPLUS(0, -x).mean(),
        lambda x: SOFTPLUS(0, x).mean(),
        lambda x: SOFTPLUS(0, -x).mean(),
    ),
    "least_squares": (
        lambda x: ((x - 1) ** 2).mean() / 2,
        lambda x: (x**2).mean() / 2,
        lambda x: ((x - 1) ** 2).mean() / 2,
    ),
}


def test_every_loss_has_its_formula_here():
    assert set(LOSSES) == set(FORMULAS)
    assert {name: row.penalty for name, row in LOSSES.items() if row.penalty != "none"} == {
        "wgan_gp": "wgan_gp"
    }


@pytest.mark.parametrize("name", FORMULAS)
@settings(deadline=None, max_examples=30)
@given(values=SCORES)
def test_losses_are_those_of_the_formulas(name, values):
    scores, x, row = tf.constant(values, tf.float64)[:, None], np.array(values), LOSSES[name]
    for function, formula in zip((row.real, row.fake, row.generator), FORMULAS[name], strict=True):
        np.testing.assert_allclose(function(scores), formula(x), rtol=1e-12, atol=1e-12)


def test_slopes_are_norms_over_each_image():
    gradients = np.random.default_rng(0).normal(size=(3, 4, 5, 2))
    expected = np.sqrt((gradients**2).sum(axis=(1, 2, 3)) + 1e-8)
    np.testing.assert_allclose(slopes(gradients), expected, rtol=1e-12)
    np.testing.assert_allclose(slopes(np.zeros((1, 2, 2, 3))), [1e-4], rtol=1e-12)


def inputs_for(score, seed=1):
    rng = np.random.default_rng(seed)
    real, fake = (tf.constant(rng.uniform(-1, 1, (5, 4, 4, 3))) for _ in range(2))
    mix = tf.constant(rng.uniform(size=(5, 1, 1, 1)))
    return PenaltyInputs(lambda images, labels: score(images), None, real, fake, mix)


EPSILON = 1e-8
OF_A_SLOPE = {
    "wgan_gp": (lambda n: (n - 1) ** 2, lambda n: 2 * (n - 1)),
    "one_sided": (lambda n: max(0, n - 1) ** 2, lambda n: 2 * max(0, n - 1)),
    "r1": (lambda n: (n**2 - EPSILON) / 2, lambda n: n),
}


@pytest.mark.parametrize("size", [0.05, 1.0])
@pytest.mark.parametrize("name", OF_A_SLOPE)
def test_penalties_of_a_linear_discriminator(name, size):
    """Its slope is the norm of its weight everywhere."""
    weight = tf.Variable(size * np.random.default_rng(0).normal(size=(4, 4, 3)))
    inputs = inputs_for(lambda images: tf.reduce_sum(images * weight, axis=[1, 2, 3])[:, None])
    with tf.GradientTape() as tape:
        penalty = PENALTIES[name].function(inputs)
    norm = np.sqrt((weight.numpy() ** 2).sum() + EPSILON)
    value, derivative = OF_A_SLOPE[name]
    np.testing.assert_allclose(penalty, value(norm), rtol=1e-12)
    by_weight = derivative(norm) * weight.numpy() / norm
    np.testing.assert_allclose(tape.gradient(penalty, weight), by_weight, rtol=1e-10, atol=1e-14)


def test_penalties_are_taken_where_they_say():
    """For D(x) = sum(x^2)/2 the slope is the point's own norm."""
    inputs = inputs_for(lambda images: tf.reduce_sum(images**2, axis=[1, 2, 3])[:, None] / 2)
    real, fake, mix = (x.numpy() for x in (inputs.real, inputs.fake, inputs.mix))
    between = real + mix * (fake - real)
    norms = np.sqrt((between**2).sum(axis=(1, 2, 3)) + EPSILON)
    two_sided, one_sided, r1 = (
        PENALTIES[name].function(inputs) for name in ("wgan_gp", "one_sided", "r1")
    )
    np.testing.assert_allclose(two_sided, ((norms - 1) ** 2).mean(), rtol=1e-12)
    np.testing.assert_allclose(one_sided, (np.maximum(norms - 1, 0) ** 2).mean(), rtol=1e-12)
    np.testing.assert_allclose(r1, (real**2).sum(axis=(1, 2, 3)).mean() / 2, rtol=1e-12)
