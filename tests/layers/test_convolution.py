"""Joined convolution and resampling against the two layers in a row."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.layers import (
    MeanPoolingConv2D,
    ResidualConv2D,
    SpectralNormConv2D,
    UpsamplingConv2D,
    collapse,
)
from tests.training.plain_layers import plain_copy

CLASSES = [ResidualConv2D, UpsamplingConv2D, MeanPoolingConv2D]


def in_a_row(cls, kernel_size):
    """Keras' own layers, as the specification words them."""
    conv = keras.layers.Conv2D(5, kernel_size, padding="same", dtype="float64")
    if cls is UpsamplingConv2D:
        return conv, lambda x: conv(keras.layers.UpSampling2D(2, dtype="float64")(x))
    if cls is MeanPoolingConv2D:
        return conv, lambda x: keras.layers.AveragePooling2D(2, dtype="float64")(conv(x))
    return conv, conv


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("cls", CLASSES)
@settings(max_examples=12, deadline=None)
@given(height=st.integers(1, 5), width=st.integers(1, 5), channels=st.integers(1, 4))
@example(height=1, width=2, channels=3)  # low resolution even before pooling
@example(height=5, width=5, channels=3)  # and not even after it
def test_values_and_gradients(cls, kernel_size, height, width, channels):
    rng = np.random.default_rng([height, width, channels])
    images = tf.constant(rng.normal(size=(2, 2 * height, 2 * width, channels)))
    joined = cls(5, kernel_size, dtype="float64")
    conv, expected_of = in_a_row(cls, kernel_size)
    expected_of(images)
    joined.build(images.shape)
    conv.set_weights([rng.normal(size=w.shape) for w in conv.weights])
    joined.set_weights(conv.get_weights())
    results = []
    for layer, call in ((joined, joined), (conv, expected_of)):
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = call(images)
            total = tf.reduce_sum(
                outputs
                * tf.cos(tf.range(tf.size(outputs), dtype=tf.float64))
                .numpy()
                .reshape(outputs.shape)
            )
        results.append(
            [outputs, *tape.gradient(total, [images, layer.kernel.value, layer.bias.value])]
        )
    assert joined.compute_output_shape(images.shape) == tuple(results[0][0].shape)
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cls", CLASSES)
def test_wrapped_saved_and_collapsed(cls, tmp_path):
    images = tf.random.stateless_normal((2, 6, 4, 3), seed=[1, 2])
    model = keras.Sequential([keras.Input((6, 4, 3)), SpectralNormConv2D(cls(5, 3), scale=1.4)])
    expected = plain_copy(model)(images)
    np.testing.assert_allclose(model(images), expected, rtol=1e-5, atol=1e-6)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images), model(images))
    plain = collapse(model)
    assert type(plain.layers[0]) is cls
    np.testing.assert_allclose(plain(images), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 4},
        {"kernel_size": (3, 1)},
        {"kernel_size": 3, "strides": 2},
        {"kernel_size": 3, "padding": "valid"},
        {"kernel_size": 3, "groups": 2},
    ],
)
def test_other_convolutions_are_refused(cls, options):
    with pytest.raises(ValueError, match=cls.__name__):
        cls(4, **options)


def test_odd_sizes_cannot_be_pooled():
    with pytest.raises(ValueError, match="even"):
        MeanPoolingConv2D(4, 3).build((None, 5, 4, 2))
