"""The layers that the networks are made of, with the paper's initial values.

A layer's name is the original's variable scope with dots for slashes: `layer1.conv2d` holds what
the original calls `discriminator/layer1/conv2d/...`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import keras

from common.layers import (
    BatchNorm,
    BidirectionalScaledSN,
    Gamma,
    MeanPoolingConv2D,
    ResidualConv2D,
    SpectralNormConv2D,
    SpectralNormDense,
    UpsamplingConv2D,
)
from common.randomness import initializer_seed
from common.variant import GammaMode

RESIDUAL = {None: ResidualConv2D, "up": UpsamplingConv2D, "down": MeanPoolingConv2D}
SN_MODES = {"SN": SpectralNormConv2D, "BSN": BidirectionalScaledSN}


@dataclass(frozen=True)
class Normalization:
    """How a discriminator's weights are normalised.

    Attributes:
        sn_mode: "SN" or "BSN", of the convolutions; the last dense layer is always SN.
        scale: constant factor on every normalised weight; 1 but for SSN and BSSN.
        gamma: "none", "shared" (one trainable scalar for all layers) or "per_layer".
    """

    sn_mode: Literal["SN", "BSN"] = "SN"
    scale: float = 1.0
    gamma: GammaMode = "none"


_PART_INDEX = {"block1": 0, "block2": 1, "shortcut": 2}


def summary_index(layer_name):
    """What the summaries call a layer: `layer3.conv2d` is "3", `layer2.down_resnet.shortcut.conv2d`
    is "2_2" (parts `block1`, `block2` and `shortcut` being 0, 1 and 2)."""
    layer, *scopes = layer_name.split(".")
    parts = [str(_PART_INDEX[scope]) for scope in scopes if scope in _PART_INDEX]
    return "_".join([layer.removeprefix("layer"), *parts])


def to_images(x):
    """`tanh` of features, in the variables' precision also under a mixed dtype policy."""
    dtype = keras.config.dtype_policy().variable_dtype
    return keras.layers.Activation("tanh", dtype=dtype)(x)


class PlainBlocks:
    """Layers of a generator: no spectral normalisation.

    Args:
        seed: the run's root seed; initial values depend on it and on the layer's name alone.
        initializer: `f(seed, kind) -> keras initializer` of a kernel, `kind` being "dense",
            "conv" or "residual" (a 3x3 convolution inside a residual block).
    """

    def __init__(self, seed, initializer: Callable):
        self._seed = seed
        self._initializer = initializer

    def _kernel(self, name, kind):
        return self._initializer(initializer_seed(self._seed, name), kind)

    def dense(self, name, units):
        return keras.layers.Dense(units, kernel_initializer=self._kernel(name, "dense"), name=name)

    def conv(self, name, filters, size, strides=1):
        return keras.layers.Conv2D(
            filters,
            size,
            strides,
            padding="same",
            kernel_initializer=self._kernel(name, "conv"),
            name=name,
        )

    def residual_conv(self, name, filters, size, resample=None):
        """A block's convolution, after upsampling ("up") or before mean pooling ("down") if any."""
        kernel = self._kernel(name, "conv" if size == 1 else "residual")
        return RESIDUAL[resample](filters, size, kernel_initializer=kernel, name=name)

    def deconv(self, name, filters, size, strides):
        return keras.layers.Conv2DTranspose(
            filters,
            size,
            strides,
            padding="same",
            kernel_initializer=self._kernel(name, "conv"),
            name=name,
        )

    def batch_norm(self, name):
        return BatchNorm(name=name)


class NormalizedBlocks:
    """Layers of a discriminator, normalised as declared. Each is a function of its inputs.

    Args:
        seed, initializer: as in `PlainBlocks`.
        normalization: a `Normalization`.
        inputs: the model's input tensor, which a shared gamma is tied to.
    """

    def __init__(self, seed, initializer, normalization: Normalization, inputs):
        self._seed = seed
        self._plain = PlainBlocks(("discriminator", seed), initializer)
        self._normalization = normalization
        self._call = {}
        if normalization.gamma == "shared":
            self._call = {"gamma": Gamma(name="scale")(inputs)}

    def _normalized(self, wrapper, layer, name):
        return wrapper(
            layer,
            scale=self._normalization.scale,
            gamma=self._normalization.gamma != "none",
            u_seed=initializer_seed(self._seed, f"{name}/u"),
            name=name,
        )

    def dense(self, x, name, units):
        layer = self._plain.dense(name, units)
        return self._normalized(SpectralNormDense, layer, name)(x, **self._call)

    def conv(self, x, name, filters, size, *, strides=1):
        return self._normalized_conv(x, self._plain.conv(name, filters, size, strides))

    def residual_conv(self, x, name, filters, size, *, resample=None):
        return self._normalized_conv(x, self._plain.residual_conv(name, filters, size, resample))

    def _normalized_conv(self, x, layer):
        wrapper = SN_MODES[self._normalization.sn_mode]
        return self._normalized(wrapper, layer, layer.name)(x, **self._call)
