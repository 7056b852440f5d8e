"""Writing a large `.npy` file of images, batch by batch, under its name only when complete.

One process writes the batches in order, or several do, each at the place where the images belong
if none is skipped, and one process takes them in.
"""

import contextlib
import fcntl
import io
import math
import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from common.errors import UserError


class ArrayWriter:
    """Collects images in a file whose header is settled at the end.

    Args:
        file: opened for reading and writing bytes, unbuffered, empty.
        image_shape: (height, width, channels) of every image.

    Attributes:
        places: where other processes may write, see `Places`, as long as `write_array` lasts: they
            must have ended before it does.
        count: the number of images so far.
    """

    def __init__(self, file: FileIO, image_shape: tuple[int, int, int]):
        self.count = 0
        self._file = file
        self._image_shape = image_shape
        self.places = Places(Path(file.name), image_shape, len(self._header()))

    def append(self, batch: np.ndarray) -> None:
        """Writes uint8 `[n, H, W, C]` behind what there is; raises as `Places.fill`."""
        self.places.fill(self._file, self.count, batch)
        self.count += len(batch)

    def take(self, first: int, count: int) -> None:
        """Takes in what was written by `places.fill`, closing a gap before it.

        Args:
            first: the place of the first image, not before the end of what there is.
            count: the number of images, in a row.

        Raises:
            OSError: as of reading and writing.
            ValueError: the place is taken.
        """
        if first < self.count:
            raise ValueError(f"place {first} is taken, {self.count} images are there")
        if first > self.count and count:
            self.places.fill(self._file, self.count, self.places.read(self._file, first, count))
        self.count += count

    def finish(self) -> None:
        """Writes the header, with the count; cuts off what stands behind the last image.

        Raises:
            OSError: as of writing.
        """
        self._file.seek(0)
        _write_all(self._file, self._header())
        self._file.truncate(self.places.start(self.count))

    def _header(self) -> bytes:
        """NumPy leaves room for the count's digits: the length is always the same."""
        file = io.BytesIO()
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.count, *self._image_shape)}
        np.lib.format.write_array_header_1_0(file, header)
        return file.getvalue()


class Places(NamedTuple):
    """Where the images stand in the file that is being written; for any process.

    Attributes:
        path: the unfinished file.
        image_shape: (height, width, channels) of every image.
        offset: the length of the header.
    """

    path: Path
    image_shape: tuple[int, int, int]
    offset: int

    def start(self, number: int) -> int:
        """Returns the place in the file of an image, by its number from 0."""
        return self.offset + number * math.prod(self.image_shape)

    def open(self) -> FileIO:
        """Opens the file for `fill`; raises OSError as of opening."""
        return self.path.open("r+b", buffering=0)

    def fill(self, file: FileIO, first: int, batch: np.ndarray) -> None:
        """Writes images from a place on.

        Args:
            file: the file, opened for writing bytes, unbuffered.
            first: the place of the first image.
            batch: uint8 `[n, H, W, C]`.

        Raises:
            OSError: as of writing.
            ValueError: another dtype or shape.
        """
        if batch.dtype != np.uint8 or batch.shape[1:] != self.image_shape:
            found = f"{batch.dtype} {batch.shape}"
            raise ValueError(f"expected uint8 [n, *{self.image_shape}], got {found}")
        file.seek(self.start(first))
        _write_all(file, batch.reshape(-1).data)

    def read(self, file: FileIO, first: int, count: int) -> np.ndarray:
        """Reads `count` images, uint8 `[n, H, W, C]`, from a place on; see `fill`."""
        images = np.empty((count, *self.image_shape), np.uint8)
        file.seek(self.start(first))
        rest = images.reshape(-1).data
        while rest:
            got = file.readinto(rest)
            if not got:
                raise OSError(f"{self.path}: ends before image {first + count}")
            rest = rest[got:]
        return images


def _write_all(file: FileIO, data: bytes | memoryview) -> None:
    while len(data):
        data = data[file.write(data) :]


@contextlib.contextmanager
def write_array(target: Path, image_shape: tuple[int, int, int]) -> Iterator[ArrayWriter]:
    """Writes `<target>.part`, which takes the place of `target` only if the block ends well.

    Args:
        target: the final `.npy` file; what is there stays until then.
        image_shape: (height, width, channels) of every image.

    Raises:
        UserError: another process writes the same file.
        OSError: as of writing.
    """
    part = target.with_name(target.name + ".part")
    with part.open("ab") as lock:  # by name only, lest another process's work be truncated
        _lock(lock, part)
        try:
            with part.open("w+b", buffering=0) as file:
                writer = ArrayWriter(file, image_shape)
                yield writer
                writer.finish()
                os.fsync(file.fileno())
            part.replace(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _lock(file: BinaryIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when closed, or by death
    except BlockingIOError:
        raise UserError(f"{path}: another process writes it; wait for that to end") from None
