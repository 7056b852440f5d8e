"""Spectral normalisation of the paper as Keras layer wrappers: SN, SSN, BSN and BSSN.

For a weight `W` the wrappers apply `scale * gamma * W / sigma` in its place, `sigma` being an
estimate of a spectral norm by one power iteration from a stored vector `u`:

    v = l2(u W2^T),  u' = l2(v W2),  sigma = v W2 u'^T,  l2(x) = x / (|x| + 1e-12)

Gradients flow through all of it, `v` and `u'` included. `u` is a constant of the forward pass: it
moves to `u'` only when `advance_u()` is called, which a training step does once after every
discriminator update (specification, section 1; Miyato et al. 2018, algorithm 1).

Other implementations differ in the number of iterations, in what is constant, in when `u` moves and
in `l2`; each of these is an option.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import keras
import tensorflow as tf

from common.keras_private import all_layers
from common.layers.linear_maps import flatten_kernel
from common.layers.power_iteration import (
    Epsilon,
    Estimate,
    Gradient,
    Matrix,
    Operator,
    PowerIteration,
    estimate_from_both,
    one_of,
)
from common.layers.reparametrized import Reparametrized

Advance = Literal["update", "pass"]


class SpectralNormalized(Reparametrized):
    """What the normalising wrappers share; use one of the subclasses.

    Args:
        layer: the `keras.layers` layer to normalise, of the class the subclass is for.
        scale: constant factor on the normalised weight (SSN, BSSN); not on the bias.
        gamma: as in `Reparametrized`.
        u_seed: optional integer that makes the initial `u` (and `v`) reproducible.
        iterations: power iterations of each estimate, at least 1.
        gradient: "through" the vectors `u'` and `v` (the paper's), or with both "constant"
            (PyTorch's, Keras'); see `PowerIteration`.
        advance: when `u` moves on. "update": when `advance_u()` is called (the paper's). "pass": at
            the start of every training-mode pass, the generator step's included; the pass uses
            sigma of the new vectors, which are both stored, and an evaluation-mode pass uses
            `v W2 u^T` of those stored and the current weights (PyTorch's; SN-DCGAN's and
            SNGAN-PROJ's specifications, section 1). The initial `u` is a truncated standard normal
            with "update"; with "pass" `u` and `v` are standard normals divided by their norms.
        epsilon: how 1e-12 enters `l2`: "added" to the norm (the paper's) or as its "maximum" with
            it (PyTorch's).
        **kwargs: as in `Reparametrized`.

    Call arguments and errors as in `Reparametrized`, and:

    Raises:
        ValueError: an option has none of its values.
    """

    _u_names: ClassVar[tuple[str, ...]] = ("u",)

    def __init__(
        self,
        layer: keras.Layer,
        scale: float = 1.0,
        gamma: bool = False,
        u_seed: int | None = None,
        *,
        iterations: int = 1,
        gradient: Gradient = "through",
        advance: Advance = "update",
        epsilon: Epsilon = "added",
        **kwargs: Any,
    ) -> None:
        super().__init__(layer, scale, gamma, **kwargs)
        one_of("advance", advance, ("update", "pass"))
        self.u_seed = u_seed
        self.advance = advance
        self._power_iteration = PowerIteration(iterations, gradient, epsilon)

    def _build_factor(self, inputs_shape: tuple[int | None, ...]) -> None:
        operators = self._operators()
        for index, (name, operator) in enumerate(zip(self._u_names, operators, strict=True)):
            # An attribute each: TensorFlow's checkpoints do not see variables in a list.
            u = self._add_vector(name, operator.output_shape, index)
            setattr(self, f"_{name}", u)
            if self.advances_in_passes:
                v = self._add_vector(_v(name), operator.input_shape, index + len(operators))
                setattr(self, f"_{_v(name)}", v)

    def _add_vector(self, name: str, shape: tuple[int, ...], index: int) -> keras.Variable:
        seed = None if self.u_seed is None else self.u_seed + index
        initializer = _unit_normal if self.advances_in_passes else _truncated_normal
        return self.add_weight(
            name=name,
            shape=shape,
            dtype=self._full_precision_dtype(),
            initializer=initializer(seed),
            trainable=False,
            autocast=False,
            # Every replica computes the same value from the same weights.
            aggregation="only_first_replica",
        )

    @property
    def advances_in_passes(self) -> bool:
        """Whether every training-mode pass moves `u`, so that no two of them have one sigma."""
        return self.advance == "pass"

    @property
    def u(self) -> list[keras.Variable]:
        """The stored vectors, variables `[1, n]`: one for SN, two for BSN."""
        return [getattr(self, f"_{name}") for name in self._u_names]

    @property
    def v(self) -> list[keras.Variable]:
        """The other vectors, `[1, m]`, one for each `u`, where `advances_in_passes`; else none."""
        if not self.advances_in_passes:
            return []
        return [getattr(self, f"_{_v(name)}") for name in self._u_names]

    def _operators(self) -> list[Operator]:
        """The linear maps, one for each stored `u`, whose norms are estimated."""
        return [Matrix(matrix) for matrix in self._matricizations(self._kernel())]

    def _matricizations(self, kernel: tf.Tensor) -> list[tf.Tensor]:
        """The kernel as matrices `[m, n]`, one for each stored `u`."""
        return [self._map.matrix(kernel)]

    def _iterate(self) -> list[Estimate]:
        """The estimates, one for each stored `u`, by power iteration from it."""
        return [
            self._power_iteration(operator, tf.convert_to_tensor(u))
            for operator, u in zip(self._operators(), self.u, strict=True)
        ]

    def _estimates(self) -> list[Estimate]:
        """The estimates of a pass that stores nothing."""
        if not self.advances_in_passes:
            return self._iterate()
        return [
            estimate_from_both(operator, tf.convert_to_tensor(u), tf.convert_to_tensor(v))
            for operator, u, v in zip(self._operators(), self.u, self.v, strict=True)
        ]

    def _factor(self, training: bool) -> tf.Tensor:
        if not (training and self.advances_in_passes):
            return self.scale / self.sigma()
        estimates = self._iterate()
        for u, v, estimate in zip(self.u, self.v, estimates, strict=True):
            u.assign(estimate.u)
            v.assign(estimate.v)
        return self.scale / _mean(estimates)

    def sigma(self) -> tf.Tensor:
        """The normaliser: mean of the spectral norm estimates from what is stored. Scalar."""
        return _mean(self._estimates())

    def sigmas(self) -> list[tf.Tensor]:
        """What the summaries show: `[sigma]` for SN, `[mean, sigma1, sigma2]` for BSN. Scalars."""
        estimates = self._estimates()
        sigmas = [estimate.sigma for estimate in estimates]
        return sigmas if len(sigmas) == 1 else [_mean(estimates), *sigmas]

    def advance_u(self) -> None:
        """Replaces each stored `u` by `u'` of the current weights, unless passes do.

        To be called after a discriminator update, and never by a generator step.
        """
        if self.advances_in_passes:
            return
        for u, estimate in zip(self.u, self._iterate(), strict=True):
            u.assign(estimate.u)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "u_seed": self.u_seed,
            "iterations": self._power_iteration.iterations,
            "gradient": self._power_iteration.gradient,
            "advance": self.advance,
            "epsilon": self._power_iteration.epsilon,
        }


def _v(u_name: str) -> str:
    """The name of the vector that belongs to a `u`: v of u, v1 of u1."""
    return u_name.replace("u", "v")


def _mean(estimates: list[Estimate]) -> tf.Tensor:
    return tf.add_n([estimate.sigma for estimate in estimates]) / len(estimates)


def _truncated_normal(seed: int | None) -> keras.Initializer:
    return keras.initializers.TruncatedNormal(stddev=1.0, seed=seed)


def _unit_normal(seed: int | None) -> Callable[..., tf.Tensor]:
    normal = keras.initializers.RandomNormal(stddev=1.0, seed=seed)

    def initialize(shape: tuple[int, ...], dtype: str | None = None) -> tf.Tensor:
        vector = normal(shape, dtype)
        return vector / tf.norm(vector)

    return initialize


@keras.saving.register_keras_serializable(package="bsn")
class SpectralNormConv2D(SpectralNormalized):
    """SN and SSN of a `Conv2D`: the kernel as one matrix `[kh * kw * c_in, c_out]`.

    Arguments, calls and errors as in `SpectralNormalized`. With `scale=1` it is SN, otherwise SSN
    (paper, section 5; specification, section 1).
    """

    takes_image_weights = True
    wraps = (keras.layers.Conv2D,)


@keras.saving.register_keras_serializable(package="bsn")
class BidirectionalScaledSN(SpectralNormalized):
    """BSN and BSSN of a `Conv2D`: `sigma` is the mean of two independent estimates.

    The first is SN's, of `[kh * kw * c_in, c_out]`; the second of the kernel with its last two
    axes exchanged, `[kh * kw * c_out, c_in]`. Each has its own `u`. Arguments, calls and errors as
    in `SpectralNormalized`. With `scale=1` it is BSN, otherwise BSSN (paper, section 5;
    specification, section 1).
    """

    takes_image_weights = True
    wraps = (keras.layers.Conv2D,)
    _u_names = ("u1", "u2")

    def _matricizations(self, kernel: tf.Tensor) -> list[tf.Tensor]:
        exchanged = tf.transpose(kernel, [0, 1, 3, 2])
        return [flatten_kernel(kernel), flatten_kernel(exchanged)]


@keras.saving.register_keras_serializable(package="bsn")
class SpectralNormDense(SpectralNormalized):
    """SN and SSN of a `Dense` layer: the kernel `[in, out]` as it is.

    Arguments, calls and errors as in `SpectralNormalized` (specification, section 1).
    """

    takes_image_weights = True
    wraps = (keras.layers.Dense,)


@keras.saving.register_keras_serializable(package="bsn")
class SpectralNormConv2DTranspose(SpectralNormalized):
    """SN and SSN of a `Conv2DTranspose`, for a generator: a matrix `[kh * kw * c_in, c_out]`.

    The kernel is `[kh, kw, c_out, c_in]`. Arguments, calls and errors as in `SpectralNormalized`
    (SN-DCGAN's specification, section 1).
    """

    takes_image_weights = True
    wraps = (keras.layers.Conv2DTranspose,)


@keras.saving.register_keras_serializable(package="bsn")
class SpectralNormEmbedding(SpectralNormalized):
    """SN and SSN of an `Embedding`: its rows, one for each class, as the columns of `W2`.

    The embeddings are `[classes, c]` and `W2` is their transpose, so that `u` is `[1, classes]` and
    `v` is `[1, c]`, as in PyTorch. Inputs are integers in [0, classes). Arguments, calls and errors
    as in `SpectralNormalized` (SNGAN-PROJ's specification, section 1).
    """

    takes_image_weights = True
    wraps = (keras.layers.Embedding,)


def spectral_layers(model: keras.Model) -> list[SpectralNormalized]:
    """The normalised layers of a Keras model, in the order of its layers."""
    return [layer for layer in all_layers(model) if isinstance(layer, SpectralNormalized)]
