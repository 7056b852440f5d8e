"""Leaky ReLU: Keras' values and gradients, and no work for a zero second derivative."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from common.layers import LeakyReLU, SpectralNormConv2D
from common.losses import PenaltyInputs
from common.losses.penalties import two_sided

X = tf.constant([-3.0, -1e-30, -0.0, 0.0, 1e-30, 2.0])


def test_values_and_gradients():
    results = []
    for layer in (LeakyReLU(0.1), keras.layers.LeakyReLU(0.1)):
        with tf.GradientTape() as tape:
            tape.watch(X)
            outputs = layer(X)
        results.append((outputs, tape.gradient(outputs, X, tf.range(6.0))))
    np.testing.assert_array_equal(*results)
    np.testing.assert_allclose(results[0][1], [0, 0.1, 0.2, 0.3, 4, 5], rtol=1e-6)


def test_gradient_of_the_gradient():
    """d/dg of `g * slope(x)` is the slope; by way of x there is none."""
    upstream = tf.range(6.0)
    with tf.GradientTape() as outer:
        outer.watch([X, upstream])
        with tf.GradientTape() as tape:
            tape.watch(X)
            outputs = LeakyReLU(0.1)(X)
        back = tape.gradient(outputs, X, upstream)
    by_x, by_upstream = outer.gradient(back, [X, upstream], 2 * tf.ones(6))
    assert by_x is None
    np.testing.assert_allclose(by_upstream, [0.2, 0.2, 0.2, 0.2, 2, 2], rtol=1e-6)


def penalised(activation):
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            SpectralNormConv2D(keras.layers.Conv2D(4, 3, padding="same"), u_seed=3),
            activation,
            SpectralNormConv2D(keras.layers.Conv2D(4, 3, padding="same"), u_seed=4),
            activation,
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )


def penalty_gradients(model):
    rng = np.random.default_rng(0)
    real, fake = (tf.constant(rng.normal(size=(5, 6, 6, 3)), tf.float32) for _ in range(2))
    variables = [v.value for v in model.trainable_variables if "bias" not in v.path]

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            mix = tf.fill([5, 1, 1, 1], 0.3)
            inputs = PenaltyInputs(
                lambda images, labels: model(images, training=True), model, real, fake, mix
            )
            penalty = two_sided(inputs)
        return tape.gradient(penalty, variables)

    return gradients


def test_gradient_penalty():
    ours = penalty_gradients(penalised(LeakyReLU(0.1)))
    plain = penalty_gradients(penalised(keras.layers.LeakyReLU(0.1)))
    for a, b in zip(ours(), plain(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)

    def convolutions(function):
        graph = function.get_concrete_function().graph
        return sum(x.type.startswith("Conv2D") for x in graph.get_operations())

    # The chain of zeros goes to each layer's inputs and to its kernel.
    assert convolutions(plain) - convolutions(ours) == 2 * 2


def test_round_trip_and_bad_slopes():
    layer = LeakyReLU.from_config(LeakyReLU(0.25).get_config())
    assert layer.slope == 0.25
    assert layer.compute_output_shape((2, 3)) == (2, 3)
    for slope in (0, 1, -0.1, float("nan")):
        with pytest.raises(ValueError, match="slope"):
            LeakyReLU(slope)
