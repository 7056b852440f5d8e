"""The exact image operations, against NumPy and OpenCV."""

import io
import warnings

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from common.preparation.transforms import (
    celeba_image,
    halve,
    halve_planes,
    imagenet_image,
    resize_linear,
    upright_square,
)

IMAGE = np.random.default_rng(0).integers(0, 256, (218, 178, 3), dtype=np.uint8)


@pytest.mark.parametrize("height", [96, 218])
@pytest.mark.parametrize("width", [96, 178])
def test_halve(height, width):
    image = IMAGE[:height, :width]
    halved = np.asarray(halve(Image.fromarray(image)))
    size = (width // 2, height // 2)
    assert np.array_equal(halved, cv2.resize(image, size, interpolation=cv2.INTER_LINEAR))
    blocks = image.reshape(height // 2, 2, width // 2, 2, 3).astype(int).sum(axis=(1, 3))
    assert np.array_equal(halved, (blocks + 2) // 4)


@settings(max_examples=50, deadline=None)
@given(
    count=st.integers(0, 5),
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    seed=st.integers(0),
)
def test_halve_planes(count, height, width, seed):
    shape = (count, 3, 2 * width, 2 * height)
    planes = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    planes.setflags(write=False)
    halved = halve_planes(planes)
    assert (halved.dtype, halved.shape) == (np.uint8, (count, height, width, 3))
    for upright, half in zip(planes.transpose(0, 3, 2, 1), halved, strict=True):
        by_opencv = cv2.resize(upright, (width, height), interpolation=cv2.INTER_LINEAR)
        assert np.array_equal(half, by_opencv)


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
def test_flat_images(value):
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


def encoded(format_, mode="RGB", box=(0, 0, 178, 218), **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(IMAGE).crop(box).convert(mode).save(file, format_, **options)
    return file.getvalue()


def opened(data):
    return Image.open(io.BytesIO(data))


def read_opencv(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def squares_of_opencv(data, side, size):
    """The centred square, and what it is when resized."""
    pixels = read_opencv(data)
    height, width, _ = pixels.shape
    top, left = (height - side) // 2, (width - side) // 2
    square = np.ascontiguousarray(pixels[top : top + side, left : left + side])
    return square, opencv(square, size)


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize(("height", "width"), [(218, 178), (217, 178), (218, 177), (150, 151)])
def test_orientation(format_, orientation, height, width):
    """Odd differences of the sides: after turning, the centre lies elsewhere."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encoded(format_, box=(0, 0, width, height), exif=exif)
    for side in (128, 101, min(height, width)):
        square, _ = squares_of_opencv(data, side, 64)
        assert np.array_equal(np.asarray(upright_square(opened(data), side)), square)
    square, resized = squares_of_opencv(data, min(height, width), 128)
    assert np.array_equal(imagenet_image(opened(data)), resized)


@pytest.mark.parametrize("size", [64, 48, 100])
def test_celeba_image(size):
    data = encoded("JPEG")
    _, resized = squares_of_opencv(data, 128, size)
    found = celeba_image(opened(data), size)
    assert (found.dtype, found.shape) == (np.uint8, (size, size, 3))
    assert np.array_equal(found, resized)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_imagenet_image(data):
    size = data.draw(st.sampled_from([128, 128, 64, 31]))
    height, width = (data.draw(st.integers(size, 700)) for _ in range(2))
    mode = data.draw(st.sampled_from(["RGB", "L", "CMYK"]))
    orientation = data.draw(st.integers(0, 9))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = Image.fromarray(noise(height, width, data.draw(st.integers(0, 9)))).convert(mode)
    file = io.BytesIO()
    format_ = data.draw(st.sampled_from(["JPEG", "JPEG" if mode == "CMYK" else "PNG"]))
    image.save(file, format_, exif=exif)
    _, resized = squares_of_opencv(file.getvalue(), min(height, width), size)
    assert np.array_equal(imagenet_image(opened(file.getvalue()), size), resized)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(("height", "width"), [(4099, 4201), (4201, 4099), (3000, 7001)])
def test_huge_images(mode, height, width):
    """Beyond 2**24 pixels the rows are fetched one by one."""
    small = Image.fromarray(noise(300, 300))
    image = small.resize((width, height), Image.Resampling.BILINEAR).convert(mode)
    file = io.BytesIO()
    image.save(file, "JPEG")
    _, resized = squares_of_opencv(file.getvalue(), min(height, width), 128)
    assert np.array_equal(imagenet_image(opened(file.getvalue())), resized)


@pytest.mark.parametrize(("mode", "tolerance"), [("RGB", 1), ("CMYK", 1)])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (90, 127), (64, 300)])
def test_small_images(mode, tolerance, height, width):
    data = encoded("JPEG", mode, box=(0, 0, width, height)) if width <= 178 else None
    if data is None:
        file = io.BytesIO()
        Image.fromarray(noise(height, width)).convert(mode).save(file, "JPEG")
        data = file.getvalue()
    _, resized = squares_of_opencv(data, min(height, width), 128)
    difference = imagenet_image(opened(data)).astype(int) - resized
    assert np.abs(difference).max() <= tolerance


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA"])
def test_png_modes(mode):
    data = encoded("PNG", mode)
    found = np.asarray(upright_square(opened(data), 178))
    assert np.array_equal(found, squares_of_opencv(data, 178, 64)[0])


def test_pixels_of_16_bits_are_refused():
    file = io.BytesIO()
    Image.fromarray(np.full((200, 200), 40_000, np.uint16)).save(file, "PNG")
    with pytest.raises(ValueError, match="mode I;16, not of 8 bits"):
        imagenet_image(opened(file.getvalue()))


@pytest.mark.parametrize(("mode", "tolerance"), [("L", 0), ("RGB", 0), ("CMYK", 0)])
def test_modes(mode, tolerance):
    data = encoded("JPEG", mode)
    square, _ = squares_of_opencv(data, 178, 64)
    difference = np.asarray(upright_square(opened(data), 178)).astype(int) - square
    assert np.abs(difference).max() <= tolerance


def test_orientation_in_xmp_is_ignored():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    data = encoded("JPEG", xmp=xmp)
    square, _ = squares_of_opencv(data, 178, 64)
    assert np.array_equal(np.asarray(upright_square(opened(data), 178)), square)


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
        assert upright_square(opened(encoded("JPEG", exif=bytes(block))), 178).size == (178, 178)
