"""One backward pass gives what two plain ones give."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.layers import Conv2D, Dense, Flatten, LeakyReLU

from common.layers import BidirectionalScaledSN, SpectralNormConv2D, SpectralNormDense
from common.layers.image_weights import ImageWeights


@pytest.fixture
def model(float64):
    del float64
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            SpectralNormConv2D(Conv2D(4, 3, padding="same"), gamma=True),
            LeakyReLU(0.1),
            BidirectionalScaledSN(Conv2D(6, 4, 2, padding="same"), scale=3.0),
            LeakyReLU(0.1),
            Flatten(),
            SpectralNormDense(Dense(1)),
        ]
    )


@pytest.mark.parametrize("in_graph", [False, True])
def test_weight_gradients_are_the_losses_and_input_gradients_the_scores(model, in_graph):
    images = tf.constant(np.random.default_rng(0).normal(size=(6, 8, 8, 3)))
    variables = [v.value for v in model.trainable_variables]
    # Flat for some images: there the loss's own gradient says nothing about the slope.
    weights = tf.constant([0.0, 0.5, -2.0, 0.0, 1.0, 3.0], tf.float64)

    def one_pass():
        with ImageWeights() as image_weights, tf.GradientTape() as tape:
            tape.watch(images)
            scores = model(images)
            image_weights.set(weights)
            return tape.gradient(scores, (images, variables))

    with tf.GradientTape(persistent=True) as tape:
        tape.watch(images)
        scores = model(images)
        loss = tf.reduce_sum(tf.reshape(scores, [-1]) * weights)
    by_images, by_variables = (tf.function(one_pass) if in_graph else one_pass)()
    np.testing.assert_allclose(by_images, tape.gradient(scores, images), rtol=1e-10, atol=1e-15)
    for ours, plain in zip(by_variables, tape.gradient(loss, variables), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-10, atol=1e-13)


def test_forgetting_the_weights_is_an_error(model):
    images = tf.zeros((2, 8, 8, 3), tf.float64)
    with ImageWeights(), tf.GradientTape() as tape:
        tape.watch(images)
        scores = model(images)
        with pytest.raises(RuntimeError, match="set"):
            tape.gradient(scores, images)
