"""Batch normalisation against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from common.layers import BatchNorm, moving_average_advances

EPSILON = 1.001e-5


def make(inputs, dtype="float64"):
    layer = BatchNorm(dtype=dtype)
    layer.build(inputs.shape)
    rng = np.random.default_rng(1)
    for variable in layer.weights:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return layer, {v.name: v.numpy() for v in layer.weights}


def normalise(x, mean, variance, old):
    return (x - mean) / np.sqrt(variance + EPSILON) * old["gamma"] + old["beta"]


def tolerance(dtype):
    return {"rtol": 1e-12, "atol": 1e-12} if dtype == "float64" else {"rtol": 2e-5, "atol": 2e-5}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", [(6, 3), (4, 5, 2, 3)])
@pytest.mark.parametrize("advances", [0, 1, 2])
def test_training_uses_the_batch_and_feeds_the_unbiased_variance(dtype, shape, advances):
    x = np.random.default_rng(0).normal(2, 3, shape)
    layer, old = make(x, dtype)
    with moving_average_advances(advances):
        outputs = layer(x.astype(dtype), training=True)
    axes = tuple(range(len(shape) - 1))
    expected = normalise(x, x.mean(axes), x.var(axes), old)
    np.testing.assert_allclose(outputs, expected, **tolerance(dtype))
    mean, variance = old["moving_mean"], old["moving_variance"]
    for _ in range(advances):
        mean = 0.9 * mean + 0.1 * x.mean(axes)
        variance = 0.9 * variance + 0.1 * x.var(axes, ddof=1)
    np.testing.assert_allclose(layer.moving_mean, mean, **tolerance(dtype))
    np.testing.assert_allclose(layer.moving_variance, variance, **tolerance(dtype))


@pytest.mark.parametrize("shape", [(6, 3), (4, 5, 2, 3)])
def test_inference_uses_the_moving_averages_and_leaves_them(shape):
    x = np.random.default_rng(0).normal(2, 3, shape)
    layer, old = make(x)
    expected = normalise(x, old["moving_mean"], old["moving_variance"], old)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-12)
    for variable in layer.weights:
        np.testing.assert_array_equal(variable, old[variable.name])


def test_fused_and_composed_gradients_agree():
    x = np.random.default_rng(0).normal(2, 3, (4, 5, 2, 3))
    probe = np.random.default_rng(1).normal(size=x.shape)
    gradients = []
    for dtype in ("float32", "float64"):
        layer, _ = make(x, dtype)
        inputs = tf.constant(x, dtype)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_sum(layer(inputs, training=True) * probe.astype(dtype))
        variables = [layer.gamma.value, layer.beta.value]
        gradients.append(tape.gradient(loss, [inputs, *variables]))
    for fused, composed in zip(*gradients, strict=True):
        np.testing.assert_allclose(fused, composed, rtol=1e-3, atol=1e-4)


def test_mixed_precision_keeps_the_statistics_in_float32():
    x = np.random.default_rng(0).normal(2, 3, (4, 5, 2, 3)).astype("float32")
    layer, old = make(x, "mixed_float16")
    outputs = layer(x, training=True)
    assert outputs.dtype == "float16"
    assert layer.moving_variance.dtype == "float32"
    expected = normalise(x, x.mean((0, 1, 2)), x.var((0, 1, 2)), old)
    np.testing.assert_allclose(outputs, expected, atol=0.01)


def test_config_round_trip():
    layer = BatchNorm.from_config(BatchNorm(momentum=0.8, epsilon=1e-3).get_config())
    assert (layer.momentum, layer.epsilon) == (0.8, 1e-3)


def test_a_model_with_it_saves_and_loads(tmp_path):
    model = keras.Sequential([keras.Input((4,)), BatchNorm()])
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    model(x, training=True)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(x), model(x))
