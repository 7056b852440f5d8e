"""Decoding of one stored image that may be anything: within limits, by few decoders only."""

import io
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from PIL import Image

from common.parsers.jpeg import ordinary_frame

MAX_PIXELS = 2**30 // 12  # Pillow's own limit: a quarter of a GiB as RGB

_ORDINARY = 2**20  # pixels; larger files are not decoded before their size was looked at

# What Pillow lets out on files that are damaged, or not images, or bombs.
DECODER_ERRORS = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


def decode(
    data: bytes,
    prepare: Callable[[Image.Image], Image.Image | np.ndarray],
    stored_size: tuple[int, int] | None = None,
    formats: tuple[str, ...] = ("JPEG", "PNG"),
) -> np.ndarray:
    """Makes the training image from a stored file.

    Args:
        data: a file of one of the formats, whatever its name says.
        prepare: makes the training image from the opened file, which may be decoded already.
        stored_size: (height, width) that the file must have, or None if it may have any.
        formats: Pillow's names of them. Of Pillow's others, some would start programs.

    Returns:
        uint8 `[H, W, 3]`, RGB.

    Raises:
        One of `DECODER_ERRORS`: not such a file, damaged, or too large.
    """
    with _opened(data, formats) as image:
        width, height = image.size
        if stored_size and (height, width) != stored_size:
            raise ValueError(f"an image of {width}x{height}, not {stored_size[1]}x{stored_size[0]}")
        check_size(image)
        return np.asarray(prepare(image))


def _opened(data: bytes, formats: tuple[str, ...]) -> Image.Image:
    """Returns the opened image; an ordinary JPEG's is already decoded."""
    frame = ordinary_frame(data) if "JPEG" in formats else None
    if frame and frame.height * frame.width <= _ORDINARY:
        with suppress(ValueError):  # if it is damaged, Pillow's other way once more says how
            size = (frame.width, frame.height)
            return Image.frombytes(frame.mode, size, data, "jpeg", frame.mode, "")
    return Image.open(io.BytesIO(data), formats=formats)


def check_size(image: Image.Image) -> None:
    """Refuses an image, opened but not decoded, that would take too much memory.

    Raises:
        ValueError: more than `MAX_PIXELS`; Pillow itself would only warn, up to twice as many.
    """
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(
            f"an image of {image.width}x{image.height}, more than {MAX_PIXELS:,} pixels"
        )


def as_rgb(image: Image.Image) -> Image.Image:
    """Converts a loaded image to mode `RGB` as OpenCV reads it.

    Raises:
        ValueError: its pixels have more than 8 bits, which Pillow would cut off to white.
    """
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"pixels of mode {image.mode}, not of 8 bits")
    if image.mode == "CMYK":
        return _cmyk_as_rgb(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _cmyk_as_rgb(image: Image.Image) -> Image.Image:
    """Converts as OpenCV does; Pillow rounds otherwise, which one can see after resizing."""
    inks = np.asarray(image)
    light = 255 - inks[..., 3:]
    absorbed = inks[..., :3] * light.astype(np.uint16) >> 8
    return Image.fromarray(light - absorbed.astype(np.uint8))
