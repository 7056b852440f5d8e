"""Reading tar archives that may be anything, without unpacking them."""

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from common.errors import UserError
from common.parsers.archives import DamagedError, check_name, read_exactly

_MAX_READ = 2**20  # bytes of a header; tarfile would read as many as a damaged one says

_TAR_ERRORS = (tarfile.TarError, DamagedError, ValueError, OverflowError, EOFError)


class Forwards(Protocol):
    """What tar archives are read from: a file that is read forwards."""

    def tell(self) -> int:
        """Returns the position."""

    def seek(self, position: int, /) -> int:
        """Goes forwards to a position."""

    def read(self, size: int, /) -> bytes | bytearray:
        """Returns the next `size` bytes."""


class Window:
    """A part of a file, as a file.

    Args:
        file: opened for reading.
        start: where the part starts.
        size: its number of bytes.
    """

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file = file
        self._start = start
        self._size = size
        self._position = 0

    def tell(self) -> int:
        """Returns the position within the part."""
        return self._position

    def seek(self, position: int) -> int:
        """Goes to a position within the part."""
        self._position = position
        return position

    def read(self, size: int) -> bytes:
        """Reads that many bytes, or those up to the part's end."""
        size = max(0, min(size, self._size - self._position))
        data = read_exactly(self._file, self._start + self._position, size)
        self._position += size
        return data


class _Watched:
    """A file as tarfile sees it: what it reads is bounded, and the last of it is kept."""

    def __init__(self, file: Forwards) -> None:
        self._file = file
        self.tell = file.tell
        self.seek = file.seek
        self.last: bytes | bytearray = b""

    def read(self, size: int) -> bytes | bytearray:
        if size > _MAX_READ:
            raise DamagedError(f"a header of {size:,} bytes")
        self.last = self._file.read(size)
        return self.last


def tar_files(archive: Path, file: Forwards, what: str = "") -> Iterator[tarfile.TarInfo]:
    """Yields the files of a tar archive that is not compressed.

    Args:
        archive: its path, for messages.
        file: it; `seek` is called forwards only.
        what: the name of an archive within the archive, for messages.

    Raises:
        UserError: it is damaged, or has members that are neither files nor folders, or names that
            point outside of it.
    """
    where = f"{archive}: {what}" if what else str(archive)
    last = "its first header"
    try:
        watched: Any = _Watched(file)  # tarfile's types ask for more than it calls
        with tarfile.open(fileobj=watched, mode="r:") as tar:
            while (info := tar.next()) is not None:
                vars(tar)["members"] = []  # lest a million of them fill the memory
                last = info.name
                check_name(where, info.name)
                if info.isdir():
                    continue
                if not info.isreg() or info.issparse() or info.size < 0:
                    raise UserError(f"{where}: {info.name} is not an ordinary file")
                yield info
        if watched.last != bytes(tarfile.BLOCKSIZE):  # tarfile takes any damage for the end
            raise DamagedError("a damaged header, or no end mark")
    except _TAR_ERRORS as error:
        raise UserError(f"{where}: damaged at or after {last} ({error}); get it anew") from error
    except OSError as error:
        raise UserError(f"{where}: cannot be read after {last} ({error})") from error
