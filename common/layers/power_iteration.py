"""Estimates of spectral norms by power iteration, in the forms that implementations of SN have."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import tensorflow as tf

Gradient = Literal["through", "constant"]
Epsilon = Literal["added", "maximum"]

_EPSILON = 1e-12
# The denominator of l2(x), as a function of |x|.
_DENOMINATORS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "added": lambda norm: norm + _EPSILON,
    "maximum": lambda norm: tf.maximum(norm, _EPSILON),
}
_AFTER_EACH_VECTOR: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "through": lambda vector: vector,
    "constant": tf.stop_gradient,
}


class Operator(Protocol):
    """A linear map `A`, differentiable with respect to the weights that it is made of.

    Attributes:
        input_shape, output_shape: shapes of the vectors `v` and `u`.
    """

    @property
    def input_shape(self) -> tuple[int, ...]: ...

    @property
    def output_shape(self) -> tuple[int, ...]: ...

    def apply(self, v: tf.Tensor) -> tf.Tensor:
        """`A v`."""

    def adjoint(self, u: tf.Tensor) -> tf.Tensor:
        """`A^T u`."""


@dataclass(frozen=True)
class Matrix:
    """`v -> v W2`, for row vectors.

    Attributes:
        matrix: `W2`, `[m, n]`; `v` is `[1, m]` and `u` `[1, n]`.
    """

    matrix: tf.Tensor

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (1, self.matrix.shape[0])

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (1, self.matrix.shape[1])

    def apply(self, v: tf.Tensor) -> tf.Tensor:
        return tf.matmul(v, self.matrix)

    def adjoint(self, u: tf.Tensor) -> tf.Tensor:
        return tf.matmul(u, self.matrix, transpose_b=True)


class Estimate(NamedTuple):
    """A power iteration's result.

    Attributes:
        sigma: the estimate of the spectral norm, a scalar; never above it.
        u, v: the estimates of the left and right singular vectors, of unit length.
    """

    sigma: tf.Tensor
    u: tf.Tensor
    v: tf.Tensor


@dataclass(frozen=True)
class PowerIteration:
    """A differentiable estimate of an operator's spectral norm from a vector `u`:

        v = l2(A^T u),  u' = l2(A v),  sigma = <A v, u'>

    Attributes:
        iterations: how often `v` and `u'` are computed, each time from the last `u'`; at least 1
            (Miyato et al. 2018, appendix A, for 1).
        gradient: "through": the gradient flows through the vectors too (the paper's; specification,
            section 1); "constant": they are constants, so that `dsigma/dA = u' v^T` (PyTorch's and
            Keras' SN; SN-DCGAN's specification, section 1).
        epsilon: `l2(x)` is `x / (|x| + 1e-12)` if "added" (specification, section 1), and
            `x / max(|x|, 1e-12)` if "maximum" (PyTorch).

    Raises:
        ValueError: an attribute has another value.
    """

    iterations: int = 1
    gradient: Gradient = "through"
    epsilon: Epsilon = "added"

    def __post_init__(self) -> None:
        if type(self.iterations) is not int or self.iterations < 1:
            raise ValueError(
                f"`iterations` must be an integer of at least 1. Received: {self.iterations!r}"
            )
        one_of("gradient", self.gradient, _AFTER_EACH_VECTOR)
        one_of("epsilon", self.epsilon, _DENOMINATORS)

    def __call__(self, operator: Operator, u: tf.Tensor) -> Estimate:
        """The estimate from `u`, of the operator's output shape, any non-zero vector."""
        hold = _AFTER_EACH_VECTOR[self.gradient]
        for _ in range(self.iterations):
            v = hold(self._l2_normalize(operator.adjoint(u)))
            image = operator.apply(v)
            u = hold(self._l2_normalize(image))
        return Estimate(tf.reduce_sum(image * u), u, v)

    def _l2_normalize(self, x: tf.Tensor) -> tf.Tensor:
        return x / _DENOMINATORS[self.epsilon](tf.sqrt(tf.reduce_sum(tf.square(x))))


def estimate_from_both(operator: Operator, u: tf.Tensor, v: tf.Tensor) -> Estimate:
    """`sigma = <A v, u>` of given vectors, without an iteration."""
    return Estimate(tf.reduce_sum(operator.apply(v) * u), u, v)


def one_of(name: str, value: object, allowed: Iterable[object]) -> None:
    """Raises ValueError if an argument is not one of the values allowed, an iterable."""
    values = list(allowed)
    if value not in values:
        raise ValueError(f"`{name}` must be one of {values}. Received: {value!r}")
