"""Normalisation by the norm of the convolution itself, the stricter SN.

SN divides a kernel by the norm of its matrix, which is not the norm of the linear map that the
layer computes: with 3x3 taps and stride 1 each pixel is in up to 9 patches, and the map's norm may
be up to sqrt(9) times the matrix'. Here the map itself is iterated on, by the convolution and its
transpose, at the layer's real input size, zero padding and stride included (Gouk et al. 2018,
"Regularisation of neural networks by enforcing Lipschitz continuity"; Farnia et al. 2019,
"Generalizable adversarial training via spectral normalization").
"""

from dataclasses import dataclass

import keras
import tensorflow as tf

from common.layers.power_iteration import Operator
from common.layers.spectral_norm import SpectralNormalized


@dataclass(frozen=True)
class Convolution:
    """A `Conv2D` layer's convolution of one image, as a linear operator.

    Attributes:
        layer: gives the strides, padding, dilation and data format.
        kernel: `[kh, kw, c_in, c_out]`.
        input_shape: `(1, h, w, c_in)`; with channels first, `(1, c_in, h, w)`.
    """

    layer: keras.layers.Conv2D
    kernel: tf.Tensor
    input_shape: tuple[int, ...]

    @property
    def output_shape(self) -> tuple[int, ...]:
        # Not the class' own, which the layers that are joined with resampling override.
        return tuple(keras.layers.Conv2D.compute_output_shape(self.layer, self.input_shape))

    def apply(self, v: tf.Tensor) -> tf.Tensor:
        return keras.layers.Conv2D.convolution_op(self.layer, v, self.kernel)

    def adjoint(self, u: tf.Tensor) -> tf.Tensor:
        # By differentiation, since TensorFlow's transposed convolution lacks dilation on CPUs.
        anywhere = tf.zeros(self.input_shape, u.dtype)
        with tf.GradientTape() as tape:
            tape.watch(anywhere)
            outputs = self.apply(anywhere)
        return tape.gradient(outputs, anywhere, u)


@keras.saving.register_keras_serializable(package="bsn")
class OperatorNormConv2D(SpectralNormalized):
    """A `Conv2D` divided by an estimate of its convolution's norm as a linear operator.

        v = l2(A^T u),  u' = l2(A v),  sigma = <A v, u'>

    `A` is the convolution of one image of the size that the layer is built for; the shape of `u` is
    its output's, `[1, h', w', c_out]`, and that of `v` its input's, `[1, h, w, c_in]`. For a
    residual block's convolution, which is joined with resampling, `A` is the convolution alone, at
    the size at which it runs in the row of layers: the upsampled one, or that before pooling.
    Arguments, calls and errors as in `SpectralNormalized`, and:

    Raises:
        ValueError: when built, the layer has several groups, or the images' height or width is
            unknown.
    """

    takes_image_weights = True
    wraps = (keras.layers.Conv2D,)

    def _build_factor(self, inputs_shape: tuple[int | None, ...]) -> None:
        # Keras compiles every call of a grouped convolution anew.
        if self.layer.groups != 1:
            raise ValueError(
                f"{self.name}: the norm of a convolution is for one group. Received: "
                f"groups={self.layer.groups}"
            )
        shape_of = getattr(self.layer, "convolved_shape", lambda shape: shape)
        _, *sides = shape_of(inputs_shape)
        if None in sides:
            raise ValueError(
                f"{self.name}: the norm of a convolution is that at one size of images, so height "
                f"and width must be known. Received: {tuple(inputs_shape)}"
            )
        self._convolved_shape = (1, *sides)
        super()._build_factor(inputs_shape)

    def _operators(self) -> list[Operator]:
        return [Convolution(self.layer, self._kernel(), self._convolved_shape)]
