"""Ordinary JPEG files, read by fewer steps, against what Pillow reads by itself."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, UnidentifiedImageError

from common.parsers.decoding import DECODER_ERRORS, as_rgb, decode
from common.parsers.jpeg import ordinary_frame
from common.preparation.celeba import decode_celeba
from common.preparation.transforms import imagenet_image
from tests.preparation.archives import encode, photograph
from tests.preparation.test_transforms import read_opencv, squares_of_opencv


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=["JPEG"])


@st.composite
def jpegs(draw) -> tuple[bytes, bool]:
    """A file, and whether it is an ordinary one."""
    mode = draw(st.sampled_from(["RGB", "RGB", "L", "CMYK"]))
    height, width = (draw(st.integers(1, 70)) for _ in range(2))
    image = photograph(draw(st.integers(0, 9)), height, width, grain=9).convert(mode)
    options = {"quality": draw(st.integers(1, 100)), "progressive": draw(st.booleans())}
    options["restart_marker_rows"] = draw(st.sampled_from([0, 1]))
    options["comment"] = draw(st.binary(max_size=9))
    if profile := draw(st.booleans()):
        options["icc_profile"] = b"any"
    orientation = draw(st.sampled_from([None, None, 1, 6]))
    ordinary = mode != "CMYK" and not profile and orientation is None
    return encode(image, orientation=orientation, **options), ordinary


@settings(max_examples=200, deadline=None)
@given(jpegs())
def test_the_frame_is_what_pillow_reads(made):
    data, ordinary = made
    frame, image = ordinary_frame(data), opened(data)
    assert (frame is not None) == ordinary
    if frame:
        assert ((frame.width, frame.height), frame.mode) == (image.size, image.mode)
        assert frame.baseline == (not image.info.get("progressive"))
        assert data[frame.place : frame.place + 2] in (b"\xff\xc0", b"\xff\xc2")


@settings(max_examples=100, deadline=None)
@given(jpegs())
def test_the_image_is_pillows(made):
    data, _ = made
    assert np.array_equal(decode(data, as_rgb), as_rgb(opened(data)))


@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_damaged_files_are_what_they_are_to_pillow(data):
    file = bytearray(encode(photograph(0, 40, 50, grain=9), quality=70))
    for _ in range(data.draw(st.integers(0, 3))):
        position = data.draw(st.integers(0, len(file) - 1))
        junk = data.draw(st.binary(max_size=4))
        file[position : position + data.draw(st.integers(0, 4))] = junk
    file = bytes(file[: data.draw(st.sampled_from([None, None, 5, 300, -1, -40]))])
    try:
        expected = np.asarray(as_rgb(opened(file)))
    except UnidentifiedImageError:  # Pillow refuses tags, too, that are too short to mean anything
        with contextlib.suppress(*DECODER_ERRORS):
            assert np.array_equal(decode(file, as_rgb, formats=["JPEG"]), read_opencv(file))
    except DECODER_ERRORS as error:
        with pytest.raises(type(error)):
            decode(file, as_rgb, formats=["JPEG"])
    else:
        assert np.array_equal(decode(file, as_rgb, formats=["JPEG"]), expected)


def test_pillows_parser_is_left_out(monkeypatch):
    data = encode(photograph(0, 375, 500, grain=9))
    expected = np.asarray(opened(data))
    monkeypatch.setattr(Image, "open", None)
    assert np.array_equal(decode(data, as_rgb), expected)


def test_large_images_are_not_decoded_before_they_are_asked_for(monkeypatch):
    data = encode(Image.new("RGB", (1025, 1024)))
    monkeypatch.setattr(Image, "frombytes", None)
    assert decode(data, lambda image: image.crop((0, 0, 1, 1))).shape == (1, 1, 3)


@pytest.mark.parametrize("orientation", [3, 6])
def test_tags_behind_the_frame_header(orientation):
    """Pillow and OpenCV turn such images, too."""
    data = encode(photograph(0, 218, 178, grain=9), orientation=orientation)
    start = data.index(b"\xff\xe1")
    end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    rest = data[:start] + data[end:]
    scan = rest.index(b"\xff\xda")
    moved = rest[:scan] + data[start:end] + rest[scan:]
    assert not np.array_equal(read_opencv(moved), read_opencv(rest))
    _, expected = squares_of_opencv(moved, 178, 128)
    assert np.array_equal(decode(moved, imagenet_image), expected)
    if orientation == 3:  # the other is not 178x218 any more
        _, expected = squares_of_opencv(moved, 128, 64)
        assert np.array_equal(decode_celeba(moved), expected)


def test_another_format_is_not_taken_for_a_jpeg():
    with pytest.raises(OSError, match="cannot identify"):
        decode(encode(photograph(0, 9, 9, grain=9)), as_rgb, formats=["PNG"])
