"""Spectral normalisation of the paper as Keras layer wrappers: SN, SSN, BSN and BSSN.

For a weight `W` the wrappers apply `scale * gamma * W / sigma` in its place, `sigma` being an
estimate of a spectral norm by one power iteration from a stored vector `u`:

    v = l2(u W2^T),  u' = l2(v W2),  sigma = v W2 u'^T,  l2(x) = x / (|x| + 1e-12)

Gradients flow through all of it, `v` and `u'` included. `u` is a constant of the forward pass: it
moves to `u'` only when `advance_u()` is called, which a training step does once after every
discriminator update (specification, section 1; Miyato et al. 2018, algorithm 1).
"""

import keras
import tensorflow as tf

from common.layers.image_weights import (
    current_image_weights,
    weighted_bias_add,
    weighted_linear,
)

_L2_EPSILON = 1e-12


def _l2_normalize(x):
    return x / (tf.sqrt(tf.reduce_sum(tf.square(x))) + _L2_EPSILON)


def power_iteration(matrix, u):
    """One differentiable power iteration.

    Args:
        matrix: `[m, n]`, float32 or float64.
        u: `[1, n]`, same dtype, any non-zero vector.

    Returns:
        `(sigma, u_next)`: the scalar estimate of the matrix's spectral norm, never above it, and
        the next right singular vector estimate, `[1, n]` of unit length.
    """
    v = _l2_normalize(tf.matmul(u, matrix, transpose_b=True))
    vm = tf.matmul(v, matrix)
    u_next = _l2_normalize(vm)
    return tf.reduce_sum(vm * u_next), u_next


@keras.saving.register_keras_serializable(package="bsn")
class Gamma(keras.layers.Layer):
    """A trainable scalar, initially 1, that several normalised layers of a model may share.

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

    def __init__(self, **kwargs):
        super().__init__(**kwargs)

    def build(self, inputs_shape):
        del inputs_shape
        self.gamma = self.add_weight(name="gamma", shape=(), initializer="ones", autocast=False)

    def call(self, inputs):
        del inputs
        return tf.convert_to_tensor(self.gamma)


class SpectralNormalized(keras.layers.Wrapper):
    """What the normalising wrappers share; use one of the subclasses.

    Args:
        layer: the `keras.layers` layer to normalise, of the class the subclass is for.
        scale: constant factor on the normalised weight (SSN, BSSN); not on the bias.
        gamma: whether a trainable scalar multiplies the normalised weight **and** the bias. It is
            the layer's own unless a shared one (see `Gamma`) is passed at every call.
        u_seed: optional integer that makes the initial `u` reproducible.
        **kwargs: as of `keras.layers.Layer`. Inputs are cast to the wrapped layer's compute dtype,
            which is that of the outputs; a `dtype` given here has no effect.

    Call arguments:
        inputs: as of the wrapped layer.
        gamma: optional scalar tensor used in place of the layer's own.

    Raises:
        TypeError: `layer` is of another class.
        ValueError: `scale` is not a positive finite number, or the wrapped layer has LoRA enabled.
    """

    wraps: type[keras.layers.Layer]
    _u_names = ("u",)

    def __init__(self, layer, scale=1.0, gamma=False, u_seed=None, **kwargs):
        if not isinstance(layer, self.wraps):
            raise TypeError(
                f"{type(self).__name__} normalises a {self.wraps.__name__} layer. "
                f"Received: layer={layer!r} of type {type(layer).__name__}"
            )
        if not 0 < scale < float("inf"):
            raise ValueError(f"`scale` must be positive and finite. Received: scale={scale!r}")
        # The estimate needs the weights in full precision, so Keras must not cast them on reading,
        # which it does in layers whose policy is mixed. `call` casts to the wrapped layer's.
        kwargs["dtype"] = layer.variable_dtype
        super().__init__(layer, autocast=False, **kwargs)
        self.scale = float(scale)
        self.gamma = bool(gamma)
        self.u_seed = u_seed

    def build(self, inputs_shape, gamma_shape=None):
        super().build(inputs_shape)
        if getattr(self.layer, "lora_enabled", False):
            raise ValueError(f"{self.name}: a layer with LoRA enabled cannot be normalised.")
        for index, (name, matrix) in enumerate(zip(self._u_names, self._matrices(), strict=True)):
            seed = None if self.u_seed is None else self.u_seed + index
            u = self.add_weight(
                name=name,
                shape=(1, matrix.shape[-1]),
                dtype=self._estimate_dtype(),
                initializer=keras.initializers.TruncatedNormal(stddev=1.0, seed=seed),
                trainable=False,
                autocast=False,
                # Every replica computes the same value from the same weights.
                aggregation="only_first_replica",
            )
            # An attribute each: TensorFlow's checkpoints do not see variables in a list.
            setattr(self, f"_{name}", u)
        self.own_gamma = None
        if self.gamma and gamma_shape is None:
            self.own_gamma = self.add_weight(name="gamma", shape=(), initializer="ones")

    @property
    def u(self):
        """The stored vectors, variables `[1, n]`: one for SN, two for BSN."""
        return [getattr(self, f"_{name}") for name in self._u_names]

    def _matricizations(self, kernel):
        """The kernel as matrices `[m, n]`, one for each stored `u`, whose norms are estimated."""
        raise NotImplementedError

    def _estimate_dtype(self):
        return "float64" if self.variable_dtype == "float64" else "float32"

    def _matrices(self):
        kernel = tf.cast(tf.convert_to_tensor(self.layer.kernel), self._estimate_dtype())
        return self._matricizations(kernel)

    def _estimates(self):
        """`[(sigma, u_next), ...]`, one pair for each stored `u`."""
        return [
            power_iteration(matrix, tf.convert_to_tensor(u))
            for matrix, u in zip(self._matrices(), self.u, strict=True)
        ]

    def sigma(self):
        """The normaliser: mean of the spectral norm estimates from the stored `u`. Scalar."""
        sigmas = [sigma for sigma, _ in self._estimates()]
        return tf.add_n(sigmas) / len(sigmas)

    def sigmas(self):
        """What the summaries show: `[sigma]` for SN, `[mean, sigma1, sigma2]` for BSN. Scalars."""
        sigmas = [sigma for sigma, _ in self._estimates()]
        return sigmas if len(sigmas) == 1 else [tf.add_n(sigmas) / len(sigmas), *sigmas]

    def advance_u(self):
        """Replaces each stored `u` by `u'` of the current weights.

        To be called after a discriminator update, and never by a generator step.
        """
        for u, (_, u_next) in zip(self.u, self._estimates(), strict=True):
            u.assign(u_next)

    def normalized_weights(self, gamma=None):
        """The kernel and bias that `call` applies, differentiable, at least in float32.

        Args:
            gamma: optional scalar tensor used in place of the layer's own.

        Returns:
            `(scale * gamma * W / sigma, gamma * bias)`; the bias is None where there is none.
        """
        dtype = self._estimate_dtype()
        kernel = tf.cast(tf.convert_to_tensor(self.layer.kernel), dtype)
        factor = self.scale / self.sigma()
        bias = self.layer.bias
        bias = None if bias is None else tf.cast(tf.convert_to_tensor(bias), dtype)
        if gamma is None and self.own_gamma is not None:
            gamma = tf.convert_to_tensor(self.own_gamma)
        if gamma is not None:
            gamma = tf.cast(gamma, dtype)
            factor *= gamma
            bias = None if bias is None else gamma * bias
        return factor * kernel, bias

    def _linear(self, inputs, kernel):
        """The wrapped layer's linear map with another kernel."""
        raise NotImplementedError

    def _add_bias(self, outputs, bias):
        return outputs + bias

    def call(self, inputs, gamma=None):
        if self.gamma and gamma is None and self.own_gamma is None:
            raise ValueError(
                f"{self.name} was built with a shared gamma; pass it at every call (gamma=...)."
            )
        kernel, bias = self.normalized_weights(gamma)
        outputs = self._affine(*(self._to_compute_dtype(x) for x in (inputs, kernel, bias)))
        return self.layer.activation(outputs)

    def _to_compute_dtype(self, tensor):
        return None if tensor is None else tf.cast(tensor, self.layer.compute_dtype)

    def _affine(self, inputs, kernel, bias):
        if current_image_weights() is None:
            outputs = self._linear(inputs, kernel)
            return outputs if bias is None else self._add_bias(outputs, bias)
        outputs = weighted_linear(self._linear, inputs, kernel)
        return outputs if bias is None else weighted_bias_add(self._add_bias, outputs, bias)

    def compute_output_shape(self, inputs_shape, gamma_shape=None):
        del gamma_shape
        return self.layer.compute_output_shape(inputs_shape)

    def get_config(self):
        own = {"scale": self.scale, "gamma": self.gamma, "u_seed": self.u_seed}
        return {**super().get_config(), **own}


class _SpectralNormalizedConv2D(SpectralNormalized):
    wraps = keras.layers.Conv2D

    def _linear(self, inputs, kernel):
        return self.layer.convolution_op(inputs, kernel)

    def _add_bias(self, outputs, bias):
        data_format = "NHWC" if self.layer.data_format == "channels_last" else "NCHW"
        return tf.nn.bias_add(outputs, bias, data_format)


def _flatten_kernel(kernel):
    return tf.reshape(kernel, [-1, kernel.shape[-1]])


@keras.saving.register_keras_serializable(package="bsn")
class SpectralNormConv2D(_SpectralNormalizedConv2D):
    """SN and SSN of a `Conv2D`: the kernel as one matrix `[kh * kw * c_in, c_out]`.

    Arguments, calls and errors as in `SpectralNormalized`. With `scale=1` it is SN, otherwise SSN
    (paper, section 5; specification, section 1).
    """

    def _matricizations(self, kernel):
        return [_flatten_kernel(kernel)]


@keras.saving.register_keras_serializable(package="bsn")
class BidirectionalScaledSN(_SpectralNormalizedConv2D):
    """BSN and BSSN of a `Conv2D`: `sigma` is the mean of two independent estimates.

    The first is SN's, of `[kh * kw * c_in, c_out]`; the second of the kernel with its last two
    axes exchanged, `[kh * kw * c_out, c_in]`. Each has its own `u`. Arguments, calls and errors as
    in `SpectralNormalized`. With `scale=1` it is BSN, otherwise BSSN (paper, section 5;
    specification, section 1).
    """

    _u_names = ("u1", "u2")

    def _matricizations(self, kernel):
        exchanged = tf.transpose(kernel, [0, 1, 3, 2])
        return [_flatten_kernel(kernel), _flatten_kernel(exchanged)]


@keras.saving.register_keras_serializable(package="bsn")
class SpectralNormDense(SpectralNormalized):
    """SN and SSN of a `Dense` layer: the kernel `[in, out]` as it is.

    Arguments, calls and errors as in `SpectralNormalized` (specification, section 1).
    """

    wraps = keras.layers.Dense

    def _matricizations(self, kernel):
        return [kernel]

    def _linear(self, inputs, kernel):
        return (
            tf.matmul(inputs, kernel) if inputs.shape.rank == 2 else tf.tensordot(inputs, kernel, 1)
        )


def spectral_layers(model):
    """The normalised layers of a Keras model, in the order of its layers."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, SpectralNormalized)]
