"""Wrappers that apply a function of a layer's weights in their place."""

from typing import Any, ClassVar

import keras
import tensorflow as tf

from common.layers.image_weights import weighted_bias_add, weighted_linear
from common.layers.linear_maps import LINEAR_LAYERS, LinearMap, linear_map


@keras.saving.register_keras_serializable(package="bsn")
class Gamma(keras.layers.Layer):
    """A trainable scalar, initially 1, that several wrapped layers of a model may share.

    It is a layer of its own, so that the sharing is a part of the model's graph and survives
    saving, loading and cloning the model:

        gamma = Gamma()(inputs)
        x = SpectralNormConv2D(Conv2D(64, 3), gamma=True)(inputs, gamma=gamma)
        x = SpectralNormConv2D(Conv2D(64, 3), gamma=True)(x, gamma=gamma)

    Call arguments:
        inputs: any tensor of the model. It ties the scalar to the graph; its values are unused.

    Returns:
        The scalar, shape `()`, in the layer's variable dtype (float32 under mixed precision).
    """

    # Its gradient comes by way of the wrappers' weights, whose own are weighted already.
    takes_image_weights = True

    def build(self, inputs_shape: tuple[int | None, ...]) -> None:
        del inputs_shape
        self.gamma = self.add_weight(name="gamma", shape=(), initializer="ones", autocast=False)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        del inputs
        return tf.convert_to_tensor(self.gamma)


class Reparametrized(keras.layers.Wrapper):
    """Applies `factor * gamma * W` in place of a layer's kernel `W`; use one of the subclasses.

    Args:
        layer: the `keras.layers` layer, of one of the classes the subclass is for.
        scale: constant factor on the kernel; not on the bias.
        gamma: whether a trainable scalar multiplies the kernel **and** the bias. It is the layer's
            own unless a shared one (see `Gamma`) is passed at every call.
        **kwargs: as of `keras.layers.Layer`. Inputs are cast to the wrapped layer's compute dtype,
            which is that of the outputs; a `dtype` given here has no effect.

    Call arguments:
        inputs: as of the wrapped layer.
        gamma: optional scalar tensor used in place of the layer's own.
        training: whether it is a training-mode pass.

    Raises:
        TypeError: `layer` is of another class.
        ValueError: `scale` is not a positive finite number, or the wrapped layer has LoRA enabled.
    """

    wraps: ClassVar[tuple[type[keras.Layer], ...]] = LINEAR_LAYERS

    def __init__(
        self, layer: keras.Layer, scale: float = 1.0, gamma: bool = False, **kwargs: Any
    ) -> None:
        if not isinstance(layer, self.wraps):
            raise TypeError(
                f"{type(self).__name__} is for layers of {[cls.__name__ for cls in self.wraps]}. "
                f"Received: layer={layer!r} of type {type(layer).__name__}"
            )
        if not 0 < scale < float("inf"):
            raise ValueError(f"`scale` must be positive and finite. Received: scale={scale!r}")
        # An estimate needs the weights in full precision, so Keras must not cast them on reading,
        # which it does in layers whose policy is mixed. `call` casts to the wrapped layer's.
        kwargs["dtype"] = layer.variable_dtype
        super().__init__(layer, autocast=False, **kwargs)
        self.scale = float(scale)
        self.gamma = bool(gamma)

    def build(
        self,
        inputs_shape: tuple[int | None, ...],
        gamma_shape: tuple[int, ...] | None = None,
    ) -> None:
        super().build(inputs_shape)
        if getattr(self.layer, "lora_enabled", False):
            raise ValueError(f"{self.name}: a layer with LoRA enabled cannot be wrapped.")
        self._build_factor(inputs_shape)
        self.own_gamma = None
        if self.gamma and gamma_shape is None:
            self.own_gamma = self.add_weight(name="gamma", shape=(), initializer="ones")

    def _build_factor(self, inputs_shape: tuple[int | None, ...]) -> None:
        """Adds the variables that `_factor` reads; the wrapped layer is built."""

    def _factor(self, training: bool) -> tf.Tensor | float:
        """What multiplies the kernel, gamma apart: a scalar."""
        del training
        return self.scale

    @property
    def _map(self) -> LinearMap:
        return linear_map(self.layer)

    def _full_precision_dtype(self) -> str:
        return "float64" if self.variable_dtype == "float64" else "float32"

    def _kernel(self) -> tf.Tensor:
        return tf.cast(tf.convert_to_tensor(self._map.kernel), self._full_precision_dtype())

    def normalized_weights(
        self, gamma: tf.Tensor | None = None, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """The kernel and bias that `call` applies, differentiable, at least in float32.

        Args:
            gamma: optional scalar tensor used in place of the layer's own.
            training: whether they are a training-mode pass's, with what it stores.

        Returns:
            `(factor * gamma * W, gamma * bias)`; the bias is None where there is none.
        """
        dtype = self._full_precision_dtype()
        kernel = self._kernel()
        factor = self._factor(training)
        variable = self._map.bias
        bias = None if variable is None else tf.cast(tf.convert_to_tensor(variable), dtype)
        if gamma is None and self.own_gamma is not None:
            gamma = tf.convert_to_tensor(self.own_gamma)
        if gamma is not None:
            gamma = tf.cast(gamma, dtype)
            factor *= gamma
            bias = None if bias is None else gamma * bias
        return factor * kernel, bias

    def call(
        self, inputs: tf.Tensor, gamma: tf.Tensor | None = None, training: bool = False
    ) -> tf.Tensor:
        if self.gamma and gamma is None and self.own_gamma is None:
            raise ValueError(
                f"{self.name} was built with a shared gamma; pass it at every call (gamma=...)."
            )
        weights = self.normalized_weights(gamma, training)
        kernel, bias = (
            None if w is None else tf.cast(w, self.layer.compute_dtype) for w in weights
        )
        outputs = self._affine(self._map.to_inputs(inputs), kernel, bias)
        return self._map.activate(outputs)

    def _affine(self, inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None) -> tf.Tensor:
        outputs = weighted_linear(self._map.apply, inputs, kernel)
        return outputs if bias is None else weighted_bias_add(self._map.add_bias, outputs, bias)

    def compute_output_shape(
        self,
        inputs_shape: tuple[int | None, ...],
        gamma_shape: tuple[int, ...] | None = None,
    ) -> tuple[int | None, ...]:
        del gamma_shape
        return tuple(self.layer.compute_output_shape(inputs_shape))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale, "gamma": self.gamma}


@keras.saving.register_keras_serializable(package="bsn")
class Unnormalized(Reparametrized):
    """A `Conv2D`, `Conv2DTranspose`, `Dense` or `Embedding` whose weights are not normalised.

    A discriminator made of such layers trains by the same steps as a normalised one; `scale` and
    `gamma` still apply. Arguments, calls and errors as in `Reparametrized`.
    """

    takes_image_weights = True
