"""The fused step's condition: what it lets through has right gradients, and what it refuses."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras.layers import Conv2D, Dense, Embedding, Flatten

from common.layers import (
    BatchNorm,
    BidirectionalScaledSN,
    Gamma,
    LayerNorm,
    LeakyReLU,
    MeanPoolingConv2D,
    OperatorNormConv2D,
    ResidualConv2D,
    SpectralNormConv2D,
    SpectralNormDense,
    SpectralNormEmbedding,
    SumPooling,
    Unnormalized,
    layer_that_couples_images,
)
from common.layers.image_weights import ImageWeights, weighted_linear
from tests.training.small import VARIANTS, small_networks, small_settings


class UsersOwn(keras.layers.Layer):
    """A gain for each channel, as a user would write it for the fused step."""

    takes_image_weights = True

    def build(self, inputs_shape):
        self.gain = self.add_weight(name="gain", shape=(inputs_shape[-1],), initializer="ones")

    def call(self, inputs):
        return weighted_linear(tf.multiply, inputs, tf.convert_to_tensor(self.gain))


def classifier():
    """Every kind of layer that declares itself, and some of Keras' own."""
    images = x = keras.Input((8, 8, 3))
    labels = keras.Input((), dtype="int32")
    gamma = Gamma()(images)
    x = SpectralNormConv2D(Conv2D(4, 3, padding="same"), gamma=True)(x, gamma=gamma)
    x = LayerNorm()(x)
    x = LeakyReLU(0.1)(x)
    y = OperatorNormConv2D(ResidualConv2D(4, 3))(x)
    x = layers.Add()([UsersOwn()(x), layers.ReLU()(y)])
    x = BidirectionalScaledSN(MeanPoolingConv2D(6, 3, activation="tanh"), gamma=True)(x)
    x = Unnormalized(Conv2D(5, 3, 2), scale=1.3, gamma=True)(x, gamma=gamma)
    x = layers.Concatenate()([layers.ELU()(x), layers.Activation("softplus")(x)])
    features = LayerNorm()(SumPooling()(x))
    classes = SpectralNormEmbedding(Embedding(5, 10), gradient="constant", advance="pass")(labels)
    projection = layers.Multiply()([features, classes])
    projection = Unnormalized(Dense(1, use_bias=False))(projection)
    score = SpectralNormDense(Dense(1), gamma=True)(features, gamma=gamma)
    return keras.Model([images, labels], layers.Add()([score, projection]))


@pytest.mark.parametrize("in_graph", [False, True])
def test_what_is_let_through_has_the_losses_gradients(float64, in_graph):
    del float64
    model = classifier()
    assert layer_that_couples_images(model) is None
    rng = np.random.default_rng(0)
    variables = [variable.value for variable in model.trainable_variables]
    for variable in variables:
        variable.assign(rng.uniform(0.2, 1.0, variable.shape))
    images, labels = tf.constant(rng.normal(size=(6, 8, 8, 3))), tf.constant([0, 4, 2, 2, 1, 0])
    weights = tf.constant([0.0, 0.5, -2.0, 0.0, 1.0, 3.0], tf.float64)

    def one_pass():
        with ImageWeights() as image_weights, tf.GradientTape() as tape:
            tape.watch(images)
            scores = model([images, labels])
            image_weights.set(weights)
        return tape.gradient(scores, (images, variables))

    by_images, by_variables = (tf.function(one_pass) if in_graph else one_pass)()
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(images)
        scores = model([images, labels])
        loss = tf.reduce_sum(scores[:, 0] * weights)
    np.testing.assert_allclose(by_images, tape.gradient(scores, images), rtol=1e-10, atol=1e-14)
    for ours, plain in zip(by_variables, tape.gradient(loss, variables), strict=True):
        np.testing.assert_allclose(ours, tf.convert_to_tensor(plain), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gamma", ["none", "shared", "per_layer"])
def test_the_cnn_is_let_through(gamma):
    model = small_networks(small_settings(VARIANTS["no_gamma_cnn"], gamma=gamma)).discriminator
    assert layer_that_couples_images(model) is None


def between(*middle, shape=(8, 8, 3)):
    """A discriminator with some layers in its middle."""
    inputs = x = keras.Input(shape)
    for layer in middle:
        x = layer(x)
    return keras.Model(inputs, SpectralNormDense(Dense(1))(Flatten()(x)))


class Derived(SpectralNormConv2D):
    """It inherits the declaration, and does what that denies."""

    def call(self, inputs, gamma=None, training=False):
        outputs = super().call(inputs, gamma, training)
        return outputs - tf.reduce_mean(outputs, 0)


class DerivedReLU(layers.ReLU):
    pass


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


def of_mean(x):
    return x - tf.reduce_mean(x, 0)


def misused_gamma():
    inputs = keras.Input((4,))
    gamma = layers.Identity(name="same")(Gamma()(inputs))
    return keras.Model(inputs, SpectralNormDense(Dense(1), gamma=True)(inputs, gamma=gamma))


def strange_gamma():
    inputs = keras.Input((1,))
    outputs = SpectralNormDense(Dense(1), gamma=True, name="strange")(inputs, gamma=inputs)
    return keras.Model(inputs, outputs)


def along_the_batch(axis):
    inputs = keras.Input((4,))
    joined = layers.Concatenate(axis=axis, name="joined")([inputs, inputs])
    return keras.Model(inputs, SpectralNormDense(Dense(1))(joined))


REFUSED = {
    "layer norm of Keras": (
        lambda: between(layers.LayerNormalization(name="ln")),
        "ln .*variables",
    ),
    "batch norm of Keras": (
        lambda: between(layers.BatchNormalization(name="bn")),
        "bn .*variables",
    ),
    "batch norm": (lambda: between(BatchNorm(name="bn")), "bn .*variables"),
    "dense": (lambda: between(Dense(3, name="plain")), "plain .*variables"),
    "convolution": (lambda: between(Conv2D(3, 3, name="plain")), "plain .*variables"),
    "bare residual": (lambda: between(ResidualConv2D(3, 3, name="bare")), "bare .*variables"),
    "embedding": (lambda: between(Embedding(3, 2, name="e"), shape=(4,)), "e .*variables"),
    "dropout": (lambda: between(layers.Dropout(0.5, name="drop")), "drop .*each image"),
    "lambda": (lambda: between(layers.Lambda(of_mean, name="own")), "own .*each image"),
    "operation": (lambda: between(lambda x: x - keras.ops.mean(x, 0)), "mean .*each image"),
    "derived from ours": (lambda: between(Derived(Conv2D(3, 3), name="mine")), "mine .*variables"),
    "derived from Keras'": (lambda: between(DerivedReLU(name="mine")), "mine .*each image"),
    "activation": (lambda: between(layers.Activation(of_mean, name="a")), "a .*activation"),
    "wrapped activation": (
        lambda: between(SpectralNormConv2D(Conv2D(3, 3, activation=of_mean), name="w")),
        "w .*activation",
    ),
    "nested": (lambda: between(keras.Sequential([Dense(3, name="inner")])), "inner .*variables"),
    "subclassed inside": (lambda: between(Subclassed(name="s")), "s .*graph"),
    "misused gamma": (misused_gamma, "same .*gamma"),
    "strange gamma": (strange_gamma, "strange .*gamma"),
    "batch axis": (lambda: along_the_batch(0), "joined .*batch"),
    "batch axis from behind": (lambda: along_the_batch(-2), "joined .*batch"),
    "subclassed": (lambda: Subclassed(name="s"), "s .*graph"),
    "not built": (lambda: keras.Sequential([SpectralNormDense(Dense(1))], name="s"), "s .*built"),
    "features": (
        lambda: keras.Sequential([keras.Input((3,)), SpectralNormDense(Dense(2))], name="two"),
        "two .*one score",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named(name):
    make, sentence = REFUSED[name]
    reason = layer_that_couples_images(make())
    assert reason is not None
    assert re.match(sentence, reason), reason


def test_nested_and_sequential_models_are_looked_into():
    inner = keras.Sequential([keras.Input((8, 8, 3)), SpectralNormConv2D(Conv2D(3, 3))])
    assert layer_that_couples_images(between(inner, layers.MaxPooling2D())) is None
    assert (
        layer_that_couples_images(keras.Sequential([keras.Input((3,)), Unnormalized(Dense(1))]))
        is None
    )
