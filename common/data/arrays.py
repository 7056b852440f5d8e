"""Checked, memory-mapped opening of the `.npy` files that the preparation scripts write."""

import tokenize
from pathlib import Path

import numpy as np

from common.errors import UserError

_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

# All that NumPy's header parser lets out on a damaged header, including its use of Python's parser.
_HEADER_ERRORS = (
    ValueError, TypeError, SyntaxError, MemoryError, RecursionError, tokenize.TokenError,
)  # fmt: skip


def map_images(path: Path, image_shape: tuple[int, int, int], count: int, advice: str):
    """Memory-maps a picture array without reading it, after checking the header and the length.

    Args:
        path: a `.npy` file; Python objects (pickles) in it are refused, never loaded.
        image_shape: the (height, width, channels) it must have.
        count: the number of pictures it must have.
        advice: what to do about a wrong file; ends every error message.

    Returns:
        A read-only `np.memmap`, uint8 `[count, H, W, C]`, C order.

    Raises:
        UserError: not such a file, or one that is shorter or longer than its header says.
    """
    try:
        shape, fortran_order, dtype, offset = _read_header(path)
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}). {advice}") from error
    except _HEADER_ERRORS as error:
        raise UserError(f"{path}: not a valid .npy file ({error}). {advice}") from error
    found = f"{dtype} {list(shape)}, {'Fortran' if fortran_order else 'C'} order"
    expected = f"uint8 {[count, *image_shape]}, C order"
    if found != expected:
        raise UserError(f"{path}: found {found}, expected {expected}. {advice}")
    promised = offset + count * int(np.prod(image_shape))
    if size != promised:
        raise UserError(
            f"{path}: found {size:,} bytes, expected {promised:,} from its header; the file is "
            f"{'truncated' if size < promised else 'longer than its array'}. {advice}"
        )
    return np.memmap(path, dtype=np.uint8, mode="r", offset=offset, shape=(count, *image_shape))


def _read_header(path: Path) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Returns (shape, Fortran order, dtype, offset of the first element)."""
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADER_READERS:
            raise ValueError(f"format version {version}")
        shape, fortran_order, dtype = _HEADER_READERS[version](file)
        return shape, fortran_order, dtype, file.tell()
