"""What the training loop sees of a data set: indexed, thread-safe access to uint8 images."""

import abc
import functools
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from common.errors import UserError

Labels = np.ndarray | Callable[[], np.ndarray] | None

_SAMPLE = 256  # images whose pixels are part of a record: some 0.1 s, whatever the data set
_AT_A_TIME = 8  # of those: there are data sets of huge images


class ImageSource(abc.ABC):
    """A finite, indexable set of images of one size.

    Attributes:
        name: the data set's name on the command line, e.g. `cifar10`.
        route: where the images came from: `archive`, `npy`, `tfds`, `sklearn`, or a user's own.
        image_shape: (height, width, channels) of every image.
        description: a small JSON-able description of what was opened: file names, numbers.
        classes: the number of classes, of a set with labels; else None.
        real_with_replacement: whether metrics draw real images with replacement, as the row of
            the data set says.
    """

    name: str
    route: str
    image_shape: tuple[int, int, int]
    description: dict[str, Any]
    classes: int | None = None
    real_with_replacement: bool = False

    @functools.cached_property
    def labels(self) -> np.ndarray | None:
        """The class of every image, int64 `[N]`, 0..classes-1, read-only; None if there are none.

        They are in memory, and read when they are first asked for: a set without usable labels
        serves training without them.

        Raises:
            UserError: the labels are missing or not as they should be.
        """
        labels = self.read_labels()
        if labels is None:
            return None
        return _checked(labels, len(self), self.classes, f"data set {self.name}")

    def read_labels(self) -> np.ndarray | None:
        """Reads the labels, integers `[N]`, for `labels`; None of a set that has none."""
        return None

    @functools.cached_property
    def labels_sha256(self) -> str | None:
        """The SHA-256, in hexadecimal, of all labels as little-endian int64, or None.

        It is no part of the `record`, which runs without labels compare.
        """
        if self.labels is None:
            return None
        return hashlib.sha256(self.labels.astype("<i8").tobytes()).hexdigest()

    @functools.cached_property
    def record(self) -> dict[str, Any]:
        """The description, and `sample_sha256`, which tells other images of the same form.

        That is the SHA-256, in hexadecimal, of 256 evenly spaced images, the first and the last
        among them; of all, if there are no more. They are read when the record is first asked for.
        A run stores it and compares it on resuming, so that training does not silently go on with
        other data; the statistics of real images are cached by it.

        Raises:
            UserError: an image cannot be read.
        """
        count = len(self)
        size = min(count, _SAMPLE)
        sample = np.arange(size) * (count - 1) // max(size - 1, 1)
        digest = hashlib.sha256()
        for start in range(0, len(sample), _AT_A_TIME):
            digest.update(self.read(sample[start : start + _AT_A_TIME]).data)
        return {**self.description, "sample_sha256": digest.hexdigest()}

    @abc.abstractmethod
    def __len__(self) -> int:
        """Returns the number of images."""

    @abc.abstractmethod
    def read(self, indices: np.ndarray) -> np.ndarray:
        """Reads images by position; may be called from several threads at once.

        Args:
            indices: int64 `[n]`, each in `[0, len(self))`, repetitions allowed.

        Returns:
            uint8 `[n, H, W, C]`, values 0..255, RGB; a new array which the caller may modify.

        Raises:
            IndexError: an index lies outside `[0, len(self))`.
        """


class ArraySource(ImageSource):
    """Images in one array, in memory or memory-mapped.

    Args:
        name: see `ImageSource`.
        route: see `ImageSource`.
        images: uint8 `[N, H, W, C]`; it is referred to, not copied.
        description: see `ImageSource`.
        labels: integers `[N]`, 0..classes-1, or a function that returns them when they are first
            asked for; None if there are none.
        classes: their number of classes.

    Raises:
        UserError: the labels are not as they should be.
    """

    def __init__(
        self,
        name: str,
        route: str,
        images: np.ndarray,
        description: dict[str, Any],
        *,
        labels: Labels = None,
        classes: int | None = None,
    ) -> None:
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(f"expected uint8 [N, H, W, C], got {images.dtype} {images.shape}")
        self.name = name
        self.route = route
        self.image_shape = images.shape[1:]
        self.description = description
        self.classes = classes
        self._images = np.asarray(images)  # a plain view, lest np.memmap leak out of read()
        self._labels = labels
        if not callable(labels):
            _ = self.labels  # which checks them

    def __len__(self) -> int:
        return len(self._images)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """See `ImageSource.read`."""
        if np.min(indices, initial=0) < 0:  # NumPy would count these from the end
            raise IndexError(f"negative image index {np.min(indices)}")
        return np.take(self._images, indices, axis=0)

    def read_labels(self) -> np.ndarray | None:
        """See `ImageSource.read_labels`."""
        return self._labels() if callable(self._labels) else self._labels


def _checked(labels: np.ndarray, count: int, classes: int | None, what: str) -> np.ndarray:
    """Returns the labels as int64, read-only; what is wrong with them is a UserError."""
    if classes is None:
        raise UserError(f"{what}: has labels; its row must say how many classes (classes=...)")
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise UserError(
            f"{what}: its labels are {labels.dtype} {list(labels.shape)}, where integers [{count}] "
            "are needed, one for each image"
        )
    if count and not 0 <= labels.min() <= labels.max() < classes:
        raise UserError(
            f"{what}: its labels are {labels.min()} to {labels.max()}, where 0 to {classes - 1} "
            "are needed"
        )
    labels = labels.astype(np.int64)
    labels.flags.writeable = False
    return labels
