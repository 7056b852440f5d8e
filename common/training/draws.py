"""Which real images each step is trained on, by counters alone."""

from typing import Any

import tensorflow as tf

from common.randomness import RandomStream


class WithReplacement:
    """Real images are drawn independently, as many in every step (FIDELITY section 4).

    Args:
        total: number of images.
        size: of a batch.
        keeps_last: of no effect: there is no last batch.
        root_seed: the run's.
    """

    def __init__(self, total: int, size: int, keeps_last: bool, root_seed: int) -> None:
        del keeps_last
        self._total = total
        self._size = size
        self._stream = RandomStream(root_seed, "real images")

    def indices(self, iteration: Any, step: Any, n_dis: int) -> tf.Tensor:
        """Indices int64 `[size]` of a step's images."""
        del n_dis
        return self._stream.integers([self._size], self._total, iteration, step)


class Shuffled:
    """Real images in epochs, each a permutation of its own of all images.

    Epochs follow each other without regard to iterations.

    Args:
        total, size, root_seed: as in `WithReplacement`.
        keeps_last: whether an epoch's last batch, as small as what is left, is used or left out.
    """

    def __init__(self, total: int, size: int, keeps_last: bool, root_seed: int) -> None:
        self._total = total
        self._size = size
        self._stream = RandomStream(root_seed, "epochs")
        self._steps = max(-(-total // size) if keeps_last else total // size, 1)
        self._is_even = not keeps_last or total % size == 0

    def indices(self, iteration: Any, step: Any, n_dis: int) -> tf.Tensor:
        """Indices int64 `[size]` of a step's images, fewer in an epoch's last batch."""
        count = iteration * n_dis + step
        epoch, position = count // self._steps, count % self._steps
        places = position * self._size + tf.range(self._size, dtype=tf.int64)
        if not self._is_even:
            places = places[: self._total - position * self._size]
        return self._stream.permuted(places, self._total, epoch)
