"""Layer normalisation and sum pooling against NumPy and golden numbers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from common.layers import LayerNorm, SumPooling
from tests.golden_cases import golden_case


@pytest.mark.parametrize("name", ["layer_norm_features", "layer_norm_images"])
def test_golden_values_and_gradients(name):
    inputs, outputs = golden_case(name)
    layer = LayerNorm(inputs["epsilon"], dtype="float64")
    x = tf.constant(inputs["x"])
    layer.build(x.shape)
    layer.gamma.assign(inputs["gamma"])
    layer.beta.assign(inputs["beta"])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        total = tf.reduce_sum(y * inputs["r"])
    np.testing.assert_allclose(y, outputs["y"], rtol=1e-9, atol=1e-12)
    sources = {"x": x, "gamma": layer.gamma.value, "beta": layer.beta.value}
    for source, gradient in tape.gradient(total, sources).items():
        np.testing.assert_allclose(gradient, outputs[f"grad_{source}"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", [(6, 5), (3, 4, 2, 5)])
@pytest.mark.parametrize("dtype", ["float64", "float32", "mixed_bfloat16"])
def test_each_image_by_itself(shape, dtype):
    x = np.random.default_rng(0).normal(2, 3, shape)
    layer = LayerNorm(0.1, dtype=dtype)
    layer.build(shape)
    gamma, beta = np.random.default_rng(1).normal(size=(2, shape[-1]))
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)
    axes = tuple(range(1, len(shape)))
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    expected = (x - mean) / np.sqrt(variance + 0.1) * gamma + beta
    tolerance = {"float64": 1e-12, "float32": 1e-5, "mixed_bfloat16": 0.05}[dtype]
    np.testing.assert_allclose(layer(x), expected, rtol=tolerance, atol=tolerance)
    assert layer(x).dtype == keras.DTypePolicy(dtype).compute_dtype


def test_saved_and_loaded(tmp_path):
    model = keras.Sequential([keras.Input((3, 4, 5)), LayerNorm(0.2), SumPooling()])
    assert model.layers[0].epsilon == 0.2
    assert model.output_shape == (None, 5)
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype("float32")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))


def test_positions_are_summed():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    np.testing.assert_allclose(SumPooling(dtype="float64")(x), x.sum((1, 2)), rtol=1e-12)
