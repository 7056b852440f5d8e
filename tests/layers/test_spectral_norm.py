"""The wrappers against NumPy, the singular value decomposition and finite differences."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras.layers import Conv2D, Dense

from common.layers import (
    BidirectionalScaledSN,
    Gamma,
    SpectralNormConv2D,
    SpectralNormDense,
    spectral_layers,
)
from common.layers.power_iteration import Matrix, PowerIteration

CONV_WRAPPERS = [SpectralNormConv2D, BidirectionalScaledSN]
RNG = np.random.default_rng


def l2(x):
    return x / (np.sqrt((x**2).sum()) + 1e-12)


def numpy_estimate(matrix, u):
    """The estimate, written from the formula."""
    v = l2(u @ matrix.T)
    u_next = l2(v @ matrix)
    return (v @ matrix @ u_next.T).item(), u_next


def matrices_of(layer):
    """The kernel as the matrices whose norms the wrapper estimates, by NumPy alone."""
    kernel = layer.layer.kernel.numpy()
    views = [kernel.reshape(-1, kernel.shape[-1])]
    if isinstance(layer, BidirectionalScaledSN):
        exchanged = kernel.transpose(0, 1, 3, 2)
        views.append(exchanged.reshape(-1, exchanged.shape[-1]))
    return views


def built(wrapper, channels=3, filters=5, **kwargs):
    layer = wrapper(Conv2D(filters, 3, padding="same", dtype="float64"), **kwargs)
    layer.build((None, 8, 8, channels))
    for index, variable in enumerate(layer.layer.weights):
        variable.assign(RNG(index).normal(size=variable.shape))
    for index, u in enumerate(layer.u):
        u.assign(RNG(10 + index).normal(size=u.shape))
    return layer


ORTHOGONAL = (
    np.array([[3.362203640708145, -0.892533530507128, -3.6175310354193737, 1.4235750862654855]]),
    np.array([[0.3869833705454523, 1.746973596673736, 0.8363693877847115, 2.3066628965815066]]),
)


@settings(deadline=None, max_examples=50)
@example(ORTHOGONAL)
@given(
    st.integers(1, 6).flatmap(
        lambda n: st.tuples(
            arrays(np.float64, st.tuples(st.integers(1, 6), st.just(n)), elements=st.floats(-5, 5)),
            arrays(np.float64, (1, n), elements=st.floats(0.1, 5)),
        )
    )
)
def test_power_iteration_never_exceeds_the_spectral_norm(case):
    matrix, u = case
    sigma, u_next, _ = PowerIteration()(Matrix(tf.constant(matrix)), tf.constant(u))
    assert sigma <= np.linalg.norm(matrix, 2) * (1 + 1e-12) + 1e-300
    # Where the product all but cancels, what is left is rounding, which each library does its way.
    assume(np.linalg.norm(matrix @ u[0]) >= 0.1 * np.linalg.norm(matrix) * np.linalg.norm(u))
    expected, expected_u = numpy_estimate(matrix, u)
    np.testing.assert_allclose(sigma, expected, rtol=1e-12, atol=1e-290)
    np.testing.assert_allclose(u_next, expected_u, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("wrapper", CONV_WRAPPERS)
def test_sigma_is_the_mean_of_the_independent_estimates(wrapper):
    layer = built(wrapper)
    expected = [
        numpy_estimate(matrix, u.numpy())[0]
        for matrix, u in zip(matrices_of(layer), layer.u, strict=True)
    ]
    np.testing.assert_allclose(layer.sigma(), np.mean(expected), rtol=1e-12)
    shown = expected if len(expected) == 1 else [np.mean(expected), *expected]
    np.testing.assert_allclose(layer.sigmas(), shown, rtol=1e-12)


@pytest.mark.parametrize("wrapper", CONV_WRAPPERS)
def test_advancing_u_converges_to_the_largest_singular_values(wrapper):
    layer = built(wrapper)
    for _ in range(300):
        layer.advance_u()
    expected = [np.linalg.svd(m, compute_uv=False)[0] for m in matrices_of(layer)]
    np.testing.assert_allclose(layer.sigma(), np.mean(expected), rtol=1e-10)


@pytest.mark.parametrize("wrapper", CONV_WRAPPERS)
def test_u_moves_to_the_next_u_of_the_current_weights_and_only_when_told(wrapper):
    layer = built(wrapper)
    before = [u.numpy() for u in layer.u]
    layer(np.ones((2, 8, 8, 3)), training=True)
    for u, old in zip(layer.u, before, strict=True):
        np.testing.assert_array_equal(u, old)
    layer.layer.kernel.assign(2 * layer.layer.kernel.numpy() + 0.1)
    expected = [numpy_estimate(m, u)[1] for m, u in zip(matrices_of(layer), before, strict=True)]
    layer.advance_u()
    for u, wanted in zip(layer.u, expected, strict=True):
        np.testing.assert_allclose(u, wanted, rtol=1e-12)


@pytest.mark.parametrize("wrapper", CONV_WRAPPERS)
def test_scale_multiplies_the_weight_and_not_the_bias(wrapper):
    layer = built(wrapper, scale=1.7)
    kernel, bias = layer.normalized_weights()
    sigma = np.mean(
        [numpy_estimate(m, u.numpy())[0] for m, u in zip(matrices_of(layer), layer.u, strict=True)]
    )
    np.testing.assert_allclose(kernel, 1.7 * layer.layer.kernel.numpy() / sigma, rtol=1e-12)
    np.testing.assert_array_equal(bias, layer.layer.bias)


@pytest.mark.parametrize("wrapper", CONV_WRAPPERS)
def test_gamma_multiplies_weight_and_bias_and_is_trained(wrapper):
    plain, layer = built(wrapper), built(wrapper, gamma=True)
    layer.own_gamma.assign(3.0)
    x = RNG(0).normal(size=(2, 8, 8, 3))
    np.testing.assert_allclose(layer(x), 3 * plain(x).numpy(), rtol=1e-12)
    assert len(layer.trainable_variables) == 3
    assert [u.name for u in layer.non_trainable_variables] == [u.name for u in layer.u]


@pytest.mark.parametrize("wrapper", CONV_WRAPPERS)
def test_gradients_flow_through_the_whole_estimate(wrapper):
    """Against central differences of a function that estimates with NumPy."""
    layer = built(wrapper, channels=2, filters=3)
    weight, probe = layer.layer.kernel.numpy(), RNG(5).normal(size=layer.layer.kernel.shape)

    def loss(kernel):
        layer.layer.kernel.assign(kernel)
        estimates = [
            numpy_estimate(m, u.numpy())[0]
            for m, u in zip(matrices_of(layer), layer.u, strict=True)
        ]
        return (probe * kernel / np.mean(estimates)).sum()

    expected = np.empty_like(weight)
    for index in np.ndindex(weight.shape):
        step = np.zeros_like(weight)
        step[index] = 1e-6
        expected[index] = (loss(weight + step) - loss(weight - step)) / 2e-6
    layer.layer.kernel.assign(weight)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(probe * layer.normalized_weights()[0])
    np.testing.assert_allclose(
        tape.gradient(value, layer.layer.kernel.value), expected, rtol=1e-6, atol=1e-8
    )


def test_dense_normalises_its_matrix_as_it_is():
    layer = SpectralNormDense(Dense(4, dtype="float64"), scale=2.0)
    x = RNG(0).normal(size=(3, 6))
    layer(x)
    layer.layer.bias.assign([1.0, 2.0, 3.0, 4.0])
    sigma, _ = numpy_estimate(layer.layer.kernel.numpy(), layer.u[0].numpy())
    expected = x @ (2 * layer.layer.kernel.numpy() / sigma) + [1, 2, 3, 4]
    np.testing.assert_allclose(layer(x), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "arguments",
    [
        {"strides": 2, "padding": "same"},
        {"padding": "valid", "dilation_rate": 2},
        {"use_bias": False, "activation": "relu"},
        {"groups": 2},
    ],
)
@pytest.mark.parametrize("wrapper", CONV_WRAPPERS)
def test_every_form_of_convolution_is_that_of_the_normalised_kernel(wrapper, arguments):
    layer = wrapper(Conv2D(4, 3, dtype="float64", **arguments))
    x = RNG(0).normal(size=(2, 9, 9, 2))
    outputs = layer(x)
    plain = Conv2D(4, 3, dtype="float64", **arguments)
    plain.build(x.shape)
    plain.set_weights([w for w in layer.normalized_weights() if w is not None])
    np.testing.assert_allclose(outputs, plain(x), rtol=1e-12)
    assert layer.compute_output_shape(x.shape) == tuple(outputs.shape)


@pytest.mark.parametrize("policy", ["float32", "float64", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("wrapper", CONV_WRAPPERS)
def test_the_estimate_is_at_least_float32_under_every_policy(wrapper, policy):
    inputs = keras.Input((8, 8, 3))
    layer = wrapper(Conv2D(4, 3, dtype=policy), gamma=True)
    outputs = layer(inputs)
    model = keras.Model(inputs, outputs)
    wanted = "float64" if policy == "float64" else "float32"
    assert {v.dtype for v in model.weights} == {wanted}
    assert layer.sigma().dtype == layer.normalized_weights()[0].dtype == wanted
    x = RNG(0).normal(size=(2, 8, 8, 3)).astype(wanted)
    assert model(x).dtype == keras.DTypePolicy(policy).compute_dtype
    reference = layer.layer.convolution_op(
        tf.cast(x, wanted), tf.cast(layer.normalized_weights()[0], wanted)
    )
    np.testing.assert_allclose(model(x), reference, atol=0.05)
    seen = []
    layer._affine = lambda inputs, kernel, bias: seen.append(kernel) or inputs
    for call in (layer, model):  # alone, and within a model, Keras casts by different rules
        call(x)
        assert seen[-1].dtype == keras.DTypePolicy(policy).compute_dtype
        np.testing.assert_array_equal(
            seen[-1], tf.cast(layer.normalized_weights()[0], seen[-1].dtype)
        )


def shared_gamma_model():
    x = inputs = keras.Input((8, 8, 3))
    gamma = Gamma(name="gamma")(inputs)
    for wrapper in CONV_WRAPPERS:
        x = wrapper(Conv2D(4, 3), gamma=True)(x, gamma=gamma)
    x = SpectralNormDense(Dense(1), gamma=True)(keras.layers.Flatten()(x), gamma=gamma)
    return keras.Model(inputs, x)


def gammas(model):
    return [v for v in model.trainable_variables if v.name == "gamma"]


def test_a_shared_gamma_is_one_variable_also_when_saved_or_cloned(tmp_path):
    model = shared_gamma_model()
    gammas(model)[0].assign(1.5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    cloned = keras.models.clone_model(model)
    cloned.set_weights(model.get_weights())
    x = RNG(0).normal(size=(2, 8, 8, 3)).astype("float32")
    for copy in (model, loaded, cloned):
        assert len(gammas(copy)) == 1
        assert gammas(copy)[0].numpy() == 1.5
        np.testing.assert_array_equal(copy(x), model(x))
    gammas(loaded)[0].assign(2.0)
    assert gammas(model)[0].numpy() == gammas(cloned)[0].numpy() == 1.5
    np.testing.assert_allclose(loaded(x), _with_gamma(model, 2.0)(x), rtol=1e-6)


def _with_gamma(model, value):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    gammas(copy)[0].assign(value)
    return copy


def test_a_lone_layer_made_from_a_config_has_a_gamma_of_its_own():
    source = spectral_layers(shared_gamma_model())[0]
    assert source.own_gamma is None
    layer = type(source).from_config(source.get_config())
    layer(np.ones((1, 8, 8, 3), "float32"))
    assert layer.own_gamma is not None
    assert len(layer.trainable_variables) == 3


def test_a_layer_built_with_a_shared_gamma_refuses_to_go_without():
    layer = spectral_layers(shared_gamma_model())[0]
    with pytest.raises(ValueError, match="shared gamma"):
        layer(np.ones((1, 8, 8, 3), "float32"))


@pytest.mark.parametrize("wrapper", CONV_WRAPPERS)
def test_config_and_saved_model_give_the_same_layer(wrapper, tmp_path):
    layer = wrapper(
        Conv2D(4, 3, strides=2, padding="same", activation="relu"), scale=1.4, gamma=True, u_seed=3
    )
    model = keras.Sequential([keras.Input((8, 8, 3)), layer])
    copy = wrapper.from_config(layer.get_config())
    assert (copy.scale, copy.gamma, copy.u_seed) == (1.4, True, 3)
    assert copy.layer.get_config() == layer.layer.get_config()
    layer.advance_u()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = RNG(0).normal(size=(2, 8, 8, 3)).astype("float32")
    np.testing.assert_array_equal(loaded(x), model(x))
    np.testing.assert_array_equal(loaded.layers[0].u[0], layer.u[0])


def test_the_initial_u_is_a_truncated_normal_determined_by_its_seed():
    def initial(seed):
        layer = BidirectionalScaledSN(Conv2D(4000, 1), u_seed=seed)
        layer.build((None, 4, 4, 4000))
        return [u.numpy() for u in layer.u]

    first, again, other = initial(1), initial(1), initial(2)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], other[0])
    assert np.abs(first).max() <= 2
    # A standard normal cut at 2 has this standard deviation.
    assert abs(np.std(first) - 0.8796) < 0.03


def test_a_users_own_model_trains_without_our_trainer():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            SpectralNormConv2D(Conv2D(4, 3, activation="relu")),
            keras.layers.Flatten(),
            SpectralNormDense(Dense(1), gamma=True),
        ]
    )
    model.compile(optimizer="adam", loss="mse")
    x = RNG(0).normal(size=(64, 8, 8, 1))
    history = model.fit(x, x.mean(axis=(1, 2)) * 20, epochs=5, verbose=0).history["loss"]
    assert history[-1] < history[0]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SpectralNormConv2D(Dense(1)), TypeError, "Conv2D"),
        (lambda: SpectralNormDense(Conv2D(1, 1)), TypeError, "Dense"),
        (lambda: SpectralNormConv2D(Conv2D(1, 1), scale=0), ValueError, "scale"),
        (lambda: SpectralNormConv2D(Conv2D(1, 1), scale=float("nan")), ValueError, "scale"),
    ],
)
def test_wrong_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
