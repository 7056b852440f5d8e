"""The exact picture operations of the data preparation (specification, section 5)."""

import numpy as np
from PIL import ExifTags, Image


def centre_crop(picture: Image.Image, size: int) -> Image.Image:
    """Cuts the `size` x `size` square at ((h - size) // 2, (w - size) // 2) out of a picture."""
    left, top = (picture.width - size) // 2, (picture.height - size) // 2
    return picture.crop((left, top, left + size, top + size))


def halve(picture: Image.Image) -> Image.Image:
    """Shrinks a picture of even sides to one half: the rounded mean of each 2x2 block.

    This is, byte for byte, what OpenCV's `INTER_LINEAR`, the original's choice, gives at exactly
    one half. Pillow's own bilinear resize antialiases and gives other pictures.
    """
    return picture.reduce(2)


def centre_square(picture: Image.Image) -> Image.Image:
    """Cuts the largest centred square out of a picture; its side is the picture's smaller one."""
    return centre_crop(picture, min(picture.size))


def upright_rgb(picture: Image.Image) -> Image.Image:
    """Turns a picture as its EXIF orientation says and converts it to RGB, as OpenCV reads it.

    Unlike `PIL.ImageOps.exif_transpose` it does not follow an orientation in XMP, which OpenCV
    ignores, nor write the EXIF block anew, which fails on the damaged blocks that ImageNet has.

    Args:
        picture: an opened PNG or JPEG file, of any mode.

    Returns:
        A loaded picture of mode `RGB`.

    Raises:
        OSError, ValueError, SyntaxError: the file cannot be decoded.
    """
    rgb = picture.convert("RGB")  # before the EXIF block is looked at: a PNG may have it at the end
    turn = _TURNS.get(_orientation(picture))
    return rgb if turn is None else rgb.transpose(turn)


# By the number that EXIF gives to each orientation; 1 is upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _orientation(picture: Image.Image) -> int | None:
    """Returns the EXIF orientation, or None if there is none or the block is damaged."""
    exif = Image.Exif()
    try:
        exif.load(picture.info.get("exif"))
        orientation = exif.get(ExifTags.Base.Orientation)
    except Exception:  # Pillow's parser lets out many kinds; OpenCV, too, then takes it as upright
        return None
    return orientation if isinstance(orientation, int) else None


def resize_linear(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resizes by OpenCV's `INTER_LINEAR`: bilinear in fixed point, without antialiasing.

    When shrinking, the result is OpenCV's byte for byte, and at exactly one half the rounded mean
    of each 2x2 block. OpenCV enlarges by other code, whose results differ by at most 1.

    Args:
        pixels: uint8 `[h, w, 3]`, not empty.
        size: height and width of the result, at least 1.

    Returns:
        uint8 `[size, size, 3]`, a new array.
    """
    height, width, _ = pixels.shape
    top, bottom, v0, v1 = _taps(height, size)
    left, right, w0, w1 = _taps(width, size)
    v0, v1 = v0[:, None, None], v1[:, None, None]
    w0, w1 = w0[:, None], w1[:, None]

    def across(rows: np.ndarray) -> np.ndarray:
        lines = pixels[rows].astype(np.int32)
        return lines[:, left] * w0 + lines[:, right] * w1 >> 4

    total = (v0 * across(top) >> 16) + (v1 * across(bottom) >> 16) + 2 >> 2
    return total.astype(np.uint8)


def _taps(length: int, size: int) -> tuple[np.ndarray, ...]:
    """Returns each output position's two neighbours and their weights in 1/2048, int32 [size]."""
    # In double precision, and the scale as a reciprocal, because OpenCV rounds in this order.
    scale = 1 / (size / length)
    position = ((np.arange(size) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(position).astype(np.int32)
    part = position - first.astype(np.float32)
    part[(first < 0) | (first >= length - 1)] = 0
    first = first.clip(0, length - 1)
    second = np.minimum(first + 1, length - 1)
    weights = (np.rint(share * np.float32(2048)).astype(np.int32) for share in (1 - part, part))
    return first, second, *weights
