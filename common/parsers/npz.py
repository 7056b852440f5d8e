"""Reading `.npz` files that may be anything."""

import contextlib
import io
import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from common.errors import UserError
from common.parsers.npy import MAX_HEADER, read_header

# Images are rarely packed tenfold; a few kilobytes can pretend to be gigabytes.
_MAX_RATIO = 100
_ALWAYS_UNPACKED = 64 * 2**20
_SUFFIX = ".npy"

# What NumPy's reader and the modules below it raise on bytes that they did not write.
UNREADABLE = (
    *(OSError, ValueError, EOFError, KeyError, AttributeError, TypeError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError),
    *(MemoryError, OverflowError, RecursionError, tokenize.TokenError, lzma.LZMAError),
)


class NpzFile:
    """A `.npz` file that may be anything: only what is asked for is unpacked, and not unpickled.

    Attributes:
        path: The file.
        headers: An `ArrayHeader` for the name of each array.
    """

    def __init__(self, path: Path) -> None:
        """Reads the headers.

        Raises:
            UserError: The file is not one, or is damaged.
        """
        self.path = path
        with self._opened() as archive:
            members = [name for name in archive.namelist() if name.endswith(_SUFFIX)]
            self.headers = {
                name.removesuffix(_SUFFIX): _read_header(archive, name) for name in members
            }

    def read(self, name: str) -> np.ndarray:
        """Unpacks an array.

        Raises:
            UserError: It is damaged, is longer or shorter than its header says, has Python objects
                in it, or needs more memory than there is.
        """
        header, available = self.headers[name], psutil.virtual_memory().available
        if header.size > _ALWAYS_UNPACKED + _MAX_RATIO * self.path.stat().st_size:
            raise UserError(
                f"{self.path}: {name} unpacks to {header.size:,} bytes, more than {_MAX_RATIO} "
                "times the file's size; if that is right, store it uncompressed (numpy.savez)"
            )
        if header.size > available:
            raise UserError(
                f"{self.path}: {name}, {header}, needs {header.size:,} bytes of memory and "
                f"{available:,} are there"
            )
        with self._opened() as archive:
            stored = archive.getinfo(name + _SUFFIX).file_size
            if stored != header.offset + header.size:
                raise ValueError(f"{name} has {stored:,} bytes, expected is {header}")
            with archive.open(name + _SUFFIX) as file:
                return np.lib.format.read_array(file, allow_pickle=False)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        """Opens the file; turns what reading it may raise into an error for the user."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                yield archive
        except UNREADABLE as error:
            raise UserError(
                f"{self.path} is not a readable .npz file ({error}); make it again"
            ) from error


class ArrayHeader(NamedTuple):
    """What a `.npy` file says of its array, which begins at byte `offset`."""

    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int

    @property
    def size(self) -> int:
        """The array's bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


def _read_header(archive: zipfile.ZipFile, name: str) -> ArrayHeader:
    with archive.open(name) as file:
        shape, _, dtype, offset = read_header(io.BytesIO(file.read(MAX_HEADER)))
    return ArrayHeader(shape, dtype, offset)
