"""The residual blocks' convolutions, alone or joined with resampling, by exact algebra.

Nearest x2 upsampling and 2x2 mean pooling are linear, so each makes one linear map with the
convolution beside it. With a 3x3 kernel this is a 4x4 kernel of stride 2, whose taps are sums of
the 3x3 ones: 16 products for every 36. With a 1x1 kernel the two commute, and the convolution runs
at the lower resolution, for a quarter of the products.

Where the resolution is low, a convolution of many channels is a large kernel on few positions.
There it is done as a matrix product over unfolded patches, which takes less than half of the usual
algorithms' time on CPUs.

In exact arithmetic the results are those of Keras' layers in a row.
"""

import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

Shape = tuple[int | None, ...]

LOW_RESOLUTION = 16  # positions of the smaller side of the map; 4x4 in the paper's ResNet

# In one dimension: each of the 4 taps of stride 2 as a sum of the 3 taps, two windows one apart.
_PAIR_OF_WINDOWS = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]])


def _by_two_axes(matrix: np.ndarray) -> np.ndarray:
    """Combinations of taps in one dimension, `[t, s]`, as those in two, `[t, t, s * s]`."""
    taps = len(matrix)
    product = np.einsum("ab,cd->acbd", matrix, matrix)
    return product.reshape(taps, taps, -1)


def _combine(taps: np.ndarray, kernel: tf.Tensor) -> tf.Tensor:
    """New taps `[..., c_in, c_out]`, each a combination `taps[...]` `[9]` of a 3x3 kernel's."""
    flat = tf.reshape(kernel, [9, -1])
    combined = tf.matmul(tf.constant(taps.reshape(-1, 9), kernel.dtype), flat)
    return tf.reshape(combined, [*taps.shape[:-1], *kernel.shape[2:]])


def _is_low(height: int | None, width: int | None) -> bool:
    return height is not None and width is not None and height * width <= LOW_RESOLUTION


def _unfold(
    images: tf.Tensor, size: int, height: int, width: int, corner: tuple[int, int] = (0, 0)
) -> tf.Tensor:
    """Patches `[n * height * width, size * size * c]` of `[n, >= top + height + size - 1, ..., c]`,
    the first at a corner `(top, left)`."""
    rows, columns = (range(start, start + size) for start in corner)
    # `tf.slice`, because the gradient of a bracket's slices takes five times as long on CPUs.
    windows = [
        tf.slice(images, [0, i, j, 0], [-1, height, width, -1]) for i in rows for j in columns
    ]
    patches = tf.concat(windows, axis=-1)
    return tf.reshape(patches, [-1, patches.shape[-1]])


def _pad(images: tf.Tensor) -> tf.Tensor:
    return tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]])


def _flat(kernel: tf.Tensor) -> tf.Tensor:
    """A kernel `[..., k, k, c_in, c_out]` as matrices `[..., k * k * c_in, c_out]`."""
    *batch, k, _, c_in, c_out = kernel.shape
    return tf.reshape(kernel, [*batch, k * k * c_in, c_out])


def _convolve_3x3(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    _, height, width, _ = images.shape
    if not _is_low(height, width):
        return tf.nn.conv2d(images, kernel, 1, "SAME")
    products = tf.matmul(_unfold(_pad(images), 3, height, width), _flat(kernel))
    return tf.reshape(products, [-1, height, width, kernel.shape[-1]])


_POOLED = _by_two_axes(0.5 * _PAIR_OF_WINDOWS)
# The same taps in the order of 2x2 blocks of 2x2 pixels, as after `space_to_depth`.
_POOLED_BLOCKS = _POOLED.reshape(2, 2, 2, 2, 9).transpose(0, 2, 1, 3, 4)


def _convolve_3x3_and_pool(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    _, height, width, channels = images.shape
    if not _is_low(height and height // 2, width and width // 2):
        return tf.nn.conv2d(images, _combine(_POOLED, kernel), 2, "SAME")
    height, width = height // 2, width // 2
    blocks = tf.nn.space_to_depth(_pad(images), 2)
    taps = tf.reshape(_combine(_POOLED_BLOCKS, kernel), [2, 2, 4 * channels, -1])
    products = tf.matmul(_unfold(blocks, 2, height, width), _flat(taps))
    return tf.reshape(products, [-1, height, width, kernel.shape[-1]])


_UPSAMPLED = _by_two_axes(_PAIR_OF_WINDOWS[:, ::-1])
# In one dimension, output pixel 2i sees input pixels i - 1 and i, and 2i + 1 sees i and i + 1: for
# each of the two phases, the two taps as sums of the 3.
_PHASES = np.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])
_PHASES_BY_TWO_AXES = np.einsum("aus,bvt->abuvst", _PHASES, _PHASES).reshape(4, 2, 2, 9)


def _upsample_and_convolve_3x3(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    _, height, width, _ = images.shape
    filters = kernel.shape[-1]
    if not _is_low(height, width):
        taps = tf.transpose(_combine(_UPSAMPLED, kernel), [0, 1, 3, 2])
        n, h, w, _ = tf.unstack(tf.shape(images))
        return tf.nn.conv2d_transpose(images, taps, [n, 2 * h, 2 * w, filters], 2)
    padded = _pad(images)
    taps = tf.unstack(_flat(_combine(_PHASES_BY_TWO_AXES, kernel)))
    phases = [
        tf.matmul(_unfold(padded, 2, height, width, phase), taps_of_phase)
        for phase, taps_of_phase in zip(itertools.product(range(2), range(2)), taps, strict=True)
    ]
    stacked = tf.reshape(tf.stack(phases, axis=1), [-1, height, width, 2, 2, filters])
    return tf.reshape(
        tf.transpose(stacked, [0, 1, 3, 2, 4, 5]), [-1, 2 * height, 2 * width, filters]
    )


def _convolve_1x1(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    return tf.nn.conv2d(images, kernel, 1, "SAME")


def _convolve_1x1_and_pool(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    return _convolve_1x1(tf.nn.avg_pool2d(images, 2, 2, "VALID"), kernel)


def _upsample_and_convolve_1x1(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    small = _convolve_1x1(images, kernel)
    return tf.repeat(tf.repeat(small, 2, axis=1), 2, axis=2)


def _add_bias(outputs: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """`outputs + bias`, `[n, h, w, c]` and `[c]`, the bias's gradient summed in one way only.

    A block's two last biases have the same gradient. On CPUs, TensorFlow 2.21 makes one op of a
    bias's gradient and a kernel's that come from the same tensor. Of two biases it takes the one
    whose op lies first in memory, so that last digits would depend on the process. It does not look
    behind the reshaping. (A normalised layer's bias is added by its wrapper; training's
    discriminator steps sum its gradient apart from the kernel's, weighted image by image.)
    """
    flat = tf.nn.bias_add(tf.reshape(outputs, [-1, outputs.shape[-1]]), bias)
    return tf.reshape(flat, tf.shape(outputs))


class _ResidualConv2D(keras.layers.Conv2D):
    """A `Conv2D` of stride 1 with padding; see the subclasses.

    Args:
        filters: number of output channels.
        kernel_size: 1 or 3.
        **kwargs: as of `Conv2D`, but for strides, padding, dilation, groups and data format.

    Raises:
        ValueError: another kernel size or kind of convolution.
    """

    # Alone it does not weight its kernel's gradient; inside a wrapper that one does.
    takes_image_weights = False
    _by_kernel_size: ClassVar[dict[int, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]]]

    def __init__(self, filters: int, kernel_size: int | tuple[int, int], **kwargs: Any) -> None:
        fixed: dict[str, Any] = {
            "strides": (1, 1),
            "padding": "same",
            "dilation_rate": (1, 1),
            "groups": 1,
        }
        fixed["data_format"] = "channels_last"
        super().__init__(filters, kernel_size, **{**fixed, **kwargs})
        if any(getattr(self, name) != value for name, value in fixed.items()):
            raise ValueError(f"{type(self).__name__} is for {fixed}. Received: {kwargs}")
        if self.kernel_size not in ((1, 1), (3, 3)):
            raise ValueError(
                f"{type(self).__name__} has a kernel of 1x1 or 3x3. Received: {kernel_size}"
            )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        outputs = self.convolution_op(inputs, self.kernel)
        if self.use_bias:
            outputs = _add_bias(outputs, tf.cast(self.bias, outputs.dtype))
        return self.activation(outputs)

    def convolved_shape(self, input_shape: Shape) -> Shape:
        """Shape of what the convolution itself takes, where resampling and it are a row."""
        return input_shape

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """The layer's linear map, `[n, h, w, c_in]` and `[k, k, c_in, c_out]` to
        `[n, h', w', c_out]`."""
        outputs = self._by_kernel_size[self.kernel_size[0]](inputs, kernel)
        return tf.ensure_shape(outputs, self.compute_output_shape(inputs.shape))


@keras.saving.register_keras_serializable(package="bsn")
class ResidualConv2D(_ResidualConv2D):
    """A 1x1 or 3x3 convolution; arguments and errors as in `_ResidualConv2D`."""

    _by_kernel_size: ClassVar = {1: _convolve_1x1, 3: _convolve_3x3}


@keras.saving.register_keras_serializable(package="bsn")
class UpsamplingConv2D(_ResidualConv2D):
    """Nearest-neighbour upsampling by 2, then a 1x1 or 3x3 convolution.

    Arguments and errors as in `_ResidualConv2D`; `[n, h, w, c]` to `[n, 2h, 2w, filters]`.
    """

    _by_kernel_size: ClassVar = {1: _upsample_and_convolve_1x1, 3: _upsample_and_convolve_3x3}

    def convolved_shape(self, input_shape: Shape) -> Shape:
        n, h, w, c = input_shape
        return (n, h and 2 * h, w and 2 * w, c)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        n, h, w, _ = input_shape
        return (n, h and 2 * h, w and 2 * w, self.filters)


@keras.saving.register_keras_serializable(package="bsn")
class MeanPoolingConv2D(_ResidualConv2D):
    """A 1x1 or 3x3 convolution, then 2x2 mean pooling.

    Arguments and errors as in `_ResidualConv2D`; `[n, h, w, c]` to `[n, h/2, w/2, filters]`.

    Raises:
        ValueError: when built, height or width is odd.
    """

    _by_kernel_size: ClassVar = {1: _convolve_1x1_and_pool, 3: _convolve_3x3_and_pool}

    def build(self, input_shape: Shape) -> None:
        if any(side is not None and side % 2 for side in input_shape[1:3]):
            raise ValueError(f"{self.name}: height and width must be even. Received: {input_shape}")
        super().build(input_shape)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        n, h, w, _ = input_shape
        return (n, h and h // 2, w and w // 2, self.filters)
