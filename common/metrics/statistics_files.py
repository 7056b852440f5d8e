"""Stored statistics, as other tools write and read them: `.npz` with `mu` and `sigma`."""

import contextlib
import io
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from common.data.arrays import MAX_HEADER, read_header
from common.errors import UserError
from common.files import atomic_write
from common.metrics.cache import UNREADABLE
from common.metrics.frechet import GaussianStatistics

# Images are rarely packed tenfold; a few kilobytes can pretend to be gigabytes.
_MAX_RATIO = 100
_ALWAYS_UNPACKED = 64 * 2**20
_SUFFIX = ".npy"


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


def read_statistics(file: NpzFile) -> GaussianStatistics:
    """Reads and checks stored statistics.

    Args:
        file: It has `mu` `[d]` and `sigma` `[d, d]`, real; `count`, if it is known.

    Raises:
        UserError: They are not statistics of features.
    """
    path, headers = file.path, file.headers
    length, square = headers["mu"].shape, headers["sigma"].shape
    if len(length) != 1 or not all(length) or square != 2 * length:
        raise UserError(
            f"{path} has mu {list(length)} and sigma {list(square)} instead of [d] and [d, d]; "
            "make it again"
        )
    if any(headers[name].dtype.kind not in "fiu" for name in ("mu", "sigma")):
        raise UserError(f"{path} has statistics that are not finite numbers; make it again")
    if "count" in headers and (headers["count"].shape or headers["count"].dtype.kind not in "iu"):
        raise UserError(f"{path} has a count that is not a number; make it again")
    mean, covariance = file.read("mu"), file.read("sigma")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UserError(f"{path} has statistics that are not finite numbers; make it again")
    if not np.allclose(covariance, covariance.T, rtol=1e-3, atol=1e-6 * np.abs(covariance).max()):
        raise UserError(f"{path} has a sigma that is not symmetric; make it again")
    count = int(file.read("count")) if "count" in headers else 0
    return GaussianStatistics(mean.astype(np.float64), covariance.astype(np.float64), count)


def write_statistics(path: Path, statistics: GaussianStatistics) -> None:
    """Writes `mu`, `sigma` (float64) and `count`.

    Raises:
        UserError: The file cannot be written.
    """
    try:
        with atomic_write(path, "wb") as file:
            np.savez(file, mu=statistics.mean, sigma=statistics.covariance, count=statistics.count)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from error
