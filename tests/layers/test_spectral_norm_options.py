"""The forms of SN that other implementations have, and its other layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.layers import Conv2D, Conv2DTranspose, Dense, Embedding

from common.layers import (
    BidirectionalScaledSN,
    OperatorNormConv2D,
    SpectralNormConv2D,
    SpectralNormConv2DTranspose,
    SpectralNormDense,
    SpectralNormEmbedding,
    spectral_layers,
)
from common.layers.power_iteration import Matrix, PowerIteration
from tests.golden_cases import golden_case

RNG = np.random.default_rng
PYTORCH = {"gradient": "constant", "advance": "pass", "epsilon": "maximum"}


def l2(x):
    return x / max(np.linalg.norm(x), 1e-12)


def as_matrix(kernel):
    return kernel.reshape(-1, kernel.shape[-1])


def built(wrapper=SpectralNormConv2D, **options):
    layer = wrapper(Conv2D(4, 3, padding="same", dtype="float64"), **options)
    layer.build((None, 5, 5, 2))
    layer.layer.kernel.assign(RNG(0).normal(size=(3, 3, 2, 4)))
    return layer


def gradient_of(layer, probe, **kwargs):
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(probe * layer.normalized_weights(**kwargs)[0])
    return tape.gradient(total, layer.layer.kernel.value)


def test_pytorchs_form_equals_pytorchs_numbers():
    inputs, outputs = golden_case("spectral_norm")
    layer = built(**PYTORCH)
    layer.layer.kernel.assign(inputs["W"])
    layer.u[0].assign(inputs["u"][None])
    for name in ("pass_1", "pass_2"):
        expected = outputs[name]
        gradient = gradient_of(layer, inputs["r"], training=True)
        np.testing.assert_allclose(gradient, expected["grad_W"], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(layer.u[0][0], expected["u"], rtol=1e-9)
        np.testing.assert_allclose(layer.v[0][0], expected["v"], rtol=1e-9)
        # The stored vectors and the same weights: the sigma of the pass.
        np.testing.assert_allclose(layer.sigma(), expected["sigma"], rtol=1e-9)


@pytest.mark.parametrize("in_graph", [False, True])
def test_every_training_pass_advances_and_no_other(in_graph):
    layer = built(**PYTORCH)
    call = tf.function(layer) if in_graph else layer
    matrix = as_matrix(layer.layer.kernel.numpy())
    images = tf.constant(RNG(1).normal(size=(2, 5, 5, 2)))
    u = layer.u[0].numpy()
    for _ in range(2):
        v = l2(u @ matrix.T)
        u = l2(v @ matrix)
        sigma = (v @ matrix @ u.T).item()
        outputs = call(images, training=True)
        expected = tf.nn.conv2d(images, layer.layer.kernel.value / sigma, 1, "SAME")
        np.testing.assert_allclose(outputs, expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(layer.u[0], u, rtol=1e-12)
        np.testing.assert_allclose(layer.v[0], v, rtol=1e-12)
    layer.advance_u()
    layer.layer.kernel.assign(layer.layer.kernel.numpy() ** 3)
    sigma = (v @ as_matrix(layer.layer.kernel.numpy()) @ u.T).item()
    for _ in range(2):
        expected = tf.nn.conv2d(images, layer.layer.kernel.value / sigma, 1, "SAME")
        np.testing.assert_allclose(call(images), expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(layer.sigmas(), [sigma], rtol=1e-12)
    np.testing.assert_allclose(layer.u[0], u, rtol=1e-12)
    np.testing.assert_allclose(layer.v[0], v, rtol=1e-12)


def test_a_model_tells_its_layers_whether_it_trains():
    model = keras.Sequential(
        [keras.Input((6,)), SpectralNormDense(Dense(4), **PYTORCH), SpectralNormDense(Dense(1))]
    )
    by_pass, by_update = spectral_layers(model)
    assert (by_pass.advances_in_passes, by_update.advances_in_passes) == (True, False)
    assert by_update.v == []
    before = [layer.u[0].numpy() for layer in (by_pass, by_update)]
    model(np.ones((2, 6)))
    np.testing.assert_array_equal(by_pass.u[0], before[0])
    model(np.ones((2, 6)), training=True)
    assert not np.array_equal(by_pass.u[0], before[0])
    np.testing.assert_array_equal(by_update.u[0], before[1])


@pytest.mark.parametrize("gradient", ["through", "constant"])
@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("wrapper", [SpectralNormConv2D, BidirectionalScaledSN])
def test_gradients_by_finite_differences(wrapper, gradient, iterations):
    layer = built(wrapper, gradient=gradient, iterations=iterations)
    kernel, probe = layer.layer.kernel.numpy(), RNG(5).normal(size=(3, 3, 2, 4))
    starts = [u.numpy() for u in layer.u]

    def vectors(matrix, u):
        for _ in range(iterations):
            v = l2(u @ matrix.T)
            u = l2(v @ matrix)
        return v, u

    def matrices(kernel):
        views = [as_matrix(kernel), as_matrix(kernel.transpose(0, 1, 3, 2))]
        return views[: len(starts)]

    held = [vectors(m, u) for m, u in zip(matrices(kernel), starts, strict=True)]

    def loss(kernel):
        pairs = held
        if gradient == "through":
            pairs = [vectors(m, u) for m, u in zip(matrices(kernel), starts, strict=True)]
        sigmas = [(v @ m @ u.T).item() for m, (v, u) in zip(matrices(kernel), pairs, strict=True)]
        return (probe * kernel / np.mean(sigmas)).sum()

    expected = np.empty_like(kernel)
    for index in np.ndindex(kernel.shape):
        step = np.zeros_like(kernel)
        step[index] = 1e-6
        expected[index] = (loss(kernel + step) - loss(kernel - step)) / 2e-6
    ours = gradient_of(layer, probe)
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-8)


def test_the_two_gradients_differ_and_more_iterations_come_closer():
    probe = RNG(5).normal(size=(3, 3, 2, 4))
    through, constant = (
        gradient_of(built(gradient=g, u_seed=1), probe) for g in ("through", "constant")
    )
    assert np.abs(through - constant).max() > 1e-3
    exact = np.linalg.norm(as_matrix(built().layer.kernel.numpy()), 2)
    sigmas = [built(iterations=i, u_seed=1).sigma().numpy() for i in (1, 2, 4, 200)]
    assert sorted(sigmas) == sigmas
    assert sigmas[0] < exact * (1 - 1e-4)
    np.testing.assert_allclose(sigmas[-1], exact, rtol=1e-12)


def test_the_epsilons_differ_where_the_matrix_is_tiny():
    u, matrix = np.ones((1, 1)), np.full((1, 1), 1e-12)
    sigmas = [
        PowerIteration(epsilon=epsilon)(Matrix(tf.constant(matrix)), tf.constant(u)).sigma
        for epsilon in ("added", "maximum")
    ]
    # Added: v = 1/2, u' = 1/3, sigma = W / 6; maximum: v = u' = 1, sigma = W.
    np.testing.assert_allclose(sigmas, [1e-12 / 6, 1e-12], rtol=1e-12)


def test_initial_vectors_of_the_pass_mode_are_independent_and_of_unit_length():
    def initial(seed):
        layer = BidirectionalScaledSN(Conv2D(4000, 1), u_seed=seed, advance="pass")
        layer.build((None, 4, 4, 4000))
        assert [w.name for w in layer.non_trainable_variables] == ["u1", "v1", "u2", "v2"]
        return np.concatenate([w.numpy() for w in (*layer.u, *layer.v)])

    first = initial(1)
    np.testing.assert_array_equal(first, initial(1))
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, rtol=1e-5)
    assert np.abs(first @ first.T - np.eye(4)).max() < 0.1
    assert np.abs(first * np.sqrt(4000)).max() > 2.5  # normal, not cut at 2
    assert not np.array_equal(first, initial(2))


def test_transposed_convolutions_put_the_output_channels_first():
    layer = SpectralNormConv2DTranspose(
        Conv2DTranspose(3, 4, 2, padding="same", dtype="float64"), scale=1.5
    )
    images = RNG(0).normal(size=(2, 5, 5, 2))
    layer(images)
    assert layer.u[0].shape == (1, 3)
    layer.layer.bias.assign([1.0, 2.0, 3.0])
    kernel = layer.layer.kernel.numpy()
    by_output = kernel.transpose(2, 0, 1, 3).reshape(3, -1)
    for _ in range(300):
        layer.advance_u()
    sigma = np.linalg.norm(by_output, 2)
    np.testing.assert_allclose(layer.sigma(), sigma, rtol=1e-10)
    expected = tf.nn.conv2d_transpose(images, 1.5 * kernel / sigma, (2, 10, 10, 3), 2)
    np.testing.assert_allclose(layer(images), expected + [1, 2, 3], rtol=1e-9)
    assert layer.compute_output_shape(images.shape) == (2, 10, 10, 3)


def test_embeddings_have_a_u_of_the_classes():
    layer = SpectralNormEmbedding(Embedding(7, 3, dtype="float64"), **PYTORCH)
    labels = np.array([4, 0, 4])
    layer(labels)
    assert (layer.u[0].shape, layer.v[0].shape) == ((1, 7), (1, 3))
    rows, u = layer.layer.embeddings.numpy(), layer.u[0].numpy()
    v = l2(u @ rows)
    u = l2(v @ rows.T)
    expected = rows[labels] / (v @ rows.T @ u.T).item()
    np.testing.assert_allclose(layer(labels, training=True), expected, rtol=1e-12)
    np.testing.assert_allclose(layer.u[0], u, rtol=1e-12)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(labels.astype("float32")))
    assert tape.gradient(total, layer.layer.embeddings.value).shape == (7, 3)


@pytest.mark.parametrize(
    ("wrapper", "inner", "shape"),
    [
        (SpectralNormConv2D, lambda: Conv2D(4, 3), (8, 8, 3)),
        (OperatorNormConv2D, lambda: Conv2D(4, 3), (8, 8, 3)),
        (SpectralNormConv2DTranspose, lambda: Conv2DTranspose(4, 3), (8, 8, 3)),
        (SpectralNormDense, lambda: Dense(4), (8,)),
        (SpectralNormEmbedding, lambda: Embedding(5, 4), ()),
    ],
)
def test_options_are_kept_when_saved(wrapper, inner, shape, tmp_path):
    options = {"iterations": 2, **PYTORCH, "scale": 1.4, "gamma": True, "u_seed": 3}
    inputs = keras.Input(shape)
    model = keras.Model(inputs, wrapper(inner(), **options)(inputs))
    batch = np.ones((3, *shape))
    model(batch, training=True)
    config = model.layers[1].get_config()
    assert {name: config[name] for name in options} == options
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for training in (False, True, False):
        expected = model(batch, training=training)
        np.testing.assert_array_equal(loaded(batch, training=training), expected)


@pytest.mark.parametrize(
    "option",
    [{"iterations": 0}, {"iterations": 1.5}, {"gradient": "none"}, {"advance": 3}, {"epsilon": ""}],
)
def test_unknown_options_are_named(option):
    (name,) = option
    with pytest.raises(ValueError, match=name):
        SpectralNormDense(Dense(1), **option)
