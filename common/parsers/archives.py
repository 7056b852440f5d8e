"""Members of archives: their names, where their bytes lie, and reading them."""

import os
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from common.errors import UserError

MAX_MEMBER = 2**26  # bytes; the largest file of ImageNet has some 2**24


class DamagedError(Exception):
    """Some bytes of an archive are missing or are not as they should be."""


class Member(Protocol):
    """An image file in an archive.

    Attributes:
        name: for messages.
    """

    @property
    def name(self) -> str: ...

    def read(self, archive: BinaryIO) -> bytes:
        """Returns the file's bytes.

        Raises:
            DamagedError: they are not what the archive says.
            OSError: as of reading.
        """


def check_name(archive: Path | str, name: str) -> None:
    """Checks that a member's name does not point outside of the archive.

    Raises:
        UserError: an absolute name, or one with `..`, backslashes or control characters.
    """
    outside = name.startswith("/") or ".." in name.split("/")
    if outside or "\\" in name or not name.isprintable():
        raise UserError(f"{archive}: the member name {name!r} is not safe; get the archive anew")


def check_new(archive: Path, name: str, stem: str, seen: set[str]) -> None:
    """Adds a member's stem to those seen.

    Raises:
        UserError: it is there already.
    """
    if stem in seen:
        raise UserError(f"{archive}: {name} occurs twice; get the archive anew")
    seen.add(stem)


def open_archive(path: Path) -> BinaryIO:
    """Opens an archive, unbuffered; what cannot be opened is a UserError."""
    try:
        return path.open("rb", buffering=0)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


class TarMember(NamedTuple):
    """A file that lies in a tar archive as it is.

    Attributes:
        folder: the class it belongs to.
        stem: the name of what is made of it.
        offset: where its bytes start in the outermost archive.
        size: their number.
    """

    name: str
    folder: str
    stem: str
    offset: int
    size: int

    def read(self, archive: BinaryIO) -> bytes:
        """See `Member.read`."""
        _check_size(self.size)
        return read_exactly(archive, self.offset, self.size)


class ZipMember(NamedTuple):
    """A file in a zip archive.

    Attributes:
        number: its place, from 0, among those that images are made of.
        header: where its local header starts.
        packed: the number of bytes in the archive.
        size: the number of bytes unpacked.
        crc: their checksum.
        deflated: whether they are compressed.
    """

    name: str
    number: int
    header: int
    packed: int
    size: int
    crc: int
    deflated: bool

    def read(self, archive: BinaryIO) -> bytes:
        """See `Member.read`."""
        _check_size(self.size)
        _check_size(self.packed)
        name = self.name.encode()
        length = len(name).to_bytes(2, "little")
        header = read_exactly(archive, self.header, 30 + len(name))
        if (header[:4], header[26:28], header[30:]) != (b"PK\x03\x04", length, name):
            raise DamagedError("no header of that name at its place")
        extra = int.from_bytes(header[28:30], "little")
        data = read_exactly(archive, self.header + len(header) + extra, self.packed)
        if self.deflated:
            data = self._inflate(data)
        if len(data) != self.size or zlib.crc32(data) != self.crc:
            raise DamagedError("wrong length or checksum")
        return data

    def _inflate(self, data: bytes) -> bytes:
        """Unpacks at most one byte more than there should be: a bomb stays small."""
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, self.size + 1)
        except zlib.error as error:
            raise DamagedError(str(error)) from error


def read_exactly(archive: BinaryIO, offset: int, size: int) -> bytes:
    """Reads `size` bytes, neither more nor fewer.

    Raises:
        DamagedError: the archive ends before.
    """
    data = os.pread(archive.fileno(), size, offset)
    if len(data) != size:
        raise DamagedError("the archive ends within it")
    return data


def _check_size(size: int) -> None:
    if size > MAX_MEMBER:
        raise DamagedError(f"{size:,} bytes, more than {MAX_MEMBER:,}")
