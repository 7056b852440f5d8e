"""What the training loop sees of a data set: indexed, thread-safe access to uint8 pictures."""

import abc
from typing import Any

import numpy as np


class ImageSource(abc.ABC):
    """A finite, indexable set of pictures of one size.

    Attributes:
        name: the data set's name on the command line, e.g. `cifar10`.
        route: where the pictures came from: `archive`, `npy`, `tfds` or `sklearn`.
        image_shape: (height, width, channels) of every picture.
        record: a small JSON-able description of what was opened. A run stores it and compares it
            on resuming, so that training does not silently go on with other data.
    """

    name: str
    route: str
    image_shape: tuple[int, int, int]
    record: dict[str, Any]

    @abc.abstractmethod
    def __len__(self) -> int:
        """Returns the number of pictures."""

    @abc.abstractmethod
    def read(self, indices: np.ndarray) -> np.ndarray:
        """Reads pictures by position; may be called from several threads at once.

        Args:
            indices: int64 `[n]`, each in `[0, len(self))`, repetitions allowed.

        Returns:
            uint8 `[n, H, W, C]`, values 0..255, RGB; a new array which the caller may modify.

        Raises:
            IndexError: an index lies outside `[0, len(self))`.
        """


class ArraySource(ImageSource):
    """Pictures in one array, in memory or memory-mapped.

    Args:
        name: see `ImageSource`.
        route: see `ImageSource`.
        images: uint8 `[N, H, W, C]`; it is referred to, not copied.
        record: see `ImageSource`.
    """

    def __init__(self, name: str, route: str, images: np.ndarray, record: dict[str, Any]):
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(f"expected uint8 [N, H, W, C], got {images.dtype} {images.shape}")
        self.name = name
        self.route = route
        self.image_shape = images.shape[1:]
        self.record = record
        self._images = np.asarray(images)  # a plain view, lest np.memmap leak out of read()

    def __len__(self) -> int:
        return len(self._images)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """See `ImageSource.read`."""
        if np.min(indices, initial=0) < 0:  # NumPy would count these from the end
            raise IndexError(f"negative picture index {np.min(indices)}")
        return np.take(self._images, indices, axis=0)
