"""A normalisation: weight normalisation without a gain, `sn_mode=own_normalization:WN`."""

import keras

from common.networks.normalization import Normalization


class WeightNormalized(keras.layers.Wrapper):
    """Divides the kernel by the norm of each output channel's weights."""

    def __init__(self, layer, scale, gamma, name):
        if gamma:
            raise ValueError("this normalisation has no gamma")
        super().__init__(layer, name=name)
        self.scale = scale

    def call(self, inputs):
        kernel = keras.ops.convert_to_tensor(self.layer.kernel)
        axes = list(range(len(kernel.shape) - 1))
        squares = keras.ops.sum(keras.ops.square(kernel), axis=axes, keepdims=True)
        kernel = self.scale * kernel / keras.ops.sqrt(squares)
        if isinstance(self.layer, keras.layers.Dense):
            return keras.ops.matmul(inputs, kernel) + self.layer.bias
        return self.layer.convolution_op(inputs, kernel) + self.layer.bias

    def compute_output_shape(self, inputs_shape):
        return self.layer.compute_output_shape(inputs_shape)


WN = Normalization(conv=WeightNormalized, dense=WeightNormalized)
