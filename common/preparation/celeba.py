"""CelebA's stored images, decoded no further than they are needed."""

from functools import partial

import numpy as np
from PIL import Image

from common.parsers.decoding import decode
from common.parsers.jpeg import ordinary_frame
from common.preparation.transforms import CELEBA_CROP, celeba_image, resize_linear

HEIGHT, WIDTH = 218, 178

_LEFT, _TOP = (WIDTH - CELEBA_CROP) // 2, (HEIGHT - CELEBA_CROP) // 2
_BOX = (_LEFT, _TOP, _LEFT + CELEBA_CROP, _TOP + CELEBA_CROP)
_ROWS = 176  # those of the box, and up to the next whole blocks, as interpolated colours need them

_END = b"\xff\xd9"


def decode_celeba(data: bytes, size: int = 64) -> np.ndarray:
    """Makes the training image from a stored file, as `celeba_image` does, but quicker.

    Args:
        data: the file, an image of 178x218.
        size: height and width of the result.

    Returns:
        uint8 `[size, size, 3]`, RGB.

    Raises:
        One of `DECODER_ERRORS`: not such an image, or damaged.
    """
    shortened = _shortened(data)
    if shortened is None:
        return decode(data, partial(celeba_image, size=size), (HEIGHT, WIDTH))
    return decode(shortened, partial(_upright_image, size=size))


def _upright_image(image: Image.Image, size: int) -> np.ndarray:
    """`celeba_image` of one that has its full width, no orientation, and is grey or RGB."""
    if 2 * size == CELEBA_CROP:
        return np.asarray(image.reduce(2, _BOX).convert("RGB"))
    return resize_linear(np.asarray(image.crop(_BOX).convert("RGB")), size)


def _shortened(data: bytes) -> bytes | None:
    """Returns the JPEG with a smaller height in its header, so that no lower rows are decoded.

    They are a fifth of the image, of which nothing is used. None if it is not a plain one: of
    another size, not baseline, with an EXIF block, in other colours than grey or RGB, or truncated.
    """
    frame = ordinary_frame(data)
    if frame is None or not frame.baseline or not data.endswith(_END):
        return None
    if (frame.height, frame.width) != (HEIGHT, WIDTH):
        return None
    return data[: frame.place + 5] + _ROWS.to_bytes(2, "big") + data[frame.place + 7 :]
