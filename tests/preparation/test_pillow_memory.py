"""Pixels read where Pillow keeps them, against those that Pillow copies out."""

import gc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from common.preparation.pillow_memory import pixels_in_place


def image_of(height, width, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels), pixels


@settings(max_examples=50, deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300), seed=st.integers(0, 9))
def test_it_is_the_image(height, width, seed):
    image, pixels = image_of(height, width, seed)
    found = pixels_in_place(image)
    assert (found.shape, found.dtype) == ((height, width, 4), np.uint8)
    np.testing.assert_array_equal(found[..., :3], pixels)


def test_it_is_no_copy_and_read_only():
    image, _ = image_of(5, 7)
    found = pixels_in_place(image)
    image.putpixel((6, 4), (1, 2, 3))
    assert found[4, 6, :3].tolist() == [1, 2, 3]
    assert not found.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = 0


def test_the_memory_outlives_the_image():
    image, pixels = image_of(400, 500)
    found = pixels_in_place(image)[100:]
    image.close()
    del image
    gc.collect()
    others = [image_of(400, 500, seed)[0] for seed in range(1, 6)]
    np.testing.assert_array_equal(found[..., :3], pixels[100:])
    assert len(others) == 5


def test_padded_rows_are_not_taken_for_others():
    Image.core.set_alignment(64)
    try:
        image, _ = image_of(5, 7)
        assert pixels_in_place(image) is None
    finally:
        Image.core.set_alignment(1)


@pytest.mark.parametrize(
    "image",
    [Image.new("RGB", (3000, 2000)), Image.new("L", (4, 4)), object()],
    ids=["several pieces", "one byte a pixel", "a Pillow that does not show it"],
)
def test_what_is_not_to_be_had_is_none(image):
    assert pixels_in_place(image) is None
