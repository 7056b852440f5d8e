"""Unpacking a gzip stream in large pieces, which is quicker than Python's `gzip` module.

ISA-L does it, where its package is installed, and is quicker than zlib. Of a file with several
streams it unpacks the first only: it refuses some headers that two pieces of the file share.
"""

import contextlib
import zlib
from pathlib import Path
from typing import Any

from common.parsers.archives import DamagedError, open_archive

library: Any = zlib
with contextlib.suppress(ImportError):
    from isal import isal_zlib as library

_PIECE = 2**17  # bytes of the file at a time

_MAX_UNPACKED = 2**20  # bytes made of one piece at a time, however well it was packed

_MAX_TOTAL = 2**35  # bytes; more than ten times STL10's archive


class GzipReader:
    """The unpacked bytes of a `.gz` file, read forwards.

    Use it as a context manager.

    Args:
        path: the file.

    Raises:
        DamagedError: by any method: the file is truncated or corrupt.
        OSError: by any method: as of reading.
        UserError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._inflater = _new_inflater(library)
        self._ready = memoryview(b"")
        self._position = 0
        self._file = open_archive(path)

    def __enter__(self) -> "GzipReader":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def tell(self) -> int:
        """Returns the number of unpacked bytes up to here."""
        return self._position

    def seek(self, position: int) -> int:
        """Skips to a position, which must not lie behind this one."""
        if position < self._position:
            raise ValueError(f"cannot go back from {self._position} to {position}")
        while self._position < position:
            if not self._take(position - self._position):
                raise DamagedError("it ends too early")
        return position

    def read(self, size: int) -> bytearray:
        """Returns the next `size` bytes; that there are not so many is a DamagedError."""
        data = bytearray(size)
        filled = 0
        while filled < size:
            piece = self._take(size - filled)
            if not piece:
                raise DamagedError("it ends too early")
            data[filled : filled + len(piece)] = piece
            filled += len(piece)
        return data

    def drain(self) -> None:
        """Reads up to the end, where the checksum of it all is verified."""
        while self._take(_MAX_TOTAL):
            pass

    def _take(self, limit: int) -> memoryview:
        """Returns at least one and at most `limit` bytes; none at the end."""
        while not self._ready:
            if not self._unpack():
                return self._ready
        piece, self._ready = self._ready[:limit], self._ready[limit:]
        self._position += len(piece)
        if self._position > _MAX_TOTAL:
            raise DamagedError(f"it unpacks to more than {_MAX_TOTAL:,} bytes")
        return piece

    def _unpack(self) -> bool:
        """Makes `_ready` what comes next, if anything; returns False at the end of the file."""
        inflater = self._inflater
        data = inflater.unconsumed_tail or inflater.unused_data or self._file.read(_PIECE)
        if inflater.eof:
            if not data.strip(b"\0"):  # padding
                return False
            self._inflater = inflater = _new_inflater(zlib)  # one file may be several streams
        elif not data:
            raise DamagedError("it is truncated")
        try:
            self._ready = memoryview(inflater.decompress(data, _MAX_UNPACKED))
        except (zlib.error, library.error) as error:
            raise DamagedError(str(error)) from error
        return True


def _new_inflater(module: Any) -> Any:
    return module.decompressobj(zlib.MAX_WBITS | 16)


def lacks_isal() -> bool:
    """Returns whether zlib unpacks, the optional package `isal` being absent."""
    return library is zlib
