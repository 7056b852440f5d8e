"""Keras layers as affine maps of their inputs, with the weights as arguments."""

import keras
import tensorflow as tf


class LinearMap:
    """What a wrapper needs to know of the layer whose weights it changes; see the subclasses.

    Args:
        layer: the Keras layer.
    """

    def __init__(self, layer: keras.Layer) -> None:
        self._layer = layer

    @property
    def kernel(self) -> keras.Variable:
        """The layer's kernel."""
        return self._layer.kernel

    @property
    def bias(self) -> keras.Variable | None:
        """The layer's bias `[c_out]`, or None."""
        return self._layer.bias

    def to_inputs(self, inputs: tf.Tensor) -> tf.Tensor:
        """The inputs in the dtype in which the layer takes them."""
        return tf.cast(inputs, self._layer.compute_dtype)

    def apply(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """The outputs before the bias, linear in the kernel."""
        raise NotImplementedError

    def add_bias(self, outputs: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        """The outputs before the activation."""
        return outputs + bias

    def activate(self, outputs: tf.Tensor) -> tf.Tensor:
        """The layer's outputs."""
        return self._layer.activation(outputs)

    def matrix(self, kernel: tf.Tensor) -> tf.Tensor:
        """The kernel as SN's matrix `[m, n]`, with a column for each output channel."""
        raise NotImplementedError


def flatten_kernel(kernel: tf.Tensor) -> tf.Tensor:
    """`[..., c]` as a matrix `[m, c]`."""
    return tf.reshape(kernel, [-1, kernel.shape[-1]])


class _Convolution(LinearMap):
    """`[kh, kw, c_in, c_out]`; the matrix is `[kh * kw * c_in, c_out]`."""

    def apply(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return self._layer.convolution_op(inputs, kernel)

    def add_bias(self, outputs: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        data_format = "NHWC" if self._layer.data_format == "channels_last" else "NCHW"
        return tf.nn.bias_add(outputs, bias, data_format)

    def matrix(self, kernel: tf.Tensor) -> tf.Tensor:
        return flatten_kernel(kernel)


class _TransposedConvolution(_Convolution):
    """`[kh, kw, c_out, c_in]`; the matrix is `[kh * kw * c_in, c_out]`.

    PyTorch, too, puts the output channels first there (SN-DCGAN's specification, section 1).
    """

    def apply(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        layer = self._layer
        return keras.ops.conv_transpose(
            inputs,
            kernel,
            strides=list(layer.strides),
            padding=layer.padding,
            output_padding=layer.output_padding,
            dilation_rate=layer.dilation_rate,
            data_format=layer.data_format,
        )

    def matrix(self, kernel: tf.Tensor) -> tf.Tensor:
        return flatten_kernel(tf.transpose(kernel, [0, 1, 3, 2]))


class _Dense(LinearMap):
    """`[in, out]`, which is also the matrix."""

    def apply(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        if inputs.shape.rank == 2:
            return tf.matmul(inputs, kernel)
        return tf.tensordot(inputs, kernel, 1)

    def matrix(self, kernel: tf.Tensor) -> tf.Tensor:
        return kernel


class _Embedding(LinearMap):
    """`[classes, c]`, a row for each class; inputs are integers in [0, classes).

    The matrix is `[c, classes]`: an embedding is a dense layer whose inputs are one-hot vectors in
    PyTorch's SN, where the classes are the matrix's rows (SNGAN-PROJ's specification, section 1).
    """

    @property
    def kernel(self) -> keras.Variable:
        return self._layer.embeddings

    @property
    def bias(self) -> None:
        return None

    def to_inputs(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs if inputs.dtype in (tf.int32, tf.int64) else tf.cast(inputs, tf.int32)

    def apply(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.gather(kernel, inputs)

    def activate(self, outputs: tf.Tensor) -> tf.Tensor:
        return outputs

    def matrix(self, kernel: tf.Tensor) -> tf.Tensor:
        return tf.transpose(kernel)


_LINEAR_MAPS: dict[type[keras.Layer], type[LinearMap]] = {
    keras.layers.Conv2D: _Convolution,
    keras.layers.Conv2DTranspose: _TransposedConvolution,
    keras.layers.Dense: _Dense,
    keras.layers.Embedding: _Embedding,
}
LINEAR_LAYERS = tuple(_LINEAR_MAPS)  # the classes of the layers that wrappers take


def linear_map(layer: keras.Layer) -> LinearMap:
    """The layer as a linear map; of the class, or of one derived from it, in `LINEAR_LAYERS`."""
    return next(row for cls, row in _LINEAR_MAPS.items() if isinstance(layer, cls))(layer)
