"""Members of archives: where their bytes lie, and what is made of them in a worker process."""

import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, TypeVar

import numpy as np
from PIL import Image

from common.data.decoding import DECODER_ERRORS
from common.errors import UserError
from common.preparation.workers import alone, in_order

MAX_MEMBER = 2**26  # bytes; the largest file of ImageNet has some 2**24

_CHUNK = 32  # pictures at a time: small enough to stop and to report, large enough to hand over

_LARGE = 2**22  # pixels; only one worker at a time decodes a picture that has more


class Member(Protocol):
    """A picture file in an archive.

    Attributes:
        name: for messages.
    """

    name: str

    def read(self, archive: BinaryIO) -> bytes:
        """Returns the file's bytes.

        Raises:
            DamagedError: they are not what the archive says.
            OSError: as of reading.
        """


class DamagedError(Exception):
    """Some bytes of an archive are missing or are not as they should be."""


_Result = TypeVar("_Result")

Fault = tuple[str, str]  # a member's name, and why nothing could be made of it


def prepare_members(
    pool: Executor,
    workers: int,
    archive: Path,
    members: Iterable[Member],
    work: Callable[[Path, list[Member]], _Result],
) -> Iterator[_Result]:
    """Lets the pool do `work` on the members, a few at a time; yields the results, in order."""
    members = iter(members)
    chunks = iter(lambda: list(islice(members, _CHUNK)), [])
    return in_order(pool, partial(work, archive), chunks, 3 * workers)


def decode_members(
    make: Callable[[bytes], np.ndarray],
    skip: bool,
    archive: Path,
    members: list[Member],
) -> Iterator[tuple[Member, np.ndarray | str]]:
    """Makes the training pictures of some members; for a worker process.

    Args:
        make: makes the training picture from a file's bytes, or raises one of `DECODER_ERRORS`.
        skip: whether a damaged file is reported as such, rather than the end of the work.
        archive: the archive's path.
        members: what to read.

    Yields:
        Each member with its picture, uint8 `[size, size, 3]`, or with what is wrong with it.

    Raises:
        UserError: the archive cannot be read, or a member is damaged.
    """
    with open_archive(archive) as file:
        for member in members:
            try:
                yield member, make(_read(archive, file, member))
            except (DamagedError, *DECODER_ERRORS) as error:
                text = str(error).partition(" <_io.")[0]  # Pillow names the buffer's address
                fault = " ".join(f"{type(error).__name__}: {text}".split())
                if not skip:
                    raise UserError(
                        f"{archive}: {member.name} cannot be decoded ({fault}); get the archive "
                        "anew, or leave such pictures out by --on_error=skip"
                    ) from error
                yield member, fault


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
        number: its place, from 0, among those that pictures are made of.
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


def open_archive(path: Path) -> BinaryIO:
    """Opens an archive, unbuffered; what cannot be opened is a UserError."""
    try:
        return path.open("rb", buffering=0)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def _read(path: Path, archive: BinaryIO, member: Member) -> bytes:
    try:
        return member.read(archive)
    except OSError as error:
        raise UserError(f"{path}: {member.name} cannot be read ({error})") from error


def sparing(prepare: Callable[[Image.Image], np.ndarray], picture: Image.Image) -> np.ndarray:
    """Calls `prepare(picture)`; of large pictures, one at a time of all workers."""
    if picture.width * picture.height <= _LARGE:
        return prepare(picture)
    with alone(), closing(picture):  # its memory is free again before the next worker's turn
        return prepare(picture)
