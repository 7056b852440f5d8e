"""The network of the frozen graph of 2015, built from weights that were converted to PyTorch.

The names are those of torchvision's Inception, of whose network this one is a variant: average
pools leave out the padding, the last block pools by the maximum, batch norm has epsilon 0.001 and
there are 1,008 classes (specification, section 6).
"""

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from common.errors import UserError

_EPSILON = 0.001

Layer = Callable[[tf.Tensor], tf.Tensor]


def build(weights: Mapping[str, np.ndarray]) -> Callable[[tf.Tensor], list[tf.Tensor]]:
    """Builds the network.

    Args:
        weights: Arrays by name, kernels `[out, in, height, width]`.

    Returns:
        A function from float32 images `[n, 299, 299, 3]` in [-1, 1] to features `[n, 2048]`,
        logits `[n, 1008]` and logits without their bias.

    Raises:
        UserError: An array is missing or of another shape, or has values that are not finite.
    """
    layers = _Layers(weights)
    trunk = _trunk(layers)
    kernel = tf.constant(layers.array("fc.weight", 2).T.astype(np.float32))
    bias = tf.constant(layers.array("fc.bias", 1).astype(np.float32))

    def body(images: tf.Tensor) -> list[tf.Tensor]:
        features = tf.reduce_mean(trunk(images), axis=[1, 2])
        unbiased = features @ kernel
        return [features, unbiased + bias, unbiased]

    return body


class _Layers:
    """Makes layers of arrays."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self._weights = weights

    def array(self, name: str, rank: int) -> np.ndarray:
        if name not in self._weights:
            raise UserError(f"it has no array {name}; it is not the expected file of weights")
        value = self._weights[name]
        if value.ndim != rank or value.dtype.kind != "f" or not np.isfinite(value).all():
            raise UserError(
                f"its array {name}, {value.dtype} {list(value.shape)}, is not of {rank} dimensions "
                "or not of finite numbers; it is damaged or not the expected file"
            )
        return value.astype(np.float64)

    def conv(self, name: str, stride: int = 1, padding: str = "SAME") -> Layer:
        """Convolution, batch norm (folded into it) and ReLU."""
        kernel = self.array(f"{name}.conv.weight", 4).transpose(2, 3, 1, 0)
        parameters = ("weight", "bias", "running_mean", "running_var")
        gamma, beta, mean, variance = (self.array(f"{name}.bn.{p}", 1) for p in parameters)
        if {len(gamma), len(beta), len(mean), len(variance)} != {kernel.shape[3]}:
            raise UserError(f"its arrays {name} do not fit each other; it is damaged")
        if (variance < 0).any():
            raise UserError(f"its array {name}.bn.running_var is negative; it is damaged")
        scale = gamma / np.sqrt(variance + _EPSILON)
        folded = tf.constant((kernel * scale).astype(np.float32))
        bias = tf.constant((beta - mean * scale).astype(np.float32))

        def apply(x: tf.Tensor) -> tf.Tensor:
            channels = folded.shape[2]
            if x.shape[3] != channels:  # TensorFlow might convolve in groups instead
                raise UserError(
                    f"its layer {name} takes {channels} channels instead of {x.shape[3]}"
                )
            return tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, folded, stride, padding), bias))

        return apply

    def chain(self, *names: str) -> Layer:
        return _sequence(*(self.conv(name) for name in names))


def _sequence(*layers: Layer) -> Layer:
    def apply(x: tf.Tensor) -> tf.Tensor:
        for layer in layers:
            x = layer(x)
        return x

    return apply


def _join(*branches: Layer) -> Layer:
    return lambda x: tf.concat([branch(x) for branch in branches], axis=3)


def _halve(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.max_pool2d(x, 3, 2, "VALID")


def _average(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.avg_pool2d(x, 3, 1, "SAME")  # TensorFlow's does not count the padding


def _maximum(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.max_pool2d(x, 3, 1, "SAME")


def _trunk(layers: _Layers) -> Layer:
    """From images to `[n, 8, 8, 2048]`."""
    return _sequence(
        layers.conv("Conv2d_1a_3x3", 2, "VALID"),
        layers.conv("Conv2d_2a_3x3", 1, "VALID"),
        layers.conv("Conv2d_2b_3x3"),
        _halve,
        layers.conv("Conv2d_3b_1x1", 1, "VALID"),
        layers.conv("Conv2d_4a_3x3", 1, "VALID"),
        _halve,
        *(_block_35(layers, f"Mixed_5{letter}") for letter in "bcd"),
        _block_35_to_17(layers, "Mixed_6a"),
        *(_block_17(layers, f"Mixed_6{letter}") for letter in "bcde"),
        _block_17_to_8(layers, "Mixed_7a"),
        _block_8(layers, "Mixed_7b", _average),
        _block_8(layers, "Mixed_7c", _maximum),
    )


def _numbered(name: str, count: int) -> list[str]:
    return [f"{name}_{i}" for i in range(1, count + 1)]


def _block_35(layers: _Layers, name: str) -> Layer:
    return _join(
        layers.conv(f"{name}.branch1x1"),
        layers.chain(*_numbered(f"{name}.branch5x5", 2)),
        layers.chain(*_numbered(f"{name}.branch3x3dbl", 3)),
        _sequence(_average, layers.conv(f"{name}.branch_pool")),
    )


def _block_35_to_17(layers: _Layers, name: str) -> Layer:
    return _join(
        layers.conv(f"{name}.branch3x3", 2, "VALID"),
        _sequence(
            layers.chain(*_numbered(f"{name}.branch3x3dbl", 2)),
            layers.conv(f"{name}.branch3x3dbl_3", 2, "VALID"),
        ),
        _halve,
    )


def _block_17(layers: _Layers, name: str) -> Layer:
    return _join(
        layers.conv(f"{name}.branch1x1"),
        layers.chain(*_numbered(f"{name}.branch7x7", 3)),
        layers.chain(*_numbered(f"{name}.branch7x7dbl", 5)),
        _sequence(_average, layers.conv(f"{name}.branch_pool")),
    )


def _block_17_to_8(layers: _Layers, name: str) -> Layer:
    return _join(
        _sequence(
            layers.conv(f"{name}.branch3x3_1"), layers.conv(f"{name}.branch3x3_2", 2, "VALID")
        ),
        _sequence(
            layers.chain(*_numbered(f"{name}.branch7x7x3", 3)),
            layers.conv(f"{name}.branch7x7x3_4", 2, "VALID"),
        ),
        _halve,
    )


def _block_8(layers: _Layers, name: str, pool: Layer) -> Layer:
    def split(branch: str) -> Layer:
        return _join(layers.conv(f"{branch}a"), layers.conv(f"{branch}b"))

    return _join(
        layers.conv(f"{name}.branch1x1"),
        _sequence(layers.conv(f"{name}.branch3x3_1"), split(f"{name}.branch3x3_2")),
        _sequence(
            layers.chain(*_numbered(f"{name}.branch3x3dbl", 2)), split(f"{name}.branch3x3dbl_3")
        ),
        _sequence(pool, layers.conv(f"{name}.branch_pool")),
    )
