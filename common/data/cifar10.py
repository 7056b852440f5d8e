"""Reads the CIFAR10 training images straight from `cifar-10-python.tar.gz`.

The archive is treated as hostile: nothing is extracted to disk, members are found by their exact
names, sizes are bounded, and the pickles are decoded by `safe_pickle`, which executes nothing.
"""

import gzip
import io
import tarfile
import zlib
from pathlib import Path

import numpy as np

from common.data import safe_pickle
from common.errors import UserError

IMAGE_SHAPE = (32, 32, 3)
COUNT = 50_000
MEMBERS = tuple(f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6))

# The genuine batches have 31 MB each and the whole archive 186 MB. Python 3 writes bytes in
# protocol 2 as UTF-8 text, up to twice as long.
MAX_MEMBER_BYTES = 80 * 2**20
MAX_TOTAL_BYTES = 512 * 2**20
MAX_MEMBERS = 1000

_ROW_BYTES = 3 * 32 * 32

_ARCHIVE_ERRORS = (
    tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError, RecursionError,
)  # fmt: skip


def load_archive(path: Path, advice: str) -> np.ndarray:
    """Reads the five training batches (specification, section 5).

    Args:
        path: the archive, `cifar-10-python.tar.gz`.
        advice: what to do about an unusable archive; ends every error message.

    Returns:
        uint8 `[N, 32, 32, 3]`, values 0..255, RGB, in the order of the batches; 50,000 pictures if
        the archive is the genuine one.

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
    planes = np.concatenate([batches[name] for name in MEMBERS]).reshape(-1, 3, 32, 32)
    images = np.empty((len(planes), *IMAGE_SHAPE), np.uint8)
    for channel in range(3):  # one by one: several times as fast as all together
        images[..., channel] = planes[:, channel]
    return images


class _ArchiveError(Exception):
    """Why an archive is refused."""


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


def _read_batches(path: Path) -> dict[str, np.ndarray]:
    """Returns uint8 [n, 3072] for each of the five members."""
    batches: dict[str, np.ndarray] = {}
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


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> np.ndarray:
    """Returns the uint8 [n, 3072] array of one batch."""
    if not member.isreg() or member.issparse():
        raise _ArchiveError(f"member {member.name}: not a regular file")
    if not 0 <= member.size <= MAX_MEMBER_BYTES:
        raise _ArchiveError(
            f"member {member.name}: {member.size:,} bytes, more than {MAX_MEMBER_BYTES:,}"
        )
    data = archive.extractfile(member).read()
    if len(data) != member.size:
        raise _ArchiveError(f"member {member.name}: truncated")
    try:
        return _find_data(safe_pickle.load(data))
    except safe_pickle.PickleRefusedError as error:
        raise _ArchiveError(f"member {member.name}: pickle refused: {error}") from error


def _find_data(batch: object) -> np.ndarray:
    """Returns the array at the one key "data" of a batch, as Python 2 or 3 writes it."""
    if not isinstance(batch, dict):
        raise safe_pickle.PickleRefusedError("not a dictionary")
    found = [batch[key] for key in (b"data", "data") if key in batch]
    if len(found) != 1:
        raise safe_pickle.PickleRefusedError(f'{len(found)} entries "data" instead of one')
    return safe_pickle.as_uint8_matrix(found[0], columns=_ROW_BYTES)
