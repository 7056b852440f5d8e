"""ImageNet's folder of class folders: what is accepted, what is refused, and what it costs."""

import hashlib
import json
import os
import threading

import numpy as np
import pytest

from common.data import open_source
from common.data.folder import FolderSource
from common.errors import UserError

SHAPE = (128, 128, 3)
# Made in this order, which is not the sorted one.
FILES = ["n02/b.npy", "n02/a.npy", "n10/z.npy", "n01/n01_10.npy", "n01/n01_9.npy", "n01/B.npy"]


def image(name: str) -> np.ndarray:
    return np.random.default_rng(list(name.encode())).integers(0, 256, SHAPE, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "imagenet" / "ILSVRC2012"
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / name, image(name))
    return folder


def open_folder(tmp_path, route="npy", images=6, classes=3):
    return open_source("imagenet", tmp_path, route, images, classes)


def refused(act, path, *words):
    with pytest.raises(UserError) as caught:
        act()
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    for word in (*words, "dataset_preprocess/ImageNet/preprocess.py"):
        assert word in message


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("route", ["auto", "npy"])
def test_images(tmp_path, route):
    source = open_folder(tmp_path, route)
    assert isinstance(source, FolderSource)
    assert (source.name, source.route, source.image_shape, len(source), source.classes) == (
        "imagenet", "npy", SHAPE, 6, 3,
    )  # fmt: skip
    expected = np.stack([image(name) for name in sorted(FILES)])
    assert np.array_equal(source.read(np.arange(6)), expected)
    assert source.labels.dtype == np.int64
    assert source.labels.tolist() == [sorted({"n01", "n02", "n10"}).index(name[:3])
                                      for name in sorted(FILES)]  # fmt: skip
    indices = np.array([5, 0, 0, 3, 2], dtype=np.int64)
    batch = source.read(indices)
    assert batch.dtype == np.uint8
    assert np.array_equal(batch, expected[indices])
    batch[:] = 0  # a copy
    assert np.array_equal(source.read(indices), expected[indices])
    assert source.read(np.array([], dtype=np.int64)).shape == (0, *SHAPE)
    many = np.random.default_rng(0).integers(0, 6, 100)
    assert np.array_equal(source.read(many), expected[many])


@pytest.mark.parametrize("index", [-1, 6])
def test_index_out_of_range(tmp_path, folder, index):
    assert folder.is_dir()
    with pytest.raises(IndexError, match=f"image index {index} is not in"):
        open_folder(tmp_path).read(np.array([0, index]))


def test_record(tmp_path, folder):
    record = open_folder(tmp_path).record
    names = "".join(name + "\0" for name in sorted(FILES))
    assert json.loads(json.dumps(record)) == {
        "dataset": "imagenet",
        "route": "npy",
        "classes": 3,
        "images": 6,
        "names_sha256": hashlib.sha256(names.encode()).hexdigest(),
        "sample_sha256": sample_digest(*sorted(FILES)),
    }
    np.save(folder / "n02" / "a.npy", ARRAY ^ 1)
    changed = open_folder(tmp_path).record
    assert changed.pop("sample_sha256") != record.pop("sample_sha256")
    assert changed == record
    np.save(folder / "n02" / "a.npy", ARRAY)
    (folder / "n02" / "a.npy").rename(folder / "n02" / "c.npy")
    assert open_folder(tmp_path).record["names_sha256"] != record["names_sha256"]


def sample_digest(*names):
    return hashlib.sha256(b"".join(image(name).tobytes() for name in names)).hexdigest()


@pytest.mark.parametrize(
    ("images", "classes", "expected"),
    [
        (None, None, "expected 1,281,167 in 1,000"),
        (6, None, "expected 6 in 1,000"),
        (None, 3, "expected 1,281,167 in 3"),
        (6, 4, "expected 6 in 4"),
        (5, 3, "expected 5 in 3"),
    ],
)
def test_counts(tmp_path, folder, images, classes, expected):
    refused(
        lambda: open_folder(tmp_path, images=images, classes=classes),
        folder,
        "found 6 images in 3 classes",
        expected,
        "--set expected_images=6 --set expected_classes=3",
    )


def test_other_things_among_the_classes(tmp_path, folder):
    for name, make in [("readme.txt", "touch"), ("x.npy", "touch"), (".hidden", "mkdir")]:
        getattr(folder / name, make)()
        refused(lambda: open_folder(tmp_path), folder / name, "is not a class folder")
        (folder / name).rename(tmp_path / name)
    assert len(open_folder(tmp_path)) == 6


@pytest.mark.parametrize("name", ["a.JPEG", "a.npy.part", "npy", ".a.npy", ".DS_Store", "A.NPY"])
def test_other_files_in_a_class(tmp_path, folder, name):
    (folder / "n02" / name).touch()
    refused(lambda: open_folder(tmp_path), folder / "n02" / name, "is not a .npy file")


@pytest.mark.parametrize(
    "make", [os.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")]
)  # fmt: skip
def test_irregular_files(tmp_path, folder, make):
    make(folder / "n02" / "c.npy")
    refused(lambda: open_folder(tmp_path), folder / "n02" / "c.npy", "is not a .npy file")


def test_links_to_files(tmp_path, folder):
    (folder / "n02" / "a.npy").rename(tmp_path / "elsewhere.npy")
    (folder / "n02" / "a.npy").symlink_to(tmp_path / "elsewhere.npy")
    source = open_folder(tmp_path)
    assert np.array_equal(source.read(np.array([3]))[0], image("n02/a.npy"))


def test_empty_class(tmp_path, folder):
    (folder / "n03").mkdir()
    refused(lambda: open_folder(tmp_path, classes=4), folder / "n03", "has no .npy files")


def test_empty_folder(tmp_path):
    folder = tmp_path / "imagenet" / "ILSVRC2012"
    folder.mkdir(parents=True)
    refused(lambda: open_folder(tmp_path), folder, "found 0 images in 0 classes")


def test_name_that_is_not_utf8(tmp_path, folder):
    name = os.fsencode(folder / "n02") + b"/\xff\xfe.npy"
    with open(name, "wb") as file:
        np.save(file, image("other"))
    source = open_folder(tmp_path, images=7)
    assert np.array_equal(source.read(np.array([5]))[0], image("other"))


class Witness:
    def __reduce__(self):
        return pytest.fail, ("was unpickled",)


ARRAY = image("n02/a.npy")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (ARRAY[:64], "found uint8 [64, 128, 3], C order, expected uint8 [128, 128, 3], C order"),
        (ARRAY[None], "found uint8 [1, 128, 128, 3]"),
        (ARRAY.astype(np.float64), "found float64"),
        (np.asfortranarray(ARRAY), "Fortran order"),
        (np.array([Witness()], dtype=object), "found object [1]"),
    ],
)
def test_wrong_array(tmp_path, folder, array, words):
    np.save(folder / "n02" / "a.npy", array, allow_pickle=True)
    source = open_folder(tmp_path)
    source.read(np.array([0, 1, 2, 4, 5]))
    refused(lambda: source.read(np.arange(6)), folder / "n02" / "a.npy", words)


@pytest.mark.parametrize("change", [-1, 1, 10**6, -ARRAY.size, -ARRAY.size - 1, -ARRAY.size - 128])
def test_wrong_length(tmp_path, folder, change):
    path = folder / "n02" / "a.npy"
    os.truncate(path, path.stat().st_size + change)
    words = ["expected 49,280 from its header"] if change >= -ARRAY.size else ["not a valid"]
    refused(lambda: open_folder(tmp_path).read(np.array([3])), path, *words)


def test_missing_later(tmp_path, folder):
    source = open_folder(tmp_path)
    (folder / "n02" / "a.npy").unlink()
    refused(lambda: source.read(np.array([3])), folder / "n02" / "a.npy", "cannot be read")


@pytest.mark.usefixtures("folder")
def test_threads_read_alike(tmp_path):
    source = open_folder(tmp_path)
    expected = np.stack([image(name) for name in sorted(FILES)])
    wrong = []

    def work(seed):
        for indices in np.random.default_rng(seed).integers(0, 6, (10, 20)):
            if not np.array_equal(source.read(indices), expected[indices]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_names_are_kept_compactly(tmp_path):
    """A name takes its bytes, not an object: 20 here, so 26 MB for ImageNet."""
    folder = tmp_path / "imagenet" / "ILSVRC2012" / "n01"
    folder.mkdir(parents=True)
    for number in range(2000):
        (folder / f"n01440764_{number:06}.npy").touch()
    source = open_folder(tmp_path, images=2000, classes=1)
    assert sum(files.nbytes for files in source._files) == 2000 * 20
