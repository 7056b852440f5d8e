"""Writing a large `.npy` file of pictures, batch by batch, under its name only when complete."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from common.errors import UserError


class ArrayWriter:
    """Appends pictures to a file whose header is settled at the end.

    Args:
        file: opened for binary writing, empty.
        image_shape: (height, width, channels) of every picture.

    Attributes:
        count: the number of pictures appended so far.
    """

    def __init__(self, file: BinaryIO, image_shape: tuple[int, int, int]):
        self.count = 0
        self._file = file
        self._shape = image_shape
        self._write_header()

    def append(self, batch: np.ndarray) -> None:
        """Writes uint8 `[n, H, W, C]` behind what there is."""
        if batch.dtype != np.uint8 or batch.shape[1:] != self._shape:
            raise ValueError(f"expected uint8 [n, {self._shape}], got {batch.dtype} {batch.shape}")
        self._file.write(np.ascontiguousarray(batch).data)
        self.count += len(batch)

    def finish(self) -> None:
        """Writes the header again, now with the count; NumPy leaves room for its digits."""
        self._file.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.count, *self._shape)}
        np.lib.format.write_array_header_1_0(self._file, header)


@contextlib.contextmanager
def write_array(target: Path, image_shape: tuple[int, int, int]) -> Iterator[ArrayWriter]:
    """Writes `<target>.part`, which takes the place of `target` only if the block ends well.

    Args:
        target: the final `.npy` file; what is there stays until then.
        image_shape: (height, width, channels) of every picture.

    Raises:
        UserError: another process writes the same file.
        OSError: as of writing.
    """
    part = target.with_name(target.name + ".part")
    with part.open("ab") as lock:  # by name only, lest another process's work be truncated
        _lock(lock, part)
        try:
            with part.open("wb") as file:
                writer = ArrayWriter(file, image_shape)
                yield writer
                writer.finish()
                file.flush()
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
