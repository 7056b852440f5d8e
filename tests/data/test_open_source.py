"""The table of data sets, the choice of a route, and the interface of a source."""

import hashlib
import itertools
import json
import threading
from typing import ClassVar

import numpy as np
import pytest

from common.data import DATASETS, ArraySource, ImageSource, open_source
from common.errors import UserError


def test_table():
    facts = {name: (row.image_shape, row.count) for name, row in DATASETS.items()}
    assert facts == {
        "cifar10": ((32, 32, 3), 50_000),
        "stl10": ((48, 48, 3), 100_000),
        "celeba": ((64, 64, 3), 202_599),
        "imagenet": ((128, 128, 3), 1_281_167),
        "digits": ((32, 32, 3), 1_797),
    }
    assert {name: row.classes for name, row in DATASETS.items() if row.classes} == {
        "cifar10": 10,
        "imagenet": 1_000,
        "digits": 10,
    }
    assert [name for name, row in DATASETS.items() if row.class_subsets] == ["imagenet"]
    assert [name for name, row in DATASETS.items() if row.real_with_replacement] == ["imagenet"]
    networks = {name: row.feature_network for name, row in DATASETS.items()}
    assert networks == dict.fromkeys(DATASETS, "inception") | {"digits": "digits"}


def test_unknown_name(tmp_path):
    with pytest.raises(
        UserError,
        match=r"dataset='mnist': the value must be one of cifar10, stl10, celeba, imag",
    ):
        open_source("mnist", tmp_path)


@pytest.mark.parametrize(
    ("name", "route", "choices"),
    [
        ("cifar10", "npy", "auto, archive, tfds"),
        ("stl10", "archive", "auto, npy, tfds"),
        ("celeba", "sklearn", "auto, npy, tfds"),
        ("imagenet", "archive", "auto, npy, tfds"),
        ("digits", "tfds", "auto, sklearn"),
        ("digits", "", "auto, sklearn"),
    ],
)
def test_unknown_route(tmp_path, name, route, choices):
    with pytest.raises(UserError, match=f"unknown route '{route}' for {name}; .*: {choices}"):
        open_source(name, tmp_path, route)


@pytest.mark.parametrize("count", [0, -1])
def test_expected_images_must_be_positive(tmp_path, count):
    with pytest.raises(UserError, match=f"expected_images is {count}"):
        open_source("digits", tmp_path, expected_images=count)
    with pytest.raises(UserError, match=f"expected_classes is {count}; it must be at least 1"):
        open_source("imagenet", tmp_path, expected_classes=count)


@pytest.mark.parametrize("name", ["cifar10", "stl10", "celeba", "digits"])
def test_expected_classes_without_classes(tmp_path, name):
    with pytest.raises(UserError, match=f"expected_classes is 10, but a subset of {name} "):
        open_source(name, tmp_path, expected_classes=10)


@pytest.mark.parametrize(
    ("name", "route", "words"),
    [
        ("cifar10", "archive", ["CIFAR10/cifar-10-python.tar.gz", "route tfds"]),
        ("stl10", "npy", ["STL10/stl10.npy", "STL10/cifar-10-stl10.npy",
                          "dataset_preprocess/STL10/preprocess.py", "route tfds"]),
        ("celeba", "npy", ["CelebA/celeba.npy", "dataset_preprocess/CelebA/preprocess.py"]),
        ("imagenet", "npy", ["imagenet/ILSVRC2012 not found", "route tfds",
                             "dataset_preprocess/ImageNet/preprocess.py"]),
    ],
)  # fmt: skip
def test_missing_file(tmp_path, name, route, words):
    with pytest.raises(UserError) as caught:
        open_source(name, tmp_path, route)
    for word in [*words, str(tmp_path)]:
        assert word in str(caught.value)
    assert list(tmp_path.iterdir()) == []


IMAGES = np.random.default_rng(0).integers(0, 256, (50, 2, 3, 3), dtype=np.uint8)


def test_array_source():
    source = ArraySource("cifar10", "archive", IMAGES, {"images": 50})
    assert isinstance(source, ImageSource)
    assert (len(source), source.image_shape) == (50, (2, 3, 3))
    assert json.loads(json.dumps(source.record)) == {
        "images": 50,
        "sample_sha256": hashlib.sha256(IMAGES.tobytes()).hexdigest(),
    }
    indices = np.array([49, 0, 0, 7], dtype=np.int64)
    batch = source.read(indices)
    assert np.array_equal(batch, IMAGES[indices])
    batch[:] = 0  # a copy: the source does not change
    assert np.array_equal(source.read(indices), IMAGES[indices])
    assert source.read(np.array([], dtype=np.int64)).shape == (0, 2, 3, 3)


@pytest.mark.parametrize("index", [-1, 50])
def test_index_out_of_range(index):
    source = ArraySource("cifar10", "archive", IMAGES, {})
    with pytest.raises(IndexError):
        source.read(np.array([0, index]))


@pytest.mark.parametrize("images", [IMAGES.astype(np.float32), IMAGES[0]])
def test_array_source_checks_its_array(images):
    with pytest.raises(ValueError, match="expected uint8"):
        ArraySource("cifar10", "archive", images, {})


@pytest.mark.parametrize("place", [0, 1, -1])
def test_records_tell_images_apart(tmp_path, place):
    """Files of the same name and size: the first image, the next in the sample, or the last."""
    images = np.random.default_rng(1).integers(0, 256, (600, 48, 48, 3), dtype=np.uint8)
    sample = [i * 599 // 255 for i in range(256)]
    records = []
    for folder in ("one", "other", "again"):
        (tmp_path / folder / "STL10").mkdir(parents=True)
        changed = images.copy()
        changed[sample[place], 20, 30, 1] ^= folder == "other"
        np.save(tmp_path / folder / "STL10" / "stl10.npy", changed)
        records.append(open_source("stl10", tmp_path / folder, "npy", 600).record)
    one, other, again = records
    assert one == again
    assert one["sample_sha256"] == hashlib.sha256(images[sample].tobytes()).hexdigest()
    assert one.pop("sample_sha256") != other.pop("sample_sha256")
    assert one == other


def test_a_record_reads_few_images():
    """However many there are; the first and the last, and few at a time."""
    reads = []

    class Endless(ImageSource):
        description: ClassVar = {}

        def __len__(self):
            return 1_281_167

        def read(self, indices):
            reads.append(indices.tolist())
            return np.zeros((len(indices), 2, 2, 3), np.uint8)

    source = Endless()
    assert source.record == source.record
    assert list(itertools.chain(*reads)) == [i * 1_281_166 // 255 for i in range(256)]
    assert max(map(len, reads)) == 8


def test_threads_read_alike():
    source = ArraySource("cifar10", "archive", IMAGES, {})
    wrong = []

    def work(seed):
        indices = np.random.default_rng(seed).integers(0, 50, 64)
        for _ in range(50):
            if not np.array_equal(source.read(indices), IMAGES[indices]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
