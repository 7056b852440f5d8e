"""The digits: scikit-learn's, enlarged."""

import hashlib
import sys

import cv2
import numpy as np
import pytest
from sklearn import datasets

from common.data import open_source
from common.data.digits import load_digits
from common.errors import UserError


def test_images_and_labels():
    images, labels = load_digits()
    assert (images.shape, images.dtype) == ((1797, 32, 32, 3), np.uint8)
    assert (labels.shape, labels.dtype) == ((1797,), np.int64)
    assert np.array_equal(labels, datasets.load_digits().target)
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.array_equal(images[..., 0], images[..., 1])
    assert np.array_equal(images[..., 0], images[..., 2])
    assert (images.min(), images.max()) == (0, 255)


def test_enlargement_against_opencv():
    """OpenCV's bicubic filter has another sharpness parameter, so it agrees only roughly."""
    images, _ = load_digits()
    original = datasets.load_digits().images
    for index in range(0, 1797, 97):
        grey = np.float32(original[index] * 255 / 16)
        oracle = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_CUBIC).clip(0, 255)
        difference = np.abs(images[index, :, :, 0] - oracle)
        assert difference.mean() < 4
        assert difference.max() < 40
        mirrored = np.abs(images[index, :, ::-1, 0] - oracle)
        assert mirrored.mean() > 2 * difference.mean()


def test_source(tmp_path):
    evenly = [i * 1796 // 255 for i in range(256)]
    sample = hashlib.sha256(load_digits()[0][evenly].tobytes()).hexdigest()
    for route in ("auto", "sklearn"):
        source = open_source("digits", tmp_path, route)
        assert (source.route, source.image_shape, len(source)) == ("sklearn", (32, 32, 3), 1797)
        assert np.array_equal(source.read(np.arange(1797)), load_digits()[0])
        assert source.classes == 10
        assert np.array_equal(source.labels, datasets.load_digits().target)
        assert source.record == {
            "dataset": "digits",
            "route": "sklearn",
            "files": {},
            "images": 1797,
            "sample_sha256": sample,
        }
    assert len(open_source("digits", tmp_path, expected_images=1797)) == 1797
    with pytest.raises(UserError, match="found 1,797 images, expected 1,796"):
        open_source("digits", tmp_path, expected_images=1796)


def test_missing_scikit_learn(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(UserError, match=r"scikit-learn .*pip install -e '\.\[demo\]'"):
        open_source("digits", tmp_path)
