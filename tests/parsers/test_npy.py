"""Memory-mapped .npy files: what is accepted, what is refused, and how little memory it takes."""

import contextlib
import io

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data import open_source
from common.errors import UserError
from common.parsers import npy
from common.parsers.npy import map_images

SHAPE = (48, 48, 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (4, *SHAPE), dtype=np.uint8)


def test_a_slip_of_the_parser_is_tried_again(monkeypatch):
    """Python 3.11 raises a SystemError now and then where several threads parse."""
    file = io.BytesIO()
    np.save(file, IMAGES)
    file.seek(0)
    read, calls = npy._HEADER_READERS[1, 0], []

    def slip(file):
        calls.append(file.tell())
        if len(calls) == 1:
            file.read(20)
            raise SystemError("AST constructor recursion depth mismatch (before=39, after=35)")
        return read(file)

    monkeypatch.setitem(npy._HEADER_READERS, (1, 0), slip)
    assert npy.read_header(file) == (IMAGES.shape, False, np.dtype(np.uint8), 128)
    assert calls == [8, 8]


@pytest.fixture
def path(tmp_path):
    (tmp_path / "STL10").mkdir()
    return tmp_path / "STL10" / "stl10.npy"


def refused(path, *words, count=4):
    with pytest.raises(UserError) as caught:
        map_images(path, SHAPE, count, advice="ADVICE")
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.endswith("ADVICE")
    for word in words:
        assert word in message


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_images(path, version):
    with path.open("wb") as file:
        np.lib.format.write_array(file, IMAGES, version=version)
    images = map_images(path, SHAPE, 4, "")
    assert isinstance(images, np.memmap)
    assert np.array_equal(images, IMAGES)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


@pytest.mark.parametrize("name", ["stl10.npy", "cifar-10-stl10.npy"])
@pytest.mark.parametrize("route", ["auto", "npy"])
def test_source(path, tmp_path, name, route):
    path = path.with_name(name)
    np.save(path, IMAGES)
    source = open_source("stl10", tmp_path, route, expected_images=4)
    assert (source.name, source.route, source.image_shape, len(source)) == (
        "stl10",
        "npy",
        SHAPE,
        4,
    )
    assert np.array_equal(source.read(np.array([2, 0, 2])), IMAGES[[2, 0, 2]])
    assert type(source.read(np.array([1]))) is np.ndarray
    size = 128 + IMAGES.size
    files = {f"STL10/{name}": size}
    assert source.description == {
        "dataset": "stl10", "route": "npy", "files": files, "images": 4
    }  # fmt: skip


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (IMAGES[:3], "found uint8 [3, 48, 48, 3], C order, expected uint8 [4, 48, 48, 3]"),
        (IMAGES[:3], "C order; for a subset say --set expected_images=3. "),
        (IMAGES[0], "found uint8 [48, 48, 3]"),
        (IMAGES.transpose(0, 3, 1, 2).copy(), "found uint8 [4, 3, 48, 48]"),
        (IMAGES.astype(np.int8), "found int8"),
        (IMAGES.astype(np.float32), "found float32"),
        (np.asfortranarray(IMAGES), "Fortran order, expected"),
        (IMAGES.view([("a", "u1")]), "found [('a', 'u1')]"),
    ],
)
def test_wrong_array(path, array, words):
    np.save(path, array)
    refused(path, words)


def test_objects_are_not_unpickled(path):
    class Witness:
        def __reduce__(self):
            return pytest.fail, ("was unpickled",)

    np.save(path, np.array([Witness()], dtype=object), allow_pickle=True)
    refused(path, "found object [1]")


def test_bare_pickle_is_refused(path):
    path.write_bytes(IMAGES.dumps())
    refused(path, "not a valid .npy file")


@pytest.mark.parametrize("change", [-1, 1, -IMAGES.size, -IMAGES.size - 1])
def test_wrong_length(path, change):
    np.save(path, IMAGES)
    data = path.read_bytes() + b"x"
    path.write_bytes(data[: len(data) - 1 + change])
    refused(path)
    if change == -1:
        refused(path, "found 27,775 bytes, expected 27,776 from its header", "truncated")


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, 127), junk=st.binary(min_size=1, max_size=4))
def test_fuzzed_header_is_read_or_refused(tmp_path_factory, position, junk):
    path = tmp_path_factory.getbasetemp() / "fuzz.npy"
    np.save(path, IMAGES)
    data = bytearray(path.read_bytes())
    data[position : position + len(junk)] = junk
    path.write_bytes(data)
    with contextlib.suppress(UserError):
        assert map_images(path, SHAPE, 4, "").shape == (4, *SHAPE)


@pytest.mark.parametrize(
    "header", ["(" * 9000, "{'descr': '|u1'}", "[1, 2", "\x00" * 50, "1" * 6000]
)
def test_nasty_header(path, header):
    text = header.encode("latin-1")
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
    refused(path)


def test_directory_instead_of_file(path):
    path.mkdir()
    refused(path, "cannot be read")


def test_opening_celeba_reads_nothing(tmp_path):
    """A sparse file of the real size: 2.5 GB that must not enter memory."""
    path = tmp_path / "CelebA" / "celeba.npy"
    path.parent.mkdir()
    shape = (202_599, 64, 64, 3)
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        offset = file.tell()
        file.truncate(offset + int(np.prod(shape)))
        file.seek(offset + 202_598 * 64 * 64 * 3)
        file.write(b"\x07" * 5)
    process = psutil.Process()
    before = process.memory_info().rss
    source = open_source("celeba", tmp_path)
    images = source.read(np.array([202_598, 0, 100_000]))
    assert process.memory_info().rss - before < 100 * 2**20
    assert len(source) == 202_599
    assert source.route == "npy"
    assert images[0].ravel()[:6].tolist() == [7, 7, 7, 7, 7, 0]
    assert not images[1:].any()
