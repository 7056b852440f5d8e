"""Copies of the networks with every layer as the specification words it, for oracles."""

import keras
import tensorflow as tf

from common.layers import (
    LeakyReLU,
    MeanPoolingConv2D,
    ResidualConv2D,
    SpectralNormalized,
    UpsamplingConv2D,
)


class _Convolve(ResidualConv2D):
    def convolution_op(self, inputs, kernel):
        return tf.nn.conv2d(inputs, kernel, 1, "SAME")


class _UpsampleThenConvolve(UpsamplingConv2D):
    def convolution_op(self, inputs, kernel):
        large = tf.repeat(tf.repeat(inputs, 2, axis=1), 2, axis=2)
        return tf.nn.conv2d(large, kernel, 1, "SAME")


class _ConvolveThenPool(MeanPoolingConv2D):
    def convolution_op(self, inputs, kernel):
        return tf.nn.avg_pool2d(tf.nn.conv2d(inputs, kernel, 1, "SAME"), 2, 2, "VALID")


_PLAIN = {
    ResidualConv2D: _Convolve,
    UpsamplingConv2D: _UpsampleThenConvolve,
    MeanPoolingConv2D: _ConvolveThenPool,
}


def plain_copy(model):
    """A model of the same values whose convolutions and resampling are layers in a row."""
    copy = keras.models.clone_model(model, clone_function=_clone)
    copy.set_weights(model.get_weights())
    return copy


def _clone(layer):
    if isinstance(layer, SpectralNormalized):
        config = layer.get_config()
        config["layer"] = _clone(layer.layer)
        return type(layer)(**config)
    if isinstance(layer, LeakyReLU):
        return keras.layers.LeakyReLU(layer.slope, name=layer.name)
    return _PLAIN.get(type(layer), type(layer)).from_config(layer.get_config())
