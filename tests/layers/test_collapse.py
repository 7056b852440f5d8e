"""Collapsed networks compute what the normalised ones do, with plain layers."""

import keras
import numpy as np
import pytest
from keras.layers import Conv2D, Conv2DTranspose, Dense, Embedding, Flatten

from common.keras_private import all_layers
from common.layers import (
    BatchNorm,
    Gamma,
    OperatorNormConv2D,
    SpectralNormalized,
    SpectralNormConv2D,
    SpectralNormConv2DTranspose,
    SpectralNormDense,
    SpectralNormEmbedding,
    Unnormalized,
    collapse,
)
from tests.training.small import VARIANTS, small_networks, small_settings


def layers_of(model):
    return [type(layer).__name__ for layer in all_layers(model)]


@pytest.mark.parametrize("name", ["no_gamma_cnn", "no_gamma_resnet"])
@pytest.mark.parametrize("gamma", ["none", "shared", "per_layer"])
def test_discriminators_collapse(name, gamma):
    model = small_networks(small_settings(VARIANTS[name], gamma=gamma)).discriminator
    for variable in model.trainable_variables:
        if variable.shape == ():
            variable.assign(1.7)
    plain = collapse(model)
    kinds = set(layers_of(plain))
    assert not kinds & {"SpectralNormConv2D", "BidirectionalScaledSN", "SpectralNormDense", "Gamma"}
    assert {Conv2D, Dense} <= {base for x in plain.layers for base in type(x).__mro__}
    x = np.random.default_rng(0).uniform(-1, 1, (2, *model.input_shape[1:])).astype("float32")
    np.testing.assert_allclose(plain(x), model(x), rtol=1e-4, atol=1e-6)
    before = plain.get_weights()
    for layer in all_layers(model):
        if isinstance(layer, SpectralNormalized):
            layer.layer.kernel.assign(layer.layer.kernel * 2 + 1)
    for ours, old in zip(plain.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, old)


def test_sequential_models_and_other_layers_collapse():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            SpectralNormConv2D(Conv2D(4, 3, use_bias=False, activation="relu")),
            BatchNorm(),
            Flatten(),
            SpectralNormDense(Dense(2), gamma=True),
        ]
    )
    x = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")
    model(x, training=True)
    plain = collapse(model)
    assert layers_of(plain).count("Conv2D") == 1
    np.testing.assert_allclose(plain(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("advance", ["update", "pass"])
def test_every_wrapper_collapses(advance):
    options = {"advance": advance, "scale": 1.4, "gamma": True}
    images, labels = keras.Input((6, 6, 3)), keras.Input((), dtype="int32")
    gamma = Gamma()(images)
    x = SpectralNormConv2DTranspose(Conv2DTranspose(4, 3, 2), **options)(images, gamma=gamma)
    x = OperatorNormConv2D(Conv2D(4, 3, activation="relu"), **options)(x)
    x = Unnormalized(Dense(5), scale=1.4, gamma=True)(Flatten()(x), gamma=gamma, training=False)
    classes = SpectralNormEmbedding(Embedding(7, 5), **options)(labels, gamma=gamma)
    model = keras.Model([images, labels], keras.layers.Multiply()([x, classes]))
    for variable in model.trainable_variables:
        if variable.shape == ():
            variable.assign(1.7)
    batch = [np.random.default_rng(0).normal(size=(3, 6, 6, 3)), np.array([5, 0, 5])]
    model(batch, training=True)
    plain = collapse(model)
    assert {"Conv2DTranspose", "Conv2D", "Dense", "Embedding"} <= set(layers_of(plain))
    assert not [layer for layer in plain.layers if isinstance(layer, keras.layers.Wrapper)]
    np.testing.assert_allclose(plain(batch), model(batch), rtol=1e-4, atol=1e-6)


def test_models_whose_graph_is_unseen_are_refused():
    class Subclassed(keras.Model):
        pass

    with pytest.raises(ValueError, match="Subclassed"):
        collapse(Subclassed())
    with pytest.raises(ValueError, match="no weights yet"):
        collapse(keras.Sequential([SpectralNormConv2D(Conv2D(1, 1))]))
