"""The CIFAR10 archive: right images from a real one, a clear refusal of any other."""

import gzip
import io
import logging
import os
import pickle
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data import cifar10, open_source
from common.errors import UserError
from tests.data.archives import NAMES, add_member, labels_of, python2_batch, rows, write_archive

COUNTS = (3, 1, 4, 2, 5)
ARRAYS = [rows(count, seed) for seed, count in enumerate(COUNTS)]
BATCHES = [python2_batch(array) for array in ARRAYS]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "CIFAR10" / "cifar-10-python.tar.gz"


def refused(path, *words):
    with pytest.raises(UserError) as caught:
        cifar10.load_archive(path, advice="ADVICE")
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.endswith("ADVICE")
    for word in words:
        assert word in message


def test_images(tmp_path, path):
    write_archive(path, BATCHES)
    source = open_source("cifar10", tmp_path, "archive", expected_images=15)
    images = source.read(np.arange(15))
    assert images.shape == (15, 32, 32, 3)
    assert images.dtype == np.uint8
    row = np.concatenate(ARRAYS)
    for n, y, x, c in np.ndindex(15, 32, 32, 3):
        if (n + y + x) % 7 == 0:
            assert images[n, y, x, c] == row[n, c * 1024 + y * 32 + x]
    assert source.description == {
        "dataset": "cifar10",
        "route": "archive",
        "files": {"CIFAR10/cifar-10-python.tar.gz": path.stat().st_size},
        "images": 15,
    }


def test_mixed_writers(path):
    fortran = python2_batch(ARRAYS[1], fortran=True)
    python3 = pickle.dumps({"data": np.asfortranarray(ARRAYS[2])}, protocol=2)
    protocol4 = pickle.dumps({b"data": ARRAYS[3]}, protocol=4)
    write_archive(path, [BATCHES[0], fortran, python3, protocol4, BATCHES[4]])
    mixed = cifar10.load_archive(path, "")
    assert np.array_equal(mixed, cifar10.load_archive(write_archive(path, BATCHES), ""))


def test_count(tmp_path, path, caplog):
    write_archive(path, BATCHES)
    with caplog.at_level(logging.WARNING):
        assert len(open_source("cifar10", tmp_path)) == 15
    assert "found 15 images, expected 50,000" in caplog.text
    caplog.clear()
    open_source("cifar10", tmp_path, expected_images=15)
    assert not caplog.records
    with pytest.raises(UserError, match="found 15 images, expected 16"):
        open_source("cifar10", tmp_path, expected_images=16)


def test_labels(tmp_path, path):
    python3 = pickle.dumps({"data": ARRAYS[2], "labels": labels_of(ARRAYS[2]).tolist()}, protocol=4)
    write_archive(path, [*BATCHES[:2], python3, *BATCHES[3:]])
    source = open_source("cifar10", tmp_path, expected_images=15)
    assert source.classes == 10
    assert source.labels.dtype == np.int64
    first_bytes = source.read(np.arange(15))[:, 0, 0, 0]  # of red, as each row begins
    assert source.labels.tolist() == [byte % 10 for byte in first_bytes.tolist()]
    assert len(set(source.labels.tolist())) > 5
    assert not source.labels.flags.writeable
    assert "labels" not in str(source.record)


def list_of(*instructions):
    return b"U\x06labelsq\x04]q\x05(" + b"".join(instructions) + b"e"


WRONG_LABELS = {
    "none": (b"", "has no list of labels"),
    "two": (list_of(b"K\x01") + b"X\x06\0\0\0labels]q\x06(K\x01e", "has no list of labels"),
    "no list": (b"U\x06labelsq\x04K\x01", "has no list of labels"),
    "too few": (list_of(), "has 0 labels for 1 images"),
    "too many": (list_of(b"K\x01K\x01"), "has 2 labels for 1 images"),
    "too large": (list_of(b"K\x0a"), "label 0, counted from 0, is not one of the numbers 0 to 9"),
    "negative": (list_of(b"J\xff\xff\xff\xff"), "label 0, counted from 0, is"),
    "huge": (list_of(b"\x8a\xff" + b"\x7f" * 255), "label 0, counted from 0, is"),
    "bool": (list_of(b"\x88"), "label 0, counted from 0, is"),
    "text": (list_of(b"U\x011"), "label 0, counted from 0, is"),
    "list in it": (list_of(b"]"), "label 0, counted from 0, is"),
    "record": (
        list_of(b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"),
        "label 0, counted from 0, is not",
    ),
}


@pytest.mark.parametrize(("labels", "words"), WRONG_LABELS.values(), ids=WRONG_LABELS)
def test_wrong_labels_matter_only_where_labels_are_asked_for(tmp_path, path, labels, words):
    batch = python2_batch(ARRAYS[1], labels=labels)
    write_archive(path, [BATCHES[0], batch, *BATCHES[2:]])
    source = open_source("cifar10", tmp_path, expected_images=15)
    assert source.read(np.arange(15)).shape == (15, 32, 32, 3)
    with pytest.raises(UserError) as caught:
        _ = source.labels
    message = str(caught.value)
    assert message.startswith(f"{path}: member cifar-10-batches-py/data_batch_2: ")
    assert words in message
    assert "To mend it" in message


class _System:
    def __reduce__(self):
        return os.system, ("exit 1",)


def test_hostile_pickle(path):
    batch = pickle.dumps({"data": _System()}, protocol=2)
    write_archive(path, [*BATCHES[:3], batch, BATCHES[4]])
    refused(path, "cifar-10-batches-py/data_batch_4", "pickle refused", "posix.system")


@pytest.mark.parametrize("batch", [[], {"labels": []}, {"data": 1, b"data": 2}, {"data": None}])
def test_other_pickles(path, batch):
    write_archive(path, [pickle.dumps(batch, protocol=3), *BATCHES[1:]])
    refused(path, "data_batch_1: pickle refused")


def test_every_truncation_is_refused(path):
    data = write_archive(path, BATCHES).read_bytes()
    for length in [0, 1, 9, 10, 30, *range(1000, len(data), 1999), len(data) - 9, len(data) - 1]:
        path.write_bytes(data[:length])
        refused(path)


def test_checksum_is_verified(path):
    data = bytearray(write_archive(path, BATCHES).read_bytes())
    data[-8] ^= 1  # of the CRC
    path.write_bytes(data)
    refused(path, "CRC")


def test_missing_member(path):
    with tarfile.open(path.parent.mkdir() or path, "w:gz") as archive:
        for name, batch in zip(NAMES[:4], BATCHES, strict=False):
            add_member(archive, name, batch)
    refused(path, "data_batch_5: missing")


def test_truncated_tar_in_whole_gzip(path):
    whole = gzip.decompress(write_archive(path, BATCHES).read_bytes())
    path.write_bytes(gzip.compress(whole[: len(whole) // 2], 1))
    refused(path)


def test_duplicate_member(path):
    write_archive(path, BATCHES, extra=[tarfile.TarInfo(NAMES[2])])
    refused(path, "data_batch_3: occurs twice")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE,
                                  tarfile.FIFOTYPE, tarfile.CHRTYPE])  # fmt: skip
def test_irregular_member(path, kind, tmp_path):
    path.parent.mkdir()
    (tmp_path / "secret").write_bytes(BATCHES[1])
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo(NAMES[1])
        member.type, member.linkname = kind, str(tmp_path / "secret")
        archive.addfile(member)
        for index in (0, 2, 3, 4):
            add_member(archive, NAMES[index], BATCHES[index])
    refused(path, "data_batch_2: not a regular file")


@pytest.mark.parametrize(
    "name", ["/" + NAMES[0], "../" + NAMES[0], NAMES[0] + "/x", "data_batch_1"]
)
def test_names_are_exact(path, name):
    with tarfile.open(path.parent.mkdir() or path, "w:gz") as archive:
        add_member(archive, name, BATCHES[0])
        for index in (1, 2, 3, 4):
            add_member(archive, NAMES[index], BATCHES[index])
    refused(path, "data_batch_1: missing")


def test_bounds(path, monkeypatch):
    write_archive(path, BATCHES)
    monkeypatch.setattr(cifar10, "MAX_MEMBERS", 5)
    refused(path, "more than 5 members")
    monkeypatch.setattr(cifar10, "MAX_TOTAL_BYTES", 20_000)
    refused(path, "decompresses to more than 20,000 bytes")
    monkeypatch.setattr(cifar10, "MAX_MEMBER_BYTES", len(BATCHES[3]) - 1)
    refused(path, "data_batch_4", "bytes, more than")


@pytest.mark.timeout(60)
def test_gzip_bomb(path):
    """One GiB of zeros after the archive, in 1 MB."""
    write_archive(path, BATCHES)
    bomb = io.BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb", compresslevel=1) as file:
        for _ in range(64):
            file.write(bytes(2**24))
    path.write_bytes(path.read_bytes() + bomb.getvalue())
    refused(path, "decompresses to more than")


def test_not_an_archive(path):
    path.parent.mkdir()
    for content in (b"", b"PK\x03\x04", gzip.compress(b""), gzip.compress(b"not a tar" * 200)):
        path.write_bytes(content)
        refused(path)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_fuzzed_archives_are_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz" / "cifar-10-python.tar.gz"
    tar = bytearray(gzip.decompress(write_archive(path, BATCHES).read_bytes()))
    for _ in range(data.draw(st.integers(1, 6))):
        block = data.draw(st.sampled_from(range(0, len(tar), 512)))
        tar[block + data.draw(st.integers(0, 160))] = data.draw(st.integers(0, 255))
    path.write_bytes(gzip.compress(tar, 1))
    try:
        images = cifar10.load_archive(path, "")
    except UserError:
        return
    assert images.dtype == np.uint8
    assert images.shape == (sum(COUNTS), 32, 32, 3)
