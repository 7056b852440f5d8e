"""Members of archives, and what is made of them in a worker process."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image

from common.errors import UserError
from common.parsers.archives import DamagedError, Member, open_archive
from common.parsers.decoding import DECODER_ERRORS
from common.preparation.workers import alone, in_order

_CHUNK = 32  # images at a time: small enough to stop and to report, large enough to hand over

_LARGE = 2**22  # pixels; only one worker at a time decodes an image that has more

_Result = TypeVar("_Result")
_Member = TypeVar("_Member", bound=Member)

Fault = tuple[str, str]  # a member's name, and why nothing could be made of it


def prepare_members(
    pool: Executor,
    workers: int,
    archive: Path,
    members: Iterable[_Member],
    work: Callable[[Path, list[_Member]], _Result],
) -> Iterator[_Result]:
    """Lets the pool do `work` on the members, a few at a time; yields the results, in order."""
    members = iter(members)
    chunks = iter(lambda: list(islice(members, _CHUNK)), [])
    return in_order(pool, partial(work, archive), chunks, 3 * workers)


def decode_members(
    make: Callable[[bytes], np.ndarray],
    skip: bool,
    archive: Path,
    members: list[_Member],
) -> Iterator[tuple[_Member, np.ndarray | str]]:
    """Makes the training images of some members; for a worker process.

    Args:
        make: makes the training image from a file's bytes, or raises one of `DECODER_ERRORS`.
        skip: whether a damaged file is reported as such, rather than the end of the work.
        archive: the archive's path.
        members: what to read.

    Yields:
        Each member with its image, uint8 `[size, size, 3]`, or with what is wrong with it.

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
                        "anew, or leave such images out by --on_error=skip"
                    ) from error
                yield member, fault


def _read(path: Path, archive: BinaryIO, member: Member) -> bytes:
    try:
        return member.read(archive)
    except OSError as error:
        raise UserError(f"{path}: {member.name} cannot be read ({error})") from error


def sparing(prepare: Callable[[Image.Image], np.ndarray], image: Image.Image) -> np.ndarray:
    """Calls `prepare(image)`; of large images, one at a time of all workers."""
    if image.width * image.height <= _LARGE:
        return prepare(image)
    with alone(), closing(image):  # its memory is free again before the next worker's turn
        return prepare(image)
