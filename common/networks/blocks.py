"""The layers that the networks are made of, with the paper's initial values.

A layer's name is the original's variable scope with dots for slashes: `layer1.conv2d` holds what
the original calls `discriminator/layer1/conv2d/...`.
"""

from collections.abc import Callable

import keras

from common.layers import (
    BatchNorm,
    Gamma,
    MeanPoolingConv2D,
    ResidualConv2D,
    UpsamplingConv2D,
)
from common.networks import NetworkSpec
from common.randomness import initializer_seed

Initializer = Callable[[int, str], keras.initializers.Initializer]

RESIDUAL = {None: ResidualConv2D, "up": UpsamplingConv2D, "down": MeanPoolingConv2D}

_PART_INDEX = {"block1": 0, "block2": 1, "shortcut": 2}


def summary_index(layer_name: str) -> str:
    """What the summaries call a layer: `layer3.conv2d` is "3", `layer2.down_resnet.shortcut.conv2d`
    is "2_2" (parts `block1`, `block2` and `shortcut` being 0, 1 and 2)."""
    layer, *scopes = layer_name.split(".")
    parts = [str(_PART_INDEX[scope]) for scope in scopes if scope in _PART_INDEX]
    return "_".join([layer.removeprefix("layer"), *parts])


def to_images(x: keras.KerasTensor) -> keras.KerasTensor:
    """`tanh` of features, in the variables' precision also under a mixed dtype policy."""
    dtype = keras.config.dtype_policy().variable_dtype
    return keras.layers.Activation("tanh", dtype=dtype)(x)


class Blocks:
    """Layers of one network, normalised as its spec says. Each is a function of its inputs.

    Args:
        scope: "generator" or "discriminator"; initial values depend on the spec's seed, on this and
            on the layer's name alone.
        spec: the `NetworkSpec`.
        initializer: `f(seed, kind) -> keras initializer` of a kernel, `kind` being "dense",
            "conv" or "residual" (a 3x3 convolution inside a residual block).
        inputs: the model's input tensor, which a shared gamma is tied to.
    """

    def __init__(
        self, scope: str, spec: NetworkSpec, initializer: Initializer, inputs: keras.KerasTensor
    ) -> None:
        self._scope = scope
        self._seed = spec.seed
        self._normalization = spec.normalization
        self._initializer = initializer
        self._call = {}
        if spec.normalization.gamma == "shared":
            self._call = {"gamma": Gamma(name="scale")(inputs)}

    def dense(self, x: keras.KerasTensor, name: str, units: int) -> keras.KerasTensor:
        """A dense layer."""
        kernel = self._kernel(name, "dense")
        layer = keras.layers.Dense(units, kernel_initializer=kernel, name=name)
        return self._normalized(self._normalization.row.dense, layer, x)

    def conv(
        self, x: keras.KerasTensor, name: str, filters: int, size: int, strides: int = 1
    ) -> keras.KerasTensor:
        """A convolution with padding."""
        layer = keras.layers.Conv2D(
            filters,
            size,
            strides,
            padding="same",
            kernel_initializer=self._kernel(name, "conv"),
            name=name,
        )
        return self._normalized(self._normalization.row.conv, layer, x)

    def residual_conv(
        self, x: keras.KerasTensor, name: str, filters: int, size: int, resample: str | None = None
    ) -> keras.KerasTensor:
        """A block's convolution, after upsampling ("up") or before mean pooling ("down") if any."""
        kernel = self._kernel(name, "conv" if size == 1 else "residual")
        layer = RESIDUAL[resample](filters, size, kernel_initializer=kernel, name=name)
        return self._normalized(self._normalization.row.conv, layer, x)

    def deconv(
        self, x: keras.KerasTensor, name: str, filters: int, size: int, strides: int
    ) -> keras.KerasTensor:
        """A transposed convolution with padding."""
        layer = keras.layers.Conv2DTranspose(
            filters,
            size,
            strides,
            padding="same",
            kernel_initializer=self._kernel(name, "conv"),
            name=name,
        )
        return self._normalized(self._normalization.row.deconv, layer, x)

    def batch_norm(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """The generator's batch normalisation."""
        return BatchNorm(name=name)(x)

    def features_norm(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """What normalises the features of a hidden layer (batch or layer norm), if anything."""
        features = self._normalization.row.features
        return x if features is None else features(name=name)(x)

    def _kernel(self, name: str, kind: str) -> keras.initializers.Initializer:
        return self._initializer(initializer_seed((self._scope, self._seed), name), kind)

    def _normalized(
        self, wrap: Callable[..., keras.Layer] | None, layer: keras.Layer, x: keras.KerasTensor
    ) -> keras.KerasTensor:
        normalization = self._normalization
        if wrap is None:
            raise TypeError(f"the normalisation is not offered for {layer.name}, a {type(layer)}")
        options = {}
        if normalization.row.is_spectral:
            seed = self._seed if self._scope == "discriminator" else (self._scope, self._seed)
            options = {"u_seed": initializer_seed(seed, f"{layer.name}/u")}
            options |= normalization.estimate
        wrapped = wrap(
            layer,
            scale=normalization.scale,
            gamma=normalization.gamma != "none",
            name=layer.name,
            **options,
        )
        return wrapped(x, **self._call)
