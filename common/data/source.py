"""What the training loop sees of a data set: indexed, thread-safe access to uint8 pictures."""

import abc
import functools
import hashlib
from typing import Any

import numpy as np

_SAMPLE = 256  # pictures whose pixels are part of a record: some 0.1 s, whatever the data set
_AT_A_TIME = 8  # of those: there are data sets of huge pictures


class ImageSource(abc.ABC):
    """A finite, indexable set of pictures of one size.

    Attributes:
        name: the data set's name on the command line, e.g. `cifar10`.
        route: where the pictures came from: `archive`, `npy`, `tfds` or `sklearn`.
        image_shape: (height, width, channels) of every picture.
        description: a small JSON-able description of what was opened: file names, numbers.
    """

    name: str
    route: str
    image_shape: tuple[int, int, int]
    description: dict[str, Any]

    @functools.cached_property
    def record(self) -> dict[str, Any]:
        """The description, and `sample_sha256`, which tells other pictures of the same form.

        That is the SHA-256, in hexadecimal, of 256 evenly spaced pictures, the first and the last
        among them; of all, if there are no more. They are read when the record is first asked for.
        A run stores it and compares it on resuming, so that training does not silently go on with
        other data; the statistics of real pictures are cached by it.

        Raises:
            UserError: a picture cannot be read.
        """
        count = len(self)
        size = min(count, _SAMPLE)
        sample = np.arange(size) * (count - 1) // max(size - 1, 1)
        digest = hashlib.sha256()
        for start in range(0, len(sample), _AT_A_TIME):
            digest.update(self.read(sample[start : start + _AT_A_TIME]))
        return {**self.description, "sample_sha256": digest.hexdigest()}

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
        description: see `ImageSource`.
    """

    def __init__(self, name: str, route: str, images: np.ndarray, description: dict[str, Any]):
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(f"expected uint8 [N, H, W, C], got {images.dtype} {images.shape}")
        self.name = name
        self.route = route
        self.image_shape = images.shape[1:]
        self.description = description
        self._images = np.asarray(images)  # a plain view, lest np.memmap leak out of read()

    def __len__(self) -> int:
        return len(self._images)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """See `ImageSource.read`."""
        if np.min(indices, initial=0) < 0:  # NumPy would count these from the end
            raise IndexError(f"negative picture index {np.min(indices)}")
        return np.take(self._images, indices, axis=0)
