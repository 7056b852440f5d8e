"""The exact image operations of the data preparation (specification, section 5)."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

from common.parsers.decoding import as_rgb
from common.preparation.pillow_memory import pixels_in_place

CELEBA_CROP = 128

_BAND = 128  # rows of the result that are made at once, lest large ones take much memory
_HUGE = 2**24  # pixels; of larger images no second copy is made, if that can be helped


def celeba_image(image: Image.Image, size: int = 64) -> np.ndarray:
    """CelebA's training image: the centred 128x128 square, shrunk.

    Args:
        image: an opened PNG or JPEG file of at least 128x128 pixels.
        size: height and width of the result.

    Returns:
        uint8 `[size, size, 3]`, RGB.

    Raises:
        OSError, ValueError, SyntaxError: the file cannot be decoded.
    """
    square = upright_square(image, CELEBA_CROP)
    if 2 * size == CELEBA_CROP:
        return np.asarray(halve(square))
    return resize_linear(np.asarray(square), size)


def imagenet_image(image: Image.Image, size: int = 128) -> np.ndarray:
    """ImageNet's training image: the largest centred square, resized.

    Args:
        image: an opened PNG or JPEG file.
        size: height and width of the result.

    Returns:
        uint8 `[size, size, 3]`, RGB.

    Raises:
        OSError, ValueError, SyntaxError: the file cannot be decoded.
    """
    image.load()
    side = min(image.size)
    if _turn(image) is None:
        box = _centred_box(image, side)
        if image.width * image.height > _HUGE:
            lines = functools.partial(_picked_rows, image, box)
            return _rgb(_resize(lines, (side, side, 4), size))
        if image.mode == "RGB" and (pixels := pixels_in_place(image)) is not None:
            return _rgb(_resize_box(pixels, box, size))
    return _rgb(resize_linear(_rgbx(upright_square(image, side)), size))


def halve(image: Image.Image) -> Image.Image:
    """Shrinks an image of even sides to one half: the rounded mean of each 2x2 block.

    This is, byte for byte, what OpenCV's `INTER_LINEAR`, the original's choice, gives at exactly
    one half. Pillow's own bilinear resize antialiases and gives other images.
    """
    return image.reduce(2)


def halve_planes(planes: np.ndarray) -> np.ndarray:
    """Halves STL10's images, as `halve` does, and turns their column-major planes upright.

    Args:
        planes: uint8 `[n, 3, width, height]`, contiguous, of even sides.

    Returns:
        uint8 `[n, height / 2, width / 2, 3]`, RGB.
    """
    count, channels, width, height = planes.shape
    # Two neighbours in one 16-bit number: their sum needs no strided access.
    pairs = planes.view(np.uint16).reshape(count, channels, width // 2, 2, height // 2)
    sums = pairs & 0xFF
    sums += pairs >> 8
    means = sums[:, :, :, 0] + sums[:, :, :, 1]
    means += 2
    means >>= 2
    halved = np.empty((count, height // 2, width // 2, channels), np.uint8)
    for channel in range(channels):  # one by one: several times as fast as all together
        halved[..., channel] = means[:, channel].transpose(0, 2, 1)
    return halved


def upright_square(image: Image.Image, size: int) -> Image.Image:
    """Cuts the centred square out of an image, turned and converted to RGB as OpenCV reads it.

    The square lies at ((h - size) // 2, (w - size) // 2) of the image that has been turned as its
    EXIF orientation says. Unlike `PIL.ImageOps.exif_transpose` this does not follow an orientation
    in XMP, which OpenCV ignores, nor write the EXIF block anew, which fails on the damaged blocks
    that ImageNet has.

    Args:
        image: an opened PNG or JPEG file, of any mode.
        size: the square's side; at most the image's smaller one.

    Returns:
        An image of mode `RGB`.

    Raises:
        OSError, ValueError, SyntaxError: the file cannot be decoded.
    """
    image.load()  # before the EXIF block is looked at: a PNG may have it at the end
    turn = _turn(image)
    square = as_rgb(image.crop(_centred_box(image, size, turn)))
    return square if turn is None else square.transpose(turn)


def _centred_box(
    image: Image.Image, size: int, turn: Image.Transpose | None = None
) -> tuple[int, int, int, int]:
    """Returns (left, top, right, bottom), before the turn, of what is the centre after it."""
    left, top = (image.width - size) // 2, (image.height - size) // 2
    # Turning may exchange the two sides, of which the first is the smaller one by rounding.
    if turn in _FROM_THE_RIGHT:
        left = image.width - size - left
    if turn in _FROM_THE_BOTTOM:
        top = image.height - size - top
    return left, top, left + size, top + size


def _rgbx(image: Image.Image) -> np.ndarray:
    """Returns uint8 [h, w, 4] (the last channel means nothing) of an RGB image."""
    data = image.tobytes("raw", "RGBX")  # how Pillow keeps it, so this is quick
    return np.frombuffer(data, np.uint8).reshape(image.height, image.width, 4)


def _rgb(pixels: np.ndarray) -> np.ndarray:
    """Drops the fourth channel; one by one, the others are copied several times as fast."""
    rgb = np.empty((*pixels.shape[:2], 3), np.uint8)
    for channel in range(3):
        rgb[..., channel] = pixels[..., channel]
    return rgb


def _picked_rows(image: Image.Image, box: tuple[int, ...], rows: np.ndarray) -> np.ndarray:
    """Returns some rows of a box of an upright image, uint8 [rows, w, 4]."""
    left, top, right, _ = box
    picked = np.empty((len(rows), right - left, 4), np.uint8)
    for line, row in zip(picked, rows.tolist(), strict=True):
        line[:] = _rgbx(as_rgb(image.crop((left, top + row, right, top + row + 1))))
    return picked


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


_FROM_THE_RIGHT = {
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_90,
    Image.Transpose.TRANSVERSE,
}

_FROM_THE_BOTTOM = {
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
}


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Returns what turns a loaded image upright, or None if it is."""
    return _TURNS.get(_orientation(image) or 1)


def _orientation(image: Image.Image) -> int | None:
    """Returns the EXIF orientation, or None if there is none or the block is damaged."""
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        orientation = exif.get(ExifTags.Base.Orientation)
    except Exception:  # Pillow's parser lets out many kinds; OpenCV, too, then takes it as upright
        return None
    return orientation if isinstance(orientation, int) else None


def resize_linear(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resizes by OpenCV's `INTER_LINEAR`: bilinear in fixed point, without antialiasing.

    When shrinking, the result is OpenCV's byte for byte, and at exactly one half the rounded mean
    of each 2x2 block. OpenCV enlarges by other code, whose results differ by at most 1.

    Args:
        pixels: uint8 `[h, w, c]`, not empty; four channels are the quickest.
        size: height and width of the result, at least 1.

    Returns:
        uint8 `[size, size, c]`, a new array.
    """
    return _resize(lambda rows: pixels[rows], pixels.shape, size)


def _resize(
    lines: Callable[[np.ndarray], np.ndarray], shape: tuple[int, int, int], size: int
) -> np.ndarray:
    """`resize_linear` of the image of which `lines` returns some rows, uint8 [rows, w, c]."""
    height, width, channels = shape
    down, across = _taps(height, size), _taps(width, size, channels)
    resized = np.empty((size, size, channels), np.uint8)
    for start in range(0, size, _BAND):
        band = down.part(slice(start, start + _BAND))
        rows = lines(band.places.ravel())
        corners = np.stack([rows.take(columns, axis=1) for columns in across.places])
        resized[start : start + _BAND] = _interpolate(corners, band, across)
    return resized


def _resize_box(pixels: np.ndarray, box: tuple[int, int, int, int], size: int) -> np.ndarray:
    """`resize_linear` of a square box of uint8 [h, w, 4], mostly without a copy of its rows."""
    left, top, right, bottom = box
    if size > _BAND:
        return resize_linear(pixels[top:bottom, left:right], size)
    words = pixels.reshape(-1).view(np.uint32)  # a pixel is one number
    corners = words.take(_corners(pixels.shape[1], box, size)).view(np.uint8)
    return _interpolate(corners, _taps(right - left, size), _taps(right - left, size, 4))


def _interpolate(corners: np.ndarray, down: "_Taps", across: "_Taps") -> np.ndarray:
    """Returns the means of four pixels each, rounded as OpenCV does: uint8 [rows, size, c].

    Args:
        corners: for each of the output's pixels those left and right of it, in the rows above and
            then in the rows below: uint8 [2, 2 * rows, size, c], in whatever shape.
        down: of the height; of all rows, or of some.
        across: of the width, for all channels.
    """
    rows, size = down.places.shape[1], across.places.shape[1]
    # In place and without mixed types, which NumPy converts a little at a time.
    left, right = corners.reshape(2, 2 * rows, -1).astype(across.weights.dtype)
    left *= across.weights[0]
    right *= across.weights[1]
    left += right
    left >>= across.bits - 7
    lines = left.astype(np.uint32)
    lines *= down.weights.astype(np.uint32).reshape(-1, 1)
    lines >>= down.bits + 5
    total = lines[:rows]
    total += lines[rows:]
    total += 2
    total >>= 2
    return total.astype(np.uint8).reshape(rows, size, -1)


class _Taps(NamedTuple):
    """What each output position along a side is made of.

    Attributes:
        places: its two neighbours, int64 [2, size].
        weights: theirs, unsigned [2, size * channels], of a type that has room for the weighted
            mean of two pixels; the unit is 1 / 2 ** bits.
        bits: OpenCV's 11, or 8 where that changes nothing, as for output sizes of 2 to 128 that
            are powers of 2: then 16 bits are room enough, and twice as fast as 32.
    """

    places: np.ndarray
    weights: np.ndarray
    bits: int

    def part(self, which: slice) -> "_Taps":
        """Returns those of some positions; of one channel only."""
        return _Taps(self.places[:, which], self.weights[:, which], self.bits)


@functools.lru_cache(1024)
def _taps(length: int, size: int, channels: int = 1) -> _Taps:
    """Returns the neighbours and weights for a side of `length` pixels."""
    # In double precision, and the scale as a reciprocal, because OpenCV rounds in this order.
    scale = 1 / (size / length)
    position = ((np.arange(size) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(position).astype(np.int64)
    part = position - first.astype(np.float32)
    part[(first < 0) | (first >= length - 1)] = 0
    first = first.clip(0, length - 1)
    places = np.stack([first, np.minimum(first + 1, length - 1)])
    weights = np.rint(np.stack([1 - part, part]) * np.float32(2048)).astype(np.uint32)
    weights = weights.repeat(channels, axis=1)
    if (weights % 8).any():
        return _Taps(places, weights, 11)
    return _Taps(places, (weights // 8).astype(np.uint16), 8)


@functools.lru_cache(4)  # of 0.5 MB at most
def _corners(width: int, box: tuple[int, int, int, int], size: int) -> np.ndarray:
    """Returns which pixels of an image of that width are the corners for `_interpolate`.

    They are int64 [2, 2 * size, size], counted row by row from the image's first.
    """
    left, top, right, _ = box
    places = _taps(right - left, size).places
    rows, columns = (places + top) * width, places + left
    return rows.reshape(-1, 1) + columns[:, None, :]
