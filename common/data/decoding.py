"""Decoding of one stored picture that may be anything: within limits, by few decoders only."""

import io
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
from PIL import Image

from common.data.jpeg import ordinary_frame

MAX_PIXELS = 2**30 // 12  # Pillow's own limit: a quarter of a GiB as RGB

_ORDINARY = 2**20  # pixels; larger files are not decoded before their size was looked at

# What Pillow lets out on files that are damaged, or not pictures, or bombs.
DECODER_ERRORS = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


def decode(
    data: bytes,
    prepare: Callable[[Image.Image], Image.Image | np.ndarray],
    stored_size: tuple[int, int] | None = None,
    formats: Sequence[str] = ("JPEG", "PNG"),
) -> np.ndarray:
    """Makes the training picture from a stored file.

    Args:
        data: a file of one of the formats, whatever its name says.
        prepare: makes the training picture from the opened file, which may be decoded already.
        stored_size: (height, width) that the file must have, or None if it may have any.
        formats: Pillow's names of them. Of Pillow's others, some would start programs.

    Returns:
        uint8 `[H, W, 3]`, RGB.

    Raises:
        One of `DECODER_ERRORS`: not such a file, damaged, or too large.
    """
    with _opened(data, formats) as picture:
        width, height = picture.size
        if stored_size and (height, width) != stored_size:
            raise ValueError(
                f"a picture of {width}x{height}, not {stored_size[1]}x{stored_size[0]}"
            )
        check_size(picture)
        return np.asarray(prepare(picture))


def _opened(data: bytes, formats: Sequence[str]) -> Image.Image:
    """Returns the opened picture; an ordinary JPEG's is already decoded."""
    frame = ordinary_frame(data) if "JPEG" in formats else None
    if frame and frame.height * frame.width <= _ORDINARY:
        with suppress(ValueError):  # if it is damaged, Pillow's other way once more says how
            size = (frame.width, frame.height)
            return Image.frombytes(frame.mode, size, data, "jpeg", frame.mode, "")
    return Image.open(io.BytesIO(data), formats=formats)


def check_size(picture: Image.Image) -> None:
    """Refuses a picture, opened but not decoded, that would take too much memory.

    Raises:
        ValueError: more than `MAX_PIXELS`; Pillow itself would only warn, up to twice as many.
    """
    if picture.width * picture.height > MAX_PIXELS:
        raise ValueError(
            f"a picture of {picture.width}x{picture.height}, more than {MAX_PIXELS:,} pixels"
        )
