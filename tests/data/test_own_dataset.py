"""Labels of a source, a user's own data set by its import path, and what an import costs."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from common.data import ArraySource, Dataset, open_source
from common.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
LABELS = [2, 0, 1, 2, 2, 0]

BIRDS = """
import numpy as np
from common.data import Dataset, ImageSource, Request

def open_birds(request: Request) -> ImageSource:
    images = np.load(request.data_dir / "birds.npy", mmap_mode="r")
    labels = np.load(request.data_dir / "birds_labels.npy")
    return request.source(images, labels=labels)

birds = Dataset(routes={"npy": open_birds}, classes=3)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes the user's module and its files; returns what is to be put behind the module."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_birds", raising=False)
    np.save(tmp_path / "birds.npy", IMAGES)
    np.save(tmp_path / "birds_labels.npy", np.array(LABELS, np.uint8))

    def write(text=""):
        (tmp_path / "my_birds.py").write_text(BIRDS + text)

    return write


@pytest.mark.parametrize("route", ["auto", "npy"])
def test_own_data_set(tmp_path, module, route):
    module()
    source = open_source("my_birds:birds", tmp_path, route, expected_images=6)
    assert (source.route, source.image_shape, source.classes) == ("npy", (8, 8, 3), 3)
    assert not source.real_with_replacement
    assert np.array_equal(source.read(np.arange(6)), IMAGES)
    assert source.labels.dtype == np.int64
    assert source.labels.tolist() == LABELS
    assert source.labels_sha256 == hashlib.sha256(np.array(LABELS, "<i8").tobytes()).hexdigest()
    assert source.record == {
        "dataset": "my_birds:birds",
        "route": "npy",
        "files": {},
        "images": 6,
        "sample_sha256": hashlib.sha256(IMAGES.tobytes()).hexdigest(),
    }


def test_facts_of_an_own_row_are_used(tmp_path, module):
    module(
        "import dataclasses\n"
        "row = dataclasses.replace(birds, class_subsets=True, real_with_replacement=True)\n"
        "of_four = dataclasses.replace(birds, classes=4)\n"
    )
    with pytest.raises(UserError, match="labels are 0 to 2, where 0 to 1 are needed"):
        open_source("my_birds:row", tmp_path, expected_classes=2)
    assert open_source("my_birds:row", tmp_path).real_with_replacement
    assert open_source("my_birds:of_four", tmp_path).classes == 4


ROWS = {
    "no such module": ("none:birds", "", "dataset=none:birds: the module 'none' cannot"),
    "no such row": ("my_birds:ducks", "", "has no 'ducks'"),
    "no row": ("my_birds:open_birds", "", "a function, where a common.data.dataset.Dataset is"),
    "no route": ("my_birds:row", "row = Dataset(routes={})", "a Dataset without routes"),
    "no source": (
        "my_birds:row",
        "row = Dataset(routes={'a': lambda request: 7})",
        "route a returns an object of type int, where a common.data.ImageSource is needed",
    ),
    "no number of classes": (
        "my_birds:row",
        "row = Dataset(routes={'a': open_birds})",
        "must say how many classes",
    ),
    "no labels": (
        "my_birds:row",
        "row = Dataset(routes={'a': lambda r: r.source(np.zeros((1, 8, 8, 3), 'u1'))}, classes=3)",
        "found None classes, expected 3",
    ),
    "other shape": (
        "my_birds:row",
        "row = Dataset(routes={'a': open_birds}, classes=3, image_shape=(9, 8, 3))",
        "its images are [8, 8, 3], and its row says [9, 8, 3]",
    ),
    "other count": (
        "my_birds:row",
        "row = Dataset(routes={'a': open_birds}, classes=3, count=7)",
        "found 6 images, expected 7; for a subset say --set expected_images=6",
    ),
}


@pytest.mark.parametrize(("name", "text", "words"), ROWS.values(), ids=ROWS)
def test_wrong_rows(tmp_path, module, name, text, words):
    module(text)
    with pytest.raises(UserError) as caught:
        open_source(name, tmp_path)
    assert words in str(caught.value)


def test_wrong_options_of_an_own_data_set(tmp_path, module):
    module()
    with pytest.raises(UserError, match=r"'tfds' for my_birds:birds; .*: auto, npy"):
        open_source("my_birds:birds", tmp_path, "tfds")
    with pytest.raises(UserError, match="expected_classes is 2, but a subset of my_birds:birds"):
        open_source("my_birds:birds", tmp_path, expected_classes=2)
    with pytest.raises(UserError, match="found 6 images, expected 5"):
        open_source("my_birds:birds", tmp_path, expected_images=5)


def test_an_own_data_set_that_cannot_be_opened(tmp_path, module):
    module()
    (tmp_path / "birds.npy").unlink()
    with pytest.raises(UserError, match=r"its route 'npy' fails \(FileNotFoundError.*npy"):
        open_source("my_birds:birds", tmp_path)


WRONG_LABELS = {
    "too few": (np.zeros(5, int), r"int64 \[5\], where integers \[6\] are needed"),
    "two each": (np.zeros((6, 2), int), r"int64 \[6, 2\], where"),
    "real numbers": (np.zeros(6), r"float64 \[6\], where"),
    "booleans": (np.zeros(6, bool), r"bool \[6\], where"),
    "objects": (np.array([2**70] * 6), r"object \[6\], where"),
    "too large": (np.array([0, 1, 2, 3, 0, 0]), "0 to 3, where 0 to 2 are needed"),
    "negative": (np.array([0, 1, 2, -1, 0, 0]), "-1 to 2, where"),
    "wrapping": (np.array([2**63, 0, 0, 0, 0, 0], np.uint64), f"0 to {2**63}, where"),
}


@pytest.mark.parametrize(("labels", "words"), WRONG_LABELS.values(), ids=WRONG_LABELS)
def test_wrong_labels(labels, words):
    with pytest.raises(UserError, match=f"data set a: its labels are {words}"):
        ArraySource("a", "npy", IMAGES, {}, labels=labels, classes=3)
    lazy = ArraySource("a", "npy", IMAGES, {}, labels=lambda: labels, classes=3)
    assert len(lazy.read(np.arange(6))) == 6
    with pytest.raises(UserError, match=words):
        _ = lazy.labels


def test_labels_are_the_sources_own():
    given = np.array(LABELS)
    source = ArraySource("a", "npy", IMAGES, {}, labels=given, classes=3)
    given[:] = 0
    assert source.labels.tolist() == LABELS
    with pytest.raises(ValueError, match="read-only"):
        source.labels[0] = 1
    assert ArraySource("a", "npy", IMAGES, {}).labels is None


def test_labels_are_read_once():
    calls = []

    def labels():
        calls.append(1)
        return np.array(LABELS)

    source = ArraySource("a", "npy", IMAGES, {}, labels=labels, classes=3)
    assert calls == []
    assert source.labels is source.labels
    assert calls == [1]


def test_the_table_imports_nothing_slow():
    program = (
        "import sys, common.data as data\n"
        "assert data.DATASETS['imagenet'].classes == 1000\n"
        "slow = {'tensorflow', 'tensorflow_datasets', 'keras', 'sklearn', 'scipy', 'PIL'}\n"
        "print(sorted(slow & set(sys.modules)))\n"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "[]\n"


def test_a_dataset_without_routes():
    with pytest.raises(UserError, match="without routes"):
        Dataset(routes={})
