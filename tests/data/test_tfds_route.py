"""The TFDS route, on tiny data sets which TFDS's own builders prepared from real-format files."""

import io
import json
import logging
import os
import sys
import threading
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.datasets.celeb_a import celeb_a_dataset_builder as celeb_a

from common.data import open_source, tfds_route
from common.errors import UserError
from tests.data.archives import labels_of, python2_batch, rows, write_archive
from tests.preparation.archives import celeba_name, write_celeba
from tests.preparation.archives import write_stl10 as write_stl10_archive
from tests.preparation.scripts import run

pytestmark = pytest.mark.usefixtures("no_network")

CIFAR_COUNTS = (100, 60, 70, 20, 50)
CIFAR_ROWS = [rows(count, seed) for seed, count in enumerate(CIFAR_COUNTS)]
STL_FILE = np.random.default_rng(1).integers(0, 256, (9, 3, 96, 96), dtype=np.uint8)
FACES = 7


class LocalFiles:
    """Stands in for TFDS's download manager: hands out files made by the test."""

    downloaded_size = 0

    def __init__(self, folder: Path):
        self.folder = folder

    def download_and_extract(self, _url):
        return str(self.folder)

    def download(self, names):
        return {name: self.folder / name for name in names}

    def iter_archive(self, folder):
        for path in sorted(folder.iterdir()):
            yield f"img_align_celeba/{path.name}", path.open("rb")


def write_cifar10(folder: Path) -> None:
    """The binary version: a label, then the row."""
    folder = folder / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    (folder / "batches.meta.txt").write_text("\n".join("abcdefghij"))
    for number, array in enumerate(CIFAR_ROWS, start=1):
        label = labels_of(array).astype(np.uint8)[:, None]
        (folder / f"data_batch_{number}.bin").write_bytes(np.hstack([label, array]).tobytes())
    (folder / "test_batch.bin").write_bytes((bytes([1]) + rows(1, seed=99).tobytes()) * 3)


def write_stl10(folder: Path) -> None:
    folder = folder / "stl10_binary"
    folder.mkdir(parents=True)
    (folder / "class_names.txt").write_text("\n".join("abcdefghij"))
    for part in ("train", "test"):
        (folder / f"{part}_X.bin").write_bytes(bytes([200]) * 3 * 3 * 96 * 96)
        (folder / f"{part}_y.bin").write_bytes(b"\x01\x01\x01")
    (folder / "unlabeled_X.bin").write_bytes(STL_FILE.tobytes())


def face(number: int) -> bytes:
    """A smooth 178x218 JPEG."""
    noise = np.random.default_rng(number).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((178, 218), Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


def write_celeb_a(folder: Path) -> None:
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{number:06}.jpg" for number in range(1, FACES + 1)]
    for number, name in enumerate(names, start=1):
        (folder / "img_align_celeba" / name).write_bytes(face(number))
    partition = [f"{name} {max(0, number - 4)}\n" for number, name in enumerate(names)]
    (folder / "list_eval_partition").write_text("".join(partition))
    tables = {
        "list_attr_celeba": celeb_a.ATTR_HEADINGS,
        "landmarks_celeba": celeb_a.LANDMARK_HEADINGS,
    }
    for table, headings in tables.items():
        lines = [f"{name} {' '.join(['1'] * len(headings))}\n" for name in names]
        (folder / table).write_text(f"{FACES}\n{' '.join(headings)}\n{''.join(lines)}")
    (folder / "identity_celeba").write_text("".join(f"{name} 1\n" for name in names))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A TFDS folder with the three data sets, in several shards each."""
    folder = tmp_path_factory.mktemp("tfds")
    writers = {"cifar10": write_cifar10, "stl10": write_stl10, "celeb_a": write_celeb_a}
    for name, write in writers.items():
        files = tmp_path_factory.mktemp(name)
        write(files)
        builder = tfds.builder(name, data_dir=folder)
        builder._make_download_manager = lambda files=files, **_: LocalFiles(files)
        config = tfds.download.DownloadConfig(num_shards=3 if name != "celeb_a" else 1)
        builder.download_and_prepare(download_config=config)
    return folder


@pytest.fixture
def tfds_dir(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))


def counted(source) -> Counter:
    return Counter(image.tobytes() for image in source.read(np.arange(len(source))))


def as_counter(images) -> Counter:
    return Counter(np.ascontiguousarray(image).tobytes() for image in images)


@pytest.mark.usefixtures("tfds_dir")
def test_cifar10_equals_the_archive(tmp_path):
    path = tmp_path / "CIFAR10" / "cifar-10-python.tar.gz"
    source = open_source("cifar10", tmp_path, expected_images=300)  # no file yet: route auto
    assert source.route == "tfds"
    write_archive(path, [python2_batch(array) for array in CIFAR_ROWS])
    archive = open_source("cifar10", tmp_path, expected_images=300)
    assert archive.route == "archive"
    assert counted(source) == counted(archive)
    assert source.image_shape == archive.image_shape == (32, 32, 3)
    target = tmp_path / "CIFAR10" / "cifar10.tfds.npy"
    assert source.description == {
        "dataset": "cifar10",
        "route": "tfds",
        "files": {"CIFAR10/cifar10.tfds.npy": target.stat().st_size},
        "images": 300,
        "builder": "cifar10:3.0.2",
        "order": "splits joined, files in sequence, not shuffled",
    }
    stored = [example["id"] for example in tfds.as_numpy(reference("cifar10", "train"))]
    row = {
        f"train_{index:05}".encode(): row for index, row in enumerate(np.concatenate(CIFAR_ROWS))
    }
    for position, key in enumerate(stored):  # TFDS shuffled them when it prepared them
        expected = row[key].reshape(3, 32, 32).transpose(1, 2, 0)
        assert np.array_equal(source.read(np.array([position]))[0], expected)


def labels_by_images(source) -> list[int]:
    """The labels that the images of `write_cifar10` themselves say."""
    return (source.read(np.arange(len(source)))[:, 0, 0, 0] % 10).tolist()


@pytest.mark.usefixtures("tfds_dir")
def test_labels(tmp_path, monkeypatch):
    source = open_source("cifar10", tmp_path, "tfds", expected_images=300)
    assert source.classes == 10
    assert source.labels.dtype == np.int64
    assert source.labels.tolist() == labels_by_images(source)
    assert len(set(source.labels.tolist())) == 10
    stored = np.load(tmp_path / "CIFAR10" / "cifar10.tfds.labels.npy")
    assert np.array_equal(stored, source.labels)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)  # not even imported
    again = open_source("cifar10", tmp_path, "tfds", expected_images=300)
    assert again.labels_sha256 == source.labels_sha256
    assert again.record == source.record


def without_labels(tmp_path):
    """Makes of a conversion what an earlier version made; returns its record."""
    source = open_source("cifar10", tmp_path, "tfds", expected_images=300)
    folder = tmp_path / "CIFAR10"
    (folder / "cifar10.tfds.labels.npy").unlink()
    sidecar = folder / "cifar10.tfds.npy.json"
    kept = json.loads(sidecar.read_text())
    del kept["labels_sha256"]
    assert kept == {
        "name": "cifar10",
        "splits": ["train"],
        "order": "splits joined, files in sequence, not shuffled",
        "builder": "cifar10:3.0.2",
        "images": 300,
        "bytes": (folder / "cifar10.tfds.npy").stat().st_size,
    }
    sidecar.write_text(json.dumps(kept))
    return source.record


@pytest.mark.usefixtures("tfds_dir")
def test_conversions_without_labels_are_given_them_when_they_are_asked_for(tmp_path, monkeypatch):
    record = without_labels(tmp_path)
    monkeypatch.setattr(tfds_route, "_convert", lambda *_: pytest.fail("converted twice"))
    with monkeypatch.context() as offline:
        offline.setitem(sys.modules, "tensorflow_datasets", None)
        assert open_source("cifar10", tmp_path, "tfds", expected_images=300).record == record
    source = open_source("cifar10", tmp_path, "tfds", expected_images=300)
    assert source.labels.tolist() == labels_by_images(source)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    again = open_source("cifar10", tmp_path, "tfds", expected_images=300)
    assert np.array_equal(again.labels, source.labels)
    assert again.record == record


@pytest.mark.usefixtures("tfds_dir")
@pytest.mark.parametrize("where", [0, 256])
def test_labels_of_other_images_are_not_taken(tmp_path, where):
    without_labels(tmp_path)
    target = tmp_path / "CIFAR10" / "cifar10.tfds.npy"
    converted = np.lib.format.open_memmap(target, mode="r+")
    converted[where, 5, 6, 0] ^= 1
    converted.flush()
    source = open_source("cifar10", tmp_path, "tfds", expected_images=300)
    with pytest.raises(UserError, match=r"has other images by now .*Delete .* to convert it anew"):
        _ = source.labels
    sidecar = target.with_name("cifar10.tfds.npy.json")
    sidecar.write_text(sidecar.read_text().replace("cifar10:3.0.2", "cifar10:3.0.1"))
    source = open_source("cifar10", tmp_path, "tfds", expected_images=300)
    with pytest.raises(UserError, match=r"has other images by now \(cifar10:3\.0\.2 at"):
        _ = source.labels


HOSTILE_LABELS = {
    "missing": lambda path: path.unlink(),
    "too few": lambda path: np.save(path, np.zeros(299, np.int64)),
    "other type": lambda path: np.save(path, np.zeros(300, np.float64)),
    "objects": lambda path: np.save(path, np.array([0] * 300, object)),
    "others": lambda path: np.save(path, np.zeros(300, np.int64)),
    "torn": lambda path: path.write_bytes(path.read_bytes()[:-1]),
}


@pytest.mark.usefixtures("tfds_dir")
@pytest.mark.parametrize("damage", HOSTILE_LABELS.values(), ids=HOSTILE_LABELS)
def test_damaged_labels_are_made_anew(tmp_path, damage, caplog):
    path = tmp_path / "CIFAR10" / "cifar10.tfds.labels.npy"
    expected = open_source("cifar10", tmp_path, "tfds", expected_images=300).labels
    damage(path)
    found = open_source("cifar10", tmp_path, "tfds", expected_images=300)
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(found.labels, expected)
    assert str(path) in caplog.text
    assert np.array_equal(np.load(path), expected)


@pytest.mark.usefixtures("tfds_dir")
def test_no_labels(tmp_path):
    for name, count in (("stl10", 9), ("celeba", FACES)):
        source = open_source(name, tmp_path, "tfds", expected_images=count)
        assert (source.classes, source.labels, source.labels_sha256) == (None, None, None)


def reference(name, split):
    builder = tfds.builder(name, data_dir=os.environ["TFDS_DATA_DIR"])
    return builder.as_dataset(split=split, read_config=tfds.ReadConfig(interleave_cycle_length=1))


@pytest.mark.usefixtures("tfds_dir")
def test_stl10(tmp_path):
    source = open_source("stl10", tmp_path, "tfds", expected_images=9)
    upright = STL_FILE.transpose(0, 3, 2, 1)  # the file has columns, not rows
    blocks = upright.reshape(9, 48, 2, 48, 2, 3).astype(int).sum(axis=(2, 4))
    assert counted(source) == as_counter(((blocks + 2) // 4).astype(np.uint8))
    opencv = [cv2.resize(image, (48, 48), interpolation=cv2.INTER_LINEAR) for image in upright]
    assert counted(source) == as_counter(opencv)
    archive = write_stl10_archive(tmp_path / "stl10_binary.tar.gz", STL_FILE)
    output = f"--output={tmp_path}/STL10/stl10.npy"
    assert run("STL10", archive, "--expected_images=9", output) == 0
    assert counted(open_source("stl10", tmp_path, "npy", 9)) == counted(source)


@pytest.mark.usefixtures("tfds_dir")
def test_celeba(tmp_path):
    source = open_source("celeba", tmp_path, "tfds", expected_images=FACES)
    expected = []
    for number in range(1, FACES + 1):
        bgr = cv2.imdecode(np.frombuffer(face(number), np.uint8), cv2.IMREAD_COLOR)
        crop = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)[45:173, 25:153]
        expected.append(cv2.resize(crop, (64, 64), interpolation=cv2.INTER_LINEAR))
    assert counted(source) == as_counter(expected)
    assert source.image_shape == (64, 64, 3)
    # Joined in order: 5 training images, then 1 for validation, then 1 for testing.
    last = source.read(np.array([5, 6]))
    assert np.array_equal(last, np.stack(expected[5:]))
    faces = {celeba_name(number): face(number) for number in range(1, FACES + 1)}
    archive = write_celeba(tmp_path / "img_align_celeba.zip", faces)
    output = f"--output={tmp_path}/CelebA/celeba.npy"
    assert run("CelebA", archive, f"--expected_images={FACES}", output) == 0
    assert counted(open_source("celeba", tmp_path, "npy", FACES)) == counted(source)


@pytest.mark.usefixtures("tfds_dir")
def test_converted_only_once(tmp_path, monkeypatch):
    first = open_source("stl10", tmp_path, "tfds", expected_images=9)
    files = sorted(path.name for path in (tmp_path / "STL10").iterdir())
    assert files == [".stl10.tfds.npy.lock", "stl10.tfds.npy", "stl10.tfds.npy.json"]
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)  # not even imported
    second = open_source("stl10", tmp_path, "tfds", expected_images=9)
    assert second.record == first.record
    assert counted(second) == counted(first)
    with pytest.raises(UserError, match=r"found uint8 \[9, .*expected uint8 \[8, .*Delete"):
        open_source("stl10", tmp_path, "tfds", expected_images=8)


def damage_array(target, sidecar):
    target.write_bytes(target.read_bytes()[:-1])


def damage_order(target, sidecar):
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "order": "other"}))


def damage_splits(target, sidecar):
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "splits": ["train"]}))


def remove_sidecar(target, sidecar):
    sidecar.unlink()
    target.write_bytes(b"partial")


def remove_array(target, sidecar):
    target.unlink()


@pytest.mark.usefixtures("tfds_dir")
@pytest.mark.parametrize(
    "damage", [damage_array, damage_order, damage_splits, remove_sidecar, remove_array]
)
def test_stale_or_partial_files_are_not_used(tmp_path, damage):
    expected = counted(open_source("stl10", tmp_path, "tfds", expected_images=9))
    target = tmp_path / "STL10" / "stl10.tfds.npy"
    damage(target, target.with_name("stl10.tfds.npy.json"))
    assert counted(open_source("stl10", tmp_path, "tfds", expected_images=9)) == expected


@pytest.mark.usefixtures("tfds_dir")
def test_unreadable_sidecar(tmp_path):
    (tmp_path / "STL10").mkdir()
    sidecar = tmp_path / "STL10" / "stl10.tfds.npy.json"
    sidecar.write_text("{")
    with pytest.raises(UserError, match=r"stl10\.tfds\.npy\.json: cannot be read"):
        open_source("stl10", tmp_path, "tfds", expected_images=9)


@pytest.mark.usefixtures("tfds_dir")
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_interruption_leaves_no_array(tmp_path, monkeypatch, error):
    decode, calls = tfds_route.decode, []

    def failing(data, **options):
        calls.append(data)
        if len(calls) == 280:
            raise error("stop")
        return decode(data, **options)

    monkeypatch.setattr(tfds_route, "decode", failing)
    with pytest.raises((KeyboardInterrupt, UserError)):
        open_source("cifar10", tmp_path, "tfds", expected_images=300)
    assert [path.name for path in (tmp_path / "CIFAR10").iterdir()] == [".cifar10.tfds.npy.lock"]


@pytest.mark.usefixtures("tfds_dir")
def test_sidecar_goes_before_its_array(tmp_path, monkeypatch):
    """A crash in between must not leave an old sidecar beside a new array."""
    open_source("stl10", tmp_path, "tfds", expected_images=9)
    sidecar = tmp_path / "STL10" / "stl10.tfds.npy.json"
    damage_order(None, sidecar)
    monkeypatch.setattr(tfds_route, "_write_images", lambda *_: pytest.fail("crash"))
    with pytest.raises(pytest.fail.Exception, match="crash"):
        open_source("stl10", tmp_path, "tfds", expected_images=9)
    assert not sidecar.exists()


@pytest.mark.usefixtures("tfds_dir")
def test_two_runs_at_once_convert_once(tmp_path, monkeypatch):
    convert, calls, found = tfds_route._convert, [], []

    def counting(*arguments):
        calls.append(arguments)
        return convert(*arguments)

    monkeypatch.setattr(tfds_route, "_convert", counting)

    def work():
        found.append(counted(open_source("stl10", tmp_path, "tfds", expected_images=9)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(found) == 4
    assert all(images == found[0] for images in found)


@pytest.mark.usefixtures("tfds_dir")
def test_wrong_count(tmp_path):
    with pytest.raises(UserError, match=r"has 300 images of cifar10 \(train\) .*expected 50,000"):
        open_source("cifar10", tmp_path, "tfds")
    assert not (tmp_path / "CIFAR10" / "cifar10.tfds.npy").exists()


@pytest.mark.usefixtures("tfds_dir")
def test_wrong_stored_size(tmp_path, monkeypatch):
    spec = tfds_route.TfdsSpec("stl10", ("unlabelled",), (95, 96, 3), None)
    monkeypatch.setitem(tfds_route.SPECS, "stl10", spec)
    with pytest.raises(UserError, match="an image of 96x96, not 96x95"):
        open_source("stl10", tmp_path, "tfds", expected_images=9)


def test_damaged_tfds_files(tmp_path, prepared, monkeypatch):
    copy = tmp_path / "tfds" / "stl10" / "1.0.0"
    copy.mkdir(parents=True)
    for path in (prepared / "stl10" / "1.0.0").iterdir():
        data = path.read_bytes()
        copy.joinpath(path.name).write_bytes(
            data[: len(data) // 2] if "unlab" in path.name else data
        )
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    with pytest.raises(UserError, match=r"stl10 at .* cannot be read .*Delete that folder"):
        open_source("stl10", tmp_path, "tfds", expected_images=9)


def test_failed_download(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "empty"))

    def fail(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with caplog.at_level(logging.INFO), pytest.raises(UserError) as caught:
        open_source("cifar10", tmp_path)
    assert f"no {tmp_path}/CIFAR10/cifar-10-python.tar.gz" in caplog.text
    for words in (
        "no route to host",
        "TFDS_DATA_DIR",
        f"{tmp_path}/CIFAR10/cifar-10-python.tar.gz",
    ):
        assert words in str(caught.value)


def test_missing_tfds(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match=r"pip install tensorflow-datasets.*CelebA/preprocess\.py"):
        open_source("celeba", tmp_path)


def test_unwritable_folder(tmp_path):
    (tmp_path / "STL10").write_text("a file where the folder belongs")
    with pytest.raises(UserError, match=r"stl10\.tfds\.npy: cannot be written"):
        open_source("stl10", tmp_path, "tfds", expected_images=9)
