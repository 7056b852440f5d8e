"""Decoding of one stored picture that may be anything: within limits, by two decoders only."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

MAX_PIXELS = 2**30 // 12  # Pillow's own limit: a quarter of a GiB as RGB

# What Pillow lets out on files that are damaged, or not pictures, or bombs.
DECODER_ERRORS = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


def decode(
    data: bytes,
    prepare: Callable[[Image.Image], Image.Image | np.ndarray],
    stored_size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Makes the training picture from a stored file.

    Args:
        data: a PNG or JPEG file, whatever its name says.
        prepare: makes the training picture from the opened file.
        stored_size: (height, width) that the file must have, or None if it may have any.

    Returns:
        uint8 `[H, W, 3]`, RGB.

    Raises:
        One of `DECODER_ERRORS`: not such a file, damaged, or too large.
    """
    with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as picture:
        width, height = picture.size
        if stored_size and (height, width) != stored_size:
            raise ValueError(
                f"a picture of {width}x{height}, not {stored_size[1]}x{stored_size[0]}"
            )
        check_size(picture)
        return np.asarray(prepare(picture))


def check_size(picture: Image.Image) -> None:
    """Refuses a picture, opened but not decoded, that would take too much memory.

    Raises:
        ValueError: more than `MAX_PIXELS`; Pillow itself would only warn, up to twice as many.
    """
    if picture.width * picture.height > MAX_PIXELS:
        raise ValueError(
            f"a picture of {picture.width}x{picture.height}, more than {MAX_PIXELS:,} pixels"
        )
