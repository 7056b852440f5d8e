"""Checked opening of the `.npy` files that the preparation scripts write."""

import contextlib
import io
import math
import os
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from common.errors import UserError

_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

MAX_HEADER = 2**16  # NumPy's parser refuses headers of more than 10,000 characters

# All that NumPy's header parser lets out on a damaged header, including its use of Python's parser.
HEADER_ERRORS = (
    ValueError, TypeError, SyntaxError, MemoryError, RecursionError, tokenize.TokenError,
)  # fmt: skip


def map_images(path: Path, image_shape: tuple[int, int, int], count: int, advice: str) -> np.memmap:
    """Memory-maps an image array without reading it, after checking the header and the length.

    Args:
        path: a `.npy` file; Python objects (pickles) in it are refused, never loaded.
        image_shape: the (height, width, channels) it must have.
        count: the number of images it must have.
        advice: what to do about a wrong file; ends every error message.

    Returns:
        A read-only `np.memmap`, uint8 `[count, H, W, C]`, C order.

    Raises:
        UserError: not such a file, or one that is shorter or longer than its header says.
    """
    shape = (count, *image_shape)
    with _explained(path, advice), path.open("rb") as file:
        offset = _check(path, file, path.stat().st_size, shape, advice)
    return np.memmap(path, dtype=np.uint8, mode="r", offset=offset, shape=shape)


def map_any_images(path: Path, advice: str) -> np.memmap:
    """Memory-maps an image array of any number and size, as `map_images` does.

    Args:
        path: a `.npy` file.
        advice: what to do about a wrong file; ends every error message.

    Returns:
        A read-only `np.memmap`, uint8 `[n, H, W, 3]`, C order, n, H and W at least 1.

    Raises:
        UserError: not such a file, or one that is shorter or longer than its header says.
    """
    with _explained(path, advice), path.open("rb") as file:
        shape, *_ = read_header(file)
    if len(shape) != 4 or shape[3] != 3 or not all(shape):
        raise UserError(f"{path}: found an array {list(shape)}, not images. {advice}")
    return map_images(path, shape[1:], shape[0], advice)


def read_into(path: Path | str, out: np.ndarray, advice: str) -> None:
    """Reads a small `.npy` file whole, after checking its header and its length.

    Args:
        path: a `.npy` file; Python objects (pickles) in it are refused, never loaded.
        out: contiguous; the array that is filled, of the shape and the dtype (of little-endian
            or single bytes) that the file must have.
        advice: what to do about a wrong file; ends every error message.

    Raises:
        UserError: not such a file, or one that is shorter or longer than its header says.
    """
    with _explained(path, advice):
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(out.nbytes + MAX_HEADER)  # no more, however long the file may be
        offset = _check(path, io.BytesIO(data), size, out.shape, advice, wanted=out.dtype)
    out[...] = np.frombuffer(data, out.dtype, out.size, offset).reshape(out.shape)


@contextlib.contextmanager
def _explained(path: Path | str, advice: str) -> Iterator[None]:
    """Turns what reading a header may raise into an error for the user."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}). {advice}") from error
    except HEADER_ERRORS as error:
        raise UserError(f"{path}: not a valid .npy file ({error}). {advice}") from error


_UINT8 = np.dtype(np.uint8)


def _check(
    path: Path | str,
    file: BinaryIO,
    size: int,
    shape: tuple[int, ...],
    advice: str,
    *,
    wanted: np.dtype = _UINT8,
) -> int:
    """Checks that the file of `size` bytes has this shape and dtype; returns its data's offset."""
    actual, fortran_order, dtype, offset = read_header(file)
    found = f"{dtype} {list(actual)}, {'Fortran' if fortran_order else 'C'} order"
    expected = f"{wanted} {list(shape)}, C order"
    if found != expected:
        is_subset = len(shape) == 4 and found == expected.replace(
            str(list(shape)), str([actual[0], *shape[1:]])
        )
        hint = f"; for a subset say --set expected_images={actual[0]}" if is_subset else ""
        raise UserError(f"{path}: found {found}, expected {expected}{hint}. {advice}")
    promised = offset + math.prod(shape) * wanted.itemsize  # exact: NumPy's product would wrap
    if size != promised:
        raise UserError(
            f"{path}: found {size:,} bytes, expected {promised:,} from its header; the file is "
            f"{'truncated' if size < promised else 'longer than its array'}. {advice}"
        )
    return offset


def read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Reads what an open `.npy` file begins with.

    Returns:
        (shape, Fortran order, dtype, offset of the first element).

    Raises:
        One of `HEADER_ERRORS`: it is not valid.
    """
    version = np.lib.format.read_magic(file)
    if version not in _HEADER_READERS:
        raise ValueError(f"format version {version}")
    start = file.tell()
    try:
        shape, fortran_order, dtype = _HEADER_READERS[version](file)
    except SystemError:
        # NumPy has Python's parser evaluate the header, which in Python 3.11 now and then raises
        # this where other threads parse at the same time.
        file.seek(start)
        shape, fortran_order, dtype = _HEADER_READERS[version](file)
    return shape, fortran_order, dtype, file.tell()
