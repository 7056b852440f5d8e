"""The exact picture operations, against NumPy and OpenCV."""

import io
import warnings

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from common.data.transforms import centre_crop, centre_square, halve, resize_linear, upright_rgb

PICTURE = np.random.default_rng(0).integers(0, 256, (218, 178, 3), dtype=np.uint8)


@pytest.mark.parametrize("height", [96, 218])
@pytest.mark.parametrize("width", [96, 178])
def test_halve(height, width):
    picture = PICTURE[:height, :width]
    halved = np.asarray(halve(Image.fromarray(picture)))
    size = (width // 2, height // 2)
    assert np.array_equal(halved, cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR))
    blocks = picture.reshape(height // 2, 2, width // 2, 2, 3).astype(int).sum(axis=(1, 3))
    assert np.array_equal(halved, (blocks + 2) // 4)


@pytest.mark.parametrize(("height", "width"), [(218, 178), (217, 177), (128, 128), (129, 130)])
def test_centre_crop(height, width):
    picture = PICTURE[:height, :width]
    top, left = (height - 128) // 2, (width - 128) // 2
    cropped = np.asarray(centre_crop(Image.fromarray(picture), 128))
    assert np.array_equal(cropped, picture[top : top + 128, left : left + 128])


@pytest.mark.parametrize(("height", "width"), [(218, 178), (100, 177), (90, 90), (1, 4), (4, 1)])
def test_centre_square(height, width):
    picture = PICTURE[:height, :width]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = np.asarray(centre_square(Image.fromarray(picture)))
    assert np.array_equal(square, picture[top : top + side, left : left + side])


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def opencv(pixels, size):
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize("side", [129, 130, 131, 191, 255, 257, 333, 375, 500, 512, 1023, 1200])
def test_shrinking_to_128(side):
    pixels = noise(side, side)
    assert np.array_equal(resize_linear(pixels, 128), opencv(pixels, 128))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_shrinking(data):
    size = data.draw(st.integers(1, 130))
    height, width = (data.draw(st.integers(size, 4 * size + 9)) for _ in range(2))
    pixels = noise(height, width, data.draw(st.integers(0, 99)))
    resized = resize_linear(pixels, size)
    assert (resized.dtype, resized.shape) == (np.uint8, (size, size, 3))
    assert np.array_equal(resized, opencv(pixels, size))


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_flat_pictures(value):
    pixels = np.full((301, 200, 3), value, np.uint8)
    assert np.array_equal(resize_linear(pixels, 128), opencv(pixels, 128))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_enlarging(data):
    size = data.draw(st.integers(1, 200))
    height, width = (data.draw(st.integers(1, size)) for _ in range(2))
    pixels = noise(height, width, data.draw(st.integers(0, 99)))
    difference = resize_linear(pixels, size).astype(int) - opencv(pixels, size)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("size", [1, 2, 31, 128])
def test_equal_size(size):
    pixels = noise(size, size)
    resized = resize_linear(pixels, size)
    assert np.array_equal(resized, pixels)
    assert not np.shares_memory(resized, pixels)


@pytest.mark.parametrize("size", [1, 2, 33, 128])
def test_one_half(size):
    pixels = noise(2 * size, 2 * size)
    blocks = pixels.reshape(size, 2, size, 2, 3).astype(int).sum(axis=(1, 3))
    assert np.array_equal(resize_linear(pixels, size), (blocks + 2) // 4)


def test_resize_takes_views():
    pixels = noise(300, 400)[::-1, 20:320, ::-1]
    assert np.array_equal(resize_linear(pixels, 128), opencv(np.ascontiguousarray(pixels), 128))


def encoded(format_, mode="RGB", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PICTURE).convert(mode).save(file, format_, **options)
    return file.getvalue()


def read_upright(data):
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(upright_rgb(picture))


def read_opencv(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(10))
def test_orientation(format_, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encoded(format_, exif=exif)
    assert np.array_equal(read_upright(data), read_opencv(data))


@pytest.mark.parametrize(("mode", "tolerance"), [("L", 0), ("RGB", 0), ("CMYK", 1)])
def test_modes(mode, tolerance):
    data = encoded("JPEG", mode)
    difference = read_upright(data).astype(int) - read_opencv(data)
    assert np.abs(difference).max() <= tolerance


def test_orientation_in_xmp_is_ignored():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    data = encoded("JPEG", xmp=xmp)
    assert np.array_equal(read_upright(data), read_opencv(data))


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, 40), junk=st.binary(min_size=1, max_size=6))
def test_damaged_exif_does_not_matter(position, junk):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "maker"
    exif[ExifTags.Base.Orientation] = 6
    block = bytearray(exif.tobytes())
    block[position : position + len(junk)] = junk
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert sorted(read_upright(encoded("JPEG", exif=bytes(block))).shape) == [3, 178, 218]
