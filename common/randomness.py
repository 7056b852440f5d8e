"""Counter-based randomness: every draw is a function of (seed, what it is for, counters).

Nothing here has hidden state, so a run can be resumed exactly and any iteration replayed alone.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import tensorflow as tf

Counter: TypeAlias = int | tf.Tensor
Shape: TypeAlias = Sequence[int | tf.Tensor] | tf.Tensor


def derive_seed(*path: str | int | tuple[str, int]) -> int:
    """A 64-bit seed for one purpose.

    Args:
        *path: strings and integers that name the purpose, e.g. `(seed, run, "latents")`.

    Returns:
        An integer in `[0, 2**64)`; different paths give independent values.
    """
    digest = hashlib.sha256(repr(path).encode()).digest()
    return int.from_bytes(digest[:8], "little")


def initializer_seed(root_seed: int | tuple[str, int], name: str) -> int:
    """A seed for the initial value of the layer `name`: an integer in `[0, 2**31)`."""
    return derive_seed(root_seed, "initial values", name) >> 33


class RandomStream:
    """Draws for one purpose, addressed by counters.

    The random bits and the integers are the same on every device; normals may differ in their last
    digits between kinds of device, whose logarithms and sines do.

    Args:
        root_seed: the run's.
        purpose: streams of different purposes are independent.
    """

    def __init__(self, root_seed: int, purpose: str) -> None:
        seed = derive_seed(root_seed, purpose)
        self._seed = (seed & 0x7FFFFFFF, seed >> 33)

    def _at(self, counters: Iterable[Counter]) -> tf.Tensor:
        seed = tf.constant(self._seed, tf.int64)
        for counter in counters:
            seed = tf.random.experimental.stateless_fold_in(seed, counter, alg="philox")
        return seed

    def normal(
        self, shape: Shape, *counters: Counter, dtype: str | tf.DType = tf.float32
    ) -> tf.Tensor:
        """Standard-normal values of `shape`, drawn in float32 whatever the dtype returned."""
        return tf.cast(tf.random.stateless_normal(shape, self._at(counters), alg="philox"), dtype)

    def uniform(
        self, shape: Shape, *counters: Counter, dtype: str | tf.DType = tf.float32
    ) -> tf.Tensor:
        """Uniform values in [0, 1) of `shape`, drawn in float32 whatever the dtype returned."""
        return tf.cast(tf.random.stateless_uniform(shape, self._at(counters), alg="philox"), dtype)

    def integers(self, shape: Shape, bound: Counter, *counters: Counter) -> tf.Tensor:
        """Independent integers in `[0, bound)`, int64 of `shape`: a draw with replacement."""
        return tf.random.stateless_uniform(
            shape, self._at(counters), minval=0, maxval=bound, dtype=tf.int64, alg="philox"
        )

    def permuted(self, places: tf.Tensor, total: int, *counters: Counter) -> tf.Tensor:
        """What stands at some places of a random permutation of `[0, total)`.

        Args:
            places: int64 `[n]`, each in `[0, total)`.
            total: length of the permutation, at least 1.
            *counters: which permutation.

        Returns:
            int64 `[n]`; all places together give each integer once.
        """
        last = tf.constant(total - 1, tf.int64)
        return tf.random.experimental.index_shuffle(places, self._at(counters), last)
