"""Reads the CIFAR10 training images straight from `cifar-10-python.tar.gz`.

The archive is treated as hostile: nothing is extracted to disk, members are found by their exact
names, sizes are bounded, and the pickles are decoded by `safe_pickle`, which executes nothing.
"""

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.data.dataset import Request
from common.data.source import ImageSource
from common.errors import UserError
from common.parsers import safe_pickle

CLASSES = 10
MEMBERS = tuple(f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6))

# The genuine batches have 31 MB each and the whole archive 186 MB. Python 3 writes bytes in
# protocol 2 as UTF-8 text, up to twice as long.
MAX_MEMBER_BYTES = 80 * 2**20
MAX_TOTAL_BYTES = 512 * 2**20
MAX_MEMBERS = 1000

_ROW_BYTES = 3 * 32 * 32
_RANGE = range(CLASSES)

_ARCHIVE_ERRORS = (
    tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError, RecursionError,
)  # fmt: skip


def open_archive(request: Request) -> ImageSource:
    """Opens a route: the archive at the data set's place, read whole, with its labels.

    Raises:
        UserError: see `load_labelled_archive`.
    """
    path = request.existing()
    images, read_labels = load_labelled_archive(path, request.advice)
    return request.source(images, (path,), labels=read_labels)


def load_archive(path: Path, advice: str) -> np.ndarray:
    """Reads the images alone: see `load_labelled_archive`."""
    return load_labelled_archive(path, advice)[0]


def load_labelled_archive(path: Path, advice: str) -> tuple[np.ndarray, Callable[[], np.ndarray]]:
    """Reads the five training batches (specification, section 5).

    Args:
        path: the archive, `cifar-10-python.tar.gz`.
        advice: what to do about an unusable archive; ends every error message.

    Returns:
        Images, uint8 `[N, 32, 32, 3]`, values 0..255, RGB, in the order of the batches; 50,000 if
        the archive is the genuine one. And a function that returns their labels, int64 `[N]`,
        values 0..9; that these are missing or damaged is an error of the function alone.

    Raises:
        UserError: not such an archive, damaged, or with anything suspicious in its five members;
            the message names the archive, the member and the reason.
    """
    try:
        batches = _read_batches(path)
    except _ArchiveError as error:
        raise UserError(f"{path}: {error}. {advice}") from error
    except _ARCHIVE_ERRORS as error:
        raise UserError(f"{path}: damaged or not a tar.gz archive ({error}). {advice}") from error
    planes = np.concatenate([batches[name].data for name in MEMBERS]).reshape(-1, 3, 32, 32)
    images = np.empty((len(planes), 32, 32, 3), np.uint8)
    for channel in range(3):  # one by one: several times as fast as all together
        images[..., channel] = planes[:, channel]
    stored = {name: (batches[name].labels, len(batches[name].data)) for name in MEMBERS}
    return images, partial(_joined_labels, stored, path, advice)


def _joined_labels(stored: dict[str, tuple[Any, int]], path: Path, advice: str) -> np.ndarray:
    """Checks what each member has for labels, given with its number of images."""
    labels = []
    for name, (values, count) in stored.items():
        try:
            labels.append(_checked_labels(values, count))
        except _ArchiveError as error:
            raise UserError(f"{path}: member {name}: {error}. {advice}") from error
    return np.concatenate(labels)


def _checked_labels(values: Any, count: int) -> np.ndarray:
    """Returns a batch's labels, int64 [count]."""
    if not isinstance(values, list):
        raise _ArchiveError("has no list of labels")
    if len(values) != count:
        raise _ArchiveError(f"has {len(values):,} labels for {count:,} images")
    wrong = [n for n, value in enumerate(values) if type(value) is not int or value not in _RANGE]
    if wrong:
        raise _ArchiveError(
            f"label {wrong[0]:,}, counted from 0, is not one of the numbers 0 to {CLASSES - 1}"
        )
    return np.array(values, np.int64)


class _ArchiveError(Exception):
    """Why an archive is refused."""


class _Batch(NamedTuple):
    """One of the five batches.

    Attributes:
        data: uint8 [n, 3072].
        labels: what it has for labels, not looked at yet; None if nothing, or several.
    """

    data: np.ndarray
    labels: Any


class _BoundedGzip(io.RawIOBase):
    """The decompressed bytes of a gzip file, up to `MAX_TOTAL_BYTES` of them."""

    def __init__(self, path: Path):
        self._file = gzip.open(path)  # noqa: SIM115 (closed by close())
        self._remaining = MAX_TOTAL_BYTES

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(self._remaining + 1 if size < 0 else size)
        self._remaining -= len(data)
        if self._remaining < 0:
            raise _ArchiveError(f"decompresses to more than {MAX_TOTAL_BYTES:,} bytes")
        return data

    def close(self) -> None:
        self._file.close()
        super().close()


def _read_batches(path: Path) -> dict[str, _Batch]:
    """Returns the batch in each of the five members."""
    batches: dict[str, _Batch] = {}
    with _BoundedGzip(path) as stream:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for number, member in enumerate(archive):
                if number >= MAX_MEMBERS:
                    raise _ArchiveError(f"more than {MAX_MEMBERS:,} members")
                if member.name in MEMBERS:
                    if member.name in batches:
                        raise _ArchiveError(f"member {member.name}: occurs twice")
                    batches[member.name] = _read_member(archive, member)
        while stream.read(2**20):  # to the end, where gzip verifies its checksum
            pass
    missing = [name for name in MEMBERS if name not in batches]
    if missing:
        raise _ArchiveError(f"member {missing[0]}: missing")
    return batches


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> _Batch:
    """Returns the batch in one member."""
    if not member.isreg() or member.issparse():
        raise _ArchiveError(f"member {member.name}: not a regular file")
    if not 0 <= member.size <= MAX_MEMBER_BYTES:
        raise _ArchiveError(
            f"member {member.name}: {member.size:,} bytes, more than {MAX_MEMBER_BYTES:,}"
        )
    file = archive.extractfile(member)
    data = file.read() if file else b""
    if len(data) != member.size:
        raise _ArchiveError(f"member {member.name}: truncated")
    try:
        return _find_batch(safe_pickle.load(data))
    except safe_pickle.PickleRefusedError as error:
        raise _ArchiveError(f"member {member.name}: pickle refused: {error}") from error


def _find_batch(batch: object) -> _Batch:
    """Returns what is at the keys "data" and "labels" of a batch, as Python 2 or 3 writes them."""
    if not isinstance(batch, dict):
        raise safe_pickle.PickleRefusedError("not a dictionary")
    found = _values(batch, "data")
    if len(found) != 1:
        raise safe_pickle.PickleRefusedError(f'{len(found)} entries "data" instead of one')
    labels = _values(batch, "labels")
    return _Batch(
        safe_pickle.as_uint8_matrix(found[0], columns=_ROW_BYTES),
        labels[0] if len(labels) == 1 else None,
    )


def _values(batch: dict[str | bytes, Any], key: str) -> list[Any]:
    return [batch[name] for name in (key.encode(), key) if name in batch]
