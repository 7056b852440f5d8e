"""The convolution's norm against the singular values of its unrolled matrix."""

import numpy as np
import pytest
import tensorflow as tf
from keras.layers import Conv2D

from common.layers import (
    MeanPoolingConv2D,
    OperatorNormConv2D,
    ResidualConv2D,
    SpectralNormConv2D,
    UpsamplingConv2D,
)

RNG = np.random.default_rng
SIZE = (5, 4)


def convolve(image, kernel, strides, padding, dilation=1):
    """TensorFlow's definition of a convolution, by NumPy alone: `[h, w, c]` to `[h', w', c']`."""
    taps = np.array(kernel.shape[:2])
    reach = (taps - 1) * dilation + 1
    if padding == "same":
        size = -(-np.array(image.shape[:2]) // strides)
        total = np.maximum((size - 1) * strides + reach - image.shape[:2], 0)
        image = np.pad(image, [*((t // 2, t - t // 2) for t in total), (0, 0)])
    size = (np.array(image.shape[:2]) - reach) // strides + 1
    outputs = np.zeros((*size, kernel.shape[-1]))
    for y, x in np.ndindex(*size):
        for i, j in np.ndindex(*taps):
            pixel = image[y * strides + i * dilation, x * strides + j * dilation]
            outputs[y, x] += pixel @ kernel[i, j]
    return outputs


def unrolled(kernel, sides, strides=1, padding="same", dilation=1):
    """The matrix of the convolution, column by column."""
    shape = (*sides, kernel.shape[2])
    columns = []
    for index in np.ndindex(shape):
        image = np.zeros(shape)
        image[index] = 1
        columns.append(convolve(image, kernel, strides, padding, dilation).ravel())
    return np.stack(columns, axis=1)


def built(inner=None, sides=SIZE, seed=0, **options):
    inner = inner or Conv2D(3, 3, padding="same", dtype="float64")
    layer = OperatorNormConv2D(inner, **{"u_seed": 1, **options})
    layer.build((None, *sides, 2))
    layer.layer.kernel.assign(RNG(seed).normal(size=layer.layer.kernel.shape))
    return layer


def converged(layer):
    advance_u = tf.function(layer.advance_u)
    for _ in range(1500):
        advance_u()
    return layer


@pytest.mark.parametrize("advance", ["update", "pass"])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 4])
def test_it_converges_to_the_norm_of_the_unrolled_matrix(size, strides, padding, advance):
    layer = built(Conv2D(3, size, strides, padding=padding, dtype="float64"), advance=advance)
    matrix = unrolled(layer.layer.kernel.numpy(), SIZE, strides, padding)
    norm = np.linalg.svd(matrix, compute_uv=False)[0]
    if advance == "pass":
        images, compiled = tf.zeros((1, *SIZE, 2), tf.float64), tf.function(layer)
        for _ in range(1500):
            compiled(images, training=True)
    else:
        converged(layer)
    assert layer.sigma() <= norm * (1 + 1e-12)
    np.testing.assert_allclose(layer.sigma(), norm, rtol=1e-9)


def test_dilation():
    inner = Conv2D(4, 3, dilation_rate=2, dtype="float64")
    layer = converged(built(inner, sides=(7, 7)))
    matrix = unrolled(layer.layer.kernel.numpy(), (7, 7), padding="valid", dilation=2)
    np.testing.assert_allclose(layer.sigma(), np.linalg.norm(matrix, 2), rtol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_no_estimate_exceeds_the_norm_which_lies_beyond_the_matrix_one(seed):
    layer = built(seed=seed, u_seed=seed)
    kernel = layer.layer.kernel.numpy()
    norm = np.linalg.norm(unrolled(kernel, SIZE), 2)
    for _ in range(30):
        assert layer.sigma() <= norm * (1 + 1e-12)
        layer.advance_u()
    of_matrix = SpectralNormConv2D(layer.layer, iterations=300)
    of_matrix.build((None, *SIZE, 2))
    assert layer.sigma() > 1.1 * of_matrix.sigma()


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize(
    ("cls", "sides"),
    [(ResidualConv2D, (4, 6)), (UpsamplingConv2D, (8, 12)), (MeanPoolingConv2D, (4, 6))],
)
def test_of_a_residual_convolution_it_is_the_convolutions_alone(cls, sides, size):
    layer = built(cls(3, size, dtype="float64"), sides=(4, 6))
    assert layer.u[0].shape == (1, *sides, 3)
    # Of opposite frequencies the norms are all but equal. With positive kernels the greatest is
    # that of frequency 0.
    layer.layer.kernel.assign(RNG(0).uniform(size=layer.layer.kernel.shape))
    layer = converged(layer)
    norm = np.linalg.norm(unrolled(layer.layer.kernel.numpy(), sides), 2)
    np.testing.assert_allclose(layer.sigma(), norm, rtol=1e-9)
    images = RNG(1).normal(size=(2, 4, 6, 2))
    expected = layer.layer.convolution_op(images, layer.layer.kernel.value / norm)
    np.testing.assert_allclose(layer(images), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("gradient", ["through", "constant"])
def test_gradients_by_finite_differences(gradient):
    layer = built(Conv2D(2, 3, 2, padding="same", dtype="float64"), gradient=gradient, iterations=2)
    kernel, probe = layer.layer.kernel.numpy(), RNG(5).normal(size=layer.layer.kernel.shape)
    start = layer.u[0].numpy().ravel()

    def vectors(matrix):
        u = start
        for _ in range(2):
            v = matrix.T @ u
            v /= np.linalg.norm(v)
            u = matrix @ v
            u /= np.linalg.norm(u)
        return u, v

    held = vectors(unrolled(kernel, SIZE, 2))

    def loss(kernel):
        matrix = unrolled(kernel, SIZE, 2)
        u, v = vectors(matrix) if gradient == "through" else held
        return (probe * kernel).sum() / (u @ matrix @ v)

    expected = np.empty_like(kernel)
    for index in np.ndindex(kernel.shape):
        step = np.zeros_like(kernel)
        step[index] = 1e-6
        expected[index] = (loss(kernel + step) - loss(kernel - step)) / 2e-6
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(probe * layer.normalized_weights()[0])
    ours = tape.gradient(total, layer.layer.kernel.value)
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("in_graph", [False, True])
def test_a_gradient_penalty_can_be_trained(in_graph):
    """The derivative of a squared input gradient, by finite differences."""
    layer = built(Conv2D(2, 3, 2, padding="same", activation="tanh", dtype="float64"))
    images = tf.constant(RNG(1).normal(size=(2, *SIZE, 2)))
    variable = layer.layer.kernel

    def penalty():
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = tf.reduce_sum(layer(images))
        return tf.reduce_sum(tape.gradient(outputs, images) ** 2)

    def by_kernel():
        with tf.GradientTape() as tape:
            value = penalty()
        return tape.gradient(value, variable.value)

    ours = (tf.function(by_kernel) if in_graph else by_kernel)().numpy()
    kernel, direction = variable.numpy(), RNG(2).normal(size=variable.shape)
    values = []
    for sign in (1, -1):
        variable.assign(kernel + sign * 1e-6 * direction)
        values.append(penalty().numpy())
    np.testing.assert_allclose((ours * direction).sum(), (values[0] - values[1]) / 2e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("groups", "shape", "message"),
    [
        (1, (None, None, None, 2), "height and width must be known"),
        (2, (None, 5, 5, 2), "groups=2"),
    ],
)
def test_what_has_no_such_norm_is_refused(groups, shape, message):
    layer = OperatorNormConv2D(Conv2D(4, 3, groups=groups))
    with pytest.raises(ValueError, match=message):
        layer.build(shape)
