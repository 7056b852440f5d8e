"""The exact picture operations, against NumPy and OpenCV."""

import cv2
import numpy as np
import pytest
from PIL import Image

from common.data.transforms import centre_crop, halve

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
