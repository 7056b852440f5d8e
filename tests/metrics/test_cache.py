"""Arrays on disk: what is read is what was written, or it is computed again."""

import logging
import os

import numpy as np
import pytest

from common.errors import UserError
from common.metrics import cache

KEY = {"b": 1, "a": ["x", None]}
ARRAYS = {"conv/kernel": np.arange(6.0).reshape(2, 3), "count": np.array(7)}


def compute_never():
    pytest.fail("computed although cached")


def test_round_trip(tmp_path):
    path = tmp_path / "a.npz"
    cache.load_or_compute(path, KEY, lambda: ARRAYS)
    read = cache.load_or_compute(path, {"a": ["x", None], "b": 1}, compute_never)
    assert set(read) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)
    assert list(tmp_path.iterdir()) == [path]


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[data.index(np.float64(5).tobytes()) + 7] ^= 1
    path.write_bytes(data)


def forge_an_array(path):
    with np.load(path) as archive:
        entries = dict(archive)
    entries["conv/kernel"] = entries["conv/kernel"] + 1
    np.savez(path, **entries)


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def pickle_an_array(path):
    with np.load(path) as archive:
        entries = dict(archive)
    entries["conv/kernel"] = np.array([Bomb(path.with_name("exploded"))], object)
    np.savez(path, **entries)


DAMAGES = {
    "byte": flip_a_byte,
    "forged": forge_an_array,
    "pickled": pickle_an_array,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-30]),
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"PK\x03\x04garbage" * 9),
    "bare array": lambda path: np.save(path.open("wb"), np.zeros(3)),
    "unsigned": lambda path: np.savez(path, **ARRAYS),
    "other key": lambda path: cache.write_arrays(path, {"other": 1}, ARRAYS),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_reported_and_replaced(damage, tmp_path, caplog):
    path = tmp_path / "a.npz"
    cache.write_arrays(path, KEY, ARRAYS)
    DAMAGES[damage](path)
    with caplog.at_level(logging.WARNING):
        read = cache.load_or_compute(path, KEY, lambda: ARRAYS)
    assert str(path) in caplog.text
    assert list(tmp_path.iterdir()) == [path]
    np.testing.assert_array_equal(read["conv/kernel"], ARRAYS["conv/kernel"])
    caplog.clear()
    cache.load_or_compute(path, KEY, compute_never)
    assert not caplog.records


def test_digest_tells_names_shapes_and_types_apart():
    zeros = np.zeros(4, np.float32)
    variants = [
        {"a": zeros},
        {"b": zeros},
        {"a": zeros.reshape(2, 2)},
        {"a": zeros.view(np.int32)},
        {"a": zeros + 1},
        {"a": zeros, "b": zeros},
    ]
    assert len({cache.content_digest(variant) for variant in variants}) == len(variants)
    reordered = {"b": zeros, "a": np.asfortranarray(np.eye(3))}
    assert cache.content_digest(reordered) == cache.content_digest({"a": np.eye(3), "b": zeros})


def test_unwritable_places_are_named(tmp_path):
    with pytest.raises(UserError, match=r"absent.*a\.npz"):
        cache.write_arrays(tmp_path / "absent" / "a.npz", KEY, ARRAYS)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file"):
        cache.cache_folder(tmp_path / "file", "models")


def test_default_folder_is_that_of_keras(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "k"))
    assert cache.cache_folder(None, "models") == tmp_path / "k" / "models"
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "h"))
    assert cache.cache_folder(None, "models") == tmp_path / "h" / ".keras" / "models"
    assert cache.cache_folder(tmp_path / "c", "models") == tmp_path / "c" / "models"
